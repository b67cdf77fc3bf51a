//! The rules: one command in, events or a refusal out. All of it happens or none of it.
//!
//! One file a command below. Each works out everything that can refuse, then writes its events; none changes the
//! state, so the same command may be decided as often as one likes.

use crate::command::Command;
use crate::currency;
use crate::event::{Event, EventKind, LedgerAccount, LedgerLine};
use crate::formula::{Position, TooLarge, liquidation_ticks};
use crate::grid;
use crate::ids::{AccountId, Currency, TradeId};
use crate::instrument::Instrument;
use crate::market::Market;
use crate::money::{Money, Price, Quantity, Rate};
use crate::quote::TradableQuote;
use crate::refusal::{InvalidProblem, Refusal};
use crate::state::State;
use crate::time::Timestamp;
use crate::trade::{Side, Trade};

pub(crate) mod close;
mod configure;
mod modify;
mod open;
mod wallet;

/// Largest amount of one deposit or of one added margin. Far beyond any wallet, and low enough that balances stay
/// exact for as many of them as there will ever be.
const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// Decides one command, all of it or none of it. `at` comes from the caller: a replay sees yesterday's clock.
///
/// An empty answer means that nothing had to be done, as for a wallet that is there already.
pub fn decide(state: &State, market: &Market, at: Timestamp, command: &Command) -> Result<Vec<Event>, Refusal> {
    let event = match command {
        Command::InitializeWallet { account } => match wallet::initialize(state, account) {
            Some(event) => event,
            None => return Ok(Vec::new()),
        },
        Command::Deposit {
            account,
            currency,
            amount,
        } => wallet::deposit(state, account, currency, *amount)?,
        Command::Withdraw {
            account,
            currency,
            amount,
        } => wallet::withdraw(state, account, currency, *amount)?,
        Command::OpenTrade(order) => open::open(state, market, at, order)?,
        Command::CloseTrade {
            account,
            trade,
            portion,
        } => close::close(state, market, at, account, *trade, *portion)?,
        Command::ModifyTrade {
            account,
            trade,
            stop_loss,
            take_profit,
            add_margin,
        } => modify::modify(
            state,
            market,
            at,
            account,
            *trade,
            (*stop_loss, *take_profit),
            *add_margin,
        )?,
        Command::ConfigureInstrument(instrument) => configure::configure(state, instrument)?,
    };
    Ok(vec![event])
}

/// Makes an event, and holds it to the first promise: its lines sum to zero.
///
/// A violation is a bug in these files. Stopping before it is written is then the only right answer.
pub(crate) fn balanced(kind: EventKind, lines: Vec<LedgerLine>) -> Event {
    let event = Event { kind, lines };
    assert!(event.is_balanced(), "the lines of an event must sum to zero: {event:?}");
    event
}

fn line(account: LedgerAccount, currency: &Currency, amount: Money) -> LedgerLine {
    LedgerLine {
        account,
        currency: currency.clone(),
        amount,
    }
}

fn invalid(field: &'static str, problem: InvalidProblem) -> Refusal {
    Refusal::Invalid { field, problem }
}

fn too_large(field: &'static str) -> Refusal {
    invalid(field, InvalidProblem::TooLarge)
}

/// Holds an amount to be positive, of the currency's decimals and of a size that stays exact.
fn check_amount(field: &'static str, amount: Money, currency: &Currency) -> Result<(), Refusal> {
    let unknown = || Refusal::CurrencyUnknown {
        currency: currency.clone(),
    };
    let max = currency::exponent(currency).ok_or_else(unknown)?;
    if !amount.is_positive() {
        return Err(invalid(field, InvalidProblem::NotPositive));
    }
    if !amount.fits(max) {
        return Err(invalid(
            field,
            InvalidProblem::TooManyDecimals {
                max,
                currency: currency.clone(),
            },
        ));
    }
    if amount.get() > AMOUNT_MAX.into() {
        return Err(too_large(field));
    }
    Ok(())
}

/// The decimals of an instrument's settlement currency.
fn exponent_of(currency: &Currency) -> Result<u32, Refusal> {
    currency::exponent(currency).ok_or_else(|| Refusal::CurrencyUnknown {
        currency: currency.clone(),
    })
}

