//! The two lists that a [`crate::Caller`] stands between: requests of a shard, replies to a gateway.
//!
//! A trait, because everything that makes a call safe is in the caller, and a simulation must run that very code over lists of its own.

use std::future::Future;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Direction};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::connect::{BLOCK, BusError, Commands, Redis};
use crate::keys;
use crate::lua::Lua;

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

    /// Whether shards are on several servers, so that a push to one must not wait for another.
    fn is_several(&self) -> bool {
        false
    }

    /// An id that nobody can guess and nobody had before.
    fn fresh_id(&self) -> Uuid;
}

/// [`CallLists`] over Redis. A clone connects by itself, but in a cluster: there all send over one set of connections, one a node.
#[derive(Debug)]
pub struct RedisLists {
    redis: Redis,
    commands: Option<Commands>,
    /// Those of a cluster.
    nodes: Arc<OnceCell<Commands>>,
    blocking: Option<MultiplexedConnection>,
    admit: Lua,
}

impl RedisLists {
    /// Connects when it is used.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            commands: None,
            nodes: Arc::default(),
            blocking: None,
            admit: Lua::new(ADMIT_AND_PUSH),
        }
    }
}

impl Clone for RedisLists {
    fn clone(&self) -> Self {
        Self {
            redis: self.redis.clone(),
            commands: None,
            nodes: Arc::clone(&self.nodes),
            blocking: None,
            admit: self.admit.clone(),
        }
    }
}

impl RedisLists {
    async fn connect(&self) -> Result<Commands, BusError> {
        if self.redis.is_several() {
            return self.nodes.get_or_try_init(|| self.redis.commands()).await.cloned();
        }
        self.redis.commands().await
    }
}

/// Pushes as many as the cap leaves room for, if somebody leads: -1 for nobody, else how many were pushed. In one command: one for each
/// request cost Redis twice as much. (Lua hands over some thousands of arguments at once; [`crate::call`] pushes some hundreds.)
const ADMIT_AND_PUSH: &str = r"
if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
local pushed = math.max(0, math.min(room, #ARGV - 1))
if pushed > 0 then redis.call('RPUSH', KEYS[1], unpack(ARGV, 2, pushed + 1)) end
return pushed
";

impl CallLists for RedisLists {
    async fn push(&mut self, groups: &[Group], length_max: usize) -> Vec<Pushed> {
        if self.commands.is_none() {
            self.commands = self
                .connect()
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
        if !open.fails_in_part()
            && pushed
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
            None => self.redis.blocking(list).await?,
        };
        // Not put back after an error: the next pop connects again.
        let popped: Option<(String, Vec<Vec<u8>>)> = open
            .blmpop(BLOCK.as_secs_f64(), 1, list, Direction::Left, count_max)
            .await?;
        self.blocking = Some(open);
        Ok(popped.map(|(_, replies)| replies).unwrap_or_default())
    }

    fn is_several(&self) -> bool {
        self.redis.is_several()
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

async fn push_group(
    admit: &Lua,
    mut connection: Commands,
    shard: u32,
    requests: &[Vec<u8>],
    length_max: usize,
) -> Pushed {
    let length_max = length_max.to_string();
    let mut arguments = Vec::with_capacity(1 + requests.len());
    arguments.push(length_max.as_bytes());
    arguments.extend(requests.iter().map(Vec::as_slice));
    let (queue, leader) = (keys::requests(shard), keys::leader(shard));
    let pushed: Result<i64, _> = admit.run(&mut connection, &[&queue, &leader], &arguments).await;
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
                    | redis::ServerErrorKind::Moved
                    | redis::ServerErrorKind::Ask
                    | redis::ServerErrorKind::TryAgain
                    | redis::ServerErrorKind::NoPerm
            )
        )
}
