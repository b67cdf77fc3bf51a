//! The gateway's side: push a request, wait for its reply.
//!
//! One task drains what callers hand it and pushes once per shard, another pops replies and finds their callers. A call ends in exactly
//! one of three ways: the engine's reply, "nothing was accepted", or "nobody knows": the last when the request may stand in a queue.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::bus::{Reply, Request};
use prost::Message as _;
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Direction, Script};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::connect::{BusError, Redis};
use crate::{QUEUE_LENGTH_MAX, REQUEST_BYTES_MAX, keys};

/// Most requests pushed in one step.
const PUSH_MAX: usize = 512;
/// Most replies popped in one step.
const POP_MAX: usize = 512;
/// How long a blocking pop waits before it looks up. Seconds.
const POP_TIMEOUT_S: f64 = 1.0;

/// Calls the engine. Over Redis: [`Caller`].
pub trait Calls: Clone + Send + Sync + 'static {
    /// Sends `request` (its `correlation_id` and `reply_to` are filled in here) and waits for the reply until `deadline`.
    fn call(&self, request: Request, deadline: Instant) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was queued; trying again is safe.
    #[error("not accepted: {0}")]
    NotAccepted(NotAccepted),
    /// The request may have been executed.
    #[error("no answer in time")]
    UnknownOutcome,
}

/// Why nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// No engine leads the account's shard right now.
    #[error("no engine serves this account at the moment")]
    NoLeader,
    /// The shard's queue is at its cap.
    #[error("the queue is full")]
    QueueFull,
    /// This gateway waits for as many replies as it may.
    #[error("too many calls are waiting")]
    InFlightFull,
    /// Redis is away.
    #[error("the queue cannot be reached")]
    BusAway,
    /// The request is larger than a queue takes.
    #[error("the request is too large")]
    TooLarge,
}

/// Limits of a [`Caller`].
#[derive(Clone, Copy, Debug)]
pub struct CallerOptions {
    /// Most calls that wait for a reply at once.
    pub in_flight_max: usize,
    /// Most requests that may wait on one shard.
    pub queue_length_max: usize,
}

impl Default for CallerOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 20_000,
            queue_length_max: QUEUE_LENGTH_MAX,
        }
    }
}

/// [`Calls`] over Redis lists. Cheap to clone. Its tasks end with `shutdown`.
#[derive(Clone, Debug)]
pub struct Caller {
    reply_to: Arc<str>,
    waiting: Arc<Waiting>,
    outgoing: mpsc::Sender<Outgoing>,
    in_flight_max: usize,
}

type Outcome = Result<Reply, CallError>;

#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<u128, oneshot::Sender<Outcome>>>);

impl Waiting {
    fn finish(&self, correlation: u128, outcome: Outcome) {
        let waiter = self.lock().remove(&correlation);
        // None: the caller gave up, or the reply came twice. Both are harmless.
        if let Some(waiter) = waiter {
            let _gone = waiter.send(outcome);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u128, oneshot::Sender<Outcome>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

#[derive(Debug)]
struct Outgoing {
    shard: u32,
    correlation: u128,
    encoded: Vec<u8>,
}

/// Takes a caller off the list when its future is dropped.
struct Place<'a> {
    waiting: &'a Waiting,
    correlation: u128,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.correlation);
    }
}

impl Caller {
    /// Starts the two tasks. Redis may be away: calls are then not accepted until it is back.
    #[must_use]
    pub fn start(redis: &Redis, options: CallerOptions, shutdown: CancellationToken) -> Self {
        let reply_to = keys::replies(Uuid::new_v4());
        let waiting = Arc::new(Waiting::default());
        let (outgoing, drained) = mpsc::channel(PUSH_MAX * 4);
        let push = push_requests(redis.clone(), drained, Arc::clone(&waiting), options.queue_length_max);
        let pop = pop_replies(redis.clone(), reply_to.clone(), Arc::clone(&waiting));
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(push));
        tokio::spawn(shutdown.run_until_cancelled_owned(pop));
        Self {
            reply_to: reply_to.into(),
            waiting,
            outgoing,
            in_flight_max: options.in_flight_max,
        }
    }

    /// How many calls wait for a reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.lock().len()
    }
}

