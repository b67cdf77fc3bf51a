-- The engines that run. Each says so when it renews its leases, so that all can work out which shards are theirs to lead.
CREATE TABLE engines (
    -- Made anew at each start.
    id           uuid        PRIMARY KEY,
    -- For people, and for shard_head.wanted.
    name         text        NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Runs until then on this database's clock, unless it says so again.
    seen_until   timestamptz NOT NULL,
    -- An operator wants its shards to move to the others.
    draining     boolean     NOT NULL DEFAULT false
);

-- The engine that an operator wants to lead a shard, by name; null: whoever has fewest.
ALTER TABLE shard_head ADD COLUMN wanted text;
