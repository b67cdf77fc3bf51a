//! Orders to the core. Every number in them already has its type; what the rules think of it is for [`mod@crate::decide`].

use crate::ids::{AccountId, Currency, Symbol, TradeId};
use crate::instrument::Instrument;
use crate::money::{Leverage, Money, Percent, Price, Quantity};
use crate::trade::Side;

/// What a caller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens a demo wallet with 5,000.00 USDC. Doing it again does nothing and is no error.
    InitializeWallet {
        /// Whose.
        account: AccountId,
    },
    /// Adds money from outside to the free cash.
    Deposit {
        /// Whose.
        account: AccountId,
        /// Of which currency.
        currency: Currency,
        /// How much; greater than zero, with no more decimals than the currency has.
        amount: Money,
    },
    /// Takes free cash out. Locked margin cannot be withdrawn.
    Withdraw {
        /// Whose.
        account: AccountId,
        /// Of which currency.
        currency: Currency,
        /// How much; greater than zero, with no more decimals than the currency has.
        amount: Money,
    },
    /// Opens a trade at the current quote.
    OpenTrade(OpenTrade),
    /// Closes all or part of a trade at the current quote.
    CloseTrade {
        /// Whose; another account's trade is not found.
        account: AccountId,
        /// Which.
        trade: TradeId,
        /// How much of it.
        portion: Portion,
    },
    /// Changes the stop-loss, the take-profit or the margin of an open trade.
    ModifyTrade {
        /// Whose; another account's trade is not found.
        account: AccountId,
        /// Which.
        trade: TradeId,
        /// What becomes of the stop-loss.
        stop_loss: Change<Price>,
        /// What becomes of the take-profit.
        take_profit: Change<Price>,
        /// Free cash to lock on top, moving the liquidation price away.
        add_margin: Option<Money>,
    },
    /// Adds an instrument or changes one. For operators, not for clients.
    ConfigureInstrument(Instrument),
}

/// The order to open one trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTrade {
    /// Whose.
    pub account: AccountId,
    /// In what.
    pub symbol: Symbol,
    /// Which way.
    pub side: Side,
    /// How much.
    pub size: Size,
    /// Within the instrument's range and on its step.
    pub leverage: Leverage,
    /// On the tick, on the losing side of the closing price and not beyond the liquidation price.
    pub stop_loss: Option<Price>,
    /// On the tick, on the winning side of the closing price.
    pub take_profit: Option<Price>,
    /// Refuse instead of opening at a price this much worse than the one the client saw.
    pub slippage: Option<SlippageBound>,
}

/// How the size of a trade is said: by what is risked or by what is bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Lock exactly this; the quantity is margin × leverage ÷ entry, floored to the step.
    Margin(Money),
    /// Trade exactly this; the margin is quantity × entry ÷ leverage, rounded half to even.
    Quantity(Quantity),
}

/// The worst price a client accepts. A better price than expected is never refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlippageBound {
    /// The price the client saw.
    pub expected: Price,
    /// How much worse it may be, in hundredths of a percent of `expected`: 100 is 1 %.
    pub deviation_max_bps: u32,
}

/// How much of a trade to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// Whatever is open.
    All,
    /// This much, a multiple of the step.
    Quantity(Quantity),
    /// This share of what is open, floored to the step; 100 is all of it.
    Percent(Percent),
}

/// What becomes of an optional value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    Keep,
    /// It becomes this.
    Set(T),
    /// It goes.
    Clear,
}

impl<T: Copy> Change<T> {
    /// The value after the change.
    pub fn over(self, current: Option<T>) -> Option<T> {
        match self {
            Change::Keep => current,
            Change::Set(value) => Some(value),
            Change::Clear => None,
        }
    }
}
