//! The core's events as journal events, and back. Reading is the inverse of writing: a replay folds in exactly what happened.

use contracts::bus::journal_event::Kind;
use contracts::bus::{
    Deposited, InstrumentConfigured, InstrumentTerms, JournalEvent, JournalLine, LedgerAccountKind, QuoteUsed,
    TradeClosed, TradeModified, TradeOpened, TradeState, WalletInitialized, Withdrawn,
};
use contracts::v1;
use engine_core::{
    AccountId, CloseReason, Currency, Event, EventKind, Instrument, LedgerAccount, LedgerLine, Leverage, Money, Price,
    Quantity, Rate, Side, State, Symbol, TradableQuote, Trade, TradeClosing, TradeId, TradingMode,
};

use prost::Message as _;

use super::borrowed::{self, Borrowed as _, several};
use super::{amount_text, duration, duration_us, moment, plain, price_text, quantity_text};
use crate::window::micros;

/// A journal event cannot be read: it was written by something else, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal event: {what}")]
pub struct Unreadable {
    /// What could not be read.
    pub what: String,
}

pub(crate) fn unreadable(what: impl Into<String>) -> Unreadable {
    Unreadable { what: what.into() }
}

/// Writes an event. `state` is the one before the event is applied: it still knows the trade that a closing ends.
#[must_use]
pub fn write(state: &State, event: &Event) -> JournalEvent {
    let kind = match &event.kind {
        EventKind::InstrumentConfigured(instrument) => Kind::InstrumentConfigured(InstrumentConfigured {
            instrument: Some(write_terms(instrument)),
        }),
        EventKind::WalletInitialized { account } => Kind::WalletInitialized(WalletInitialized {
            account_id: account.as_str().to_owned(),
        }),
        EventKind::Deposited {
            account,
            currency,
            amount,
        } => Kind::Deposited(Deposited {
            account_id: account.as_str().to_owned(),
            currency_code: currency.as_str().to_owned(),
            amount: amount_text(*amount, currency),
        }),
        EventKind::Withdrawn {
            account,
            currency,
            amount,
        } => Kind::Withdrawn(Withdrawn {
            account_id: account.as_str().to_owned(),
            currency_code: currency.as_str().to_owned(),
            amount: amount_text(*amount, currency),
        }),
        EventKind::TradeOpened { trade, quote } => {
            let instrument = state.instrument(&trade.symbol);
            Kind::TradeOpened(TradeOpened {
                trade: Some(write_trade(trade, instrument)),
                quote: Some(write_quote(quote, instrument)),
            })
        }
        EventKind::TradeModified {
            trade,
            stop_loss,
            take_profit,
            margin_added,
            margin,
            liquidation_price,
            quote,
            ..
        } => {
            let before = state.trade(*trade).expect("a trade that is modified is open");
            let after = Trade {
                stop_loss: *stop_loss,
                take_profit: *take_profit,
                margin: *margin,
                liquidation_price: *liquidation_price,
                ..before.clone()
            };
            let instrument = state.instrument(&after.symbol);
            Kind::TradeModified(TradeModified {
                margin_added: if margin_added.is_zero() {
                    String::new()
                } else {
                    amount_text(*margin_added, &after.currency)
                },
                quote: quote.as_ref().map(|quote| write_quote(quote, instrument)),
                trade: Some(write_trade(&after, instrument)),
            })
        }
        EventKind::TradeReduced(closing) | EventKind::TradeClosed(closing) => {
            let before = state.trade(closing.trade).expect("a trade that is closed was open");
            Kind::TradeClosed(write_closing(before, closing, state.instrument(&closing.symbol)))
        }
    };
    JournalEvent {
        kind: Some(kind),
        lines: event.lines.iter().map(write_line).collect(),
    }
}

