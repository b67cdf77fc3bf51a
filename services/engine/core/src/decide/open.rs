//! Opening a trade.

use rust_decimal::Decimal;

use super::{
    balanced, check_amount, check_on_tick, check_stop_loss, check_take_profit, commission, exponent_of, invalid,
    is_against, line, liquidation_price, too_large,
};
use crate::command::{OpenTrade, Size, SlippageBound};
use crate::event::{Event, EventKind, LedgerAccount};
use crate::grid;
use crate::instrument::{Instrument, TradingMode};
use crate::market::Market;
use crate::money::{Leverage, Money, Price, Quantity};
use crate::refusal::{InvalidProblem, Refusal};
use crate::state::State;
use crate::time::Timestamp;
use crate::trade::{Side, Trade};

/// What is wrong with the order itself is said before what is wrong with the market, and money comes last.
pub(super) fn open(state: &State, market: &Market, at: Timestamp, order: &OpenTrade) -> Result<Event, Refusal> {
    let OpenTrade {
        account,
        symbol,
        side,
        size,
        leverage,
        stop_loss,
        take_profit,
        slippage,
    } = order;
    let unknown = || Refusal::AccountNotFound {
        account: account.clone(),
    };
    let (owner, held) = state.holding(account, symbol).ok_or_else(unknown)?;
    let unknown = || Refusal::SymbolUnknown { symbol: symbol.clone() };
    let instrument = state.instrument(symbol).ok_or_else(unknown)?;
    let (side, currency, exponent) = (*side, &instrument.quote, exponent_of(&instrument.quote)?);

    check_leverage(instrument, *leverage)?;
    match *size {
        Size::Margin(margin) => check_amount("margin", margin, currency)?,
        Size::Quantity(quantity) => check_quantity(instrument, quantity)?,
    }
    check_on_tick(instrument, "stop_loss", *stop_loss)?;
    check_on_tick(instrument, "take_profit", *take_profit)?;

    if instrument.mode != TradingMode::Enabled {
        return Err(Refusal::MarketClosed {
            symbol: symbol.clone(),
            mode: instrument.mode,
        });
    }
    let quote = market.to_open(instrument, at)?;
    let entry = side.opening(&quote);
    if let Some(bound) = slippage {
        check_slippage(side, *bound, entry)?;
    }

    let (quantity, margin) = match *size {
        Size::Margin(margin) => (quantity_for(instrument, margin, *leverage, entry)?, margin),
        Size::Quantity(quantity) => (quantity, margin_for(quantity, *leverage, entry, exponent)?),
    };
    if margin < instrument.margin_min || !margin.is_positive() {
        let field = if matches!(size, Size::Margin(_)) {
            "margin"
        } else {
            "quantity"
        };
        return Err(invalid(
            field,
            InvalidProblem::MarginBelowMinimum {
                margin,
                min: instrument.margin_min,
            },
        ));
    }
    check_exposure(instrument, held, quantity, entry)?;

    let rate = instrument.maintenance_rate;
    let liquidation =
        liquidation_price(instrument, side, entry, quantity, margin, rate).map_err(|_| too_large("quantity"))?;
    let closing = side.closing(&quote);
    if liquidation.is_some_and(|trigger| is_against(side, closing, trigger)) {
        return Err(invalid("leverage", InvalidProblem::LiquidatedAtOnce { price: closing }));
    }
    check_stop_loss(side, *stop_loss, liquidation, &quote)?;
    check_take_profit(side, *take_profit, &quote)?;

    let fee = commission(instrument.commission_rate, entry, quantity, exponent).map_err(|_| too_large("quantity"))?;
    let needed = margin.checked_add(fee).ok_or_else(|| too_large("margin"))?;
    let free = owner.free(currency);
    if needed > free {
        return Err(Refusal::InsufficientMargin {
            needed,
            free,
            currency: currency.clone(),
        });
    }

    let mut lines = Vec::with_capacity(3);
    lines.push(line(LedgerAccount::Client(account.clone()), currency, needed.negated()));
    lines.push(line(LedgerAccount::Margin(account.clone()), currency, margin));
    if fee.is_positive() {
        lines.push(line(LedgerAccount::Fee, currency, fee));
    }
    let trade = Trade {
        id: state.next_trade_id(),
        account: account.clone(),
        symbol: symbol.clone(),
        currency: currency.clone(),
        side,
        quantity,
        opened_quantity: quantity,
        entry_price: entry,
        margin,
        leverage: *leverage,
        stop_loss: *stop_loss,
        take_profit: *take_profit,
        liquidation_price: liquidation,
        maintenance_rate: rate,
        commission: fee,
        realised_profit: Money::ZERO,
        opened_at: at,
    };
    Ok(balanced(EventKind::TradeOpened { trade, quote }, lines))
}

