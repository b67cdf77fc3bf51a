//! A client's wallet: free cash and locked margin per currency.

use crate::ids::{AccountId, Currency, TradeId};
use crate::money::Money;
use crate::time::Timestamp;

/// How many closed trades an account remembers, so that a second close is told "closed" and not "no such trade".
/// Bounded, because cost must not grow with history.
pub const RECENTLY_CLOSED_MAX: usize = 16;

/// What an account has of one currency. Neither part is ever negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The currency.
    pub currency: Currency,
    /// Cash that can be withdrawn or locked.
    pub free: Money,
    /// Margin locked by open trades.
    pub locked: Money,
}

/// One client's account. Which of its trades are open is asked of [`crate::State::trades_of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// One entry a currency, sorted by code.
    pub balances: Vec<Balance>,
    /// When its wallet was opened, engine time.
    pub created_at: Timestamp,
    /// The trades it closed last, oldest first, at most [`RECENTLY_CLOSED_MAX`].
    pub recently_closed: Vec<TradeId>,
}

impl Account {
    /// Free cash in a currency; zero when it has none.
    pub fn free(&self, currency: &Currency) -> Money {
        self.balance(currency).map_or(Money::ZERO, |balance| balance.free)
    }

    /// Locked margin in a currency; zero when it has none.
    pub fn locked(&self, currency: &Currency) -> Money {
        self.balance(currency).map_or(Money::ZERO, |balance| balance.locked)
    }

    fn balance(&self, currency: &Currency) -> Option<&Balance> {
        self.balances.iter().find(|balance| balance.currency == *currency)
    }
}
