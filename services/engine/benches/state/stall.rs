//! A leader and a follower on one runtime, as in an engine: commands without a pause on one side, a snapshot of everything on the other.
//!
//! The leader's state is its own, so what it can lose to a snapshot is processor time and its place on a thread. Beside the longest stall
//! stands what one without a follower would be: the snapshot encoded in one go.

use std::time::{Duration, Instant};

use contracts::bus::JournalEntry;
use engine::Snapshots;
use engine::follow::{Replicas, follow};
use engine::recover::Replica;
use engine::window::Limits;

use crate::large::Large;
use crate::memory::Memory;

/// How long the leader is watched without a snapshot.
const BEFORE: Duration = Duration::from_secs(1);
/// Most commands of one measurement.
const COMMANDS_MAX: usize = 4_000_000;
/// Most entries kept while nobody reads them.
const KEPT_MAX: usize = 1_000_000;
/// Commands between two looks at other tasks, as a batch of the engine has some.
const BATCH: usize = 64;

/// Measures and prints.
pub fn run(trades: usize) {
    let journal = Memory::default();
    let mut entries = Vec::new();
    let mut leader = Large::build(trades, |entry| entries.push(entry));
    // The rows need the hash after each, which only a replay has at hand: one row for all of it.
    journal.append(entries, leader.shard.hash());

    let mut replica = Replica::genesis(0, Limits::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let caught_up = runtime.block_on(async { replica.catch_up(&journal).await });
    caught_up.expect("replays");
    let began = Instant::now();
    let (_, chunks) = replica.snapshot();
    let in_one_go = began.elapsed();
    let bytes: usize = chunks.iter().map(bytes::Bytes::len).sum();
    drop((replica, chunks));
    println!(
        "{trades} open trades, a snapshot of {} MB, {} ms when it is encoded in one go",
        bytes / 1_000_000,
        in_one_go.as_millis()
    );

    // Nothing is due until there is something new.
    let snapshots = Snapshots {
        every: Duration::from_secs(3_600),
        every_entries: 1,
        journal_kept: None,
    };
    runtime.block_on(async {
        let replicas = Replicas::default();
        let following = tokio::spawn(follow(journal.clone(), replicas.clone(), snapshots, Limits::default()));
        // It replays everything and takes its first snapshot, unmeasured.
        while journal.written().is_empty() {
            assert!(!following.is_finished(), "the follower goes on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let leading = tokio::spawn(async move {
            let mut entries = Vec::with_capacity(COMMANDS_MAX);
            let before = handle(&mut leader, &mut entries, |since| since > BEFORE).await;
            // One row more, and a snapshot is due.
            let (count, began) = (journal.written().len(), Instant::now());
            journal.append(std::mem::take(&mut entries), leader.shard.hash());
            let during = handle(&mut leader, &mut entries, |_| journal.written().len() > count).await;
            (before, during, began.elapsed())
        });
        let (before, during, took) = leading.await.expect("does not panic");
        following.abort();
        report(&before, &during, took, in_one_go);
    });
}

/// Handles commands until told that it is enough; how long each took, from the end of the one before.
async fn handle(
    leader: &mut Large,
    entries: &mut Vec<JournalEntry>,
    enough: impl Fn(Duration) -> bool,
) -> Vec<Duration> {
    let mut took = Vec::with_capacity(COMMANDS_MAX);
    let began = Instant::now();
    let mut last = began;
    while !enough(began.elapsed()) && took.len() < COMMANDS_MAX {
        for _ in 0..BATCH {
            entries.extend(leader.next());
            let now = Instant::now();
            took.push(now - last);
            last = now;
        }
        if entries.len() > KEPT_MAX {
            entries.clear();
        }
        tokio::task::yield_now().await;
    }
    took
}

fn report(before: &[Duration], during: &[Duration], took: Duration, in_one_go: Duration) {
    let line = |name: &str, times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |share: usize| sorted[(sorted.len() - 1) * share / 1_000];
        println!(
            "{name:<7} {:>9} commands: middle {:>7.1} µs, 99 of 100 {:>7.1} µs, 999 of 1000 {:>8.1} µs, longest {:>9.1} µs",
            sorted.len(),
            micros(at(500)),
            micros(at(990)),
            micros(at(999)),
            micros(sorted[sorted.len() - 1])
        );
        (at(990), sorted[sorted.len() - 1])
    };
    let (p99_before, longest_before) = line("before", before);
    let (p99_during, longest_during) = line("during", during);
    println!(
        "the snapshot took {} ms beside the leader; longest stall ÷ encoding in one go {:.4} (before it {:.4}); 99 of 100 during ÷ before {:.2}",
        took.as_millis(),
        longest_during.as_secs_f64() / in_one_go.as_secs_f64(),
        longest_before.as_secs_f64() / in_one_go.as_secs_f64(),
        p99_during.as_secs_f64() / p99_before.as_secs_f64()
    );
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