/// Reads an encoded `JournalEvent`.
///
/// # Errors
/// [`Unreadable`] names what is missing or malformed.
pub fn read(written: &[u8]) -> Result<Event, Unreadable> {
    let it = borrowed::JournalEvent::read(written)?;
    let kind = if let Some(it) = it.instrument_configured {
        let terms = InstrumentConfigured::decode(it).ok().and_then(|it| it.instrument);
        EventKind::InstrumentConfigured(read_terms(&terms.ok_or_else(|| unreadable("instrument"))?)?)
    } else if let Some(it) = it.wallet_initialized {
        EventKind::WalletInitialized {
            account: account(borrowed::WalletInitialized::read(it)?.account_id)?,
        }
    } else if let Some(it) = it.deposited {
        let it = borrowed::Deposited::read(it)?;
        EventKind::Deposited {
            account: account(it.account_id)?,
            currency: currency(it.currency_code)?,
            amount: amount(it.amount)?,
        }
    } else if let Some(it) = it.withdrawn {
        let it = borrowed::Withdrawn::read(it)?;
        EventKind::Withdrawn {
            account: account(it.account_id)?,
            currency: currency(it.currency_code)?,
            amount: amount(it.amount)?,
        }
    } else if let Some(it) = it.trade_opened {
        let it = borrowed::TradeOpened::read(it)?;
        EventKind::TradeOpened {
            trade: read_trade(it.trade)?,
            quote: read_quote(it.quote)?,
        }
    } else if let Some(it) = it.trade_modified {
        let it = borrowed::TradeModified::read(it)?;
        let trade = read_trade(it.trade)?;
        EventKind::TradeModified {
            account: trade.account,
            trade: trade.id,
            stop_loss: trade.stop_loss,
            take_profit: trade.take_profit,
            margin_added: if it.margin_added.is_empty() {
                Money::ZERO
            } else {
                amount(it.margin_added)?
            },
            margin: trade.margin,
            liquidation_price: trade.liquidation_price,
            quote: it.quote.map(|quote| read_quote(Some(quote))).transpose()?,
        }
    } else if let Some(it) = it.trade_closed {
        let closing = read_closing(it)?;
        if closing.remaining_quantity.is_some() {
            EventKind::TradeReduced(closing)
        } else {
            EventKind::TradeClosed(closing)
        }
    } else {
        return Err(unreadable("kind"));
    };
    let lines = several(written, borrowed::LINES).map(|line| read_line(line?, kind.account()));
    let lines = lines.collect::<Result<_, _>>()?;
    Ok(Event { kind, lines })
}

/// Writes an open trade.
#[must_use]
pub fn write_trade(trade: &Trade, instrument: Option<&Instrument>) -> TradeState {
    let price = |price: Option<Price>| price.map_or_else(String::new, |price| price_text(price, instrument));
    TradeState {
        number: trade.id.get(),
        account_id: trade.account.as_str().to_owned(),
        symbol: trade.symbol.as_str().to_owned(),
        side: write_side(trade.side).into(),
        quantity: quantity_text(Some(trade.quantity), instrument),
        opened_quantity: quantity_text(Some(trade.opened_quantity), instrument),
        entry_price: price(Some(trade.entry_price)),
        leverage: plain(trade.leverage.get()),
        margin: amount_text(trade.margin, &trade.currency),
        currency_code: trade.currency.as_str().to_owned(),
        stop_loss_price: price(trade.stop_loss),
        take_profit_price: price(trade.take_profit),
        liquidation_price: price(trade.liquidation_price),
        maintenance_rate: plain(trade.maintenance_rate.get()),
        opened_at_us: micros(trade.opened_at),
        commission: amount_text(trade.commission, &trade.currency),
        realised_profit: amount_text(trade.realised_profit, &trade.currency),
    }
}

/// The trade as it stands after a closing; its quantity is `"0"` when nothing is left.
#[must_use]
pub fn trade_after(before: &Trade, closing: &TradeClosing, instrument: Option<&Instrument>) -> TradeState {
    let add = |sum: Money, part: Money| sum.checked_add(part).unwrap_or(sum);
    let after = Trade {
        margin: closing.remaining_margin,
        liquidation_price: closing.liquidation_price,
        commission: add(before.commission, closing.commission),
        realised_profit: add(before.realised_profit, closing.realised_profit),
        ..before.clone()
    };
    TradeState {
        quantity: quantity_text(closing.remaining_quantity, instrument),
        ..write_trade(&after, instrument)
    }
}

