//! What is past: closed trades, ledger lines, candles, old operations, and the journal itself, read from Postgres.
//!
//! The tables are the recorder's and follow the journal at its pace. A read that must reflect a sequence waits for the
//! cursor to get there ([`History::reach`]), as long as its deadline allows; however many wait, one query looks.
//! Numbers leave the database as text: they are decimals already and nobody here computes with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contracts::bus::{JournalBatch, JournalEntry, OperationRecord, QuoteUsed};
use contracts::{names, v1};
use prost::Message as _;
use sqlx::{FromRow, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::wire;

/// How often the cursor is looked at while somebody waits, and after the database failed.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Kept back from a deadline, so that "not yet" is said before it.
const LAST_WORD: Duration = Duration::from_millis(20);
/// Journal rows read at once.
const JOURNAL_ROWS: i64 = 64;

// What is selected: literals, because a statement put together at run time would need to be trusted.

macro_rules! trade_columns {
    () => {
        "shard, number, account_id, symbol, side, status, quantity::text AS quantity, opened_quantity::text AS opened_quantity, \
         entry_price::text AS entry_price, leverage::text AS leverage, currency_code, margin::text AS margin, \
         coalesce(stop_loss_price::text, '') AS stop_loss_price, coalesce(take_profit_price::text, '') AS take_profit_price, \
         coalesce(liquidation_price::text, '') AS liquidation_price, coalesce(close_price::text, '') AS close_price, \
         (extract(epoch FROM opened_at) * 1000000)::bigint AS opened_us, \
         (extract(epoch FROM closed_at) * 1000000)::bigint AS closed_us, \
         close_reason, realised_profit::text AS realised_profit, commission::text AS commission, seq, quote"
    };
}
macro_rules! candle_columns {
    () => {
        "(extract(epoch FROM open_at) * 1000000)::bigint AS open_us, open::text AS open, high::text AS high, low::text AS low, \
         close::text AS close, quotes"
    };
}
macro_rules! candle_where {
    () => {
        " FROM candles WHERE symbol = $1 AND interval = $2 \
         AND ($3::bigint IS NULL OR open_at >= to_timestamp($3 / 1000000) + ($3 % 1000000) * interval '1 microsecond') \
         AND ($4::bigint IS NULL OR open_at < to_timestamp($4 / 1000000) + ($4 % 1000000) * interval '1 microsecond')"
    };
}
/// The tables.
#[derive(Clone)]
pub(crate) struct History {
    pool: PgPool,
    cursors: Arc<Cursors>,
}

/// How far the recorder is, as last seen.
struct Cursors {
    seen: watch::Sender<Vec<u64>>,
    wanted: Notify,
    waiting: AtomicUsize,
}

/// Counts one who waits.
struct Waiting<'a>(&'a Cursors);

