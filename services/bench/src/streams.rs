//! Streams of account events: what it costs to tell subscribers what happened, and how long they wait for it.
//!
//! Every account that trades has the same number of subscribers. An event is timed from the engine's decision, which is before the commit
//! that lets it out, to the moment at which a subscriber has read it: what is said of the commit cannot be longer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use contracts::v1;
use contracts::v1::stream_account_events_response::Event;

use crate::client::Client;
use crate::cpu::{Subject, this_thread};
use crate::load::{self, Door, Loop, Plan, Work, account, on_a_thread};
use crate::mesh::Mesh;
use crate::report::Report;
use crate::sample::{Latencies, Spread};
use crate::{Timing, say};

/// Calls at once of those who trade.
const AT_ONCE: usize = 64;
/// Subscribers of one connection: fewer streams than a server allows.
const EACH_CONNECTION: usize = 64;
/// How long all subscribers may take to be there.
const THERE_WITHIN: Duration = Duration::from_secs(60);

/// What subscribers saw.
#[derive(Debug, Default)]
struct Seen {
    there: AtomicU64,
    counts: AtomicBool,
    events: AtomicU64,
    gaps: AtomicU64,
    waited: Mutex<Latencies>,
    thread: AtomicU64,
}

/// Opens and closes trades, first unwatched, then before so many subscribers.
///
/// # Errors
/// When a stream does not begin.
pub async fn run(mesh: &Mesh, subscribers: usize, timing: Timing, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan {
        work: Work::OpenClose,
        door: Door::Grpc,
        load: Loop::Closed { concurrency: AT_ONCE },
        warm_up: timing.warm_up,
        measure: timing.measure,
    };
    let unwatched = load::run("unwatched mesh", &mesh.target, plan).await?;
    let seen = Arc::new(Seen::default());
    let (target, its) = (mesh.target.clone(), Arc::clone(&seen));
    let watching = tokio::spawn(on_a_thread("bench-subscribers", async move || {
        its.thread.store(u64::from(this_thread()), Ordering::Relaxed);
        let mut clients = Vec::new();
        for n in 0..subscribers.div_ceil(EACH_CONNECTION) {
            clients.push(Client::connect(&target, n).await?);
        }
        // The callers use the first accounts.
        let accounts = AT_ONCE.min(target.accounts);
        let all: Vec<_> = (0..subscribers)
            .map(|n| {
                tokio::task::spawn_local(subscribe(
                    clients[n / EACH_CONNECTION].clone(),
                    n % accounts,
                    Arc::clone(&its),
                ))
            })
            .collect();
        for one in all {
            one.await.context("a subscriber panicked")??;
        }
        Ok(())
    }));
    let begun = Instant::now();
    while seen.there.load(Ordering::Relaxed) < subscribers as u64 {
        ensure!(
            !watching.is_finished() && begun.elapsed() < THERE_WITHIN,
            "not all streams began"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say::aside(format!("{subscribers} subscribers are there"));
    let mut target = mesh.target.clone();
    let thread = u32::try_from(seen.thread.load(Ordering::Relaxed)).unwrap_or_default();
    target.watch.add("subscribers", Subject::Thread(thread));
    seen.counts.store(true, Ordering::Relaxed);
    let counting = Instant::now();
    let watched = load::run("watched mesh", &target, plan).await?;
    let took = counting.elapsed();
    seen.counts.store(false, Ordering::Relaxed);
    ensure!(!watching.is_finished(), "a stream ended");
    watching.abort();

    let events = seen.events.load(Ordering::Relaxed);
    ensure!(events > 0, "no event came");
    let one = |value: f64| Spread::of(&[value]);
    let named = |what: &str| format!("streams, {subscribers} subscribers: {what}");
    // Each call makes one event, told to so many.
    let each_call = events as f64 / (watched.per_second * took.as_secs_f64());
    let more = watched.cpu_of(&["gateway"]) - unwatched.cpu_of(&["gateway"]);
    report.figure(
        &named("events delivered a second"),
        "",
        one(events as f64 / took.as_secs_f64()),
    );
    report.figure(
        &named("gateway's processor time more for each"),
        "µs",
        one(more / each_call),
    );
    let waited = seen.waited.lock().map(|it| it.clone()).unwrap_or_default();
    report.figure(
        &named("half had it after the decision within"),
        "ms",
        one(waited.at(0.5) as f64 / 1e3),
    );
    report.figure(&named("99 of 100 within"), "ms", one(waited.at(0.99) as f64 / 1e3));
    report.figure(&named("gaps"), "", one(seen.gaps.load(Ordering::Relaxed) as f64));
    report.add(unwatched);
    report.add(watched);
    Ok(())
}

async fn subscribe(mut client: Client, number: usize, seen: Arc<Seen>) -> anyhow::Result<()> {
    let request = client.signed(v1::StreamAccountEventsRequest {
        account_id: account(number),
        ..Default::default()
    });
    let mut stream = client.trades.stream_account_events(request).await?.into_inner();
    while let Some(event) = stream.message().await? {
        match &event.event {
            Some(Event::Snapshot(_)) => {
                seen.there.fetch_add(1, Ordering::Relaxed);
            }
            Some(Event::Gap(_)) => {
                seen.gaps.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(Event::Heartbeat(_)) | None => {}
            Some(_) if seen.counts.load(Ordering::Relaxed) => {
                seen.events.fetch_add(1, Ordering::Relaxed);
                if let (Some(at), Ok(mut waited)) = (event.event_time, seen.waited.lock()) {
                    let decided = at.seconds * 1_000_000 + i64::from(at.nanos / 1_000);
                    let micros = engine::inbox::wall_us() - decided;
                    waited.record(Duration::from_micros(u64::try_from(micros).unwrap_or_default()));
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}
