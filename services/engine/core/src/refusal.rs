//! Why a command was not carried out. A refusal is an answer: it changed nothing and says what to do next.

use std::fmt;

use crate::ids::{AccountId, Currency, Symbol, TradeId};
use crate::instrument::TradingMode;
use crate::money::{Money, Price};

/// The reasons, each with the numbers a client needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such account.
    #[error("account {account} has no wallet: initialize one first")]
    AccountNotFound {
        /// The id asked for.
        account: AccountId,
    },
    /// No such instrument.
    #[error("{symbol} is not an instrument here: list the instruments to see which are")]
    SymbolUnknown {
        /// The name asked for.
        symbol: Symbol,
    },
    /// A currency we do not hold.
    #[error("{currency} is not a currency held here: list the balances to see which are")]
    CurrencyUnknown {
        /// The code asked for.
        currency: Currency,
    },
    /// No open trade of this number in this account. Another account's trade is told the same.
    #[error("this account has no trade {trade}: list its trades to see which are open")]
    TradeNotFound {
        /// The number asked for.
        trade: TradeId,
    },
    /// The account's own trade, closed not long ago. A trade closed long ago is not found.
    #[error("trade {trade} is closed already: its result is in the history")]
    TradeClosed {
        /// The number asked for.
        trade: TradeId,
    },
    /// Not enough free cash for the margin and the commission.
    #[error("needs {needed} {currency}, {free} is free: lower the margin, deposit, or close a trade")]
    InsufficientMargin {
        /// Margin and commission together.
        needed: Money,
        /// Free cash.
        free: Money,
        /// The settlement currency.
        currency: Currency,
    },
    /// Not enough free cash to withdraw.
    #[error("needs {needed} {currency}, {free} is free: margin of open trades cannot be withdrawn")]
    InsufficientFunds {
        /// What was asked for.
        needed: Money,
        /// Free cash.
        free: Money,
        /// The currency.
        currency: Currency,
    },
    /// The last price is too old, or not to be trusted yet.
    #[error("the price of {symbol} is not current ({cause}; age {age_us} us, limit {limit_us} us): retry shortly")]
    StalePrice {
        /// The instrument.
        symbol: Symbol,
        /// How old the last quote is by the venue's clock, microseconds.
        age_us: i64,
        /// How old it may be for this command, microseconds.
        limit_us: i64,
        /// What is wrong with it.
        cause: StaleCause,
    },
    /// No price since the engine started.
    #[error("there is no price for {symbol} yet: retry shortly")]
    PriceMissing {
        /// The instrument.
        symbol: Symbol,
    },
    /// The price is worse than the client accepts.
    #[error("the price moved from {expected} to {actual}, {deviation_bps} bps against you: accept the new price")]
    PriceMoved {
        /// The price the client saw.
        expected: Price,
        /// The price now.
        actual: Price,
        /// How much worse, in hundredths of a percent of `expected`, rounded up.
        deviation_bps: u64,
    },
    /// The instrument's trading mode does not allow it.
    #[error("{symbol} is {mode}: try again when it is enabled")]
    MarketClosed {
        /// The instrument.
        symbol: Symbol,
        /// Its mode.
        mode: TradingMode,
    },
    /// The account would hold more of this instrument than allowed.
    #[error("open notional in {symbol} would be {would_be}, the limit is {limit}: close a trade or open a smaller one")]
    MaxExposureReached {
        /// The instrument.
        symbol: Symbol,
        /// Open notional with this trade, in the settlement currency.
        would_be: Money,
        /// The limit.
        limit: Money,
    },
    /// A field of the command that no state of the market would make right, or not this price.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, as the public interface names it.
        field: &'static str,
        /// What is wrong with it.
        problem: InvalidProblem,
    },
}

impl Refusal {
    /// The reason a client branches on.
    pub const fn reason(&self) -> &'static str {
        match self {
            Refusal::AccountNotFound { .. } => "ACCOUNT_NOT_FOUND",
            Refusal::SymbolUnknown { .. } => "SYMBOL_UNKNOWN",
            Refusal::CurrencyUnknown { .. } => "CURRENCY_UNKNOWN",
            Refusal::TradeNotFound { .. } => "TRADE_NOT_FOUND",
            Refusal::TradeClosed { .. } => "TRADE_CLOSED",
            Refusal::InsufficientMargin { .. } => "INSUFFICIENT_MARGIN",
            Refusal::InsufficientFunds { .. } => "INSUFFICIENT_FUNDS",
            Refusal::StalePrice { .. } | Refusal::PriceMissing { .. } => "STALE_PRICE",
            Refusal::PriceMoved { .. } => "PRICE_MOVED",
            Refusal::MarketClosed { .. } => "MARKET_CLOSED",
            Refusal::MaxExposureReached { .. } => "MAX_EXPOSURE_REACHED",
            Refusal::Invalid { .. } => "INVALID_ARGUMENT",
        }
    }
}

