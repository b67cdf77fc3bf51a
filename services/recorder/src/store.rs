//! Rows to tables: one transaction a shard and stretch of journal, the cursor first.
//!
//! The cursor comes first because its row is the lock: a second recorder waits there, finds it moved, and never gets to insert rows that
//! the first one has inserted. So a row that is there already is a fault and never a race.

use rust_decimal::Decimal;
use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use crate::error::RecorderError;
use crate::rows::{Expansion, JournalRow, LedgerRow, OperationRow, TradeRow};

/// Most journal entries of one transaction, but for the last row's, which is taken whole.
const SEQUENCES_MAX: i64 = 4_096;
/// Most journal rows of one transaction.
const ROWS_MAX: i64 = 256;

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
pub(crate) async fn cursor(pool: &PgPool, shard: i32) -> Result<i64, RecorderError> {
    let sql = "SELECT seq FROM recorder_cursor WHERE shard = $1";
    let cursor: Option<i64> = sqlx::query_scalar(sql).bind(shard).fetch_optional(pool).await?;
    Ok(cursor.unwrap_or(0))
}

/// The next rows of a shard's journal, in order; a bounded number of them.
pub(crate) async fn journal_after(pool: &PgPool, shard: i32, cursor: i64) -> Result<Vec<JournalRow>, RecorderError> {
    let sql = "SELECT first_seq, last_seq, body FROM journal
               WHERE shard = $1 AND first_seq > $2 AND first_seq <= $2 + $3 ORDER BY first_seq LIMIT $4";
    let rows: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as(sql)
        .bind(shard)
        .bind(cursor)
        .bind(SEQUENCES_MAX)
        .bind(ROWS_MAX)
        .fetch_all(pool)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(first_seq, last_seq, body)| JournalRow {
            first_seq,
            last_seq,
            body,
        })
        .collect())
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The rows are in.
    Done {
        /// Operations left out because another shard's has the same principal and request id.
        reused: u64,
    },
    /// Another recorder was faster, and nothing was written.
    Overtaken,
}

/// Writes an expansion of what follows `cursor`, and moves the cursor. All of it or nothing.
pub(crate) async fn commit(
    pool: &PgPool,
    shard: i32,
    cursor: i64,
    expansion: &Expansion,
) -> Result<Committed, RecorderError> {
    let mut transaction = pool.begin().await?;
    // A crash of Postgres may forget this commit, rows and cursor together, and then it is done again. So it need not wait for the disk,
    // which the engine's commits are waiting for.
    sqlx::query("SET LOCAL synchronous_commit = off")
        .execute(&mut *transaction)
        .await?;
    if cursor == 0 {
        let sql = "INSERT INTO recorder_cursor (shard, seq) VALUES ($1, 0) ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(shard).execute(&mut *transaction).await?;
    }
    let sql = "UPDATE recorder_cursor SET seq = $3 WHERE shard = $1 AND seq = $2";
    let moved = sqlx::query(sql)
        .bind(shard)
        .bind(cursor)
        .bind(expansion.last_seq)
        .execute(&mut *transaction)
        .await?;
    if moved.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(Committed::Overtaken);
    }
    let reused = insert_operations(&mut transaction, shard, &expansion.operations).await?;
    insert_trades(&mut transaction, shard, &expansion.trades.opened()).await?;
    update_trades(&mut transaction, shard, &expansion.trades.changed()).await?;
    insert_ledger(&mut transaction, shard, &expansion.ledger).await?;
    transaction.commit().await?;
    Ok(Committed::Done { reused })
}

