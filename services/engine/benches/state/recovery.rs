//! A start without a standby, step by step, beside what the core alone needs for the same state and the same events.

use std::time::{Duration, Instant};

use contracts::bus::JournalEntry;
use engine::journal::Journal as _;
use engine::recover::Replica;
use engine::window::Limits;
use engine::wire::event;
use engine_core::{Event, State, Timestamp};

use crate::large::Large;
use crate::memory::Memory;

/// Entries of a row, as a busy leader writes them.
const ROW: usize = 20;

/// Measures and prints.
pub fn run(trades: usize, tail: usize) {
    let mut live = Large::build(trades, drop);
    let journal = Memory::default();
    let snapshot = Replica {
        shard: live.shard,
        chain: journal.chained(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let (head, chunks) = snapshot.snapshot();
    runtime
        .block_on(journal.write_snapshot(0, &head, &chunks))
        .expect("memory is never away");
    live.shard = snapshot.shard;
    let mut entries: Vec<JournalEntry> = Vec::new();
    while entries.len() < tail {
        let mut row = Vec::with_capacity(ROW);
        while row.len() < ROW {
            row.extend(live.next());
        }
        entries.extend(row.iter().cloned());
        journal.append(row, live.shard.hash());
    }

    let began = Instant::now();
    let mut replica = runtime
        .block_on(Replica::from_snapshot(&journal, 0, Limits::default()))
        .expect("memory is never away");
    let loading = began.elapsed();
    assert_eq!(replica.shard.sequence(), head.sequence, "from the snapshot");
    let began = Instant::now();
    runtime.block_on(replica.catch_up(&journal)).expect("replays");
    let replaying = began.elapsed();
    assert_eq!(replica.shard.hash(), live.shard.hash());

    let owned: Vec<_> = replica.shard.state().entities().map(|it| it.to_owned()).collect();
    let began = Instant::now();
    let mut core = State::try_restore(owned.into_iter()).expect("fits together");
    let restoring = began.elapsed();
    drop(core);
    let read = |entry: &JournalEntry| -> (Timestamp, Vec<Event>) {
        let events = entry.events.iter().map(|it| event::read(it).expect("reads")).collect();
        (
            Timestamp::from_micros(i64::try_from(entry.at_us).expect("in range")),
            events,
        )
    };
    let events: Vec<_> = entries.iter().map(read).collect();
    core = State::try_restore(
        runtime
            .block_on(Replica::from_snapshot(&journal, 0, Limits::default()))
            .expect("memory is never away")
            .shard
            .state()
            .entities()
            .map(|it| it.to_owned()),
    )
    .expect("fits together");
    let began = Instant::now();
    for (at, events) in &events {
        for event in events {
            core.try_apply(*at, event).expect("fits");
        }
    }
    let applying = began.elapsed();
    let each = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count.max(1) as f64;
    println!(
        "{trades} open trades, each with its remembered operation ({} MB): loaded and verified in {:.2} s, {:.1} µs a trade; the core alone {:.2} s: ratio {:.1}",
        journal.snapshot_bytes() / 1_000_000,
        loading.as_secs_f64(),
        each(loading, trades),
        restoring.as_secs_f64(),
        loading.as_secs_f64() / restoring.as_secs_f64(),
    );
    println!(
        "{tail} entries after it: replayed and verified in {:.2} s, {:.1} µs an entry; the core alone {:.2} s: ratio {:.1}",
        replaying.as_secs_f64(),
        each(replaying, tail),
        applying.as_secs_f64(),
        replaying.as_secs_f64() / applying.as_secs_f64(),
    );
    println!(
        "from start to serving, beside what the database and the lease take: {:.2} s",
        (loading + replaying).as_secs_f64()
    );
}
