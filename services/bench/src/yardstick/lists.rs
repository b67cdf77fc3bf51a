//! Request and reply over Redis lists, three ways: as cheap as it can be, naively, and with our own queue layer.
//!
//! Callers are on one thread, what answers them on another, Redis is a process of its own; the processor time of all three is the cost
//! of a round trip. Behind each queue an engine that does nothing: it decodes the request and answers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bus::presence::PRESENCE_EVERY;
use bus::{
    Addressed, Caller, CallerOptions, Calls as _, Presence as _, Redis, RedisPresence, RedisShardBus, ShardBus as _,
};
use bytes::Bytes;
use clap::ValueEnum;
use contracts::bus::{Reply, Request, reply, request};
use contracts::v1;
use prost::Message as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Direction};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store::Store;
use crate::cpu::{Subject, Watch, this_thread};
use crate::load::on_a_thread;
use crate::sample::{Sample, Tally};

/// Most that is taken from a list at once.
const TAKE_MAX: usize = 512;
/// How long a blocking pop waits before it looks whether to stop. Seconds.
const POP_TIMEOUT_S: f64 = 0.2;
/// Bytes of an answer: those of an opened trade.
const ANSWER_BYTES: usize = 200;

/// How requests and replies travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// One push for all callers that wait, one reply list, popped by the hundred: the bare least.
    Aggregated,
    /// A push and a blocking pop for each call, a reply list for each call.
    Naive,
    /// The product's own queue layer.
    Ours,
}

impl Way {
    /// As a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aggregated => "lists aggregated",
            Self::Naive => "lists naive",
            Self::Ours => "lists ours",
        }
    }
}

/// Names of what is watched in a run.
pub const PARTS: [&str; 3] = ["callers", "redis", "worker"];

/// Runs so many callers for so long.
///
/// # Errors
/// When Redis goes away.
pub async fn run(
    store: &Store,
    way: Way,
    concurrency: usize,
    warm_up: Duration,
    measure: Duration,
) -> anyhow::Result<Sample> {
    let redis = store.redis()?;
    let mut watch = Watch::default();
    watch.add("redis", store.subject());
    let stop = CancellationToken::new();
    let stops = stop.clone().drop_guard();
    let (tell, told) = oneshot::channel();
    let worker = tokio::spawn(on_a_thread("bench-worker", {
        let (redis, stop) = (redis.clone(), stop.clone());
        async move || {
            let _gone = tell.send(this_thread());
            match way {
                Way::Ours => answer_as_an_engine(redis, stop).await,
                Way::Aggregated | Way::Naive => answer_lists(redis, stop).await,
            }
        }
    }));
    watch.add(
        "worker",
        Subject::Thread(told.await.context("the worker did not start")?),
    );
    let (tally, used) = on_a_thread("bench-callers", async move || {
        watch.add("callers", Subject::Thread(this_thread()));
        let counts = Rc::new(Cell::new(false));
        let tally = Rc::new(RefCell::new(Tally::default()));
        let stop = CancellationToken::new();
        let callers = start_callers(way, &redis, concurrency, &counts, &tally, &stop).await?;
        tokio::time::sleep(warm_up).await;
        let before = watch.read();
        counts.set(true);
        tokio::time::sleep(measure).await;
        counts.set(false);
        let used = watch.read().since(&before);
        stop.cancel();
        for caller in callers {
            caller.await.context("a caller panicked")?;
        }
        Ok((tally.take(), used))
    })
    .await?;
    drop(stops);
    worker.await.context("the worker panicked")??;
    let mut sample = Sample::of(way.name(), &tally, &used);
    sample.concurrency = Some(concurrency);
    Ok(sample)
}

type Callers = Vec<tokio::task::JoinHandle<()>>;

