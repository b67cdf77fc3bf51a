-- Trades by what clients may order them by, so that a page costs what is on it. By opening they stand in `trades_of_account` already.
CREATE INDEX trades_of_account_by_close ON trades (account_id, (coalesce(closed_at, 'infinity'::timestamptz)), number);
CREATE INDEX trades_of_account_by_profit ON trades (account_id, realised_profit, number);
