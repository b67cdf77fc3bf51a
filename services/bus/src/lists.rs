//! The two lists that a [`crate::Caller`] stands between: requests of a shard, replies to a gateway.
//!
//! A trait, because everything that makes a call safe is in the caller, and a simulation must run that very code over lists of its own.

use std::future::Future;

use redis::aio::{ConnectionManager, MultiplexedConnection};
use redis::{AsyncCommands as _, Direction, Script};
use uuid::Uuid;

use crate::connect::{BusError, Redis};
use crate::keys;

/// How long a blocking pop waits before it looks up. Seconds.
const POP_TIMEOUT_S: f64 = 1.0;

/// What became of the requests pushed to one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Nobody leads the shard; none was queued.
    NoLeader,
    /// So many of them, from the first, were queued; for the others there was no room.
    Count(usize),
    /// The queue was never reached; none was queued.
    NeverSent,
    /// Nobody knows: they may stand in the queue.
    Unknown,
}

/// Requests of one shard, encoded.
pub type Group = (u32, Vec<Vec<u8>>);

/// The lists of a caller. Over Redis: [`RedisLists`].
pub trait CallLists: Clone + Send + 'static {
    /// Pushes groups of requests, each to its shard if somebody leads it, up to `length_max` waiting there. One outcome a group.
    fn push(&mut self, groups: &[Group], length_max: usize) -> impl Future<Output = Vec<Pushed>> + Send;

    /// Takes replies off a list, at most `count_max`; waits for some, and may come back empty.
    fn pop(&mut self, list: &str, count_max: usize) -> impl Future<Output = Result<Vec<Vec<u8>>, BusError>> + Send;

    /// An id that nobody can guess and nobody had before.
    fn fresh_id(&self) -> Uuid;
}

/// [`CallLists`] over Redis. A clone connects by itself.
#[derive(Debug)]
pub struct RedisLists {
    redis: Redis,
    commands: Option<ConnectionManager>,
    blocking: Option<MultiplexedConnection>,
    admit: Script,
}

impl RedisLists {
    /// Connects when it is used.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            commands: None,
            blocking: None,
            admit: Script::new(ADMIT_AND_PUSH),
        }
    }
}

impl Clone for RedisLists {
    fn clone(&self) -> Self {
        Self::new(self.redis.clone())
    }
}

/// Pushes as many as the cap leaves room for, if somebody leads: -1 for nobody, else how many were pushed.
const ADMIT_AND_PUSH: &str = r"
if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
local pushed = 0
for i = 2, #ARGV do
  if pushed >= room then break end
  redis.call('RPUSH', KEYS[1], ARGV[i])
  pushed = pushed + 1
end
return pushed
";

impl CallLists for RedisLists {
    async fn push(&mut self, groups: &[Group], length_max: usize) -> Vec<Pushed> {
        if self.commands.is_none() {
            self.commands = self
                .redis
                .commands()
                .await
                .inspect_err(|error| tracing::warn!(%error, "request queue: cannot connect"))
                .ok();
        }
        let Some(open) = &self.commands else {
            return vec![Pushed::NeverSent; groups.len()];
        };
        let admit = &self.admit;
        let pushes = groups
            .iter()
            .map(|(shard, requests)| push_group(admit, open.clone(), *shard, requests, length_max));
        let pushed = futures::future::join_all(pushes).await;
        if pushed
            .iter()
            .any(|pushed| matches!(pushed, Pushed::NeverSent | Pushed::Unknown))
        {
            self.commands = None;
        }
        pushed
    }

    async fn pop(&mut self, list: &str, count_max: usize) -> Result<Vec<Vec<u8>>, BusError> {
        let mut open = match self.blocking.take() {
            Some(open) => open,
            None => self.redis.blocking().await?,
        };
        // Not put back after an error: the next pop connects again.
        let popped: Option<(String, Vec<Vec<u8>>)> =
            open.blmpop(POP_TIMEOUT_S, 1, list, Direction::Left, count_max).await?;
        self.blocking = Some(open);
        Ok(popped.map(|(_, replies)| replies).unwrap_or_default())
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

async fn push_group(
    admit: &Script,
    mut connection: ConnectionManager,
    shard: u32,
    requests: &[Vec<u8>],
    length_max: usize,
) -> Pushed {
    let mut call = admit.key(keys::requests(shard));
    call.key(keys::leader(shard)).arg(length_max);
    for request in requests {
        call.arg(request.as_slice());
    }
    let pushed: Result<i64, redis::RedisError> = call.invoke_async(&mut connection).await;
    match pushed {
        Ok(pushed) => usize::try_from(pushed).map_or(Pushed::NoLeader, Pushed::Count),
        Err(error) => {
            tracing::warn!(%error, shard, "request queue: push failed");
            if never_sent(&error) {
                Pushed::NeverSent
            } else {
                Pushed::Unknown
            }
        }
    }
}

/// Whether the error proves that Redis did not run the command.
fn never_sent(error: &redis::RedisError) -> bool {
    error.is_connection_refusal()
        || matches!(
            error.kind(),
            redis::ErrorKind::Server(
                redis::ServerErrorKind::BusyLoading
                    | redis::ServerErrorKind::ReadOnly
                    | redis::ServerErrorKind::MasterDown
                    | redis::ServerErrorKind::ClusterDown
            )
        )
}
