//! What an engine process needs to know, read before anything starts.

use std::time::Duration;

use bus::Redis;
use engine_core::Instrument;

/// Configuration of [`crate::run`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the bus is.
    pub redis: Redis,
    /// Where the journal is, a `postgres://` address.
    pub database: String,
    /// Name of this process for people and for its consumer group on the price stream; unique among running engines.
    pub name: String,
    /// The instruments to trade. Terms that differ from the journaled ones are journaled as a change.
    pub instruments: Vec<Instrument>,
    /// When snapshots are written.
    pub snapshots: Snapshots,
}

/// When the follower writes a snapshot of a shard: whichever comes first, if anything changed. And how long what is in one is kept in
/// the journal too.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots {
    /// After this time.
    pub every: Duration,
    /// After this many entries.
    pub every_entries: u64,
    /// How long journal rows are kept; nothing: for ever. Only rows are dropped that the second newest snapshot contains and the recorder
    /// has seen, and only when the two newest snapshots load.
    pub journal_kept: Option<Duration>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            every_entries: 100_000,
            journal_kept: None,
        }
    }
}
