//! The engine's side of one shard: peek requests, answer them, trim what was processed, publish events.
//!
//! Requests are peeked, never popped: an engine that dies leaves them for the next one. What was processed is trimmed by comparing it
//! first; a blind trim would drop work when two engines overlap.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use contracts::bus::Reply;
use prost::Message as _;
use redis::{AsyncCommands as _, Cmd};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backoff::Backoff;
use crate::connect::{BLOCK, BusError, Commands, Redis};
use crate::events::EventRow;
use crate::lua::Lua;
use crate::{events, keys};

/// How long a reply list outlives its last reply, so that those of dead gateways do not pile up. Seconds.
const REPLY_LIST_TTL_S: i64 = 60;

/// One raw message of a queue.
pub type Incoming = Bytes;

/// A reply with where it goes.
#[derive(Clone, Debug)]
pub struct Addressed {
    /// The shard that answers.
    pub shard: u32,
    /// The list of the gateway that asked.
    pub list: String,
    /// The reply.
    pub reply: Reply,
}

/// What an engine needs of the bus to lead one shard. Over Redis: [`RedisShardBus`].
pub trait ShardBus: Send {
    /// Waits until a request may be there. May return early; never misses one that was pushed after the last empty peek. Dropped before
    /// it returned, it is taken up again by the next.
    fn wait(&mut self) -> impl Future<Output = ()> + Send;

    /// The messages from position `skip` on, at most `count_max`, without taking them.
    fn peek(&mut self, skip: usize, count_max: usize) -> impl Future<Output = Result<Vec<Incoming>, BusError>> + Send;

    /// The first message, as far as it is known from a wait that it ended and nothing was peeked since: to look costs no round trip.
    fn head(&mut self) -> Option<Incoming>;

    /// Removes exactly these messages from the front; refuses (false) and removes nothing when others stand there.
    fn trim(&self, processed: &[Incoming]) -> impl Future<Output = Result<bool, BusError>> + Send;

    /// Sends replies, of this shard or any other: those to one gateway leave together. Lists outside the reply namespace are skipped.
    fn reply(&self, replies: &[Addressed]) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Publishes committed rows; one that is there already is left alone.
    fn publish(&self, rows: &[EventRow]) -> impl Future<Output = Result<(), BusError>> + Send;

    /// The last sequence published; 0 for none.
    fn published(&mut self) -> impl Future<Output = Result<u64, BusError>> + Send;

    /// Empties the event stream: what is there belongs to another journal.
    fn discard_events(&mut self) -> impl Future<Output = Result<(), BusError>> + Send;

    /// How many requests wait.
    fn length(&mut self) -> impl Future<Output = Result<u64, BusError>> + Send;
}

/// [`ShardBus`] over Redis.
#[derive(Debug)]
pub struct RedisShardBus {
    shard: u32,
    requests: String,
    connection: Commands,
    bell: Arc<Bell>,
    /// The bell will ring once more.
    armed: bool,
    /// What stood at the front when it rang, until the next peek.
    head: Option<Incoming>,
    trim: Lua,
    _bell_stops: DropGuard,
}

/// A blocking peek in a task of its own, because a blocking command that is abandoned would still hold its connection.
#[derive(Debug, Default)]
struct Bell {
    /// The engine found the queue empty: ring when it is not.
    armed: Notify,
    /// Something is there.
    rung: Notify,
    /// What: the first message.
    head: Mutex<Option<Incoming>>,
}

impl Bell {
    fn ring(&self, head: Incoming) {
        *self.head() = Some(head);
        self.rung.notify_one();
    }

    fn head(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.head.lock().expect("nothing panics while it holds this lock")
    }
}

impl RedisShardBus {
    /// Connects to one shard's queue. `connection` is shared between the shards of a process.
    #[must_use]
    pub fn new(redis: Redis, connection: Commands, shard: u32) -> Self {
        let bell = Arc::new(Bell::default());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(watch_queue(
            redis,
            keys::requests(shard),
            Arc::clone(&bell),
        )));
        Self {
            shard,
            requests: keys::requests(shard),
            connection,
            bell,
            armed: false,
            head: None,
            trim: Lua::new(COMPARE_AND_TRIM),
            _bell_stops: stop.drop_guard(),
        }
    }
}

/// How many requests wait on a shard, for whoever watches.
///
/// # Errors
/// When Redis is away.
pub async fn queue_length(mut connection: Commands, shard: u32) -> Result<u64, BusError> {
    Ok(connection.llen(keys::requests(shard)).await?)
}