/// One column of many rows. Decimals go as text: the driver's own form would make `0.00` a bare `0`.
fn column<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Inserts the operations, or finds out which one was executed twice.
///
/// A shard refuses what it has executed, so twice in one shard is the fault that the key is there to catch. Two shards do not know
/// each other's: a client that sends one request id for two accounts gets two operations, both right. That must not stop us, or any
/// client could; the first to arrive is listed.
async fn insert_operations(
    connection: &mut PgConnection,
    shard: i32,
    rows: &[OperationRow],
) -> Result<u64, RecorderError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let sql = "INSERT INTO operations (principal, request_id, account_id, shard, seq, kind, done_at, record)
               SELECT principal, request_id, account_id, $1, seq, kind, done_at, record
               FROM unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::smallint[], $7::timestamptz[], $8::bytea[])
                    AS new (principal, request_id, account_id, seq, kind, done_at, record)
               ON CONFLICT DO NOTHING";
    let inserted = sqlx::query(sql)
        .bind(shard)
        .bind(column(rows, |row| row.principal.as_str()))
        .bind(column(rows, |row| row.request_id))
        .bind(column(rows, |row| row.account_id.as_str()))
        .bind(column(rows, |row| row.seq))
        .bind(column(rows, |row| row.kind))
        .bind(column(rows, |row| row.done_at))
        .bind(column(rows, |row| row.record.as_slice()))
        .execute(&mut *connection)
        .await?
        .rows_affected();
    let missing = rows.len() as u64 - inserted;
    if missing == 0 {
        return Ok(0);
    }
    let sql = "SELECT principal, request_id, old.seq, new.seq
               FROM unnest($2::text[], $3::uuid[], $4::bigint[]) AS new (principal, request_id, seq)
               JOIN operations old USING (principal, request_id)
               WHERE old.shard = $1 AND old.seq <> new.seq ORDER BY new.seq LIMIT 1";
    let twice: Option<(String, Uuid, i64, i64)> = sqlx::query_as(sql)
        .bind(shard)
        .bind(column(rows, |row| row.principal.as_str()))
        .bind(column(rows, |row| row.request_id))
        .bind(column(rows, |row| row.seq))
        .fetch_optional(&mut *connection)
        .await?;
    match twice {
        Some((principal, request_id, first, second)) => Err(RecorderError::ExecutedTwice {
            shard,
            principal,
            request_id,
            first,
            second,
        }),
        None => Ok(missing),
    }
}

async fn insert_trades(connection: &mut PgConnection, shard: i32, rows: &[&TradeRow]) -> Result<(), RecorderError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO trades (shard, number, account_id, symbol, side, status, quantity, opened_quantity, entry_price, leverage,
                   currency_code, margin, stop_loss_price, take_profit_price, liquidation_price, opened_at, closed_at, close_price,
                   close_reason, realised_profit, commission, opened_seq, seq, quote)
               SELECT $1, number, account_id, symbol, side, status, quantity, opened_quantity, entry_price, leverage,
                   currency_code, margin, stop_loss_price, take_profit_price, liquidation_price, opened_at, closed_at, close_price,
                   coalesce(close_reason, 0), realised_profit, commission, opened_seq, seq, quote
               FROM unnest($2::bigint[], $3::smallint[], $4::text[]::numeric[], $5::text[]::numeric[], $6::text[]::numeric[], $7::text[]::numeric[], $8::text[]::numeric[],
                    $9::timestamptz[], $10::text[]::numeric[], $11::smallint[], $12::text[]::numeric[], $13::text[]::numeric[], $14::bigint[], $15::bytea[],
                    $16::text[], $17::text[], $18::smallint[], $19::text[]::numeric[], $20::text[]::numeric[], $21::text[]::numeric[], $22::text[],
                    $23::timestamptz[], $24::bigint[])
                    AS new (number, status, quantity, margin, stop_loss_price, take_profit_price, liquidation_price,
                    closed_at, close_price, close_reason, realised_profit, commission, seq, quote,
                    account_id, symbol, side, opened_quantity, entry_price, leverage, currency_code,
                    opened_at, opened_seq)";
    bind_changing(sqlx::query(sql).bind(shard), rows)
        .bind(column(rows, |row| row.account_id.as_str()))
        .bind(column(rows, |row| row.symbol.as_str()))
        .bind(column(rows, |row| row.side))
        .bind(column(rows, |row| row.opened_quantity.to_string()))
        .bind(column(rows, |row| row.entry_price.to_string()))
        .bind(column(rows, |row| row.leverage.to_string()))
        .bind(column(rows, |row| row.currency_code.as_str()))
        .bind(column(rows, |row| row.opened_at))
        .bind(column(rows, |row| row.opened_seq))
        .execute(connection)
        .await?;
    Ok(())
}

