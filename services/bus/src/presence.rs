//! Presence: an engine shows which shards it leads, and gateways queue nothing for a shard that nobody is seen to lead.
//!
//! It outlives a leader for long enough that a standby takes over meanwhile: calls then wait in the queue for the next leader instead of
//! being turned away. A leader that cannot prove its leadership hides itself.

use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use redis::AsyncCommands as _;

use crate::connect::{BusError, Commands};
use crate::keys;
use crate::lua::Lua;

/// How long a leader counts as present after its last sign of life: a lease, a look for free leases, and a take-over. Milliseconds.
pub const PRESENCE_MS: u64 = 4_000;
/// How long an engine waits between two signs of life.
pub const PRESENCE_EVERY: Duration = Duration::from_millis(500);

/// Shows and hides leaders. Over Redis: [`RedisPresence`].
pub trait Presence: Send + Sync {
    /// Shows that this engine leads these shards, for [`PRESENCE_MS`].
    fn show(&self, shards: &[u32], engine: &str) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Stops showing it. What another engine shows is left alone.
    fn hide(&self, shards: &[u32], engine: &str) -> impl Future<Output = Result<(), BusError>> + Send;
}

/// [`Presence`] over Redis.
#[derive(Clone, Debug)]
pub struct RedisPresence {
    connection: Commands,
    hide: Lua,
}

impl RedisPresence {
    /// Over a connection that may be shared.
    #[must_use]
    pub fn new(connection: Commands) -> Self {
        Self {
            connection,
            hide: Lua::new(HIDE_OURS),
        }
    }
}

/// Removes a sign of life if it is the caller's.
const HIDE_OURS: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

impl Presence for RedisPresence {
    async fn show(&self, shards: &[u32], engine: &str) -> Result<(), BusError> {
        let shown = join_all(shards.iter().map(|shard| {
            let mut connection = self.connection.clone();
            async move { connection.pset_ex(keys::leader(*shard), engine, PRESENCE_MS).await }
        }));
        Ok(shown.await.into_iter().collect::<Result<(), redis::RedisError>>()?)
    }

    async fn hide(&self, shards: &[u32], engine: &str) -> Result<(), BusError> {
        let hidden = join_all(shards.iter().map(|shard| async move {
            let mut connection = self.connection.clone();
            let hidden: Result<i64, _> = self
                .hide
                .run(&mut connection, &[&keys::leader(*shard)], &[engine])
                .await;
            hidden.map(|_| ())
        }));
        Ok(hidden.await.into_iter().collect::<Result<(), redis::RedisError>>()?)
    }
}
