//! History: what happened, with everything needed to fold it in again and the ledger lines that moved the money.
//!
//! Balances change through [`Event::lines`] and through nothing else, so they equal the ledger by construction. The
//! lines of one event sum to zero in every currency it touches.

use crate::ids::{AccountId, Currency, Symbol, TradeId};
use crate::instrument::Instrument;
use crate::money::{Money, Price, Quantity};
use crate::quote::TradableQuote;
use crate::trade::{Side, Trade};

/// One thing that happened, and the money it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The money it moved; sums to zero per currency.
    pub lines: Vec<LedgerLine>,
}

impl Event {
    /// Whether the lines sum to zero in every currency. Anything else would be money made or lost.
    pub fn is_balanced(&self) -> bool {
        let mut lines = self.lines.iter();
        // One currency an event is the rule, so one pass over the lines is too.
        let Some(first) = lines.next() else { return true };
        let sum_of = |currency: &Currency| {
            let own = self.lines.iter().filter(|line| line.currency == *currency);
            own.map(|line| line.amount).try_fold(Money::ZERO, Money::checked_add)
        };
        let others = lines.filter(|line| line.currency != first.currency && !line.amount.is_zero());
        std::iter::once(first)
            .chain(others)
            .all(|line| sum_of(&line.currency) == Some(Money::ZERO))
    }
}

/// A movement on one account of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// Whose.
    pub account: LedgerAccount,
    /// Of which currency.
    pub currency: Currency,
    /// In when positive, out when negative. Zero only where a wallet gets a currency with nothing in it.
    pub amount: Money,
}

/// The accounts of the ledger. A client's two never go below zero; the rest may.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LedgerAccount {
    /// A client's free cash.
    Client(AccountId),
    /// A client's locked margin, all trades together.
    Margin(AccountId),
    /// Our own book: the other side of every trade, and the payer of negative balances.
    House,
    /// Commissions earned.
    Fee,
    /// The outside world, where deposits come from and withdrawals go.
    Cash,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An instrument was added or changed.
    InstrumentConfigured(Instrument),
    /// A demo wallet was opened. Its lines carry the grant, and a zero for every other currency it starts with.
    WalletInitialized {
        /// Whose.
        account: AccountId,
    },
    /// Money came in.
    Deposited {
        /// Whose.
        account: AccountId,
        /// Of which currency.
        currency: Currency,
        /// How much.
        amount: Money,
    },
    /// Money went out.
    Withdrawn {
        /// Whose.
        account: AccountId,
        /// Of which currency.
        currency: Currency,
        /// How much.
        amount: Money,
    },
    /// A trade was opened.
    TradeOpened {
        /// The trade as it stands.
        trade: Trade,
        /// The quote it opened at.
        quote: TradableQuote,
    },
    /// A trade's stop-loss, take-profit or margin changed. The values are those after the change.
    TradeModified {
        /// Whose.
        account: AccountId,
        /// Which.
        trade: TradeId,
        /// Its stop-loss now.
        stop_loss: Option<Price>,
        /// Its take-profit now.
        take_profit: Option<Price>,
        /// What was locked on top; zero when nothing was.
        margin_added: Money,
        /// All that is locked now.
        margin: Money,
        /// Its liquidation price now.
        liquidation_price: Option<Price>,
        /// The quote the new stop-loss or take-profit was checked against; none was needed otherwise.
        quote: Option<TradableQuote>,
    },
    /// Part of a trade was closed; the rest is open with the same entry, stop-loss and take-profit.
    TradeReduced(TradeClosing),
    /// A trade was closed whole.
    TradeClosed(TradeClosing),
}

impl EventKind {
    /// The account that it is about; nothing for what is the house's own.
    pub fn account(&self) -> Option<&AccountId> {
        match self {
            EventKind::InstrumentConfigured(_) => None,
            EventKind::WalletInitialized { account }
            | EventKind::Deposited { account, .. }
            | EventKind::Withdrawn { account, .. }
            | EventKind::TradeModified { account, .. } => Some(account),
            EventKind::TradeOpened { trade, .. } => Some(&trade.account),
            EventKind::TradeReduced(closing) | EventKind::TradeClosed(closing) => Some(&closing.account),
        }
    }
}

/// Why a trade closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Its owner said so.
    Client,
    /// The closing price reached its stop-loss.
    StopLoss,
    /// The closing price reached its take-profit.
    TakeProfit,
    /// Its margin was used up.
    Liquidation,
}

/// The account of one closing, whole or partial.
///
/// What its owner gets back is `margin_released + realised_profit`, never less than zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeClosing {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub trade: TradeId,
    /// In what.
    pub symbol: Symbol,
    /// The settlement currency of every amount here.
    pub currency: Currency,
    /// Which way it was.
    pub side: Side,
    /// Why.
    pub reason: CloseReason,
    /// What was closed.
    pub quantity: Quantity,
    /// What is still open; `None` when nothing is.
    pub remaining_quantity: Option<Quantity>,
    /// The price it opened at.
    pub entry_price: Price,
    /// The price it closed at: the first tradable one, never the trigger's.
    pub close_price: Price,
    /// What left the locked margin.
    pub margin_released: Money,
    /// What stays locked; zero when nothing is open.
    pub remaining_margin: Money,
    /// The liquidation price of what is still open.
    pub liquidation_price: Option<Price>,
    /// Direction × (close − entry) × quantity, rounded: the raw result, before commission and protection.
    pub gross_profit: Money,
    /// Commission charged for this closing. Taken from what is left after the loss, so never from the house.
    pub commission: Money,
    /// What the house paid so that the owner lost no more than the margin.
    pub house_covered: Money,
    /// `gross_profit + house_covered − commission`: what the owner earned or lost by this closing. The commission of
    /// the opening was charged then and is not in it.
    pub realised_profit: Money,
    /// The quote it closed at.
    pub quote: TradableQuote,
}
