-- Messages that could not be understood, kept for people to look at.
CREATE TABLE dead_letters (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard       integer     NOT NULL,
    -- blake3 of the message: one that comes back after a lost trim is not kept twice.
    digest      bytea       NOT NULL,
    -- The message as found, cut at 64 KiB.
    body        bytea       NOT NULL,
    reason      text        NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (shard, digest)
);
