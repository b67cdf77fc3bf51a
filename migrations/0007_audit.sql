-- What an auditor sees, from outside and without any way to change it. Role by role and view by view: nothing of it is needed to trade.

-- Told by the recorder from now on; `fulcrum recorder --rebuild` tells it of what was recorded before.
ALTER TABLE operations
    -- Leadership that executed it.
    ADD COLUMN epoch   bigint,
    -- Name of the fulcrum.v1.ErrorReason when it was refused.
    ADD COLUMN refusal text,
    -- The first answer: the method's encoded response, or an encoded fulcrum.bus.v1.Failure.
    ADD COLUMN result  bytea;

-- The quotes that trades were executed at, one row an event; made from the journal like everything in 0005.
CREATE TABLE prices_used (
    shard        integer     NOT NULL,
    seq          bigint      NOT NULL,
    -- Number of the event among those of that sequence, from 0.
    event        integer     NOT NULL,
    trade_number bigint      NOT NULL,
    -- TRADE_OPENED, TRADE_CLOSED, or TRADE_MODIFIED, for which the quote was looked at and not executed at.
    kind         text        NOT NULL,
    symbol       text        NOT NULL,
    price        numeric,
    bid          numeric,
    ask          numeric,
    venue_bid    numeric,
    venue_ask    numeric,
    venue_time   timestamptz NOT NULL,
    update_id    bigint      NOT NULL,
    PRIMARY KEY (shard, seq, event)
);

CREATE VIEW audit_operations AS
SELECT shard, seq, epoch, principal, request_id,
    CASE kind WHEN 1 THEN 'INITIALIZE_WALLET' WHEN 2 THEN 'DEPOSIT' WHEN 3 THEN 'WITHDRAW' WHEN 4 THEN 'OPEN_TRADE'
        WHEN 5 THEN 'CLOSE_TRADE' WHEN 6 THEN 'MODIFY_TRADE' ELSE kind::text END AS kind,
    CASE WHEN result IS NULL THEN NULL ELSE coalesce(refusal, 'EXECUTED') END AS status,
    result, done_at AS ts
FROM operations;
COMMENT ON VIEW audit_operations IS
    'Every mutation with its first answer, executed or refused; one row each, in the order of (shard, seq). As far as the recorder is.';
COMMENT ON COLUMN audit_operations.shard IS 'Shard of the account.';
COMMENT ON COLUMN audit_operations.seq IS 'Position in the shard''s journal.';
COMMENT ON COLUMN audit_operations.epoch IS 'Leadership that executed it; NULL when it was recorded before this was told: rebuild the history.';
COMMENT ON COLUMN audit_operations.principal IS 'Who called: the subject of the token.';
COMMENT ON COLUMN audit_operations.request_id IS 'The caller''s id of the operation; one per principal and shard.';
COMMENT ON COLUMN audit_operations.kind IS 'Which method.';
COMMENT ON COLUMN audit_operations.status IS 'EXECUTED, or the reason of the refusal.';
COMMENT ON COLUMN audit_operations.result IS 'The first answer, encoded: the response of the method, or a fulcrum.bus.v1.Failure.';
COMMENT ON COLUMN audit_operations.ts IS 'Engine time.';

