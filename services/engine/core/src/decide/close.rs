//! Closing a trade, whole or in part, by its owner or by a trigger. One function moves the money for all of them.

use super::{balanced, commission, invalid, line, liquidation_price, own_trade, too_large};
use crate::command::Portion;
use crate::currency;
use crate::event::{CloseReason, Event, EventKind, LedgerAccount, TradeClosing};
use crate::formula::{self, TooLarge};
use crate::grid;
use crate::ids::{AccountId, TradeId};
use crate::instrument::{Instrument, TradingMode};
use crate::market::Market;
use crate::money::{Money, Quantity};
use crate::quote::TradableQuote;
use crate::refusal::{InvalidProblem, Refusal};
use crate::state::State;
use crate::time::Timestamp;
use crate::trade::Trade;

pub(super) fn close(
    state: &State,
    market: &Market,
    at: Timestamp,
    account: &AccountId,
    id: TradeId,
    portion: Portion,
) -> Result<Event, Refusal> {
    let trade = own_trade(state, account, id)?;
    let unknown = || Refusal::SymbolUnknown {
        symbol: trade.symbol.clone(),
    };
    let instrument = state.instrument(&trade.symbol).ok_or_else(unknown)?;
    let quantity = quantity_of(trade, instrument, portion)?;
    if instrument.mode == TradingMode::Halted {
        return Err(Refusal::MarketClosed {
            symbol: trade.symbol.clone(),
            mode: instrument.mode,
        });
    }
    let quote = market.to_close(instrument, at)?;
    let event = settle(trade, instrument, quote, CloseReason::Client, quantity).map_err(|_| too_large("quantity"))?;
    match &event.kind {
        // A part so large that rounding leaves the rest without a cent of margin.
        EventKind::TradeReduced(closing) if !closing.remaining_margin.is_positive() => {
            let rest = closing.remaining_quantity.map_or_else(Default::default, Quantity::get);
            let min = instrument.quantity_min.get();
            Err(invalid("portion", InvalidProblem::RemainderTooSmall { rest, min }))
        }
        _ => Ok(event),
    }
}

/// How much a portion is: on the step, neither it nor what it leaves below the least quantity.
fn quantity_of(trade: &Trade, instrument: &Instrument, portion: Portion) -> Result<Quantity, Refusal> {
    let (open, step, min) = (
        trade.quantity.get(),
        instrument.step.get(),
        instrument.quantity_min.get(),
    );
    let part = match portion {
        Portion::All => return Ok(trade.quantity),
        Portion::Quantity(quantity) if grid::exact(quantity.get(), step).is_none() => {
            return Err(invalid("quantity", InvalidProblem::OffStep { step }));
        }
        Portion::Quantity(quantity) => quantity.get(),
        Portion::Percent(percent) => {
            let hundredfold = step.checked_mul(100.into());
            let steps = || grid::floor(open.checked_mul(percent.get())?, hundredfold?);
            steps()
                .and_then(|steps| grid::value(steps, step))
                .ok_or_else(|| too_large("percent"))?
        }
    };
    let field = if matches!(portion, Portion::Percent(_)) {
        "percent"
    } else {
        "quantity"
    };
    let rest = open.checked_sub(part).ok_or_else(|| too_large(field))?;
    if part > open {
        return Err(invalid(field, InvalidProblem::MoreThanOpen { open }));
    }
    if rest.is_zero() {
        return Ok(trade.quantity);
    }
    if part < min {
        return Err(invalid(field, InvalidProblem::PartTooSmall { part, min }));
    }
    if rest < min {
        return Err(invalid(field, InvalidProblem::RemainderTooSmall { rest, min }));
    }
    Quantity::new(part).map_err(|_| invalid(field, InvalidProblem::PartTooSmall { part, min }))
}

/// Works out one closing at a quote. The owner gets the margin back with the profit or less the loss and the
/// commission; a loss beyond the margin is the house's.
pub(crate) fn settle(
    trade: &Trade,
    instrument: &Instrument,
    quote: TradableQuote,
    reason: CloseReason,
    quantity: Quantity,
) -> Result<Event, TooLarge> {
    let exponent = currency::exponent(&trade.currency).ok_or(TooLarge)?;
    let price = trade.side.closing(&quote);
    let gross = formula::profit(trade.side, trade.entry_price.get(), price.get(), quantity.get()).ok_or(TooLarge)?;
    let gross_profit = Money::new(gross).rounded(exponent);

    let rest = trade.quantity.get().checked_sub(quantity.get()).ok_or(TooLarge)?;
    let remaining_quantity = Quantity::new(rest).ok();
    let share = match remaining_quantity {
        None => trade.margin,
        Some(_) => {
            let part = trade.margin.get().checked_mul(quantity.get()).ok_or(TooLarge)?;
            Money::new(part.checked_div(trade.quantity.get()).ok_or(TooLarge)?).rounded(exponent)
        }
    };
    // The whole margin of a trade stands behind each part of it: a part that lost more than its own share takes from
    // what would stay locked before it takes from the house.
    let lacking = share
        .checked_add(gross_profit)
        .ok_or(TooLarge)?
        .negated()
        .max(Money::ZERO);
    let left = trade.margin.checked_sub(share).ok_or(TooLarge)?;
    let margin_released = share.checked_add(lacking.min(left)).ok_or(TooLarge)?;
    let remaining_margin = trade.margin.checked_sub(margin_released).ok_or(TooLarge)?;

    // Never below zero: what is missing, the house pays.
    let result = margin_released.checked_add(gross_profit).ok_or(TooLarge)?;
    let house_covered = result.negated().max(Money::ZERO);
    let before_commission = result.max(Money::ZERO);
    let due = commission(instrument.commission_rate, price, quantity, exponent)?;
    let commission = due.min(before_commission);
    let paid_out = before_commission.checked_sub(commission).ok_or(TooLarge)?;
    let realised_profit = paid_out.checked_sub(margin_released).ok_or(TooLarge)?;

    let currency = &trade.currency;
    // The other side of the trade, less what it forgave: a client's loss is the house's gain.
    let house = gross_profit.checked_add(house_covered).ok_or(TooLarge)?.negated();
    let mut lines = Vec::with_capacity(4);
    lines.push(line(
        LedgerAccount::Margin(trade.account.clone()),
        currency,
        margin_released.negated(),
    ));
    let others = [
        (LedgerAccount::Client(trade.account.clone()), paid_out),
        (LedgerAccount::House, house),
        (LedgerAccount::Fee, commission),
    ];
    lines.extend(
        others
            .into_iter()
            .filter(|(_, amount)| !amount.is_zero())
            .map(|(account, amount)| line(account, currency, amount)),
    );

    let liquidation_price = match remaining_quantity {
        None => None,
        Some(rest) => {
            let (side, entry, rate) = (trade.side, trade.entry_price, trade.maintenance_rate);
            liquidation_price(instrument, side, entry, rest, remaining_margin, rate)?
        }
    };
    let closing = TradeClosing {
        account: trade.account.clone(),
        trade: trade.id,
        symbol: trade.symbol.clone(),
        currency: currency.clone(),
        side: trade.side,
        reason,
        quantity,
        remaining_quantity,
        entry_price: trade.entry_price,
        close_price: price,
        margin_released,
        remaining_margin,
        liquidation_price,
        gross_profit,
        commission,
        house_covered,
        realised_profit,
        quote,
    };
    let kind = match remaining_quantity {
        None => EventKind::TradeClosed(closing),
        Some(_) => EventKind::TradeReduced(closing),
    };
    Ok(balanced(kind, lines))
}