fn write_closing(before: &Trade, closing: &TradeClosing, instrument: Option<&Instrument>) -> TradeClosed {
    let money = |amount: Money| amount_text(amount, &closing.currency);
    TradeClosed {
        trade: Some(trade_after(before, closing, instrument)),
        reason: write_reason(closing.reason).into(),
        closed_quantity: quantity_text(Some(closing.quantity), instrument),
        close_price: price_text(closing.close_price, instrument),
        released_margin: money(closing.margin_released),
        realised_profit: money(closing.realised_profit),
        gross_profit: money(closing.gross_profit),
        commission: money(closing.commission),
        house_covered: money(closing.house_covered),
        quote: Some(write_quote(&closing.quote, instrument)),
    }
}

fn read_closing(written: &[u8]) -> Result<TradeClosing, Unreadable> {
    let it = borrowed::TradeClosed::read(written)?;
    let after = borrowed::TradeState::read(it.trade.ok_or_else(|| unreadable("trade"))?)?;
    Ok(TradeClosing {
        account: account(after.account_id)?,
        trade: TradeId::new(after.number),
        symbol: symbol(after.symbol)?,
        currency: currency(after.currency_code)?,
        side: read_side(after.side)?,
        reason: read_reason(it.reason)?,
        quantity: number(it.closed_quantity, "closed_quantity", Quantity::parse)?,
        remaining_quantity: if after.quantity == "0" {
            None
        } else {
            Some(number(after.quantity, "quantity", Quantity::parse)?)
        },
        entry_price: number(after.entry_price, "entry_price", Price::parse)?,
        close_price: number(it.close_price, "close_price", Price::parse)?,
        margin_released: amount(it.released_margin)?,
        remaining_margin: amount(after.margin)?,
        liquidation_price: optional_price(after.liquidation_price)?,
        gross_profit: amount(it.gross_profit)?,
        commission: amount(it.commission)?,
        house_covered: amount(it.house_covered)?,
        realised_profit: amount(it.realised_profit)?,
        quote: read_quote(it.quote)?,
    })
}

fn read_trade(written: Option<&[u8]>) -> Result<Trade, Unreadable> {
    let it = borrowed::TradeState::read(written.ok_or_else(|| unreadable("trade"))?)?;
    Ok(Trade {
        id: TradeId::new(it.number),
        account: account(it.account_id)?,
        symbol: symbol(it.symbol)?,
        currency: currency(it.currency_code)?,
        side: read_side(it.side)?,
        quantity: number(it.quantity, "quantity", Quantity::parse)?,
        opened_quantity: number(it.opened_quantity, "opened_quantity", Quantity::parse)?,
        entry_price: number(it.entry_price, "entry_price", Price::parse)?,
        margin: amount(it.margin)?,
        leverage: number(it.leverage, "leverage", Leverage::parse)?,
        stop_loss: optional_price(it.stop_loss_price)?,
        take_profit: optional_price(it.take_profit_price)?,
        liquidation_price: optional_price(it.liquidation_price)?,
        maintenance_rate: number(it.maintenance_rate, "maintenance_rate", Rate::parse)?,
        commission: amount(it.commission)?,
        realised_profit: amount(it.realised_profit)?,
        opened_at: moment(it.opened_at_us.0),
    })
}

/// Writes the quote that something was executed at.
#[must_use]
pub fn write_quote(quote: &TradableQuote, instrument: Option<&Instrument>) -> QuoteUsed {
    QuoteUsed {
        symbol: quote.symbol.as_str().to_owned(),
        bid: price_text(quote.bid, instrument),
        ask: price_text(quote.ask, instrument),
        venue_bid: plain(quote.venue_bid.get()),
        venue_ask: plain(quote.venue_ask.get()),
        venue_time_us: micros(quote.venue_time),
        update_id: quote.update_id,
    }
}