impl Calls for Caller {
    async fn call(&self, mut request: Request, deadline: Instant) -> Outcome {
        let correlation = Uuid::new_v4().as_u128();
        request.correlation_id = correlation.to_be_bytes().to_vec().into();
        request.reply_to = self.reply_to.to_string();
        let shard = request.shard;
        let encoded = request.encode_to_vec();
        if encoded.len() > REQUEST_BYTES_MAX {
            return Err(CallError::NotAccepted(NotAccepted::TooLarge));
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= self.in_flight_max {
                return Err(CallError::NotAccepted(NotAccepted::InFlightFull));
            }
            waiting.insert(correlation, answer);
        }
        let _place = Place {
            waiting: &self.waiting,
            correlation,
        };
        // A full channel means that pushing is slow: waiting here is waiting for acceptance, so it ends well before the deadline.
        let patience = deadline.min(Instant::now() + Duration::from_millis(500));
        match tokio::time::timeout_at(
            patience,
            self.outgoing.send(Outgoing {
                shard,
                correlation,
                encoded,
            }),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(CallError::NotAccepted(NotAccepted::BusAway)),
            Err(_) => return Err(CallError::NotAccepted(NotAccepted::QueueFull)),
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            // The sender is dropped only at shutdown; the request may stand in the queue.
            Ok(Err(_)) | Err(_) => Err(CallError::UnknownOutcome),
        }
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

async fn push_requests(redis: Redis, mut drained: mpsc::Receiver<Outgoing>, waiting: Arc<Waiting>, cap: usize) {
    let script = Script::new(ADMIT_AND_PUSH);
    let mut connection: Option<ConnectionManager> = None;
    let mut batch: Vec<Outgoing> = Vec::with_capacity(PUSH_MAX);
    while drained.recv_many(&mut batch, PUSH_MAX).await > 0 {
        if connection.is_none() {
            connection = redis
                .commands()
                .await
                .inspect_err(|error| tracing::warn!(%error, "request queue: cannot connect"))
                .ok();
        }
        let Some(open) = &connection else {
            for outgoing in batch.drain(..) {
                waiting.finish(outgoing.correlation, Err(CallError::NotAccepted(NotAccepted::BusAway)));
            }
            continue;
        };
        let mut shards: HashMap<u32, Vec<Outgoing>> = HashMap::new();
        for outgoing in batch.drain(..) {
            shards.entry(outgoing.shard).or_default().push(outgoing);
        }
        let pushes = shards
            .into_iter()
            .map(|(shard, group)| push_group(&script, open.clone(), shard, group, cap, &waiting));
        if futures::future::join_all(pushes).await.into_iter().any(|alive| !alive) {
            connection = None;
        }
    }
}

/// Pushes what goes to one shard; false when the connection is not to be trusted any more.
async fn push_group(
    script: &Script,
    mut connection: ConnectionManager,
    shard: u32,
    group: Vec<Outgoing>,
    cap: usize,
    waiting: &Waiting,
) -> bool {
    let mut call = script.key(keys::requests(shard));
    call.key(keys::leader(shard)).arg(cap);
    for outgoing in &group {
        call.arg(outgoing.encoded.as_slice());
    }
    let pushed: Result<i64, redis::RedisError> = call.invoke_async(&mut connection).await;
    match pushed {
        Ok(pushed) => {
            let why = if pushed < 0 {
                NotAccepted::NoLeader
            } else {
                NotAccepted::QueueFull
            };
            for outgoing in group.iter().skip(usize::try_from(pushed).unwrap_or(0)) {
                waiting.finish(outgoing.correlation, Err(CallError::NotAccepted(why)));
            }
            true
        }
        Err(error) => {
            tracing::warn!(%error, shard, "request queue: push failed");
            if never_sent(&error) {
                for outgoing in &group {
                    waiting.finish(outgoing.correlation, Err(CallError::NotAccepted(NotAccepted::BusAway)));
                }
            }
            // Otherwise the script may have run: the callers wait, and time out as "unknown" if it did not.
            false
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

async fn pop_replies(redis: Redis, reply_to: String, waiting: Arc<Waiting>) {
    let mut backoff = Backoff::store();
    loop {
        let error = match pop_until_error(&redis, &reply_to, &waiting, &mut backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::warn!(%error, "reply list: read failed, connecting again");
        backoff.wait().await;
    }
}

async fn pop_until_error(
    redis: &Redis,
    reply_to: &str,
    waiting: &Waiting,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, BusError> {
    let mut connection = redis.blocking().await?;
    loop {
        let popped: Option<(String, Vec<Vec<u8>>)> = connection
            .blmpop(POP_TIMEOUT_S, 1, reply_to, Direction::Left, POP_MAX)
            .await?;
        backoff.reset();
        for encoded in popped.into_iter().flat_map(|(_, replies)| replies) {
            let Ok(reply) = Reply::decode(encoded.as_slice()) else {
                tracing::warn!("reply list: a message that is no reply");
                continue;
            };
            let Ok(correlation) = <[u8; 16]>::try_from(reply.correlation_id.as_ref()) else {
                continue;
            };
            waiting.finish(u128::from_be_bytes(correlation), Ok(reply));
        }
    }
}
