-- Batches that are too large for a page's quarter (some 2 kB) are compressed with lz4 instead of being cut into pieces beside the table.
-- A batch of nine opens, 4.9 kB, shrinks to a quarter: under load a commit costs the leader's session half the processor time, and writes a
-- quarter of the log. Rows that are there stay as they are; hashes are over the body, not over how it is kept.
--
-- Only the catalog changes, under a lock of the journal that commits wait for. It is not waited for behind a long reader (a dump, `fulcrum
-- verify`): then this fails, changes nothing, and is run again later.
SET LOCAL lock_timeout = '2s';
DO $$
BEGIN
    EXECUTE 'ALTER TABLE journal ALTER COLUMN body SET COMPRESSION lz4, ALTER COLUMN body SET STORAGE EXTENDED';
EXCEPTION
    -- A server that was built without lz4 goes on as before.
    WHEN feature_not_supported THEN RAISE NOTICE 'this Postgres has no lz4: the journal is not compressed';
END
$$;