fn read_quote(written: Option<&[u8]>) -> Result<TradableQuote, Unreadable> {
    let it = borrowed::QuoteUsed::read(written.ok_or_else(|| unreadable("quote"))?)?;
    Ok(TradableQuote {
        symbol: symbol(it.symbol)?,
        bid: number(it.bid, "bid", Price::parse)?,
        ask: number(it.ask, "ask", Price::parse)?,
        venue_bid: number(it.venue_bid, "venue_bid", Price::parse)?,
        venue_ask: number(it.venue_ask, "venue_ask", Price::parse)?,
        venue_time: moment(it.venue_time_us.0),
        update_id: it.update_id,
    })
}

/// Writes an instrument's terms.
#[must_use]
pub fn write_terms(it: &Instrument) -> InstrumentTerms {
    InstrumentTerms {
        instrument: Some(v1::Instrument {
            symbol: it.symbol.as_str().to_owned(),
            base_currency_code: it.base.as_str().to_owned(),
            quote_currency_code: it.quote.as_str().to_owned(),
            tick_size: plain(it.tick.get()),
            step_size: plain(it.step.get()),
            quantity_min: plain(it.quantity_min.get()),
            quantity_max: plain(it.quantity_max.get()),
            leverage_min: plain(it.leverage_min.get()),
            leverage_max: plain(it.leverage_max.get()),
            margin_min: amount_text(it.margin_min, &it.quote),
            spread_markup_bps: it.spread_markup_bps,
            maintenance_rate: plain(it.maintenance_rate.get()),
            commission_rate: plain(it.commission_rate.get()),
            stale_soft_age: Some(duration(it.stale_soft_us)),
            stale_hard_age: Some(duration(it.stale_hard_us)),
            exposure_max: amount_text(it.exposure_max, &it.quote),
            mode: match it.mode {
                TradingMode::Enabled => v1::TradingMode::Enabled,
                TradingMode::CloseOnly => v1::TradingMode::CloseOnly,
                TradingMode::Halted => v1::TradingMode::Halted,
            }
            .into(),
        }),
        leverage_step: plain(it.leverage_step.get()),
        band_bps: it.band_bps,
    }
}

/// Reads an instrument's terms, from the journal or from a catalogue.
///
/// # Errors
/// [`Unreadable`] names what is missing or malformed.
pub fn read_terms(terms: &InstrumentTerms) -> Result<Instrument, Unreadable> {
    let it = terms.instrument.as_ref().ok_or_else(|| unreadable("instrument"))?;
    Ok(Instrument {
        symbol: symbol(&it.symbol)?,
        base: currency(&it.base_currency_code)?,
        quote: currency(&it.quote_currency_code)?,
        tick: number(&it.tick_size, "tick_size", Price::parse)?,
        step: number(&it.step_size, "step_size", Quantity::parse)?,
        quantity_min: number(&it.quantity_min, "quantity_min", Quantity::parse)?,
        quantity_max: number(&it.quantity_max, "quantity_max", Quantity::parse)?,
        leverage_min: number(&it.leverage_min, "leverage_min", Leverage::parse)?,
        leverage_max: number(&it.leverage_max, "leverage_max", Leverage::parse)?,
        leverage_step: number(&terms.leverage_step, "leverage_step", Leverage::parse)?,
        margin_min: amount(&it.margin_min)?,
        spread_markup_bps: it.spread_markup_bps,
        maintenance_rate: number(&it.maintenance_rate, "maintenance_rate", Rate::parse)?,
        commission_rate: number(&it.commission_rate, "commission_rate", Rate::parse)?,
        stale_soft_us: duration_us(it.stale_soft_age.as_ref()),
        stale_hard_us: duration_us(it.stale_hard_age.as_ref()),
        band_bps: terms.band_bps,
        exposure_max: amount(&it.exposure_max)?,
        mode: match it.mode() {
            v1::TradingMode::Enabled => TradingMode::Enabled,
            v1::TradingMode::CloseOnly => TradingMode::CloseOnly,
            v1::TradingMode::Halted => TradingMode::Halted,
            v1::TradingMode::Unspecified => return Err(unreadable("mode")),
        },
    })
}

