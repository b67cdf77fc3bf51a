//! Rows to tables: one transaction for a stretch of the journal of every shard that has moved, the cursors first.
//!
//! The cursors come first because their rows are the locks: a second recorder waits there, finds them moved, and never gets to insert
//! rows that the first one has inserted. So a row that is there already is a fault and never a race. All shards together, because a
//! statement costs more than a row: sixteen small transactions would cost the database more than the engine's commits do. What is new is
//! copied; an INSERT of the same rows costs the database more than twice as much.

use std::collections::HashMap;

use sqlx::postgres::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::copy::{Exact, Rows};
use crate::error::RecorderError;
use crate::rows::{Expansion, JournalRow, LedgerRow, OperationRow, PriceRow, Stretch, TradeRow};

/// Most journal entries of one transaction, but for each shard's last row, which is taken whole.
const SEQUENCES_MAX: i64 = 8_192;
/// Most journal rows of one transaction.
const ROWS_MAX: i64 = 1_024;

/// How far a shard is and how far we are.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(crate) struct Position {
    pub(crate) shard: i32,
    pub(crate) head: i64,
    pub(crate) cursor: i64,
}

/// All shards.
pub(crate) async fn positions(pool: &PgPool) -> Result<Vec<Position>, RecorderError> {
    let sql = "SELECT h.shard, h.seq AS head, coalesce(c.seq, 0) AS cursor
               FROM shard_head h LEFT JOIN recorder_cursor c USING (shard) ORDER BY h.shard";
    Ok(sqlx::query_as(sql).fetch_all(pool).await?)
}

/// Where a shard's cursor is now.
pub(crate) async fn cursor(of: impl PgExecutor<'_>, shard: i32) -> Result<i64, RecorderError> {
    let sql = "SELECT seq FROM recorder_cursor WHERE shard = $1";
    let cursor: Option<i64> = sqlx::query_scalar(sql).bind(shard).fetch_optional(of).await?;
    Ok(cursor.unwrap_or(0))
}

/// The next rows of the journals of these shards, by shard and in order; a bounded number of them, spread over the shards.
pub(crate) async fn journal_after(
    of: impl PgExecutor<'_>,
    moved: &[Position],
) -> Result<Vec<JournalRow>, RecorderError> {
    let sql = "SELECT moved.shard, rows.first_seq, rows.last_seq, rows.epoch, rows.body
               FROM unnest($1::int[], $2::bigint[]) AS moved (shard, cursor)
               CROSS JOIN LATERAL (
                   SELECT first_seq, last_seq, epoch, body FROM journal
                   WHERE journal.shard = moved.shard AND first_seq > moved.cursor AND first_seq <= moved.cursor + $3
                   ORDER BY first_seq LIMIT $4) AS rows
               ORDER BY moved.shard, rows.first_seq";
    let share = i64::try_from(moved.len()).unwrap_or(i64::MAX).max(1);
    Ok(sqlx::query_as(sql)
        .bind(column(moved, |position| position.shard))
        .bind(column(moved, |position| position.cursor))
        .bind((SEQUENCES_MAX / share).max(1))
        .bind((ROWS_MAX / share).max(1))
        .fetch_all(of)
        .await?)
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The rows are in.
    Done,
    /// Another recorder was faster with one of the shards, and nothing was written.
    Overtaken,
}