impl<'a> Waiting<'a> {
    fn new(cursors: &'a Cursors) -> Self {
        cursors.waiting.fetch_add(1, Ordering::SeqCst);
        cursors.wanted.notify_one();
        Self(cursors)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl History {
    /// Reads through this pool. The task that looks at the cursor ends with `stop`.
    pub fn new(pool: PgPool, shards: u32, stop: CancellationToken) -> Self {
        let seen = watch::Sender::new(vec![0; shards as usize]);
        let cursors = Arc::new(Cursors {
            seen,
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
        });
        let history = Self { pool, cursors };
        tokio::spawn(stop.run_until_cancelled_owned(look(history.clone())));
        history
    }

    /// Waits until the tables reflect `sequence` of a shard, and says how far they are.
    pub async fn reach(&self, shard: u32, sequence: u64, deadline: Deadline) -> Result<u64, Failure> {
        let index = shard as usize;
        let mut seen = self.cursors.seen.subscribe();
        let at = seen.borrow().get(index).copied().unwrap_or(0);
        if at >= sequence && at > 0 {
            return Ok(at);
        }
        let _waiting = Waiting::new(&self.cursors);
        // Looked at once at least: the shard may be empty, and then everything is there.
        seen.mark_unchanged();
        let reached = async {
            loop {
                if seen.changed().await.is_err() {
                    return None;
                }
                let at = seen.borrow_and_update().get(index).copied().unwrap_or(0);
                if at >= sequence {
                    return Some(at);
                }
            }
        };
        let patience = deadline.at.checked_sub(LAST_WORD).unwrap_or(deadline.at);
        match tokio::time::timeout_at(patience, reached).await {
            Ok(Some(at)) => Ok(at),
            Ok(None) | Err(_) => Err(Failure::HistoryBehind(format!(
                "the history does not reach sequence {sequence} yet: try again"
            ))),
        }
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

    /// Trades of an account below a number, newest first.
    pub async fn trades(&self, it: &Trades<'_>) -> Result<Vec<v1::Trade>, Failure> {
        let rows: Vec<TradeRow> = sqlx::query_as(concat!(
            "SELECT ",
            trade_columns!(),
            " FROM trades WHERE account_id = $1 AND shard = $2 AND ($3 = 0 OR status = $3) AND ($4 = '' OR symbol = $4)",
            " AND number < $5 ORDER BY number DESC LIMIT $6"
        ))
        .bind(it.account_id)
        .bind(column(it.shard))
        .bind(i16::try_from(i32::from(it.status)).unwrap_or_default())
        .bind(it.symbol)
        .bind(it.before.and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX))
        .bind(limit(it.limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(TradeRow::into_trade).collect())
    }

    /// Ledger lines of an account after a position, oldest first.
    pub async fn transactions(&self, it: &Transactions<'_>) -> Result<Vec<v1::Transaction>, Failure> {
        let rows: Vec<LedgerRow> = sqlx::query_as(
            "SELECT shard, seq, line, kind, ledger_account, currency_code, amount::text AS amount, trade_number, request_id, \
             (extract(epoch FROM booked_at) * 1000000)::bigint AS booked_us \
             FROM ledger_entries WHERE account_id = $1 AND shard = $2 AND ($3 = '' OR currency_code = $3) \
             AND ($4::bigint IS NULL OR trade_number = $4) AND (seq, line) > ($5, $6) ORDER BY seq, line LIMIT $7",
        )
        .bind(it.account_id)
        .bind(column(it.shard))
        .bind(it.currency_code)
        .bind(it.trade_number.map(|number| i64::try_from(number).unwrap_or(i64::MAX)))
        .bind(i64::try_from(it.after.0).unwrap_or(i64::MAX))
        .bind(i32::try_from(it.after.1).unwrap_or(i32::MAX))
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

/// Looks at the cursor while somebody waits for it.
async fn look(history: History) {
    let cursors = Arc::clone(&history.cursors);
    loop {
        cursors.wanted.notified().await;
        while cursors.waiting.load(Ordering::SeqCst) > 0 {
            let rows: Result<Vec<(i32, i64)>, _> = sqlx::query_as("SELECT shard, seq FROM recorder_cursor")
                .fetch_all(&history.pool)
                .await;
            match rows {
                Ok(rows) => {
                    // Sent also when nothing moved: who waits for an empty shard has to hear of it.
                    cursors.seen.send_modify(|seen| {
                        for (shard, sequence) in rows {
                            if let Some(cursor) = usize::try_from(shard).ok().and_then(|shard| seen.get_mut(shard)) {
                                *cursor = unsigned(sequence);
                            }
                        }
                    });
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "history: the recorder's cursor cannot be read");
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
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
    /// Only numbers below.
    pub before: Option<u64>,
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
    /// Only after this sequence and line.
    pub after: (u64, u64),
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

#[derive(FromRow)]
struct TradeRow {
    shard: i32,
    number: i64,
    account_id: String,
    symbol: String,
    side: i16,
    status: i16,
    quantity: String,
    opened_quantity: String,
    entry_price: String,
    leverage: String,
    currency_code: String,
    margin: String,
    stop_loss_price: String,
    take_profit_price: String,
    liquidation_price: String,
    close_price: String,
    opened_us: i64,
    closed_us: Option<i64>,
    close_reason: i16,
    realised_profit: String,
    commission: String,
    seq: i64,
    quote: Vec<u8>,
}

impl TradeRow {
    fn into_trade(self) -> v1::Trade {
        let code = self.currency_code;
        let money = |amount: String| {
            Some(v1::Money {
                currency_code: code.clone(),
                amount,
            })
        };
        v1::Trade {
            trade_id: names::trade_id(u32::try_from(self.shard).unwrap_or_default(), unsigned(self.number)),
            account_id: self.account_id,
            symbol: self.symbol,
            side: self.side.into(),
            status: self.status.into(),
            quantity: self.quantity,
            opened_quantity: self.opened_quantity,
            entry_price: self.entry_price,
            leverage: self.leverage,
            margin: money(self.margin),
            stop_loss_price: self.stop_loss_price,
            take_profit_price: self.take_profit_price,
            liquidation_price: self.liquidation_price,
            open_time: Some(wire::signed_time(self.opened_us)),
            close_time: self.closed_us.map(wire::signed_time),
            close_price: self.close_price,
            close_reason: self.close_reason.into(),
            realised_profit: money(self.realised_profit),
            unrealised_profit: None,
            commission: money(self.commission),
            quote: QuoteUsed::decode(self.quote.as_slice()).ok().map(wire::quote),
            sequence: unsigned(self.seq),
        }
    }
}

#[derive(FromRow)]
struct LedgerRow {
    shard: i32,
    seq: i64,
    line: i32,
    kind: String,
    ledger_account: i16,
    currency_code: String,
    amount: String,
    trade_number: Option<i64>,
    request_id: Option<Uuid>,
    booked_us: i64,
}

impl LedgerRow {
    fn into_transaction(self) -> v1::Transaction {
        let shard = u32::try_from(self.shard).unwrap_or_default();
        v1::Transaction {
            sequence: unsigned(self.seq),
            line: u32::try_from(self.line).unwrap_or_default(),
            book_time: Some(wire::signed_time(self.booked_us)),
            kind: self.kind,
            entry: Some(v1::LedgerLine {
                ledger_account: wire::ledger_account(self.ledger_account.into()).to_owned(),
                amount: Some(v1::Money {
                    currency_code: self.currency_code,
                    amount: self.amount,
                }),
            }),
            trade_id: self
                .trade_number
                .map(|number| names::trade_id(shard, unsigned(number)))
                .unwrap_or_default(),
            request_id: self.request_id.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}

#[derive(FromRow)]
struct CandleRow {
    open_us: i64,
    open: String,
    high: String,
    low: String,
    close: String,
    quotes: i64,
}

impl CandleRow {
    fn into_candle(self) -> v1::Candle {
        v1::Candle {
            open_time: Some(wire::signed_time(self.open_us)),
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            quotes: unsigned(self.quotes),
        }
    }
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