fn check_leverage(instrument: &Instrument, leverage: Leverage) -> Result<(), Refusal> {
    if leverage < instrument.leverage_min || leverage > instrument.leverage_max {
        let (min, max) = (instrument.leverage_min.get(), instrument.leverage_max.get());
        return Err(invalid("leverage", InvalidProblem::OutOfRange { min, max }));
    }
    let step = instrument.leverage_step.get();
    match grid::exact(leverage.get(), step) {
        Some(_) => Ok(()),
        None => Err(invalid("leverage", InvalidProblem::OffStep { step })),
    }
}

fn check_quantity(instrument: &Instrument, quantity: Quantity) -> Result<(), Refusal> {
    if quantity < instrument.quantity_min || quantity > instrument.quantity_max {
        let (min, max) = (instrument.quantity_min.get(), instrument.quantity_max.get());
        return Err(invalid("quantity", InvalidProblem::OutOfRange { min, max }));
    }
    let step = instrument.step.get();
    match grid::exact(quantity.get(), step) {
        Some(_) => Ok(()),
        None => Err(invalid("quantity", InvalidProblem::OffStep { step })),
    }
}

/// Refuses a price worse than the client accepts; a better one is a gift.
fn check_slippage(side: Side, bound: SlippageBound, actual: Price) -> Result<(), Refusal> {
    let expected = bound.expected;
    let (from, to) = match side {
        Side::Long => (expected, actual),
        Side::Short => (actual, expected),
    };
    let worse = to.get().checked_sub(from.get()).ok_or_else(|| too_large("slippage"))?;
    if worse <= Decimal::ZERO {
        return Ok(());
    }
    let scaled = worse
        .checked_mul(Decimal::from(10_000))
        .ok_or_else(|| too_large("slippage"))?;
    let deviation = grid::ceil(scaled, expected.get())
        .and_then(|bps| u64::try_from(bps).ok())
        .unwrap_or(u64::MAX);
    if deviation > u64::from(bound.deviation_max_bps) {
        return Err(Refusal::PriceMoved {
            expected,
            actual,
            deviation_bps: deviation,
        });
    }
    Ok(())
}

/// What a margin buys: margin × leverage ÷ entry, floored to the step in one exact division.
fn quantity_for(instrument: &Instrument, margin: Money, leverage: Leverage, entry: Price) -> Result<Quantity, Refusal> {
    let (step, min, max) = (
        instrument.step.get(),
        instrument.quantity_min.get(),
        instrument.quantity_max.get(),
    );
    let steps = || {
        grid::floor(
            margin.get().checked_mul(leverage.get())?,
            entry.get().checked_mul(step)?,
        )
    };
    let quantity = steps()
        .and_then(|steps| grid::value(steps, step))
        .ok_or_else(|| too_large("margin"))?;
    if quantity < min || quantity > max {
        return Err(invalid(
            "margin",
            InvalidProblem::BuysOutOfRange {
                quantity,
                price: entry,
                min,
                max,
            },
        ));
    }
    Quantity::new(quantity).map_err(|_| too_large("margin"))
}

/// What a quantity locks: quantity × entry ÷ leverage, rounded half to even to the currency.
fn margin_for(quantity: Quantity, leverage: Leverage, entry: Price, exponent: u32) -> Result<Money, Refusal> {
    let margin = || quantity.get().checked_mul(entry.get())?.checked_div(leverage.get());
    margin()
        .map(|margin| Money::new(margin).rounded(exponent))
        .ok_or_else(|| too_large("quantity"))
}

fn check_exposure(instrument: &Instrument, held: Money, quantity: Quantity, entry: Price) -> Result<(), Refusal> {
    let notional = quantity
        .get()
        .checked_mul(entry.get())
        .map(Money::new)
        .ok_or_else(|| too_large("quantity"))?;
    let would_be = held.checked_add(notional).ok_or_else(|| too_large("quantity"))?;
    if would_be > instrument.exposure_max {
        let (symbol, limit) = (instrument.symbol.clone(), instrument.exposure_max);
        return Err(Refusal::MaxExposureReached {
            symbol,
            would_be,
            limit,
        });
    }
    Ok(())
}