async fn start_callers(
    way: Way,
    redis: &Redis,
    concurrency: usize,
    counts: &Rc<Cell<bool>>,
    tally: &Rc<RefCell<Tally>>,
    stop: &CancellationToken,
) -> anyhow::Result<Callers> {
    let mut callers = Vec::with_capacity(concurrency);
    let aggregator = Rc::new(Aggregator::default());
    let ours = (way == Way::Ours).then(|| Caller::start(redis, CallerOptions::default(), stop.clone()));
    if way == Way::Aggregated {
        let reply_to = format!("bench-replies-{}", Uuid::new_v4().simple());
        let (push, pop) = (redis.blocking(REQUESTS).await?, redis.blocking(REQUESTS).await?);
        tokio::task::spawn_local(
            stop.clone()
                .run_until_cancelled_owned(push_all(push, Rc::clone(&aggregator))),
        );
        tokio::task::spawn_local(stop.clone().run_until_cancelled_owned(pop_all(
            pop,
            reply_to.clone(),
            Rc::clone(&aggregator),
        )));
        aggregator.reply_to.replace(reply_to);
    }
    let commands = redis.blocking(REQUESTS).await?;
    for _ in 0..concurrency {
        let (counts, tally, stop) = (Rc::clone(counts), Rc::clone(tally), stop.clone());
        let (aggregator, ours, push) = (Rc::clone(&aggregator), ours.clone(), commands.clone());
        // A blocking pop holds its connection.
        let pop = match way {
            Way::Naive => Some(redis.blocking(REQUESTS).await?),
            Way::Aggregated | Way::Ours => None,
        };
        let calling = async move {
            loop {
                let begun = Instant::now();
                let answered = match (&ours, &pop) {
                    (Some(caller), _) => {
                        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
                        caller.call(sample_request(), deadline).await.is_ok()
                    }
                    (None, Some(pop)) => call_naively(push.clone(), pop.clone()).await.is_ok(),
                    (None, None) => aggregator.call().await.is_some(),
                };
                if counts.get() {
                    let tally = &mut *tally.borrow_mut();
                    if answered {
                        tally.latencies.record(begun.elapsed());
                        tally.in_time += 1;
                    } else {
                        tally.lost += 1;
                    }
                }
                if !answered {
                    // Whatever is wrong, it must not be asked a million times a second.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        callers.push(tokio::task::spawn_local(async move {
            let _stopped = stop.run_until_cancelled(calling).await;
        }));
    }
    Ok(callers)
}

