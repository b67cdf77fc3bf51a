//! Candles to the table, with the position in the stream that they reach to.

use chrono::DateTime;
use contracts::v1::CandleInterval;
use sqlx::postgres::{PgConnection, PgPool};

use super::fold::{Candle, Fold, Key};
use crate::error::RecorderError;

/// Before everything that the stream still holds: where a new deployment begins.
const BEGINNING: &str = "0-0";

/// Up to where the stream has been folded.
pub(super) async fn cursor(pool: &PgPool) -> Result<String, RecorderError> {
    let sql = "INSERT INTO candle_cursor (stream_id) VALUES ($1) ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(BEGINNING).execute(pool).await?;
    Ok(sqlx::query_scalar("SELECT stream_id FROM candle_cursor")
        .fetch_one(pool)
        .await?)
}

/// Venue time of a symbol's newest quote as far as the table knows: the second it fell into. Microseconds; 0 when there is none.
pub(super) async fn newest(pool: &PgPool, symbol: &str) -> Result<i64, RecorderError> {
    let sql =
        "SELECT (extract(epoch FROM max(open_at)) * 1000000)::bigint FROM candles WHERE symbol = $1 AND interval = $2";
    let interval = i32::from(CandleInterval::CandleInterval1s);
    let newest: Option<i64> = sqlx::query_scalar(sql)
        .bind(symbol)
        .bind(interval)
        .fetch_one(pool)
        .await?;
    Ok(newest.unwrap_or(0))
}

/// Merges a fold of what follows `cursor`, and moves the cursor to `next`. False, and nothing written, when another recorder was faster.
pub(super) async fn commit(pool: &PgPool, cursor: &str, next: &str, fold: &Fold) -> Result<bool, RecorderError> {
    let mut transaction = pool.begin().await?;
    // A crash of Postgres may forget this commit, candles and cursor together; the stream has the quotes for a quarter of an hour more.
    sqlx::query("SET LOCAL synchronous_commit = off")
        .execute(&mut *transaction)
        .await?;
    let sql = "UPDATE candle_cursor SET stream_id = $2 WHERE stream_id = $1";
    if sqlx::query(sql)
        .bind(cursor)
        .bind(next)
        .execute(&mut *transaction)
        .await?
        .rows_affected()
        == 0
    {
        transaction.rollback().await?;
        return Ok(false);
    }
    let (late, in_time): (Vec<_>, Vec<_>) = fold.candles.iter().partition(|(_, candle)| candle.late);
    merge(&mut transaction, "candles.close", &late).await?;
    merge(&mut transaction, "excluded.close", &in_time).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Merges candles; `close` says whose close a candle that exists gets.
async fn merge(
    connection: &mut PgConnection,
    close: &'static str,
    candles: &[(&Key, &Candle)],
) -> Result<(), RecorderError> {
    if candles.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO candles (symbol, interval, open_at, open, high, low, close, quotes)
         SELECT * FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[],
             $8::bigint[])
         ON CONFLICT (symbol, interval, open_at) DO UPDATE SET high = greatest(candles.high, excluded.high),
             low = least(candles.low, excluded.low), close = {close}, quotes = candles.quotes + excluded.quotes"
    );
    // Made of our own two words only.
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(candles.iter().map(|(key, _)| key.symbol.as_str()).collect::<Vec<_>>())
        .bind(candles.iter().map(|(key, _)| key.interval).collect::<Vec<_>>())
        .bind(
            candles
                .iter()
                .map(|(key, _)| DateTime::from_timestamp_micros(key.open_us))
                .collect::<Vec<_>>(),
        )
        .bind(candles.iter().map(|(_, candle)| candle.open).collect::<Vec<_>>())
        .bind(candles.iter().map(|(_, candle)| candle.high).collect::<Vec<_>>())
        .bind(candles.iter().map(|(_, candle)| candle.low).collect::<Vec<_>>())
        .bind(candles.iter().map(|(_, candle)| candle.close).collect::<Vec<_>>())
        .bind(candles.iter().map(|(_, candle)| candle.quotes).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
