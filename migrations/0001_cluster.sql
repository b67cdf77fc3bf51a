-- How many shards this deployment has: chosen once, like the partitions of a log, because an account's shard is a hash of its id.
CREATE TABLE cluster (
    -- One row only.
    singleton   boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    -- Shards are numbered 0 to shards - 1.
    shards      integer     NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    created_at  timestamptz NOT NULL DEFAULT now()
);