/// An account's own open trade. Of another's it learns nothing, not even that it exists.
fn own_trade<'a>(state: &'a State, account: &AccountId, id: TradeId) -> Result<&'a Trade, Refusal> {
    let owner = state.account(account).ok_or_else(|| Refusal::AccountNotFound {
        account: account.clone(),
    })?;
    match state.trade(id) {
        Some(trade) if trade.account == *account => Ok(trade),
        _ if owner.recently_closed.contains(&id) => Err(Refusal::TradeClosed { trade: id }),
        _ => Err(Refusal::TradeNotFound { trade: id }),
    }
}

/// The share of a notional, rounded once: what a commission is.
fn commission(rate: Rate, price: Price, quantity: Quantity, exponent: u32) -> Result<Money, TooLarge> {
    if rate == Rate::ZERO {
        return Ok(Money::ZERO);
    }
    let notional = quantity.get().checked_mul(price.get()).ok_or(TooLarge)?;
    notional
        .checked_mul(rate.get())
        .map(|share| Money::new(share).rounded(exponent))
        .ok_or(TooLarge)
}

/// The first price of the grid at which such a trade is liquidated.
fn liquidation_price(
    instrument: &Instrument,
    side: Side,
    entry: Price,
    quantity: Quantity,
    margin: Money,
    maintenance_rate: Rate,
) -> Result<Option<Price>, TooLarge> {
    let (tick, step) = (instrument.tick.get(), instrument.step.get());
    let position = Position {
        side,
        entry_ticks: grid::exact(entry.get(), tick).ok_or(TooLarge)?,
        steps: grid::exact(quantity.get(), step).ok_or(TooLarge)?,
        tick,
        step,
        margin,
        maintenance_rate: maintenance_rate.get(),
    };
    let ticks = liquidation_ticks(&position)?;
    let price = |ticks| {
        grid::value(ticks, tick)
            .and_then(|value| Price::new(value).ok())
            .ok_or(TooLarge)
    };
    ticks.map(price).transpose()
}

/// Whether a closing price is at or past a trigger that fires when the price goes against the trade.
fn is_against(side: Side, price: Price, trigger: Price) -> bool {
    match side {
        Side::Long => price <= trigger,
        Side::Short => price >= trigger,
    }
}

/// Holds a stop-loss and a take-profit to the grid.
fn check_on_tick(instrument: &Instrument, field: &'static str, price: Option<Price>) -> Result<(), Refusal> {
    match price {
        Some(price) if grid::exact(price.get(), instrument.tick.get()).is_none() => {
            Err(invalid(field, InvalidProblem::OffTick { tick: instrument.tick }))
        }
        _ => Ok(()),
    }
}

/// Holds a new stop-loss to be worse than the closing price now, or it would fire at once, and not beyond the
/// liquidation price, or it never would. At the liquidation price it is allowed: the stop-loss fires first.
fn check_stop_loss(
    side: Side,
    stop_loss: Option<Price>,
    liquidation_price: Option<Price>,
    quote: &TradableQuote,
) -> Result<(), Refusal> {
    let Some(stop_loss) = stop_loss else { return Ok(()) };
    let price = side.closing(quote);
    if is_against(side, price, stop_loss) {
        let side = if side == Side::Long { "below" } else { "above" };
        return Err(invalid("stop_loss", InvalidProblem::WrongSide { side, price }));
    }
    match liquidation_price {
        Some(liquidation_price) if stop_loss != liquidation_price && is_against(side, stop_loss, liquidation_price) => {
            Err(invalid(
                "stop_loss",
                InvalidProblem::BeyondLiquidation { liquidation_price },
            ))
        }
        _ => Ok(()),
    }
}

/// Holds a new take-profit to be better than the closing price now, or it would fire at once.
fn check_take_profit(side: Side, take_profit: Option<Price>, quote: &TradableQuote) -> Result<(), Refusal> {
    let Some(take_profit) = take_profit else { return Ok(()) };
    let price = side.closing(quote);
    let at_once = match side {
        Side::Long => price >= take_profit,
        Side::Short => price <= take_profit,
    };
    if at_once {
        let side = if side == Side::Long { "above" } else { "below" };
        return Err(invalid("take_profit", InvalidProblem::WrongSide { side, price }));
    }
    Ok(())
}
