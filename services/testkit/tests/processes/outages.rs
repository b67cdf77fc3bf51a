//! Postgres is away, then Redis. Nothing is acknowledged meanwhile, callers are told at once that nothing was accepted, and what was sent
//! in vain does not happen later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chaos::mesh::{Mesh, Role};
use chaos::order::Door;
use contracts::bus::JournalBatch;
use prost::Message as _;
use uuid::Uuid;

use crate::binary::program;
use crate::callers::{Called, Callers, call, deposit, open, tally, until};
use crate::figure;

const DEADLINE: Duration = Duration::from_secs(2);
/// An answer that was on its way when a store went may still arrive for so long on a busy machine.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Requests that may wait on one shard, so few that the callers fill it.
const QUEUE_MAX: u64 = 8;
/// How much later than its deadline the engine may find an order that it still executes: what clocks may differ by.
const GRACE_US: u64 = 1_000_000;

/// Looks at the length of a queue again and again, and remembers the longest.
struct QueueWatch {
    longest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl QueueWatch {
    fn start(url: &str, shards: u32) -> Self {
        let (longest, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let client = redis::Client::open(url).expect("an address");
        let watch = Self { longest, stop };
        let (longest, stop) = (Arc::clone(&watch.longest), Arc::clone(&watch.stop));
        tokio::spawn(async move {
            let connection = client.get_multiplexed_async_connection().await;
            let mut connection = connection.expect("a Redis that runs");
            while !stop.load(Ordering::SeqCst) {
                for shard in 0..shards {
                    let mut asked = redis::cmd("LLEN");
                    asked.arg(format!("{{s{shard}}}:requests"));
                    let length: u64 = asked.query_async(&mut connection).await.expect("a length");
                    longest.fetch_max(length, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        watch
    }

    fn longest(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.longest.load(Ordering::SeqCst)
    }
}

/// When the journal says that each operation was decided. Microseconds since the epoch.
async fn decided(mesh: &Mesh) -> BTreeMap<Uuid, u64> {
    let bodies = sqlx::query_scalar::<_, Vec<u8>>("SELECT body FROM journal").fetch_all(&mesh.pool);
    let mut decided = BTreeMap::new();
    for body in bodies.await.expect("a journal") {
        let batch = JournalBatch::decode(body.as_slice()).expect("a batch");
        for entry in batch.entries {
            if let Some(operation) = entry.operation {
                let id = Uuid::from_slice(&operation.request_id).expect("an id");
                assert!(decided.insert(id, entry.at_us).is_none(), "{id} happened twice");
            }
        }
    }
    decided
}

/// What the calls of an outage came to: nothing was acknowledged, and after a while everybody is told at once.
fn judge(store: &str, all: &[Called], gone: Instant, back: Instant) {
    let meanwhile: Vec<&Called> = all
        .iter()
        .filter(|called| called.sent > gone + LAST_ANSWERS && called.sent + called.took < back)
        .collect();
    assert!(
        meanwhile.iter().all(|called| !called.is_answered()),
        "acknowledged while {store} was away"
    );
    // From the first of those who were told on, nobody waits in vain any more.
    let last_in_vain = meanwhile
        .iter()
        .filter(|called| !called.is_turned_away())
        .map(|called| called.sent)
        .max();
    let told: Vec<&&Called> = meanwhile
        .iter()
        .filter(|called| last_in_vain.is_none_or(|last| called.sent > last))
        .collect();
    assert!(
        !told.is_empty(),
        "{store} away: nobody was told: {:?}",
        tally(meanwhile.iter().copied())
    );
    let from = told.iter().map(|called| called.sent).min().expect("somebody was told") - gone;
    let slowest = told.iter().map(|called| called.took).max().unwrap_or_default();
    figure(format!(
        "{store} away: {} calls, {:?}; from {from:.2?} on all {} were told NOT_ACCEPTED with a retry hint, the slowest after {slowest:.2?}",
        meanwhile.len(),
        tally(meanwhile.iter().copied()),
        told.len()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_postgres_away_nothing_is_acknowledged_and_nothing_happens_later() {
    // Room for everybody: callers are turned away because nobody can lead.
    postgres_away(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_postgres_away_a_queue_stays_under_its_cap() {
    // Room for few of them: the rest is turned away at the door from the start.
    let longest = postgres_away(QUEUE_MAX).await;
    assert_eq!(longest, QUEUE_MAX, "it was never full");
}

async fn postgres_away(queue_max: u64) -> u64 {
    let mut mesh = Mesh::prepare(program(), 2).await.expect("a mesh");
    for gateway in Role::GATEWAYS {
        let arguments = &mut mesh.role(gateway).recipe.arguments;
        arguments.push(format!("--queue-length-max={queue_max}").into());
    }
    mesh.start_all().await.expect("a mesh");
    let callers = Callers::start(&mesh, 40, DEADLINE, Duration::from_millis(100)).await;
    let queue = QueueWatch::start(&mesh.redis.url(), mesh.shards);

    let gone = Instant::now();
    mesh.postgres.kill();
    let called = callers.called();
    // The outage lasts until every caller has long been turned away.
    until("calls in the outage", || callers.called() > called + 2_000).await;
    mesh.postgres.start_again().await;
    let (back, answered) = (Instant::now(), callers.answered());
    callers.until("an answer", |count| count > answered).await;
    figure(format!("Postgres back: first answer after {:.2?}", back.elapsed()));
    callers.until("business as usual", |count| count > answered + 200).await;

    let all = callers.stop().await;
    judge("Postgres", &all, gone, back);
    let longest = queue.longest();
    figure(format!("longest queue {longest} of {queue_max}"));
    assert!(longest <= queue_max, "{longest}");

    mesh.until_recorded().await.expect("a recorder");
    let decided = decided(&mesh).await;
    let mut held = 0;
    for called in &all {
        let id = called.id;
        match (called.is_answered(), decided.get(&id)) {
            (true, at) => assert!(at.is_some(), "{id} of {} was acknowledged and is lost", called.account),
            (false, Some(at_us)) => {
                held += 1;
                assert!(!called.is_turned_away(), "{id} was not accepted, and happened");
                assert!(
                    *at_us <= called.deadline_us + GRACE_US,
                    "{id} happened after its deadline"
                );
            }
            (false, None) => {}
        }
    }
    figure(format!(
        "decided before their deadline and committed after the outage: {held}"
    ));
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_away_nothing_is_acknowledged_and_prices_are_stale_until_fresh_ones_come() {
    let mut mesh = Mesh::start(program(), 2).await.expect("a mesh");
    let callers = Callers::start(&mesh, 12, DEADLINE, Duration::from_millis(100)).await;
    let token = mesh.token("caller-0").await.expect("a token");
    let door = Door::new(mesh.gateways[0], &token).expect("a door");
    let opens = async || call(&door, "caller-0", open("caller-0"), Duration::from_secs(5)).await;
    while !opens().await.is_answered() {}

    mesh.role(Role::Poller).kill().await.expect("it runs");
    let gone = Instant::now();
    mesh.redis.kill();
    let called = callers.called();
    until("calls in the outage", || callers.called() > called + 600).await;
    // Longer than a price stays good for new trades.
    tokio::time::sleep(Duration::from_secs(6).saturating_sub(gone.elapsed())).await;
    mesh.redis.start_again().await;
    let (back, answered) = (Instant::now(), callers.answered());
    callers.until("an answer", |count| count > answered).await;
    figure(format!("Redis back: first answer after {:.2?}", back.elapsed()));

    let mut stale = 0;
    while stale < 5 {
        let opened = opens().await;
        assert!(!opened.is_answered(), "opened at a price from before the outage");
        stale += u32::from(opened.reason() == "STALE_PRICE");
    }
    mesh.role(Role::Poller).start().expect("it starts");
    let fresh = Instant::now();
    while !opens().await.is_answered() {}
    figure(format!("poller back: first trade after {:.2?}", fresh.elapsed()));

    // Money needs no price, and was moved meanwhile.
    let moved = call(&door, "caller-0", deposit("caller-0"), DEADLINE).await;
    assert!(moved.is_answered(), "{moved:?}");
    let all = callers.stop().await;
    judge("Redis", &all, gone, back);
    mesh.until_recorded().await.expect("a recorder");
    let decided = decided(&mesh).await;
    for called in &all {
        let happened = decided.get(&called.id);
        assert!(
            !called.is_answered() || happened.is_some(),
            "acknowledged and lost: {called:?}"
        );
        assert!(
            !called.is_turned_away() || happened.is_none(),
            "not accepted, and happened: {called:?}"
        );
        assert!(
            happened.is_none_or(|at_us| *at_us <= called.deadline_us + GRACE_US),
            "after its deadline: {called:?}"
        );
    }
}
