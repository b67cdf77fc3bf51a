//! Journal to rows: pure, and the only file that knows both what the engine writes and what the tables hold.
//!
//! Takes whole rows of the journal, in order; gives everything the read models gain by them, or the first reason why not. It computes
//! nothing about trades: an event carries the trade as it stands afterwards.

use chrono::{DateTime, Utc};
use contracts::bus::journal_event::Kind;
use contracts::bus::operation_record::Outcome;
use contracts::bus::{
    JournalBatch, JournalEntry, JournalEvent, LedgerAccountKind, OperationKind, OperationRecord, QuoteUsed, TradeState,
};
use contracts::v1::{CloseReason, Side, TradeStatus};
use prost::Message as _;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::error::RecorderError;
use crate::rows::{CloseColumns, Expansion, JournalRow, LedgerRow, OperationRow, PriceRow, TradeRow};

/// Expands the rows that follow `cursor`.
pub(crate) fn expand(shard: i32, cursor: i64, journal: &[JournalRow]) -> Result<Expansion, RecorderError> {
    let mut expansion = Expansion {
        last_seq: cursor,
        ..Expansion::default()
    };
    for row in journal {
        let batch = JournalBatch::decode(row.body.as_slice());
        let batch = batch.map_err(|_| RecorderError::Unreadable {
            shard,
            sequence: row.first_seq,
            what: "the batch",
        })?;
        follows(shard, expansion.last_seq, row.first_seq)?;
        for entry in &batch.entries {
            let sequence = i64::try_from(entry.sequence).unwrap_or(i64::MAX);
            follows(shard, expansion.last_seq, sequence)?;
            At {
                shard,
                sequence,
                epoch: row.epoch,
            }
            .entry(entry, &mut expansion)?;
            expansion.last_seq = sequence;
        }
        // The row says where it ends; entries missing at its end are a gap too.
        if expansion.last_seq != row.last_seq {
            return Err(RecorderError::Gap {
                shard,
                expected: row.last_seq,
                found: Some(expansion.last_seq),
            });
        }
    }
    Ok(expansion)
}

fn follows(shard: i32, last: i64, next: i64) -> Result<(), RecorderError> {
    let expected = last + 1;
    if next == expected {
        Ok(())
    } else {
        Err(RecorderError::Gap {
            shard,
            expected,
            found: Some(next),
        })
    }
}

/// Which entry is read, for the errors.
#[derive(Clone, Copy)]
struct At {
    shard: i32,
    sequence: i64,
    epoch: i64,
}

/// What a ledger line takes from its event.
struct Booking {
    kind: &'static str,
    account_id: String,
    trade_number: Option<i64>,
}

impl At {
    fn unreadable(self, what: &'static str) -> RecorderError {
        RecorderError::Unreadable {
            shard: self.shard,
            sequence: self.sequence,
            what,
        }
    }

    fn entry(self, entry: &JournalEntry, into: &mut Expansion) -> Result<(), RecorderError> {
        let at = self.time(entry.at_us)?;
        let operation = entry
            .operation
            .as_ref()
            .map(|record| self.operation(at, record))
            .transpose()?;
        let request_id = operation.as_ref().map(|operation| operation.request_id);
        into.operations.extend(operation);
        let mut line = 0;
        for (number, event) in (0..).zip(&entry.events) {
            let booking = self.event(at, number, event, into)?;
            self.balanced(number, event)?;
            for written in &event.lines {
                into.ledger.push(LedgerRow {
                    seq: self.sequence,
                    line,
                    event: number,
                    kind: booking.kind,
                    account_id: booking.account_id.clone(),
                    ledger_account: self.known(
                        LedgerAccountKind::try_from(written.ledger_account),
                        "a line's ledger account",
                    )?,
                    currency_code: written.currency_code.clone(),
                    amount: self.decimal(&written.amount, "a line's amount")?,
                    booked_at: at,
                    trade_number: booking.trade_number,
                    request_id,
                });
                line += 1;
            }
        }
        Ok(())
    }