async fn update_trades(connection: &mut PgConnection, shard: i32, rows: &[&TradeRow]) -> Result<(), RecorderError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE trades SET status = new.status, quantity = new.quantity, margin = new.margin,
                   stop_loss_price = new.stop_loss_price, take_profit_price = new.take_profit_price,
                   liquidation_price = new.liquidation_price, closed_at = coalesce(new.closed_at, trades.closed_at),
                   close_price = coalesce(new.close_price, trades.close_price),
                   close_reason = coalesce(new.close_reason, trades.close_reason), realised_profit = new.realised_profit,
                   commission = new.commission, seq = new.seq, quote = coalesce(new.quote, trades.quote)
               FROM unnest($2::bigint[], $3::smallint[], $4::text[]::numeric[], $5::text[]::numeric[], $6::text[]::numeric[], $7::text[]::numeric[], $8::text[]::numeric[],
                    $9::timestamptz[], $10::text[]::numeric[], $11::smallint[], $12::text[]::numeric[], $13::text[]::numeric[], $14::bigint[], $15::bytea[])
                    AS new (number, status, quantity, margin, stop_loss_price, take_profit_price, liquidation_price,
                    closed_at, close_price, close_reason, realised_profit, commission, seq, quote)
               WHERE trades.shard = $1 AND trades.number = new.number";
    let updated = bind_changing(sqlx::query(sql).bind(shard), rows)
        .execute(&mut *connection)
        .await?;
    if updated.rows_affected() == rows.len() as u64 {
        return Ok(());
    }
    let sql = "SELECT min(number) FROM unnest($2::bigint[]) AS new (number)
               WHERE NOT EXISTS (SELECT FROM trades WHERE trades.shard = $1 AND trades.number = new.number)";
    let numbers = column(rows, |row| row.number);
    let number: Option<i64> = sqlx::query_scalar(sql)
        .bind(shard)
        .bind(numbers)
        .fetch_one(connection)
        .await?;
    Err(RecorderError::TradeUnknown {
        shard,
        number: number.expect("fewer rows were updated than there are numbers"),
    })
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds, as $2 to $15, the columns that change in a trade's life.
fn bind_changing<'q>(query: Query<'q>, rows: &[&'q TradeRow]) -> Query<'q> {
    query
        .bind(column(rows, |row| row.number))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.quantity.to_string()))
        .bind(column(rows, |row| row.margin.to_string()))
        .bind(column(rows, |row| row.stop_loss_price.as_ref().map(Decimal::to_string)))
        .bind(column(rows, |row| {
            row.take_profit_price.as_ref().map(Decimal::to_string)
        }))
        .bind(column(rows, |row| {
            row.liquidation_price.as_ref().map(Decimal::to_string)
        }))
        .bind(column(rows, |row| row.closed_at))
        .bind(column(rows, |row| {
            row.close.as_ref().map(|close| close.price.to_string())
        }))
        .bind(column(rows, |row| row.close.as_ref().map(|close| close.reason)))
        .bind(column(rows, |row| row.realised_profit.to_string()))
        .bind(column(rows, |row| row.commission.to_string()))
        .bind(column(rows, |row| row.seq))
        .bind(column(rows, |row| row.quote.as_deref()))
}

async fn insert_ledger(connection: &mut PgConnection, shard: i32, rows: &[LedgerRow]) -> Result<(), RecorderError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO ledger_entries (shard, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at,
                   trade_number, request_id)
               SELECT $1, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at,
                   trade_number, request_id
               FROM unnest($2::bigint[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::text[]::numeric[],
                    $10::timestamptz[], $11::bigint[], $12::uuid[])
                    AS new (seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at,
                    trade_number, request_id)";
    sqlx::query(sql)
        .bind(shard)
        .bind(column(rows, |row| row.seq))
        .bind(column(rows, |row| row.line))
        .bind(column(rows, |row| row.event))
        .bind(column(rows, |row| row.kind))
        .bind(column(rows, |row| row.account_id.as_str()))
        .bind(column(rows, |row| row.ledger_account))
        .bind(column(rows, |row| row.currency_code.as_str()))
        .bind(column(rows, |row| row.amount.to_string()))
        .bind(column(rows, |row| row.booked_at))
        .bind(column(rows, |row| row.trade_number))
        .bind(column(rows, |row| row.request_id))
        .execute(connection)
        .await?;
    Ok(())
}

/// Empties the read models that the journal makes, if it still can; says how far each shard is.
pub(crate) async fn empty(pool: &PgPool) -> Result<Vec<Position>, RecorderError> {
    let mut transaction = pool.begin().await?;
    // In the order in which a commit touches them, so that the two wait for each other and never both.
    sqlx::query("TRUNCATE recorder_cursor, operations, trades, ledger_entries")
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
