//! The gateway's side: push a request, wait for its reply.
//!
//! One task drains what callers hand it and pushes once per shard, another pops replies and finds their callers. A call ends in exactly
//! one of three ways: the engine's reply, "nothing was accepted", or "nobody knows": the last when the request may stand in a queue.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use contracts::bus::{Reply, Request, reply};
use prost::Message as _;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::connect::Redis;
use crate::lists::{CallLists, Group, Pushed, RedisLists};
use crate::mutants::{self, Mutant};
use crate::pace::Pace;
use crate::{QUEUE_LENGTH_MAX, REQUEST_BYTES_MAX, keys};

/// Most requests pushed in one step.
const PUSH_MAX: usize = 512;
/// Most replies popped in one step.
const POP_MAX: usize = 512;

/// How long a call waits for its turn to be pushed.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);

/// Calls the engine. Over Redis: [`Caller`].
pub trait Calls: Clone + Send + Sync + 'static {
    /// Sends `request` (its `correlation_id` and `reply_to` are filled in here) and waits for the reply until `deadline`.
    fn call(&self, request: Request, deadline: Instant) -> impl Future<Output = Result<Reply, CallError>> + Send;

    /// Whether a call would be refused now because too many wait already.
    fn is_full(&self) -> bool;
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
    /// This gateway waits for as many replies as it may, or as are answered in a fifth of a second.
    #[error("more calls are waiting than can be answered soon")]
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
    /// Most calls that wait for a reply at once; fewer when fewer are answered in a fifth of a second.
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

/// [`Calls`] over lists. Cheap to clone. Its tasks end with `shutdown`.
#[derive(Clone, Debug)]
pub struct Caller<L = RedisLists> {
    lists: L,
    reply_to: Arc<str>,
    waiting: Arc<Waiting>,
    outgoing: mpsc::Sender<Outgoing>,
}

type Outcome = Result<Reply, CallError>;

#[derive(Debug)]
struct Waiting {
    callers: Mutex<HashMap<u128, oneshot::Sender<Outcome>, BuildHasherDefault<Random>>>,
    /// How many they are, for those who only want to know that.
    count: AtomicUsize,
    /// Most callers at once, now.
    limit: AtomicUsize,
    /// Most callers at once, ever.
    limit_max: usize,
}

impl Waiting {
    fn new(limit_max: usize, pace: &Pace) -> Self {
        Self {
            callers: Mutex::default(),
            count: AtomicUsize::new(0),
            limit: AtomicUsize::new(pace.limit().min(limit_max)),
            limit_max,
        }
    }