fn write_line(line: &LedgerLine) -> JournalLine {
    let (kind, owner) = match &line.account {
        LedgerAccount::Client(account) => (LedgerAccountKind::Client, account.as_str().to_owned()),
        LedgerAccount::Margin(account) => (LedgerAccountKind::Margin, account.as_str().to_owned()),
        LedgerAccount::House => (LedgerAccountKind::House, String::new()),
        LedgerAccount::Fee => (LedgerAccountKind::Fee, String::new()),
        LedgerAccount::Cash => (LedgerAccountKind::Cash, String::new()),
    };
    JournalLine {
        ledger_account: kind.into(),
        account_id: owner,
        currency_code: line.currency.as_str().to_owned(),
        amount: amount_text(line.amount, &line.currency),
    }
}

/// `owner` is the account that the event is about: its lines are mostly on it, and share the text of its id.
fn read_line(written: &[u8], owner: Option<&AccountId>) -> Result<LedgerLine, Unreadable> {
    let line = borrowed::JournalLine::read(written)?;
    let client = || match owner {
        Some(owner) if owner.as_str() == line.account_id => Ok(owner.clone()),
        _ => account(line.account_id),
    };
    let ledger_account = match LedgerAccountKind::try_from(line.ledger_account) {
        Ok(LedgerAccountKind::Client) => LedgerAccount::Client(client()?),
        Ok(LedgerAccountKind::Margin) => LedgerAccount::Margin(client()?),
        Ok(LedgerAccountKind::House) => LedgerAccount::House,
        Ok(LedgerAccountKind::Fee) => LedgerAccount::Fee,
        Ok(LedgerAccountKind::Cash) => LedgerAccount::Cash,
        Ok(LedgerAccountKind::Unspecified) | Err(_) => return Err(unreadable("ledger_account")),
    };
    Ok(LedgerLine {
        account: ledger_account,
        currency: currency(line.currency_code)?,
        amount: amount(line.amount)?,
    })
}

/// The side on the wire.
#[must_use]
pub fn write_side(side: Side) -> v1::Side {
    match side {
        Side::Long => v1::Side::Long,
        Side::Short => v1::Side::Short,
    }
}

fn read_side(side: i32) -> Result<Side, Unreadable> {
    match v1::Side::try_from(side) {
        Ok(v1::Side::Long) => Ok(Side::Long),
        Ok(v1::Side::Short) => Ok(Side::Short),
        Ok(v1::Side::Unspecified) | Err(_) => Err(unreadable("side")),
    }
}

/// The reason on the wire.
#[must_use]
pub fn write_reason(reason: CloseReason) -> v1::CloseReason {
    match reason {
        CloseReason::Client => v1::CloseReason::Client,
        CloseReason::StopLoss => v1::CloseReason::StopLoss,
        CloseReason::TakeProfit => v1::CloseReason::TakeProfit,
        CloseReason::Liquidation => v1::CloseReason::Liquidation,
    }
}

fn read_reason(reason: i32) -> Result<CloseReason, Unreadable> {
    match v1::CloseReason::try_from(reason) {
        Ok(v1::CloseReason::Client) => Ok(CloseReason::Client),
        Ok(v1::CloseReason::StopLoss) => Ok(CloseReason::StopLoss),
        Ok(v1::CloseReason::TakeProfit) => Ok(CloseReason::TakeProfit),
        Ok(v1::CloseReason::Liquidation) => Ok(CloseReason::Liquidation),
        Ok(v1::CloseReason::Unspecified) | Err(_) => Err(unreadable("reason")),
    }
}

fn number<T, E: std::fmt::Display>(
    text: &str,
    what: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Unreadable> {
    parse(text).map_err(|cause| unreadable(format!("{what} {text:?}: {cause}")))
}

fn amount(text: &str) -> Result<Money, Unreadable> {
    number(text, "amount", Money::parse)
}

fn optional_price(text: &str) -> Result<Option<Price>, Unreadable> {
    if text.is_empty() {
        Ok(None)
    } else {
        number(text, "price", Price::parse).map(Some)
    }
}

fn account(text: &str) -> Result<AccountId, Unreadable> {
    number(text, "account", AccountId::new)
}

fn symbol(text: &str) -> Result<Symbol, Unreadable> {
    number(text, "symbol", Symbol::new)
}

fn currency(text: &str) -> Result<Currency, Unreadable> {
    number(text, "currency", Currency::new)
}
