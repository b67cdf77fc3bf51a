-- Read models: the recorder expands the journal into these at its own pace. Everything here can be made again from the journal.

-- How far each shard has been expanded; moves in the same transaction as the rows.
CREATE TABLE recorder_cursor (
    shard  integer PRIMARY KEY,
    seq    bigint  NOT NULL
);

-- Every mutation and its first answer.
CREATE TABLE operations (
    principal     text        NOT NULL,
    request_id    uuid        NOT NULL,
    account_id    text        NOT NULL,
    shard         integer     NOT NULL,
    seq           bigint      NOT NULL,
    -- fulcrum.bus.v1.OperationKind.
    kind          smallint    NOT NULL,
    done_at       timestamptz NOT NULL,
    -- Encoded fulcrum.bus.v1.OperationRecord.
    record        bytea       NOT NULL,
    -- A tripwire: an operation that a shard executed twice would stop the recorder here. One id on two shards is two operations.
    PRIMARY KEY (shard, principal, request_id)
);

-- Every trade, open or closed, as of the cursor.
CREATE TABLE trades (
    shard             integer     NOT NULL,
    -- Number in the shard; the public id is shard-number.
    number            bigint      NOT NULL,
    account_id        text        NOT NULL,
    symbol            text        NOT NULL,
    -- fulcrum.v1.Side.
    side              smallint    NOT NULL,
    -- fulcrum.v1.TradeStatus.
    status            smallint    NOT NULL,
    quantity          numeric     NOT NULL,
    opened_quantity   numeric     NOT NULL,
    entry_price       numeric     NOT NULL,
    leverage          numeric     NOT NULL,
    currency_code     text        NOT NULL,
    margin            numeric     NOT NULL,
    stop_loss_price   numeric,
    take_profit_price numeric,
    liquidation_price numeric,
    opened_at         timestamptz NOT NULL,
    closed_at         timestamptz,
    close_price       numeric,
    -- fulcrum.v1.CloseReason.
    close_reason      smallint    NOT NULL DEFAULT 0,
    -- Of all closes so far, after commission and negative balance protection.
    realised_profit   numeric     NOT NULL,
    commission        numeric     NOT NULL,
    -- Sequence of opening and of the last change.
    opened_seq        bigint      NOT NULL,
    seq               bigint      NOT NULL,
    -- Encoded fulcrum.bus.v1.QuoteUsed of the last execution.
    quote             bytea       NOT NULL,
    PRIMARY KEY (shard, number)
);
CREATE INDEX trades_of_account ON trades (account_id, number DESC);
CREATE INDEX trades_of_account_by_status ON trades (account_id, status, number DESC);

-- The double-entry ledger, one row a line.
CREATE TABLE ledger_entries (
    shard          integer     NOT NULL,
    seq            bigint      NOT NULL,
    -- Number of the line among all lines of that sequence, from 0.
    line           integer     NOT NULL,
    -- Number of the event among those of that sequence, from 0: lines of one event sum to zero.
    event          integer     NOT NULL,
    -- What happened: WALLET_INITIALIZED, DEPOSITED, WITHDRAWN, TRADE_OPENED, TRADE_MODIFIED, TRADE_CLOSED.
    kind           text        NOT NULL,
    -- Whose money the event moved; the other side's lines carry it too.
    account_id     text        NOT NULL,
    -- fulcrum.bus.v1.LedgerAccountKind.
    ledger_account smallint    NOT NULL,
    currency_code  text        NOT NULL,
    amount         numeric     NOT NULL,
    booked_at      timestamptz NOT NULL,
    -- Number of the trade concerned.
    trade_number   bigint,
    request_id     uuid,
    PRIMARY KEY (shard, seq, line)
);
CREATE INDEX ledger_of_account ON ledger_entries (account_id, seq, line);

-- Mid prices per interval, from the price stream. Not from the journal: a lost quote changes a candle, never money.
CREATE TABLE candles (
    symbol     text        NOT NULL,
    -- fulcrum.v1.CandleInterval.
    interval   smallint    NOT NULL,
    open_at    timestamptz NOT NULL,
    open       numeric     NOT NULL,
    high       numeric     NOT NULL,
    low        numeric     NOT NULL,
    close      numeric     NOT NULL,
    quotes     bigint      NOT NULL,
    PRIMARY KEY (symbol, interval, open_at)
);
-- How far the price stream has been folded into candles; moves in the same transaction.
CREATE TABLE candle_cursor (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    stream_id  text    NOT NULL
);
