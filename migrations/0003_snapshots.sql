-- Snapshots are written by a follower: chunks first, the head last, so a head means a whole snapshot.
CREATE TABLE snapshot_chunk (
    shard   integer NOT NULL,
    seq     bigint  NOT NULL,
    n       integer NOT NULL,
    -- Encoded fulcrum.bus.v1.SnapshotChunk, at most about 1 MiB.
    body    bytea   NOT NULL,
    -- blake3 of the body, 32 bytes.
    digest  bytea   NOT NULL,
    PRIMARY KEY (shard, seq, n)
);
ALTER TABLE snapshot_chunk ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE snapshot_head (
    shard       integer     NOT NULL,
    -- Sequence of the last entry it contains.
    seq         bigint      NOT NULL,
    -- State hash it must load to, 16 bytes.
    state_hash  bytea       NOT NULL,
    -- Journal chain at that sequence, 32 bytes.
    chain       bytea       NOT NULL,
    chunks      integer     NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, seq)
);
