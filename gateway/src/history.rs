//! What is past: closed trades, ledger lines, candles, old operations, and the journal itself, read from Postgres.
//!
//! The tables are the recorder's and follow the journal at its pace. A read that must reflect a sequence waits for the
//! cursor to get there (`barrier`), as long as its deadline allows; `rows` is what the tables hold.
//! Numbers leave the database as text: they are decimals already and nobody here computes with them.

mod barrier;
mod exposure;
mod rows;
mod statements;

use contracts::bus::{JournalBatch, JournalEntry, OperationRecord};
use contracts::v1;
use prost::Message as _;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::barrier::Barrier;
use self::rows::{CandleRow, LedgerRow, TradeRow, candle_columns, candle_where, trade_columns};
use self::statements::{lines_statement, trades_statement};
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::order::{LineOrder, TradeField, TradeOrder};
use crate::page::Position;
use crate::wire;

/// Journal rows read at once.
const JOURNAL_ROWS: i64 = 64;

/// The tables. Cheap to clone.
#[derive(Clone)]
pub(crate) struct History {
    pool: PgPool,
    barrier: Barrier,
}

impl History {
    /// Reads through this pool. The task that looks at the recorder's cursor ends with `stop`.
    pub fn new(pool: PgPool, shards: u32, stop: CancellationToken) -> Self {
        Self {
            barrier: Barrier::new(pool.clone(), shards, stop),
            pool,
        }
    }

    /// Waits until the tables reflect `sequence` of a shard, and says how far they are.
    pub async fn reach(&self, shard: u32, sequence: u64, deadline: Deadline) -> Result<u64, Failure> {
        self.barrier.reach(shard, sequence, deadline).await
    }

    /// One trade of an account.
    pub async fn trade(&self, shard: u32, number: u64, account_id: &str) -> Result<Option<v1::Trade>, Failure> {
        let Ok(number) = i64::try_from(number) else {
            return Ok(None);
        };
        let row: Option<TradeRow> = sqlx::query_as(concat!(
            "SELECT ",
            trade_columns!(),
            " FROM trades WHERE shard = $1 AND number = $2 AND account_id = $3"
        ))
        .bind(column(shard))
        .bind(number)
        .bind(account_id)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(TradeRow::into_trade))
    }

    /// Trades of an account after a position, in an order.
    pub async fn trades(&self, it: &Trades<'_>) -> Result<Vec<v1::Trade>, Failure> {
        let (value, number) = match it.after {
            Some(after) => (after.value.as_str(), i64::try_from(after.major).unwrap_or(i64::MAX)),
            None if it.order.descending => ("infinity", i64::MAX),
            None => ("-infinity", 0),
        };
        let mut query = sqlx::query_as(trades_statement(it.order))
            .bind(it.account_id)
            .bind(column(it.shard))
            .bind(i16::try_from(i32::from(it.status)).unwrap_or_default())
            .bind(it.symbol)
            .bind(number)
            .bind(limit(it.limit));
        if it.order.by != TradeField::OpenTime {
            query = query.bind(value);
        }
        let rows: Vec<TradeRow> = query.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(TradeRow::into_trade).collect())
    }

    /// Ledger lines of an account after a position, in an order.
    pub async fn transactions(&self, it: &Transactions<'_>) -> Result<Vec<v1::Transaction>, Failure> {
        let (seq, line) = it.after.unwrap_or(if it.order.descending {
            (u64::MAX, u64::MAX)
        } else {
            (0, 0)
        });
        let rows: Vec<LedgerRow> = sqlx::query_as(lines_statement(it.order))
            .bind(it.account_id)
            .bind(column(it.shard))
            .bind(it.currency_code)
            .bind(it.trade_number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
            .bind(i64::try_from(it.after_sequence).unwrap_or(i64::MAX))
            .bind(i64::try_from(seq).unwrap_or(i64::MAX))
            .bind(i32::try_from(line).unwrap_or(i32::MAX))
            .bind(limit(it.limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(LedgerRow::into_transaction).collect())
    }

    /// Candles within times, oldest first; without a start the newest ones.
    pub async fn candles(&self, it: &Candles<'_>) -> Result<Vec<v1::Candle>, Failure> {
        // Counted from the end when there is no start: the newest page, which is then turned around.
        let newest = it.start_us.is_none();
        let statement = if newest {
            concat!(
                "SELECT ",
                candle_columns!(),
                candle_where!(),
                " ORDER BY open_at DESC LIMIT $5"
            )
        } else {
            concat!(
                "SELECT ",
                candle_columns!(),
                candle_where!(),
                " ORDER BY open_at LIMIT $5"
            )
        };
        let mut rows: Vec<CandleRow> = sqlx::query_as(statement)
            .bind(it.symbol)
            .bind(i16::try_from(it.interval).unwrap_or_default())
            .bind(it.start_us)
            .bind(it.end_us)
            .bind(limit(it.limit))
            .fetch_all(&self.pool)
            .await?;
        if newest {
            rows.reverse();
        }
        Ok(rows.into_iter().map(CandleRow::into_candle).collect())
    }

    /// A mutation and its first answer.
    pub async fn operation(
        &self,
        shard: u32,
        principal: &str,
        request_id: Uuid,
        account_id: &str,
    ) -> Result<Option<v1::Operation>, Failure> {
        let row: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT seq, (extract(epoch FROM done_at) * 1000000)::bigint, record FROM operations \
             WHERE shard = $4 AND principal = $1 AND request_id = $2 AND account_id = $3",
        )
        .bind(principal)
        .bind(request_id)
        .bind(account_id)
        .bind(column(shard))
        .fetch_optional(&self.pool)
        .await?;
        let Some((sequence, at_us, record)) = row else {
            return Ok(None);
        };
        let record = OperationRecord::decode(record.as_slice())
            .map_err(|cause| Failure::Internal(format!("operations.record: {cause}")))?;
        Ok(Some(wire::operation(unsigned(sequence), unsigned(at_us), record)))
    }

    /// Sequence of the last entry committed to a shard's journal.
    pub async fn journal_head(&self, shard: u32) -> Result<u64, Failure> {
        let head: Option<i64> = sqlx::query_scalar("SELECT seq FROM shard_head WHERE shard = $1")
            .bind(column(shard))
            .fetch_optional(&self.pool)
            .await?;
        Ok(head.map_or(0, unsigned))
    }

    /// The next stretch of the journal after a sequence: whole rows, cut to what comes after it. Empty at the end.
    pub async fn journal_after(&self, shard: u32, after: u64) -> Result<Vec<JournalEntry>, Failure> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("SELECT body FROM journal WHERE shard = $1 AND last_seq > $2 ORDER BY last_seq LIMIT $3")
                .bind(column(shard))
                .bind(i64::try_from(after).unwrap_or(i64::MAX))
                .bind(JOURNAL_ROWS)
                .fetch_all(&self.pool)
                .await?;
        let mut entries = Vec::new();
        for (body,) in rows {
            let batch = JournalBatch::decode(body.as_slice())
                .map_err(|cause| Failure::Internal(format!("journal.body: {cause}")))?;
            entries.extend(batch.entries.into_iter().filter(|entry| entry.sequence > after));
        }
        Ok(entries)
    }

    /// Whether the database answers.
    pub async fn answers(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.pool).await.is_ok()
    }
}

