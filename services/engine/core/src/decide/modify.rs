//! Moving a stop-loss or take-profit, and adding margin.

use super::{
    balanced, check_amount, check_on_tick, check_stop_loss, check_take_profit, invalid, line, liquidation_price,
    own_trade, too_large,
};
use crate::command::Change;
use crate::event::{Event, EventKind, LedgerAccount};
use crate::ids::{AccountId, TradeId};
use crate::market::Market;
use crate::money::{Money, Price};
use crate::refusal::{InvalidProblem, Refusal};
use crate::state::State;
use crate::time::Timestamp;

/// None of it adds risk, so it is allowed in every trading mode. Only a new stop-loss or take-profit needs a price,
/// to be on the right side of; taking one away and adding margin work while the feed is down.
pub(super) fn modify(
    state: &State,
    market: &Market,
    at: Timestamp,
    account: &AccountId,
    id: TradeId,
    (stop_loss, take_profit): (Change<Price>, Change<Price>),
    add_margin: Option<Money>,
) -> Result<Event, Refusal> {
    let trade = own_trade(state, account, id)?;
    let unknown = || Refusal::SymbolUnknown {
        symbol: trade.symbol.clone(),
    };
    let instrument = state.instrument(&trade.symbol).ok_or_else(unknown)?;
    if stop_loss == Change::Keep && take_profit == Change::Keep && add_margin.is_none() {
        return Err(invalid("trade", InvalidProblem::NothingToChange));
    }

    let added = add_margin.unwrap_or(Money::ZERO);
    let (mut margin, mut liquidation) = (trade.margin, trade.liquidation_price);
    if add_margin.is_some() {
        check_amount("add_margin", added, &trade.currency)?;
        let free = state
            .account(account)
            .map_or(Money::ZERO, |owner| owner.free(&trade.currency));
        if added > free {
            return Err(Refusal::InsufficientMargin {
                needed: added,
                free,
                currency: trade.currency.clone(),
            });
        }
        margin = margin.checked_add(added).ok_or_else(|| too_large("add_margin"))?;
        let (side, entry, rate) = (trade.side, trade.entry_price, trade.maintenance_rate);
        liquidation = liquidation_price(instrument, side, entry, trade.quantity, margin, rate)
            .map_err(|_| too_large("add_margin"))?;
    }

    let set = |change| match change {
        Change::Set(price) => Some(price),
        Change::Keep | Change::Clear => None,
    };
    let (new_stop_loss, new_take_profit) = (set(stop_loss), set(take_profit));
    check_on_tick(instrument, "stop_loss", new_stop_loss)?;
    check_on_tick(instrument, "take_profit", new_take_profit)?;
    let mut used = None;
    if new_stop_loss.is_some() || new_take_profit.is_some() {
        let quote = market.to_close(instrument, at)?;
        check_stop_loss(trade.side, new_stop_loss, liquidation, &quote)?;
        check_take_profit(trade.side, new_take_profit, &quote)?;
        used = Some(quote);
    }

    let mut lines = Vec::new();
    if added.is_positive() {
        lines.push(line(
            LedgerAccount::Client(account.clone()),
            &trade.currency,
            added.negated(),
        ));
        lines.push(line(LedgerAccount::Margin(account.clone()), &trade.currency, added));
    }
    let kind = EventKind::TradeModified {
        account: account.clone(),
        trade: id,
        stop_loss: stop_loss.over(trade.stop_loss),
        take_profit: take_profit.over(trade.take_profit),
        margin_added: added,
        margin,
        liquidation_price: liquidation,
        quote: used,
    };
    Ok(balanced(kind, lines))
}
