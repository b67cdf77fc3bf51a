//! The engine process: the margin state machine of `engine-core`, made durable and reachable.
//!
//! It leads the shards it can lease. For each: requests are peeked from the bus, decided in memory, committed to the journal behind a
//! fence, and only then answered. It follows the journal of every shard beside that, as a standby, as a check, and to write snapshots.
//!
//! Reading order: [`shard`] (one shard in memory), [`lead`] (the loop around all that are led), [`journal`] (lease and fence),
//! [`mod@commit`] (a round's way into it), [`recover`] and [`follow`] (coming back), [`verify`] (doubting it). The bridge between wire and core is [`wire`]; the only clock is in [`inbox`].

mod balance;
pub mod commit;
pub mod config;
pub mod follow;
pub mod ground;
pub mod health;
mod host;
pub mod inbox;
pub mod journal;
pub mod lead;
pub mod poison;
mod presence;
pub mod recover;
mod run;
pub mod shard;
mod trace;
pub mod verify;
pub mod window;
pub mod wire;

pub use config::{Config, Snapshots};
pub use engine_core::{Instrument, default_instruments};
pub use health::Status;
pub use run::{EngineError, Options, run, serve};