/// Writes expansions of what follows their cursors, and moves the cursors. All of it or nothing.
pub(crate) async fn commit(pool: &PgPool, stretches: &[Stretch]) -> Result<Committed, RecorderError> {
    let mut transaction = pool.begin().await?;
    // A crash of Postgres may forget this commit, rows and cursors together, and then it is done again. So it need not wait for the
    // disk, which the engine's commits are waiting for.
    sqlx::query("SET LOCAL synchronous_commit = off")
        .execute(&mut *transaction)
        .await?;
    let begun: Vec<i32> = stretches
        .iter()
        .filter(|stretch| stretch.cursor == 0)
        .map(|stretch| stretch.shard)
        .collect();
    if !begun.is_empty() {
        let sql = "INSERT INTO recorder_cursor (shard, seq) SELECT shard, 0 FROM unnest($1::int[]) AS begun (shard)
                   ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(begun).execute(&mut *transaction).await?;
    }
    let sql = "UPDATE recorder_cursor SET seq = new.last_seq
               FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS new (shard, cursor, last_seq)
               WHERE recorder_cursor.shard = new.shard AND recorder_cursor.seq = new.cursor";
    let moved = sqlx::query(sql)
        .bind(column(stretches, |stretch| stretch.shard))
        .bind(column(stretches, |stretch| stretch.cursor))
        .bind(column(stretches, |stretch| stretch.expansion.last_seq))
        .execute(&mut *transaction)
        .await?;
    if moved.rows_affected() < stretches.len() as u64 {
        transaction.rollback().await?;
        return Ok(Committed::Overtaken);
    }
    let operations = of_shards(stretches, |it| it.operations.iter());
    if let Err(error) = insert_operations(&mut transaction, &operations).await {
        transaction.rollback().await?;
        return Err(executed_twice(pool, &operations).await?.unwrap_or(error));
    }
    insert_trades(&mut transaction, &of_shards(stretches, |it| it.trades.opened())).await?;
    update_trades(&mut transaction, &of_shards(stretches, |it| it.trades.changed())).await?;
    insert_ledger(&mut transaction, &of_shards(stretches, |it| it.ledger.iter())).await?;
    insert_prices(&mut transaction, &of_shards(stretches, |it| it.prices.iter())).await?;
    transaction.commit().await?;
    Ok(Committed::Done)
}

/// A row and its shard.
type Of<'a, R> = (i32, &'a R);

/// The rows of all stretches, each with its shard.
fn of_shards<'a, R: 'a, I>(stretches: &'a [Stretch], rows: impl Fn(&'a Expansion) -> I) -> Vec<Of<'a, R>>
where
    I: Iterator<Item = &'a R>,
{
    stretches
        .iter()
        .flat_map(|stretch| rows(&stretch.expansion).map(|row| (stretch.shard, row)))
        .collect()
}

/// One column of many rows.
fn column<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

