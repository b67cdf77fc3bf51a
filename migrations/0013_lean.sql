-- Fewer and narrower indexes under what the recorder writes: an opened trade cost the database more for its places in indexes than for
-- its rows. Each builds under a lock of its table: the recorder and readers of history wait meanwhile, a second or two for each million
-- rows; trading waits for nothing of it.

-- Request ids rise with time, so led by them the key grows at its end and is compared at its first column. The tripwire is the same.
ALTER TABLE operations DROP CONSTRAINT operations_pkey, ADD PRIMARY KEY (request_id, shard, principal);

-- A trade's key begins with its account, so that it is the account's order by opening at once: one index for two.
ALTER TABLE trades DROP CONSTRAINT trades_pkey, ADD PRIMARY KEY (account_id, shard, number);
DROP INDEX trades_of_account;
-- Those with a status: the engine tells which are open, and all but those are what the key gives.
DROP INDEX trades_of_account_by_status;
-- What is closed stands in the orders by which it is told apart; what is open, in one small index for all of them.
DROP INDEX trades_of_account_by_close, trades_of_account_by_profit;
CREATE INDEX trades_of_account_open ON trades (account_id, shard, number) WHERE closed_at IS NULL;
CREATE INDEX trades_of_account_by_close ON trades (account_id, closed_at, number) WHERE closed_at IS NOT NULL;
CREATE INDEX trades_of_account_by_profit ON trades (account_id, realised_profit, number) WHERE closed_at IS NOT NULL;
