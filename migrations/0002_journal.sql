-- The head of each shard: who leads it and how far its journal goes. The one row that every commit compares and sets.
CREATE TABLE shard_head (
    shard        integer     PRIMARY KEY,
    -- Rises with every take-over; a commit with an older epoch is fenced.
    epoch        bigint      NOT NULL DEFAULT 0,
    -- Sequence of the last entry committed; 0 for none.
    seq          bigint      NOT NULL DEFAULT 0,
    -- Id of the last batch committed: tells an engine whose commit went unanswered whether it had been carried out.
    batch        uuid,
    -- Hash over all rows so far: chain(n) = blake3(chain(n-1), row n).
    chain        bytea       NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000',
    -- The process that leads, made anew at each start; null when nobody does.
    lease_owner  uuid,
    -- Its name, for people.
    lease_name   text,
    -- Leads until then on this database's clock. For liveness only: safety is the fence.
    lease_until  timestamptz NOT NULL DEFAULT '-infinity'
);

-- What happened, in order: the only truth. One row a batch, because a row costs more than an event.
CREATE TABLE journal (
    shard        integer     NOT NULL,
    -- Sequence of the first and the last entry in the row; the next row starts at last_seq + 1.
    first_seq    bigint      NOT NULL,
    last_seq     bigint      NOT NULL CHECK (last_seq >= first_seq),
    -- Leader that wrote it.
    epoch        bigint      NOT NULL,
    batch        uuid        NOT NULL,
    -- Encoded fulcrum.bus.v1.JournalBatch.
    body         bytea       NOT NULL,
    -- State hash after the last entry, 16 bytes: what a replay must arrive at.
    state_hash   bytea       NOT NULL,
    -- Hash over this row and all before it, 32 bytes.
    chain        bytea       NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, first_seq)
);
-- Finds the row that holds a sequence, and refuses two rows that end at the same one.
CREATE UNIQUE INDEX journal_last_seq ON journal (shard, last_seq);
-- Bodies are small and dense already; compressing them costs the leader time.
ALTER TABLE journal ALTER COLUMN body SET STORAGE EXTERNAL;
