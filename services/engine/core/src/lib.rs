//! The margin state machine: accounts, trades and quotes, and the rules that move money.
//!
//! Three doors. [`decide()`] turns a command into [`Event`]s or a [`Refusal`]; [`fire()`] turns a new quote into the
//! stop-losses, take-profits and liquidations it triggers; [`State::apply`] folds an event in. The first two are pure
//! and never touch the state; the third never decides. So the same inputs give the same events on any machine, in a
//! test, or in a replay a year from now.
//!
//! It reads no clock, draws no random numbers, does no I/O and holds no float. What is durable is in [`State`] (hashed,
//! journaled, in snapshots); what is volatile, the last quotes, is in [`Market`] and is rebuilt from the feed: every
//! event carries the quote it used, so a replay needs no market.
//!
//! Left out on purpose: request ids and their deduplication, sequence numbers, encoding for the wire, and time itself.
//! They belong to the shell.
//!
//! Reading order: [`money`], [`instrument`], [`command`], [`event`], then [`mod@decide`] and [`state`].
#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::float_arithmetic, clippy::arithmetic_side_effects)]

pub mod account;
pub mod canonical;
pub mod command;
pub mod currency;
pub mod decide;
pub mod event;
pub mod fire;
pub mod formula;
pub mod grid;
pub mod growth;
mod hashing;
pub mod ids;
mod index;
pub mod instrument;
pub mod market;
pub mod money;
pub mod number;
pub mod quote;
pub mod refusal;
pub mod state;
pub mod summary;
pub mod time;
pub mod trade;

pub use account::{Account, Balance};
pub use canonical::{Entity, EntityOwned};
pub use command::{Change, Command, OpenTrade, Portion, Size, SlippageBound};
pub use currency::{CurrencySpec, exponent};
pub use decide::decide;
pub use event::{CloseReason, Event, EventKind, LedgerAccount, LedgerLine, TradeClosing};
pub use fire::fire;
pub use ids::{AccountId, Currency, IdError, Symbol, TradeId};
pub use instrument::{Instrument, TradingMode, default_instruments};
pub use market::{Freshness, Market, Observation};
pub use money::{Leverage, Money, Percent, Price, Quantity, Rate};
pub use number::NumberError;
pub use quote::{Quote, TradableQuote};
pub use refusal::{InvalidProblem, Refusal, StaleCause};
pub use state::{Inconsistent, State, StateHash};
pub use summary::{Summary, TradeProfit, summary, unrealised_profit};
pub use time::Timestamp;
pub use trade::{Side, Trade};
