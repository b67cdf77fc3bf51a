-- Commands whose handling panicked, one row a leadership that one ended: counted outside the state, which is thrown away with it. A
-- command that ended several is not tried again but becomes a dead letter.
CREATE TABLE panics (
    shard   integer     NOT NULL,
    -- blake3 of the command without what differs between two tries of it; the digest of its dead letter.
    digest  bytea       NOT NULL,
    -- Leadership that it ended.
    epoch   bigint      NOT NULL,
    -- What the panic said.
    said    text        NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, digest, epoch)
);

-- What became of a dead letter: nothing is deleted, so that the trail stays.
ALTER TABLE dead_letters
    -- Its length before it was cut, bytes; unknown for those that came before this column.
    ADD COLUMN bytes        bigint,
    -- When somebody dealt with it; null: it waits for that.
    ADD COLUMN resolved_at  timestamptz,
    ADD COLUMN resolution   text CHECK (resolution IN ('REQUEUED', 'DISCARDED')),
    -- Who: the database user, and what that one said about it.
    ADD COLUMN resolved_by  text,
    ADD COLUMN note         text,
    -- How often it was put back on its queue.
    ADD COLUMN requeues     integer NOT NULL DEFAULT 0,
    ADD CHECK ((resolved_at IS NULL) = (resolution IS NULL));
