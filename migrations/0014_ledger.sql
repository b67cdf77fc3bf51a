-- Less to write for what the recorder writes most of. Rewrites no table; builds indexes and reads the ledger once, under locks as in 0013.

-- The ledger's key begins with the account, as the order in which it is read does: one index for two.
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_pkey, ADD PRIMARY KEY (account_id, seq, line, shard);
DROP INDEX ledger_of_account;
-- Stretches of a journal, which `fulcrum verify` looks up, stand together here, for rows come in the order in which things happened: it is
-- enough to know which pages have which sequences. That no row comes twice is the cursor's doing.
CREATE INDEX ledger_of_sequence ON ledger_entries USING brin (seq int8_minmax_multi_ops) WITH (pages_per_range = 32, autosummarize = on);
ALTER TABLE prices_used DROP CONSTRAINT prices_used_pkey;
CREATE INDEX prices_of_sequence ON prices_used USING brin (seq int8_minmax_multi_ops) WITH (pages_per_range = 32, autosummarize = on);

-- What the ledger adds up to: zero, for ever. By triggers, so that it holds whoever writes.
CREATE TABLE ledger_sums (
    shard         integer NOT NULL,
    currency_code text    NOT NULL,
    sum           numeric NOT NULL,
    PRIMARY KEY (shard, currency_code)
);

CREATE FUNCTION ledger_sums_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE ledger_sums;
    ELSIF TG_OP = 'INSERT' THEN
        -- Nothing is written for lines that add up to zero, in a currency that is known.
        INSERT INTO ledger_sums AS kept
        SELECT shard, currency_code, sum(amount) FROM added GROUP BY shard, currency_code
        HAVING sum(amount) <> 0 OR NOT EXISTS (SELECT FROM ledger_sums AS known WHERE (known.shard, known.currency_code) = (added.shard, added.currency_code))
        ORDER BY shard, currency_code
        ON CONFLICT (shard, currency_code) DO UPDATE SET sum = kept.sum + excluded.sum;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO ledger_sums AS kept
        SELECT shard, currency_code, -sum(amount) FROM removed GROUP BY shard, currency_code ORDER BY shard, currency_code
        ON CONFLICT (shard, currency_code) DO UPDATE SET sum = kept.sum + excluded.sum;
    ELSE
        INSERT INTO ledger_sums AS kept
        SELECT shard, currency_code, sum(amount)
        FROM (SELECT shard, currency_code, amount FROM added UNION ALL SELECT shard, currency_code, -amount FROM removed) AS moved
        GROUP BY shard, currency_code ORDER BY shard, currency_code
        ON CONFLICT (shard, currency_code) DO UPDATE SET sum = kept.sum + excluded.sum;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER ledger_sums_of_new AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger_sums_follow();
CREATE TRIGGER ledger_sums_of_changed AFTER UPDATE ON ledger_entries
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger_sums_follow();
CREATE TRIGGER ledger_sums_of_removed AFTER DELETE ON ledger_entries
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION ledger_sums_follow();
CREATE TRIGGER ledger_sums_of_none AFTER TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_sums_follow();

INSERT INTO ledger_sums SELECT shard, currency_code, sum(amount) FROM ledger_entries GROUP BY shard, currency_code;

-- The first answer stands at the end of the record, so only its length is kept. `result` is of those that were recorded before.
ALTER TABLE operations ADD COLUMN result_bytes integer;

CREATE FUNCTION operation_result(it operations) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT coalesce(it.result, substring(it.record FROM octet_length(it.record) - it.result_bytes + 1)) $$;

CREATE OR REPLACE VIEW audit_operations AS
SELECT shard, seq, epoch, principal, request_id,
    CASE kind WHEN 1 THEN 'INITIALIZE_WALLET' WHEN 2 THEN 'DEPOSIT' WHEN 3 THEN 'WITHDRAW' WHEN 4 THEN 'OPEN_TRADE'
        WHEN 5 THEN 'CLOSE_TRADE' WHEN 6 THEN 'MODIFY_TRADE' ELSE kind::text END AS kind,
    CASE WHEN epoch IS NULL THEN NULL ELSE coalesce(refusal, 'EXECUTED') END AS status,
    operation_result(operations) AS result, done_at AS ts
FROM operations;