    fn operation(self, at: DateTime<Utc>, record: &OperationRecord) -> Result<OperationRow, RecorderError> {
        // The outcome has the last fields, so its bytes are the record's last.
        let (refusal, result) = match &record.outcome {
            Some(Outcome::Response(response)) => (None, response.len()),
            Some(Outcome::Failure(failure)) => (Some(failure.reason().code()), failure.encoded_len()),
            None => (None, 0),
        };
        Ok(OperationRow {
            epoch: self.epoch,
            refusal,
            result_bytes: i32::try_from(result).map_err(|_| self.unreadable("the length of the answer"))?,
            // A principal is what a token says, and Postgres keeps no NUL in a text.
            principal: record.principal.replace('\0', "\u{fffd}"),
            request_id: Uuid::from_slice(&record.request_id).map_err(|_| self.unreadable("the request id"))?,
            account_id: record.account_id.clone(),
            seq: self.sequence,
            kind: self.known(OperationKind::try_from(record.kind), "the kind of operation")?,
            done_at: at,
            record: record.encode_to_vec(),
        })
    }

    /// Takes what an event says about trades, and says how its money is booked.
    fn event(
        self,
        at: DateTime<Utc>,
        number: i32,
        event: &JournalEvent,
        into: &mut Expansion,
    ) -> Result<Booking, RecorderError> {
        let house = |kind| Booking {
            kind,
            account_id: String::new(),
            trade_number: None,
        };
        let client = |kind, account_id: &String| Booking {
            kind,
            account_id: account_id.clone(),
            trade_number: None,
        };
        let trade = |kind, row: &TradeRow| Booking {
            kind,
            account_id: row.account_id.clone(),
            trade_number: Some(row.number),
        };
        // No `_` arm: an event that is new here must say how it is recorded, or this does not compile.
        Ok(
            match event
                .kind
                .as_ref()
                .ok_or_else(|| self.unreadable("the kind of event"))?
            {
                Kind::InstrumentConfigured(_) => house("INSTRUMENT_CONFIGURED"),
                Kind::WalletInitialized(it) => client("WALLET_INITIALIZED", &it.account_id),
                Kind::Deposited(it) => client("DEPOSITED", &it.account_id),
                Kind::Withdrawn(it) => client("WITHDRAWN", &it.account_id),
                Kind::TradeOpened(it) => {
                    let mut row = self.trade(it.trade.as_ref())?;
                    row.opened_seq = Some(self.sequence);
                    let quote = it.quote.as_ref().ok_or_else(|| self.unreadable("the quote"))?;
                    row.quote = Some(quote.encode_to_vec());
                    let booking = trade("TRADE_OPENED", &row);
                    let price = Some(row.entry_price);
                    into.prices.push(self.quoted(number, &booking, price, quote)?);
                    into.trades.change(row);
                    booking
                }
                // Its quote, when it has one, was looked at and not executed at.
                Kind::TradeModified(it) => {
                    let row = self.trade(it.trade.as_ref())?;
                    let booking = trade("TRADE_MODIFIED", &row);
                    if let Some(quote) = &it.quote {
                        into.prices.push(self.quoted(number, &booking, None, quote)?);
                    }
                    into.trades.change(row);
                    booking
                }
                Kind::TradeClosed(it) => {
                    let mut row = self.trade(it.trade.as_ref())?;
                    row.closed_at = (row.status == status(TradeStatus::Closed)).then_some(at);
                    let price = self.decimal(&it.close_price, "the close price")?;
                    row.close = Some(CloseColumns {
                        price,
                        reason: self.known(CloseReason::try_from(it.reason), "the close reason")?,
                    });
                    let quote = it.quote.as_ref().ok_or_else(|| self.unreadable("the quote"))?;
                    row.quote = Some(quote.encode_to_vec());
                    let booking = trade("TRADE_CLOSED", &row);
                    into.prices.push(self.quoted(number, &booking, Some(price), quote)?);
                    into.trades.change(row);
                    booking
                }
            },
        )
    }

    /// The quote behind an event.
    fn quoted(
        self,
        event: i32,
        booking: &Booking,
        price: Option<Decimal>,
        quote: &QuoteUsed,
    ) -> Result<PriceRow, RecorderError> {
        Ok(PriceRow {
            seq: self.sequence,
            event,
            trade_number: booking.trade_number.unwrap_or_default(),
            kind: booking.kind,
            symbol: quote.symbol.clone(),
            price,
            bid: self.price(&quote.bid, "a quote's bid")?,
            ask: self.price(&quote.ask, "a quote's ask")?,
            venue_bid: self.price(&quote.venue_bid, "a quote's venue bid")?,
            venue_ask: self.price(&quote.venue_ask, "a quote's venue ask")?,
            venue_time: self.time(quote.venue_time_us)?,
            update_id: i64::try_from(quote.update_id).unwrap_or(i64::MAX),
        })
    }