async fn insert_operations(connection: &mut PgConnection, rows: &[Of<'_, OperationRow>]) -> Result<(), RecorderError> {
    let sql =
        "COPY operations (shard, principal, request_id, account_id, seq, kind, done_at, record, epoch, refusal, result_bytes)
               FROM STDIN (FORMAT BINARY)";
    let mut new = Rows::new();
    for (shard, row) in rows {
        new.add(&[
            shard,
            &row.principal,
            &row.request_id,
            &row.account_id,
            &row.seq,
            &row.kind,
            &row.done_at,
            &row.record,
            &row.epoch,
            &row.refusal,
            &row.result_bytes,
        ]);
    }
    Ok(new.copy(connection, sql).await?)
}

/// Finds out which of these operations was executed twice, if it was that for which they were refused: a shard refuses what it has
/// executed, and the key is there to catch one that did not. One id on two shards is two operations.
async fn executed_twice(pool: &PgPool, rows: &[Of<'_, OperationRow>]) -> Result<Option<RecorderError>, RecorderError> {
    let twice = |shard, principal: &str, request_id, first, second| RecorderError::ExecutedTwice {
        shard,
        principal: principal.to_owned(),
        request_id,
        first,
        second,
    };
    let mut known = HashMap::new();
    for (shard, row) in rows {
        if let Some(first) = known.insert((*shard, row.principal.as_str(), row.request_id), row.seq) {
            return Ok(Some(twice(*shard, &row.principal, row.request_id, first, row.seq)));
        }
    }
    let sql = "SELECT shard, principal, request_id, old.seq, new.seq
               FROM unnest($1::int[], $2::text[], $3::uuid[], $4::bigint[]) AS new (shard, principal, request_id, seq)
               JOIN operations old USING (shard, principal, request_id)
               WHERE old.seq <> new.seq ORDER BY new.seq LIMIT 1";
    let found: Option<(i32, String, Uuid, i64, i64)> = sqlx::query_as(sql)
        .bind(column(rows, |(shard, _)| *shard))
        .bind(column(rows, |(_, row)| row.principal.as_str()))
        .bind(column(rows, |(_, row)| row.request_id))
        .bind(column(rows, |(_, row)| row.seq))
        .fetch_optional(pool)
        .await?;
    Ok(found.map(|(shard, principal, request_id, first, second)| twice(shard, &principal, request_id, first, second)))
}

async fn insert_trades(connection: &mut PgConnection, rows: &[Of<'_, TradeRow>]) -> Result<(), RecorderError> {
    let sql = "COPY trades (shard, number, account_id, symbol, side, status, quantity, opened_quantity, entry_price, leverage,
                   currency_code, margin, stop_loss_price, take_profit_price, liquidation_price, opened_at, closed_at, close_price,
                   close_reason, realised_profit, commission, opened_seq, seq, quote)
               FROM STDIN (FORMAT BINARY)";
    let mut new = Rows::new();
    for (shard, row) in rows {
        new.add(&[
            shard,
            &row.number,
            &row.account_id,
            &row.symbol,
            &row.side,
            &row.status,
            &row.quantity,
            &row.opened_quantity,
            &row.entry_price,
            &row.leverage,
            &row.currency_code,
            &row.margin,
            &row.stop_loss_price,
            &row.take_profit_price,
            &row.liquidation_price,
            &row.opened_at,
            &row.closed_at,
            &row.close.as_ref().map(|close| close.price),
            &row.close.as_ref().map_or(0, |close| close.reason),
            &row.realised_profit,
            &row.commission,
            &row.opened_seq,
            &row.seq,
            &row.quote,
        ]);
    }
    Ok(new.copy(connection, sql).await?)
}

async fn update_trades(connection: &mut PgConnection, rows: &[Of<'_, TradeRow>]) -> Result<(), RecorderError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE trades SET status = new.status, quantity = new.quantity, margin = new.margin,
                   stop_loss_price = new.stop_loss_price, take_profit_price = new.take_profit_price,
                   liquidation_price = new.liquidation_price, closed_at = coalesce(new.closed_at, trades.closed_at),
                   close_price = coalesce(new.close_price, trades.close_price),
                   close_reason = coalesce(new.close_reason, trades.close_reason), realised_profit = new.realised_profit,
                   commission = new.commission, seq = new.seq, quote = coalesce(new.quote, trades.quote)
               FROM unnest($1::int[], $2::bigint[], $3::smallint[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[], $8::numeric[],
                    $9::timestamptz[], $10::numeric[], $11::smallint[], $12::numeric[], $13::numeric[], $14::bigint[], $15::bytea[],
                    $16::text[])
                    AS new (shard, number, status, quantity, margin, stop_loss_price, take_profit_price, liquidation_price,
                    closed_at, close_price, close_reason, realised_profit, commission, seq, quote, account_id)
               WHERE trades.account_id = new.account_id AND trades.number = new.number AND trades.shard = new.shard";
    let updated = sqlx::query(sql)
        .bind(column(rows, |(shard, _)| *shard))
        .bind(column(rows, |(_, row)| row.number))
        .bind(column(rows, |(_, row)| row.status))
        .bind(column(rows, |(_, row)| Exact(row.quantity)))
        .bind(column(rows, |(_, row)| Exact(row.margin)))
        .bind(column(rows, |(_, row)| row.stop_loss_price.map(Exact)))
        .bind(column(rows, |(_, row)| row.take_profit_price.map(Exact)))
        .bind(column(rows, |(_, row)| row.liquidation_price.map(Exact)))
        .bind(column(rows, |(_, row)| row.closed_at))
        .bind(column(rows, |(_, row)| {
            row.close.as_ref().map(|close| Exact(close.price))
        }))
        .bind(column(rows, |(_, row)| row.close.as_ref().map(|close| close.reason)))
        .bind(column(rows, |(_, row)| Exact(row.realised_profit)))
        .bind(column(rows, |(_, row)| Exact(row.commission)))
        .bind(column(rows, |(_, row)| row.seq))
        .bind(column(rows, |(_, row)| row.quote.as_deref()))
        .bind(column(rows, |(_, row)| row.account_id.as_str()))
        .execute(&mut *connection)
        .await?;
    if updated.rows_affected() == rows.len() as u64 {
        return Ok(());
    }
    let sql = "SELECT shard, number FROM unnest($1::int[], $2::bigint[], $3::text[]) AS new (shard, number, account_id)
               WHERE NOT EXISTS (SELECT FROM trades WHERE trades.account_id = new.account_id AND trades.number = new.number
                   AND trades.shard = new.shard)
               ORDER BY shard, number LIMIT 1";
    let (shard, number): (i32, i64) = sqlx::query_as(sql)
        .bind(column(rows, |(shard, _)| *shard))
        .bind(column(rows, |(_, row)| row.number))
        .bind(column(rows, |(_, row)| row.account_id.as_str()))
        .fetch_one(connection)
        .await?;
    Err(RecorderError::TradeUnknown { shard, number })
}

async fn insert_ledger(connection: &mut PgConnection, rows: &[Of<'_, LedgerRow>]) -> Result<(), RecorderError> {
    let sql = "COPY ledger_entries (shard, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at,
                   trade_number, request_id)
               FROM STDIN (FORMAT BINARY)";
    let mut new = Rows::new();
    for (shard, row) in rows {
        new.add(&[
            shard,
            &row.seq,
            &row.line,
            &row.event,
            &row.kind,
            &row.account_id,
            &row.ledger_account,
            &row.currency_code,
            &row.amount,
            &row.booked_at,
            &row.trade_number,
            &row.request_id,
        ]);
    }
    Ok(new.copy(connection, sql).await?)
}

async fn insert_prices(connection: &mut PgConnection, rows: &[Of<'_, PriceRow>]) -> Result<(), RecorderError> {
    let sql = "COPY prices_used (shard, seq, event, trade_number, kind, symbol, price, bid, ask, venue_bid, venue_ask, venue_time,
                   update_id)
               FROM STDIN (FORMAT BINARY)";
    let mut new = Rows::new();
    for (shard, row) in rows {
        new.add(&[
            shard,
            &row.seq,
            &row.event,
            &row.trade_number,
            &row.kind,
            &row.symbol,
            &row.price,
            &row.bid,
            &row.ask,
            &row.venue_bid,
            &row.venue_ask,
            &row.venue_time,
            &row.update_id,
        ]);
    }
    Ok(new.copy(connection, sql).await?)
}

/// Empties the read models that the journal makes, if it still can; says how far each shard is.
pub(crate) async fn empty(pool: &PgPool) -> Result<Vec<Position>, RecorderError> {
    let mut transaction = pool.begin().await?;
    // In the order in which a commit touches them, so that the two wait for each other and never both.
    sqlx::query("TRUNCATE recorder_cursor, operations, trades, ledger_entries, prices_used")
        .execute(&mut *transaction)
        .await?;
    let sql = "SELECT shard, (SELECT min(first_seq) FROM journal WHERE journal.shard = shard_head.shard)
               FROM shard_head WHERE seq > 0 ORDER BY shard";
    let begins: Vec<(i32, Option<i64>)> = sqlx::query_as(sql).fetch_all(&mut *transaction).await?;
    if let Some(&(shard, first)) = begins.iter().find(|(_, first)| *first != Some(1)) {
        transaction.rollback().await?;
        return Err(RecorderError::JournalTrimmed { shard, first });
    }
    transaction.commit().await?;
    positions(pool).await
}