/// Which trades.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trades<'a> {
    /// Whose.
    pub account_id: &'a str,
    /// On its shard.
    pub shard: u32,
    /// Unspecified: any.
    pub status: v1::TradeStatus,
    /// Empty: any.
    pub symbol: &'a str,
    /// In which order.
    pub order: TradeOrder,
    /// Only those after this position of that order.
    pub after: Option<&'a Position>,
    /// At most.
    pub limit: usize,
}

/// Which ledger lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transactions<'a> {
    /// Whose.
    pub account_id: &'a str,
    /// On its shard.
    pub shard: u32,
    /// Empty: any.
    pub currency_code: &'a str,
    /// None: any.
    pub trade_number: Option<u64>,
    /// Only after this sequence.
    pub after_sequence: u64,
    /// In which order.
    pub order: LineOrder,
    /// Only those after this sequence and line in that order.
    pub after: Option<(u64, u64)>,
    /// At most.
    pub limit: usize,
}

/// Which candles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candles<'a> {
    /// Symbol.
    pub symbol: &'a str,
    /// As on the wire.
    pub interval: i32,
    /// Opening at or after. Microseconds since the epoch.
    pub start_us: Option<i64>,
    /// Opening before.
    pub end_us: Option<i64>,
    /// At most.
    pub limit: usize,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            // Ours to repair, and not by trying again.
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_) => Self::Internal(format!("history: {error}")),
            error => {
                tracing::warn!(%error, "history: a query failed");
                Self::HistoryBehind("the history cannot be read at the moment: try again".to_owned())
            }
        }
    }
}

/// A shard in a column.
fn column(shard: u32) -> i32 {
    i32::try_from(shard).unwrap_or(i32::MAX)
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// What is never negative in these tables.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