/// What makes a price unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleCause {
    /// Nothing came for too long.
    Age,
    /// The newest quote jumped beyond the band and waits for a second one to confirm it.
    Unconfirmed,
    /// The feed was silent past the hard age and has sent one quote since; it takes two.
    Recovering,
}

impl fmt::Display for StaleCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StaleCause::Age => "too old",
            StaleCause::Unconfirmed => "a jump awaits a second quote",
            StaleCause::Recovering => "the feed is recovering",
        })
    }
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProblem {
    /// More decimals than the currency keeps.
    #[error("has more than {max} decimals, which {currency} does not keep")]
    TooManyDecimals {
        /// Decimals of the currency.
        max: u32,
        /// The currency.
        currency: Currency,
    },
    /// Not a multiple of the tick.
    #[error("must be a multiple of the tick {tick}")]
    OffTick {
        /// The tick.
        tick: Price,
    },
    /// Not a multiple of a step.
    #[error("must be a multiple of {}", step.normalize())]
    OffStep {
        /// The step, of quantity or of leverage.
        step: rust_decimal::Decimal,
    },
    /// Outside a range.
    #[error("must be from {} to {}", min.normalize(), max.normalize())]
    OutOfRange {
        /// The least allowed.
        min: rust_decimal::Decimal,
        /// The most allowed.
        max: rust_decimal::Decimal,
    },
    /// Zero or less.
    #[error("must be greater than zero")]
    NotPositive,
    /// Less than the least margin of a trade.
    #[error("makes a margin of {margin}, the least is {min}")]
    MarginBelowMinimum {
        /// The margin it makes.
        margin: Money,
        /// The least allowed.
        min: Money,
    },
    /// The margin buys less than the least quantity, or more than the most.
    #[error("buys {} at {price}, which must be from {} to {}", quantity.normalize(), min.normalize(), max.normalize())]
    BuysOutOfRange {
        /// What it buys, floored to the step.
        quantity: rust_decimal::Decimal,
        /// At which entry price.
        price: Price,
        /// The least allowed.
        min: rust_decimal::Decimal,
        /// The most allowed.
        max: rust_decimal::Decimal,
    },
    /// A stop-loss or take-profit that would fire at once.
    #[error("must be {side} the price it closes at, {price} now, or it would fire at once")]
    WrongSide {
        /// `above` or `below`.
        side: &'static str,
        /// The closing price now.
        price: Price,
    },
    /// A stop-loss that could never fire, because liquidation comes first.
    #[error("is beyond the liquidation price {liquidation_price}, so it would never fire: move it closer")]
    BeyondLiquidation {
        /// Where liquidation comes.
        liquidation_price: Price,
    },
    /// The spread or the maintenance margin would eat the margin at once.
    #[error("is so high that the trade would be liquidated at once, at {price}: use less leverage")]
    LiquidatedAtOnce {
        /// The closing price now.
        price: Price,
    },
    /// More than the trade has.
    #[error("is more than the {} that is open", open.normalize())]
    MoreThanOpen {
        /// What is open.
        open: rust_decimal::Decimal,
    },
    /// What would be closed is less than the least quantity.
    #[error("closes {}, the least is {}: close more", part.normalize(), min.normalize())]
    PartTooSmall {
        /// What would be closed.
        part: rust_decimal::Decimal,
        /// The least.
        min: rust_decimal::Decimal,
    },
    /// What would be left is less than the least quantity, or has no margin.
    #[error("leaves {} open, the least is {}: close all of it or less of it", rest.normalize(), min.normalize())]
    RemainderTooSmall {
        /// What would be left.
        rest: rust_decimal::Decimal,
        /// The least.
        min: rust_decimal::Decimal,
    },
    /// A modification that modifies nothing.
    #[error("nothing to change was given")]
    NothingToChange,
    /// Cannot change while there are open trades.
    #[error("cannot change while trades are open in it ({open} now)")]
    InUse {
        /// How many.
        open: usize,
    },
    /// Too large or too fine to be held exactly.
    #[error("is too large or has too many decimals to be exact")]
    TooLarge,
    /// A rule between two fields of an instrument.
    #[error("{0}")]
    Inconsistent(&'static str),
}