/// What the gateway would send to open a trade.
fn sample_request() -> Request {
    Request {
        shard: 0,
        account_id: "bench-00001".to_owned(),
        principal: "bench".to_owned(),
        request_id: Bytes::copy_from_slice(Uuid::now_v7().as_bytes()),
        expires_at_us: u64::MAX,
        command: Some(request::Command::OpenTrade(v1::OpenTradeRequest {
            account_id: "bench-00001".to_owned(),
            symbol: "SOL_USDC".to_owned(),
            side: v1::Side::Long.into(),
            size: Some(v1::open_trade_request::Size::Margin("100".to_owned())),
            leverage: "2".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn sample_reply(request: &Request) -> Reply {
    Reply {
        correlation_id: request.correlation_id.clone(),
        sequence: 1,
        account_sequence: 1,
        outcome: Some(reply::Outcome::Response(vec![b'x'; ANSWER_BYTES].into())),
    }
}

/// Callers of one process: what they want pushed, and who waits for what.
#[derive(Debug, Default)]
struct Aggregator {
    reply_to: RefCell<String>,
    wanted: RefCell<Vec<Vec<u8>>>,
    some: Notify,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Reply>>>,
    next: Cell<u64>,
}

impl Aggregator {
    async fn call(&self) -> Option<Reply> {
        let number = self.next.replace(self.next.get() + 1);
        let mut request = sample_request();
        request.correlation_id = Bytes::copy_from_slice(&number.to_be_bytes());
        request.reply_to.clone_from(&self.reply_to.borrow());
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().insert(number, answer);
        self.wanted.borrow_mut().push(request.encode_to_vec());
        self.some.notify_one();
        answered.await.ok()
    }
}

const REQUESTS: &str = "bench-requests";

async fn push_all(mut connection: MultiplexedConnection, aggregator: Rc<Aggregator>) {
    loop {
        aggregator.some.notified().await;
        let wanted = std::mem::take(&mut *aggregator.wanted.borrow_mut());
        if !wanted.is_empty() && connection.rpush::<_, _, ()>(REQUESTS, wanted).await.is_err() {
            return;
        }
    }
}

async fn pop_all(mut connection: MultiplexedConnection, list: String, aggregator: Rc<Aggregator>) {
    loop {
        let popped: redis::RedisResult<Option<(String, Vec<Vec<u8>>)>> = connection
            .blmpop(POP_TIMEOUT_S, 1, &list, Direction::Left, TAKE_MAX)
            .await;
        let Ok(popped) = popped else { return };
        for encoded in popped.into_iter().flat_map(|(_, replies)| replies) {
            let Ok(reply) = Reply::decode(Bytes::from(encoded)) else {
                continue;
            };
            let number = <[u8; 8]>::try_from(reply.correlation_id.as_ref()).map_or(0, u64::from_be_bytes);
            if let Some(waiter) = aggregator.waiting.borrow_mut().remove(&number) {
                let _gone = waiter.send(reply);
            }
        }
    }
}

async fn call_naively(mut push: MultiplexedConnection, mut pop: MultiplexedConnection) -> redis::RedisResult<()> {
    let mut request = sample_request();
    request.reply_to = format!("bench-reply-{}", Uuid::new_v4().simple());
    push.rpush::<_, _, ()>(REQUESTS, request.encode_to_vec()).await?;
    let answered: Option<(String, Vec<u8>)> = pop.blpop(&request.reply_to, 5.0).await?;
    match answered.map(|(_, encoded)| Reply::decode(encoded.as_slice())) {
        Some(Ok(_)) => Ok(()),
        _ => Err((redis::ErrorKind::Io, "no answer").into()),
    }
}

/// The bare worker: takes what is there, answers it with one pipeline.
async fn answer_lists(redis: Redis, stop: CancellationToken) -> anyhow::Result<()> {
    let mut connection = redis.blocking(REQUESTS).await?;
    while !stop.is_cancelled() {
        let popped: Option<(String, Vec<Vec<u8>>)> = connection
            .blmpop(POP_TIMEOUT_S, 1, REQUESTS, Direction::Left, TAKE_MAX)
            .await?;
        let mut lists: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for encoded in popped.into_iter().flat_map(|(_, requests)| requests) {
            let Ok(request) = Request::decode(Bytes::from(encoded)) else {
                continue;
            };
            let reply = sample_reply(&request).encode_to_vec();
            lists.entry(request.reply_to).or_default().push(reply);
        }
        if lists.is_empty() {
            continue;
        }
        let mut pipeline = redis::pipe();
        for (list, replies) in &lists {
            pipeline.rpush(list, replies).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

/// The product's side of the queue with nothing behind it: peek, answer, trim, as the engine does.
async fn answer_as_an_engine(redis: Redis, stop: CancellationToken) -> anyhow::Result<()> {
    let commands = redis.commands().await?;
    let (mut shard, leader) = (
        RedisShardBus::new(redis.clone(), commands.clone(), 0),
        RedisPresence::new(commands),
    );
    leader.show(&[0], "bench").await?;
    let mut presence = tokio::time::interval(PRESENCE_EVERY);
    while !stop.is_cancelled() {
        let messages = shard.peek(0, TAKE_MAX).await?;
        if messages.is_empty() {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = presence.tick() => leader.show(&[0], "bench").await?,
                () = shard.wait() => {}
            }
            continue;
        }
        let replies: Vec<Addressed> = messages
            .iter()
            .filter_map(|message| Request::decode(message.clone()).ok())
            .map(|request| {
                let reply = sample_reply(&request);
                Addressed {
                    shard: 0,
                    list: request.reply_to,
                    reply,
                }
            })
            .collect();
        futures::try_join!(shard.reply(&replies), shard.trim(&messages))?;
        if futures::FutureExt::now_or_never(presence.tick()).is_some() {
            leader.show(&[0], "bench").await?;
        }
    }
    Ok(())
}