    fn trade(self, state: Option<&TradeState>) -> Result<TradeRow, RecorderError> {
        let state = state.ok_or_else(|| self.unreadable("the trade"))?;
        let quantity = self.decimal(&state.quantity, "the quantity")?;
        Ok(TradeRow {
            number: i64::try_from(state.number).map_err(|_| self.unreadable("the trade's number"))?,
            account_id: state.account_id.clone(),
            symbol: state.symbol.clone(),
            side: self.known(Side::try_from(state.side), "the side")?,
            status: status(if quantity.is_zero() {
                TradeStatus::Closed
            } else {
                TradeStatus::Open
            }),
            quantity,
            opened_quantity: self.decimal(&state.opened_quantity, "the quantity at opening")?,
            entry_price: self.decimal(&state.entry_price, "the entry price")?,
            leverage: self.decimal(&state.leverage, "the leverage")?,
            currency_code: state.currency_code.clone(),
            margin: self.decimal(&state.margin, "the margin")?,
            stop_loss_price: self.price(&state.stop_loss_price, "the stop-loss price")?,
            take_profit_price: self.price(&state.take_profit_price, "the take-profit price")?,
            liquidation_price: self.price(&state.liquidation_price, "the liquidation price")?,
            opened_at: self.time(state.opened_at_us)?,
            realised_profit: self.decimal(&state.realised_profit, "the realised profit")?,
            commission: self.decimal(&state.commission, "the commission")?,
            seq: self.sequence,
            opened_seq: None,
            closed_at: None,
            close: None,
            quote: None,
        })
    }

    /// Holds an event's lines to what the format promises: a zero sum in every currency.
    fn balanced(self, event: i32, of: &JournalEvent) -> Result<(), RecorderError> {
        let mut sums: Vec<(&str, Decimal)> = Vec::new();
        for line in &of.lines {
            let amount = self.decimal(&line.amount, "a line's amount")?;
            match sums.iter_mut().find(|(currency, _)| *currency == line.currency_code) {
                Some((_, sum)) => {
                    *sum = sum
                        .checked_add(amount)
                        .ok_or_else(|| self.unreadable("the sum of the lines"))?
                }
                None => sums.push((&line.currency_code, amount)),
            }
        }
        match sums.iter().find(|(_, sum)| !sum.is_zero()) {
            None => Ok(()),
            Some((currency, _)) => {
                let currency_code = (*currency).to_owned();
                Err(RecorderError::Unbalanced {
                    shard: self.shard,
                    sequence: self.sequence,
                    event,
                    currency_code,
                })
            }
        }
    }

    fn time(self, at_us: u64) -> Result<DateTime<Utc>, RecorderError> {
        let at = i64::try_from(at_us).ok().and_then(DateTime::from_timestamp_micros);
        at.ok_or_else(|| self.unreadable("a time"))
    }

    fn decimal(self, text: &str, what: &'static str) -> Result<Decimal, RecorderError> {
        // Amounts the engine has added up may be longer than what a client may send, so this is not `contracts::decimal`.
        Decimal::from_str_exact(text).map_err(|_| self.unreadable(what))
    }

    fn price(self, text: &str, what: &'static str) -> Result<Option<Decimal>, RecorderError> {
        if text.is_empty() {
            Ok(None)
        } else {
            self.decimal(text, what).map(Some)
        }
    }

    /// The column value of an enum that this build knows and that is not unspecified.
    fn known<T: Into<i32>, E>(self, value: Result<T, E>, what: &'static str) -> Result<i16, RecorderError> {
        let number = value.ok().map(Into::into).filter(|number| *number != 0);
        number
            .and_then(|number| i16::try_from(number).ok())
            .ok_or_else(|| self.unreadable(what))
    }
}

fn status(status: TradeStatus) -> i16 {
    i16::try_from(i32::from(status)).expect("the statuses are few")
}

#[cfg(test)]
mod tests;
