-- What the house stands against, and what trades brought it: `trades` added up by symbol and currency. By triggers, because then it holds
-- in the very transaction that moves a trade, whichever version of the recorder writes it while an upgrade goes on.

CREATE TABLE house_exposure (
    shard         integer  NOT NULL,
    symbol        text     NOT NULL,
    -- What the trades are settled in.
    currency_code text     NOT NULL,
    -- fulcrum.v1.Side of the clients; the house is on the other one.
    side          smallint NOT NULL,
    -- Open trades, their quantity, and quantity times entry price.
    trades        bigint   NOT NULL,
    quantity      numeric  NOT NULL,
    notional      numeric  NOT NULL,
    -- Of open and closed trades: what clients were paid for closes, after commission; and the commission.
    client_profit numeric  NOT NULL,
    commission    numeric  NOT NULL,
    PRIMARY KEY (shard, symbol, currency_code, side)
);

CREATE FUNCTION house_exposure_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE house_exposure;
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO house_exposure AS kept
        SELECT shard, symbol, currency_code, side, count(*) FILTER (WHERE status = 1),
            coalesce(sum(quantity) FILTER (WHERE status = 1), 0), coalesce(sum(quantity * entry_price) FILTER (WHERE status = 1), 0),
            sum(realised_profit), sum(commission)
        FROM added GROUP BY shard, symbol, currency_code, side ORDER BY shard, symbol, currency_code, side
        ON CONFLICT (shard, symbol, currency_code, side) DO UPDATE SET trades = kept.trades + excluded.trades,
            quantity = kept.quantity + excluded.quantity, notional = kept.notional + excluded.notional,
            client_profit = kept.client_profit + excluded.client_profit, commission = kept.commission + excluded.commission;
        RETURN NULL;
    END IF;
    UPDATE house_exposure AS kept SET trades = kept.trades + change.trades, quantity = kept.quantity + change.quantity,
        notional = kept.notional + change.notional, client_profit = kept.client_profit + change.client_profit,
        commission = kept.commission + change.commission
    FROM (
        SELECT shard, symbol, currency_code, side, sum(sign) FILTER (WHERE status = 1) AS trades,
            sum(sign * quantity) FILTER (WHERE status = 1) AS quantity,
            sum(sign * quantity * entry_price) FILTER (WHERE status = 1) AS notional,
            sum(sign * realised_profit) AS client_profit, sum(sign * commission) AS commission
        FROM (SELECT 1 AS sign, * FROM added UNION ALL SELECT -1 AS sign, * FROM removed) AS moved
        GROUP BY shard, symbol, currency_code, side
    ) AS summed, LATERAL (
        SELECT coalesce(summed.trades, 0)::bigint AS trades, coalesce(summed.quantity, 0) AS quantity,
            coalesce(summed.notional, 0) AS notional, summed.client_profit, summed.commission
    ) AS change
    WHERE (kept.shard, kept.symbol, kept.currency_code, kept.side)
        = (summed.shard, summed.symbol, summed.currency_code, summed.side);
    RETURN NULL;
END $$;

CREATE TRIGGER house_exposure_of_new AFTER INSERT ON trades
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION house_exposure_follow();
CREATE TRIGGER house_exposure_of_changed AFTER UPDATE ON trades
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION house_exposure_follow();
CREATE TRIGGER house_exposure_of_none AFTER TRUNCATE ON trades
    FOR EACH STATEMENT EXECUTE FUNCTION house_exposure_follow();

INSERT INTO house_exposure
SELECT shard, symbol, currency_code, side, count(*) FILTER (WHERE status = 1),
    coalesce(sum(quantity) FILTER (WHERE status = 1), 0), coalesce(sum(quantity * entry_price) FILTER (WHERE status = 1), 0),
    sum(realised_profit), sum(commission)
FROM trades GROUP BY shard, symbol, currency_code, side;

-- The house's side of it, all shards together, at the newest recorded mid price; NULL where there is none.
CREATE VIEW house_books AS
WITH of_sides AS (
    SELECT symbol, currency_code,
        coalesce(sum(trades) FILTER (WHERE side = 1), 0)::bigint AS long_trades,
        coalesce(sum(quantity) FILTER (WHERE side = 1), 0) AS long_quantity,
        coalesce(sum(notional) FILTER (WHERE side = 1), 0) AS long_notional,
        coalesce(sum(trades) FILTER (WHERE side = 2), 0)::bigint AS short_trades,
        coalesce(sum(quantity) FILTER (WHERE side = 2), 0) AS short_quantity,
        coalesce(sum(notional) FILTER (WHERE side = 2), 0) AS short_notional,
        -sum(client_profit) AS realised_profit, sum(commission) AS commission
    FROM house_exposure GROUP BY symbol, currency_code
)
SELECT of_sides.*, short_quantity - long_quantity AS net_quantity, mark.price AS mark_price,
    (short_quantity - long_quantity) * mark.price AS net_notional,
    long_notional - short_notional + (short_quantity - long_quantity) * mark.price AS unrealised_profit
FROM of_sides LEFT JOIN LATERAL (
    SELECT close AS price FROM candles WHERE candles.symbol = of_sides.symbol AND interval = 1 ORDER BY open_at DESC LIMIT 1
) AS mark ON true;
COMMENT ON VIEW house_books IS
    'What the house stands against by symbol and settlement currency, and what trades brought it; as far as the recorder is.';
COMMENT ON COLUMN house_books.symbol IS 'Instrument.';
COMMENT ON COLUMN house_books.currency_code IS 'What the trades are settled in; notional and profit are in it.';
COMMENT ON COLUMN house_books.long_trades IS 'Open trades of clients who are long.';
COMMENT ON COLUMN house_books.long_quantity IS 'Their quantity, in the base currency.';
COMMENT ON COLUMN house_books.long_notional IS 'Their quantity times entry price.';
COMMENT ON COLUMN house_books.short_trades IS 'Open trades of clients who are short.';
COMMENT ON COLUMN house_books.short_quantity IS 'Their quantity, in the base currency.';
COMMENT ON COLUMN house_books.short_notional IS 'Their quantity times entry price.';
COMMENT ON COLUMN house_books.realised_profit IS 'What the house has from trades, commission included; negative when it lost.';
COMMENT ON COLUMN house_books.commission IS 'Commission within it.';
COMMENT ON COLUMN house_books.net_quantity IS 'The house''s side: positive when it is long, negative when it is short.';
COMMENT ON COLUMN house_books.mark_price IS 'Newest recorded mid price of the venue; NULL when there is none.';
COMMENT ON COLUMN house_books.net_notional IS 'The house''s side at the mark.';
COMMENT ON COLUMN house_books.unrealised_profit IS 'What the house would gain by closing everything at the mark; negative when it would lose.';