    fn allow(&self, limit: usize) {
        self.limit.store(limit.min(self.limit_max), Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether as many wait as may.
    fn is_full(&self) -> bool {
        self.count() >= self.limit.load(Ordering::Relaxed)
    }

    /// Takes a caller on, unless too many wait.
    fn admit(&self, correlation: u128, answer: oneshot::Sender<Outcome>) -> bool {
        let mut callers = self.lock();
        let room = !self.is_full();
        if room {
            callers.insert(correlation, answer);
            self.count.store(callers.len(), Ordering::Relaxed);
        }
        room
    }

    /// Takes a caller off. None: it gave up, or was answered; a reply may come twice.
    fn take(&self, correlation: u128) -> Option<oneshot::Sender<Outcome>> {
        let mut callers = self.lock();
        let caller = callers.remove(&correlation);
        self.count.store(callers.len(), Ordering::Relaxed);
        caller
    }

    fn finish(&self, correlation: u128, outcome: Outcome) {
        if let Some(caller) = self.take(correlation) {
            let _gone = caller.send(outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, oneshot::Sender<Outcome>, BuildHasherDefault<Random>>> {
        self.callers.lock().expect("nothing panics while it holds this lock")
    }
}

/// Hashes what is random already: correlations are made here, by a generator that nobody can guess.
#[derive(Debug, Default)]
struct Random(u64);

impl Hasher for Random {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = u64::try_from(number & u128::from(u64::MAX)).expect("its lower half");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Outgoing {
    shard: u32,
    correlation: u128,
    encoded: Vec<u8>,
}

/// Takes a caller off the list when its future is dropped.
struct Place {
    waiting: Arc<Waiting>,
    correlation: u128,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Who was answered is off it already.
        self.waiting.take(self.correlation);
    }
}

impl Caller {
    /// Starts the two tasks. Redis may be away: calls are then not accepted until it is back.
    #[must_use]
    pub fn start(redis: &Redis, options: CallerOptions, shutdown: CancellationToken) -> Self {
        Self::over(RedisLists::new(redis.clone()), options, shutdown)
    }
}

impl<L: CallLists> Caller<L> {
    /// The same over any lists.
    #[must_use]
    pub fn over(lists: L, options: CallerOptions, shutdown: CancellationToken) -> Self {
        let reply_to = keys::replies(lists.fresh_id());
        let pace = Pace::start(Instant::now());
        let waiting = Arc::new(Waiting::new(options.in_flight_max, &pace));
        let (outgoing, drained) = mpsc::channel(PUSH_MAX * 4);
        let push = push(lists.clone(), drained, Arc::clone(&waiting), options.queue_length_max);
        let pop = pop_replies(lists.clone(), reply_to.clone(), Arc::clone(&waiting), pace);
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(push));
        tokio::spawn(shutdown.run_until_cancelled_owned(pop));
        Self {
            lists,
            reply_to: reply_to.into(),
            waiting,
            outgoing,
        }
    }

    /// How many calls wait for a reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.count()
    }
}

impl<L: CallLists + Sync> Calls for Caller<L> {
    fn call(&self, request: Request, deadline: Instant) -> impl Future<Output = Outcome> + Send {
        // Here and not in the future, which would keep the request for as long as the answer takes.
        let admitted = self.admit(request);
        let outgoing = self.outgoing.clone();
        async move {
            let (place, message, answered) = admitted?;
            hand_over(&outgoing, message, deadline).await?;
            let outcome = tokio::time::timeout_at(deadline, answered).await;
            drop(place);
            match outcome {
                Ok(Ok(outcome)) => outcome,
                // The sender is dropped only at shutdown; the request may stand in the queue.
                Ok(Err(_)) | Err(_) => Err(CallError::UnknownOutcome),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.is_full()
    }
}

impl<L: CallLists> Caller<L> {
    /// Writes a request as it is sent, and takes its caller on.
    fn admit(&self, mut request: Request) -> Result<(Place, Outgoing, oneshot::Receiver<Outcome>), CallError> {
        let correlation = self.lists.fresh_id().as_u128();
        request.correlation_id = Bytes::copy_from_slice(&correlation.to_be_bytes());
        request.reply_to = self.reply_to.to_string();
        let encoded = request.encode_to_vec();
        if encoded.len() > REQUEST_BYTES_MAX {
            return Err(CallError::NotAccepted(NotAccepted::TooLarge));
        }
        let (answer, answered) = oneshot::channel();
        if !self.waiting.admit(correlation, answer) {
            return Err(CallError::NotAccepted(NotAccepted::InFlightFull));
        }
        let place = Place {
            waiting: Arc::clone(&self.waiting),
            correlation,
        };
        let outgoing = Outgoing {
            shard: request.shard,
            correlation,
            encoded,
        };
        Ok((place, outgoing, answered))
    }
}

/// Hands a message to the task that pushes.
async fn hand_over(to: &mpsc::Sender<Outgoing>, message: Outgoing, deadline: Instant) -> Result<(), CallError> {
    let message = match to.try_send(message) {
        Ok(()) => return Ok(()),
        Err(TrySendError::Closed(_)) => return Err(CallError::NotAccepted(NotAccepted::BusAway)),
        Err(TrySendError::Full(message)) => message,
    };
    // Pushing is slow: waiting here is waiting for acceptance, so it ends well before the deadline.
    let patience = deadline.min(Instant::now() + HAND_OVER_MAX);
    match tokio::time::timeout_at(patience, to.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(CallError::NotAccepted(NotAccepted::BusAway)),
        Err(_) => Err(CallError::NotAccepted(NotAccepted::QueueFull)),
    }
}

/// Pushes what callers hand over. Where shards are on several servers, each by itself: one that hangs is waited for by its own callers.
async fn push(lists: impl CallLists, mut drained: mpsc::Receiver<Outgoing>, waiting: Arc<Waiting>, length_max: usize) {
    if !lists.is_several() {
        return push_requests(lists, drained, waiting, length_max).await;
    }
    let mut tasks = JoinSet::new();
    let mut shards: HashMap<u32, mpsc::Sender<Outgoing>> = HashMap::new();
    while let Some(outgoing) = drained.recv().await {
        let of_shard = shards.entry(outgoing.shard).or_insert_with(|| {
            let (hand_over, drained) = mpsc::channel(PUSH_MAX * 4);
            tasks.spawn(push_requests(lists.clone(), drained, Arc::clone(&waiting), length_max));
            hand_over
        });
        if let Err(full) = of_shard.try_send(outgoing) {
            let correlation = full.into_inner().correlation;
            waiting.finish(correlation, Err(CallError::NotAccepted(NotAccepted::QueueFull)));
        }
    }
}

async fn push_requests(
    mut lists: impl CallLists,
    mut drained: mpsc::Receiver<Outgoing>,
    waiting: Arc<Waiting>,
    length_max: usize,
) {
    let mut batch: Vec<Outgoing> = Vec::with_capacity(PUSH_MAX);
    while drained.recv_many(&mut batch, PUSH_MAX).await > 0 {
        let mut shards: BTreeMap<u32, (Vec<u128>, Vec<Vec<u8>>)> = BTreeMap::new();
        for outgoing in batch.drain(..) {
            let (correlations, encoded) = shards.entry(outgoing.shard).or_default();
            correlations.push(outgoing.correlation);
            encoded.push(outgoing.encoded);
        }
        let (correlations, groups): (Vec<Vec<u128>>, Vec<Group>) = shards
            .into_iter()
            .map(|(shard, (correlations, encoded))| (correlations, (shard, encoded)))
            .unzip();
        let pushed = lists.push(&groups, length_max).await;
        for (correlations, pushed) in correlations.into_iter().zip(pushed) {
            if mutants::is(Mutant::AckOnEnqueue) && matches!(pushed, Pushed::Count(_)) {
                for correlation in correlations {
                    waiting.finish(correlation, Ok(done()));
                }
                continue;
            }
            let (queued, why) = match pushed {
                Pushed::NoLeader => (0, NotAccepted::NoLeader),
                Pushed::Count(queued) => (queued, NotAccepted::QueueFull),
                Pushed::NeverSent => (0, NotAccepted::BusAway),
                // They may stand in the queue: the callers wait, and time out as "unknown" if they do not.
                Pushed::Unknown => continue,
            };
            for correlation in correlations.into_iter().skip(queued) {
                waiting.finish(correlation, Err(CallError::NotAccepted(why)));
            }
        }
    }
}

/// What a caller is told by [`Mutant::AckOnEnqueue`].
fn done() -> Reply {
    Reply {
        outcome: Some(reply::Outcome::Response(Vec::new().into())),
        ..Reply::default()
    }
}

async fn pop_replies(mut lists: impl CallLists, reply_to: String, waiting: Arc<Waiting>, mut pace: Pace) {
    let mut backoff = Backoff::store();
    loop {
        let replies = match lists.pop(&reply_to, POP_MAX).await {
            Ok(replies) => replies,
            Err(error) => {
                tracing::warn!(%error, "reply list: read failed, connecting again");
                backoff.wait().await;
                continue;
            }
        };
        backoff.reset();
        if let Some(limit) = pace.answered(Instant::now(), replies.len()) {
            waiting.allow(limit);
        }
        for encoded in replies {
            let Ok(reply) = Reply::decode(Bytes::from(encoded)) else {
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