/// Rings once for each arming, when the queue holds something.
async fn watch_queue(redis: Redis, requests: String, bell: Arc<Bell>) {
    let mut backoff = Backoff::store();
    let mut connection = None;
    bell.armed.notified().await;
    loop {
        if connection.is_none() {
            match redis.blocking(&requests).await {
                Ok(open) => connection = Some(open),
                Err(error) => {
                    tracing::warn!(%error, "queue watch: cannot connect");
                    backoff.wait().await;
                    continue;
                }
            }
        }
        let open = connection.as_mut().expect("set above");
        // Moving the head to the head changes nothing and blocks until there is one.
        let head: Result<Option<Vec<u8>>, _> = redis::cmd("BLMOVE")
            .arg(&requests)
            .arg(&requests)
            .arg("LEFT")
            .arg("LEFT")
            .arg(BLOCK.as_secs_f64())
            .query_async(open)
            .await;
        match head {
            Ok(Some(head)) => {
                backoff.reset();
                bell.ring(head.into());
                bell.armed.notified().await;
            }
            Ok(None) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "queue watch: read failed");
                connection = None;
                backoff.wait().await;
            }
        }
    }
}

/// Cuts so many elements off the head of the list if the first and the last of them are those that were processed, or does nothing.
///
/// That compares all of them: each carries a correlation that nobody had before, and a queue is pushed to at its end and cut at its
/// front alone. What a server that crashed forgot are the newest pushes, so where the last one still stands, so do those before it.
const COMPARE_AND_TRIM: &str = r"
local count = tonumber(ARGV[1])
if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[2] then return 0 end
if redis.call('LINDEX', KEYS[1], count - 1) ~= ARGV[3] then return 0 end
redis.call('LTRIM', KEYS[1], count, -1)
return 1
";

impl ShardBus for RedisShardBus {
    async fn wait(&mut self) {
        if !self.armed {
            self.bell.armed.notify_one();
            self.armed = true;
        }
        self.bell.rung.notified().await;
        self.armed = false;
        self.head = self.bell.head().take();
    }

    async fn peek(&mut self, skip: usize, count_max: usize) -> Result<Vec<Incoming>, BusError> {
        self.head = None;
        let first = isize::try_from(skip).unwrap_or(isize::MAX);
        let last = first
            .saturating_add(isize::try_from(count_max).unwrap_or(isize::MAX))
            .saturating_sub(1);
        let raw: Vec<Vec<u8>> = self.connection.lrange(&self.requests, first, last).await?;
        Ok(raw.into_iter().map(Bytes::from).collect())
    }

    fn head(&mut self) -> Option<Incoming> {
        self.head.take()
    }

    async fn trim(&self, processed: &[Incoming]) -> Result<bool, BusError> {
        let (Some(first), Some(last)) = (processed.first(), processed.last()) else {
            return Ok(true);
        };
        let count = processed.len().to_string();
        let arguments = [count.as_bytes(), first, last];
        let mut connection = self.connection.clone();
        let done: i64 = self.trim.run(&mut connection, &[&self.requests], &arguments).await?;
        Ok(done == 1)
    }

    async fn reply(&self, replies: &[Addressed]) -> Result<(), BusError> {
        let mut lists: Vec<(&str, Vec<Vec<u8>>)> = Vec::new();
        for Addressed { list, reply, .. } in replies.iter().filter(|it| keys::is_reply_list(&it.list)) {
            match lists.iter_mut().find(|(known, _)| known == list) {
                Some((_, encoded)) => encoded.push(reply.encode_to_vec()),
                None => lists.push((list, vec![reply.encode_to_vec()])),
            }
        }
        if lists.is_empty() {
            return Ok(());
        }
        let replies = lists
            .iter()
            .map(|(list, encoded)| [Cmd::rpush(list, encoded), Cmd::expire(list, REPLY_LIST_TTL_S)]);
        self.connection.send_groups(replies).await
    }

    async fn publish(&self, rows: &[EventRow]) -> Result<(), BusError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for row in rows {
            events::append(&mut pipeline, self.shard, row);
        }
        let sent: Result<(), redis::RedisError> = pipeline.query_async(&mut self.connection.clone()).await;
        match sent {
            // "The ID specified in XADD is equal or smaller": it was published before.
            Err(error) if error.to_string().contains("equal or smaller") => Ok(()),
            other => Ok(other?),
        }
    }

    async fn published(&mut self) -> Result<u64, BusError> {
        events::last_sequence(&mut self.connection, self.shard).await
    }

    async fn discard_events(&mut self) -> Result<(), BusError> {
        events::discard(&mut self.connection, self.shard).await
    }

    async fn length(&mut self) -> Result<u64, BusError> {
        Ok(self.connection.llen(&self.requests).await?)
    }
}