-- The kinds of ledger accounts as people call them.
CREATE FUNCTION audit_ledger_account(kind smallint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE kind WHEN 1 THEN 'CLIENT' WHEN 2 THEN 'MARGIN' WHEN 3 THEN 'HOUSE' WHEN 4 THEN 'FEE' WHEN 5 THEN 'CASH' ELSE kind::text END $$;

CREATE VIEW audit_ledger AS
SELECT shard, seq, line, event, kind, account_id, audit_ledger_account(ledger_account) AS ledger_account, currency_code, amount,
    booked_at AS ts, trade_number, request_id
FROM ledger_entries;
COMMENT ON VIEW audit_ledger IS
    'The double-entry ledger, one row a line. The lines of one (shard, seq, event) sum to zero in every currency.';
COMMENT ON COLUMN audit_ledger.kind IS 'What happened: WALLET_INITIALIZED, DEPOSITED, WITHDRAWN, TRADE_OPENED, TRADE_MODIFIED, TRADE_CLOSED.';
COMMENT ON COLUMN audit_ledger.account_id IS 'Whose money the event moved; the other side''s lines carry it too.';
COMMENT ON COLUMN audit_ledger.ledger_account IS
    'CLIENT free cash, MARGIN locked, HOUSE the counterparty, FEE commission earned, CASH the world outside: minus what came in.';
COMMENT ON COLUMN audit_ledger.ts IS 'Engine time.';

CREATE VIEW audit_balances AS
SELECT l.shard, audit_ledger_account(l.ledger_account) AS ledger_account,
    CASE WHEN l.ledger_account IN (1, 2) THEN l.account_id ELSE '' END AS account_id, l.currency_code,
    sum(l.amount) AS balance, c.seq
FROM ledger_entries l JOIN recorder_cursor c USING (shard)
GROUP BY 1, 2, 3, 4, c.seq;
COMMENT ON VIEW audit_balances IS
    'What everybody has: the sum of the ledger, by shard, ledger account, owner and currency. Summed over all of a currency it is zero.';
COMMENT ON COLUMN audit_balances.account_id IS 'Owner of a CLIENT or MARGIN account; empty for the house''s.';
COMMENT ON COLUMN audit_balances.seq IS 'Sequence of the shard that it was added up to.';

CREATE VIEW audit_trades AS
SELECT shard, shard || '-' || number AS trade_id, number, account_id, symbol,
    CASE side WHEN 1 THEN 'LONG' WHEN 2 THEN 'SHORT' ELSE side::text END AS side,
    CASE status WHEN 1 THEN 'OPEN' WHEN 2 THEN 'CLOSED' ELSE status::text END AS status,
    quantity, opened_quantity, entry_price, leverage, currency_code, margin, stop_loss_price, take_profit_price, liquidation_price,
    opened_at, closed_at, close_price,
    CASE close_reason WHEN 0 THEN NULL WHEN 1 THEN 'CLIENT' WHEN 2 THEN 'STOP_LOSS' WHEN 3 THEN 'TAKE_PROFIT'
        WHEN 4 THEN 'LIQUIDATION' ELSE close_reason::text END AS close_reason,
    realised_profit, commission, opened_seq, seq
FROM trades;
COMMENT ON VIEW audit_trades IS 'Every trade, open or closed, as of the recorder.';
COMMENT ON COLUMN audit_trades.trade_id IS 'Its public id.';
COMMENT ON COLUMN audit_trades.seq IS 'Sequence of its last change.';

CREATE VIEW audit_prices AS
SELECT shard, seq, event, shard || '-' || trade_number AS trade_id, kind, symbol, price, bid, ask, venue_bid, venue_ask, venue_time,
    update_id
FROM prices_used;
COMMENT ON VIEW audit_prices IS
    'The quote behind every execution: what the venue said, what was made of it, and the price that was given.';
COMMENT ON COLUMN audit_prices.price IS 'Executed at; NULL when the quote was looked at only.';
COMMENT ON COLUMN audit_prices.bid IS 'The bid we trade at, after the markup.';
COMMENT ON COLUMN audit_prices.venue_bid IS 'The bid the venue sent.';
COMMENT ON COLUMN audit_prices.venue_time IS 'When the venue made it.';
COMMENT ON COLUMN audit_prices.update_id IS 'The venue''s number of it.';

CREATE VIEW audit_snapshots AS
SELECT h.shard, h.seq, encode(h.state_hash, 'hex') AS state_hash, encode(h.chain, 'hex') AS chain, h.chunks,
    (SELECT sum(length(c.body)) FROM snapshot_chunk c WHERE c.shard = h.shard AND c.seq = h.seq) AS bytes, h.created_at AS ts
FROM snapshot_head h;
COMMENT ON VIEW audit_snapshots IS 'The snapshots that are kept, with the state hash that each must load to.';
COMMENT ON COLUMN audit_snapshots.seq IS 'Sequence of the last entry it contains.';
COMMENT ON COLUMN audit_snapshots.chain IS 'Journal chain at that sequence.';

CREATE VIEW audit_chain AS
SELECT shard, first_seq, last_seq, epoch, encode(state_hash, 'hex') AS state_hash, encode(chain, 'hex') AS chain, body,
    committed_at AS ts
FROM journal;
COMMENT ON VIEW audit_chain IS
    'The journal row by row. chain = blake3(chain of the row before || last_seq, 8 bytes || state_hash, 16 bytes || body), numbers big-endian; the first row follows on 32 zero bytes.';
COMMENT ON COLUMN audit_chain.state_hash IS 'What a replay must arrive at after last_seq.';
COMMENT ON COLUMN audit_chain.body IS 'Encoded fulcrum.bus.v1.JournalBatch.';
COMMENT ON COLUMN audit_chain.ts IS 'When it was committed, this database''s clock.';

COMMENT ON TABLE dead_letters IS 'Messages that were not handled, and what became of them. Nothing is ever deleted here.';
COMMENT ON COLUMN dead_letters.resolution IS 'REQUEUED: put back on its queue; DISCARDED: dealt with; NULL: open.';

-- Makes the role and gives it what it may see. Says what is missing, or nothing. Called here and by every `fulcrum migrate`, because a
-- role belongs to the whole server and may come later than the tables: from somebody who may make roles.
CREATE FUNCTION audit_access() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    seen text;
BEGIN
    BEGIN
        CREATE ROLE auditor NOLOGIN;
    EXCEPTION
        -- unique_violation: another database of this server is doing the same at this moment.
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'auditor') THEN
                RETURN format('the role "auditor" is missing and %I may not make it: let an administrator run '
                    'CREATE ROLE auditor NOLOGIN; and then run `fulcrum migrate` again', current_user);
            END IF;
    END;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO auditor', current_schema());
    FOREACH seen IN ARRAY ARRAY['audit_operations', 'audit_ledger', 'audit_balances', 'audit_trades', 'audit_prices',
        'audit_snapshots', 'audit_chain', 'dead_letters']
    LOOP
        EXECUTE format('GRANT SELECT ON %I TO auditor', seen);
    END LOOP;
    RETURN '';
EXCEPTION
    WHEN insufficient_privilege THEN
        RETURN format('%I may not give the role "auditor" what it is to see (%s): run `fulcrum migrate` as the owner of the tables',
            current_user, SQLERRM);
END
$$;
COMMENT ON FUNCTION audit_access() IS 'Makes the role auditor and grants it the audit views; returns what is missing, or nothing.';

DO $$
DECLARE
    missing text := audit_access();
BEGIN
    IF missing <> '' THEN
        RAISE WARNING '%', missing;
    END IF;
END
$$;
