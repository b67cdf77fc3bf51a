//! What the tables hold, in their own words; `migrations/` says what each column means.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

/// A row of the journal, as stored.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct JournalRow {
    pub(crate) shard: i32,
    pub(crate) first_seq: i64,
    pub(crate) last_seq: i64,
    /// Leadership that wrote it.
    pub(crate) epoch: i64,
    /// Encoded `fulcrum.bus.v1.JournalBatch`.
    pub(crate) body: Vec<u8>,
}

/// A stretch of one shard's journal, and where it begins.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) shard: i32,
    /// Sequence that it follows on.
    pub(crate) cursor: i64,
    pub(crate) expansion: Expansion,
}

/// A stretch of one shard's journal as rows of the read models.
#[derive(Debug, Default)]
pub(crate) struct Expansion {
    /// Sequence of its last entry: where the cursor goes.
    pub(crate) last_seq: i64,
    pub(crate) operations: Vec<OperationRow>,
    pub(crate) trades: Trades,
    pub(crate) ledger: Vec<LedgerRow>,
    pub(crate) prices: Vec<PriceRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationRow {
    pub(crate) principal: String,
    pub(crate) request_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) seq: i64,
    pub(crate) kind: i16,
    pub(crate) epoch: i64,
    pub(crate) done_at: DateTime<Utc>,
    /// Why it was refused; nothing when it was executed.
    pub(crate) refusal: Option<&'static str>,
    pub(crate) record: Vec<u8>,
    /// So many bytes at the end of the record are the first answer, encoded.
    pub(crate) result_bytes: i32,
}

/// The quote behind one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PriceRow {
    pub(crate) seq: i64,
    pub(crate) event: i32,
    pub(crate) trade_number: i64,
    pub(crate) kind: &'static str,
    pub(crate) symbol: String,
    /// Executed at; nothing when the quote was looked at only.
    pub(crate) price: Option<Decimal>,
    pub(crate) bid: Option<Decimal>,
    pub(crate) ask: Option<Decimal>,
    pub(crate) venue_bid: Option<Decimal>,
    pub(crate) venue_ask: Option<Decimal>,
    pub(crate) venue_time: DateTime<Utc>,
    pub(crate) update_id: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LedgerRow {
    pub(crate) seq: i64,
    pub(crate) line: i32,
    pub(crate) event: i32,
    pub(crate) kind: &'static str,
    pub(crate) account_id: String,
    pub(crate) ledger_account: i16,
    pub(crate) currency_code: String,
    pub(crate) amount: Decimal,
    pub(crate) booked_at: DateTime<Utc>,
    pub(crate) trade_number: Option<i64>,
    pub(crate) request_id: Option<Uuid>,
}

/// A trade after its last change in a stretch. What the stretch does not tell (`None`) stays as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TradeRow {
    pub(crate) number: i64,
    pub(crate) account_id: String,
    pub(crate) symbol: String,
    pub(crate) side: i16,
    pub(crate) status: i16,
    pub(crate) quantity: Decimal,
    pub(crate) opened_quantity: Decimal,
    pub(crate) entry_price: Decimal,
    pub(crate) leverage: Decimal,
    pub(crate) currency_code: String,
    pub(crate) margin: Decimal,
    pub(crate) stop_loss_price: Option<Decimal>,
    pub(crate) take_profit_price: Option<Decimal>,
    pub(crate) liquidation_price: Option<Decimal>,
    pub(crate) opened_at: DateTime<Utc>,
    pub(crate) realised_profit: Decimal,
    pub(crate) commission: Decimal,
    pub(crate) seq: i64,
    /// Set when it was opened in this stretch: a row to insert, not to update.
    pub(crate) opened_seq: Option<i64>,
    /// Set once nothing is left of it.
    pub(crate) closed_at: Option<DateTime<Utc>>,
    /// The last close, whole or partial.
    pub(crate) close: Option<CloseColumns>,
    /// Encoded quote of the last execution.
    pub(crate) quote: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseColumns {
    pub(crate) price: Decimal,
    pub(crate) reason: i16,
}

/// The trades that changed, each once.
#[derive(Debug, Default)]
pub(crate) struct Trades {
    rows: Vec<TradeRow>,
    places: HashMap<i64, usize>,
}

impl Trades {
    /// Takes the next change of a trade; it wins over the ones before, but for what it does not tell.
    pub(crate) fn change(&mut self, next: TradeRow) {
        let Some(&place) = self.places.get(&next.number) else {
            self.places.insert(next.number, self.rows.len());
            self.rows.push(next);
            return;
        };
        let row = &mut self.rows[place];
        let before = std::mem::replace(row, next);
        row.opened_seq = row.opened_seq.or(before.opened_seq);
        row.closed_at = row.closed_at.or(before.closed_at);
        row.close = row.close.take().or(before.close);
        row.quote = row.quote.take().or(before.quote);
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[TradeRow] {
        &self.rows
    }

    /// Those opened in this stretch.
    pub(crate) fn opened(&self) -> impl Iterator<Item = &TradeRow> {
        self.rows.iter().filter(|row| row.opened_seq.is_some())
    }

    /// Those opened before it.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &TradeRow> {
        self.rows.iter().filter(|row| row.opened_seq.is_none())
    }
}
