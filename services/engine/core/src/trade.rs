//! An open trade: isolated margin, one direction, one entry price.

use std::fmt;

use crate::ids::{AccountId, Currency, Symbol, TradeId};
use crate::money::{Leverage, Money, Price, Quantity, Rate};
use crate::quote::TradableQuote;
use crate::time::Timestamp;

/// Which way a trade earns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Earns when the price rises; opens at the ask, closes at the bid.
    Long,
    /// Earns when the price falls; opens at the bid, closes at the ask.
    Short,
}

impl Side {
    /// The price a trade of this side opens at.
    pub fn opening(self, quote: &TradableQuote) -> Price {
        match self {
            Side::Long => quote.ask,
            Side::Short => quote.bid,
        }
    }

    /// The price a trade of this side closes at.
    pub fn closing(self, quote: &TradableQuote) -> Price {
        match self {
            Side::Long => quote.bid,
            Side::Short => quote.ask,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Long => "long",
            Side::Short => "short",
        })
    }
}

/// A trade while it is open. Closed trades leave the core; their history is the journal's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade {
    /// Its number.
    pub id: TradeId,
    /// Whose it is.
    pub account: AccountId,
    /// The instrument.
    pub symbol: Symbol,
    /// The settlement currency, fixed at open: margin, profit and commission are in it.
    pub currency: Currency,
    /// The direction.
    pub side: Side,
    /// What is still open, a multiple of the instrument's step.
    pub quantity: Quantity,
    /// What it was opened with, a multiple of the step; partial closes leave it as it is.
    pub opened_quantity: Quantity,
    /// The price it opened at, a multiple of the tick.
    pub entry_price: Price,
    /// What is locked for it, and the most its owner can lose on it from here.
    pub margin: Money,
    /// The leverage it was opened with; adding margin does not rewrite it.
    pub leverage: Leverage,
    /// Close when the closing price is here or worse, a multiple of the tick.
    pub stop_loss: Option<Price>,
    /// Close when the closing price is here or better, a multiple of the tick.
    pub take_profit: Option<Price>,
    /// The first price of the tick grid, going against the trade, at which it is liquidated. `None` when no price
    /// does it: a long with leverage 1 has nothing left to lose only at zero.
    pub liquidation_price: Option<Price>,
    /// The maintenance rate it was opened under; a later change of the instrument does not reach it.
    pub maintenance_rate: Rate,
    /// Commission charged so far: at the open and at every partial close.
    pub commission: Money,
    /// Sum of `realised_profit` of its partial closes so far; zero at the open.
    pub realised_profit: Money,
    /// When it opened, engine time.
    pub opened_at: Timestamp,
}
