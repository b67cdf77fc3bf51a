//! The queue and stream protocol over Redis: requests and replies on lists, prices and events on streams.
//!
//! Redis is transport, never truth: it may lose or repeat anything at any time and no promise breaks, because nothing is acknowledged
//! before the journal has it and a repeat is recognised by its `request_id`.
//!
//! Who uses what: the gateway calls through [`Caller`] and follows [`EventReader`] and [`PriceReader`]; the engine serves a
//! [`ShardBus`] (over Redis: [`RedisShardBus`]) and reads prices with a [`PriceReader`]; the poller writes with a [`PricePublisher`].
//! Nobody outside this crate spells a Redis key ([`keys`]).

pub mod backoff;
pub mod call;
pub mod connect;
pub mod events;
pub mod keys;
pub mod lists;
mod lua;
pub mod mutants;
mod pace;
pub mod presence;
pub mod prices;
pub mod rights;
pub mod shard;

pub use call::{CallError, Caller, CallerOptions, Calls, NotAccepted};
pub use connect::{BusError, Commands, Redis};
pub use events::{EventReader, EventRow, ShardEvents};
pub use lists::{CallLists, Pushed};
pub use presence::{Presence, RedisPresence};
pub use prices::{FollowPrices, PriceEntry, PricePublisher, PriceReader, PriceStream, RedisPrices};
pub use shard::{Addressed, Incoming, RedisShardBus, ShardBus, queue_length};

/// Largest request on a queue, encoded, bytes. The gateway refuses larger bodies earlier; the engine treats larger ones as dead letters.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most requests waiting on one shard; more are refused with `NOT_ACCEPTED`.
pub const QUEUE_LENGTH_MAX: usize = 10_000;
