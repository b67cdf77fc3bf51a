//! A leader and a follower on one runtime, as in an engine: commands without a pause on one side, a snapshot of everything on the other.
//!
//! The leader's state is its own, so what it can lose to a snapshot is processor time and its place on a thread. Beside the longest stall
//! stand a copy of the state, which is what a leader without a follower would stop for at the least, and the snapshot in one go.
//!
//! The follower follows all the time, as it does in an engine, and makes a snapshot whenever some time has passed since the last one. Most
//! commands are questions, so that what is remembered does not outgrow its table meanwhile: that is another stall, shown apart.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use contracts::bus::JournalEntry;
use engine::Snapshots;
use engine::follow::{Replicas, follow};
use engine::recover::Replica;
use engine::window::Limits;

use super::journal::MemoryJournal;
use super::large::{Content, Large};
use super::{size, thread_time, thread_waited, timed};
use crate::marks::{Limit, Mark};
use crate::report::Report;
use crate::sample::{Latencies, Spread};
use crate::say;

/// How long no snapshot is made after one.
const QUIET: Duration = Duration::from_secs(2);
/// Commands between two looks at other tasks, as a batch of the engine has some.
const BATCH: usize = 64;
/// Every so manieth command changes something.
const CHANGES: usize = 16;
/// Entries of a row.
const ROW: usize = 16;
/// Rows that the journal has room for without moving those it has.
const ROWS: usize = 1 << 18;

/// Measures with so many open trades, `rounds` times, and judges mark 15.
///
/// # Errors
/// When the follower stops.
pub fn run(trades: usize, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let journal = MemoryJournal::with_room(ROWS);
    let mut entries = Vec::new();
    say::aside(format!("snapshot: opening {trades} trades"));
    let mut leader = Large::build(trades, Content::Trades, |more, _| entries.extend(more));
    // The rows need the hash after each, which only a replay has at hand: one row for all of it.
    journal.append(entries, leader.shard.hash());

    let mut replica = Replica::genesis(0, Limits::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .context("a runtime")?;
    runtime.block_on(replica.catch_up(&journal)).context("replaying")?;
    let (copy, cloning) = timed(|| replica.shard.state().clone());
    drop(copy);
    let ((_, chunks), in_one_go) = timed(|| replica.snapshot());
    let bytes: usize = chunks.iter().map(bytes::Bytes::len).sum();
    drop((replica, chunks));

    let snapshots = Snapshots {
        every: QUIET,
        every_entries: u64::MAX,
        journal_kept: None,
    };
    let growing = leader.longest;
    let seen = runtime.block_on(async {
        let following = tokio::spawn(follow(
            journal.clone(),
            Replicas::default(),
            snapshots,
            Limits::default(),
        ));
        // It replays everything and takes its first snapshot, unmeasured.
        while journal.written().is_empty() {
            anyhow::ensure!(!following.is_finished(), "the follower stopped");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let leading = tokio::spawn(async move {
            let mut seen = Vec::with_capacity(rounds);
            for round in 0..rounds {
                say::aside(format!("snapshot: round {} of {rounds}", round + 1));
                seen.push(watch(&journal, &mut leader).await);
            }
            seen
        });
        let seen = leading.await.context("the leader panicked")?;
        anyhow::ensure!(!following.is_finished(), "the follower stopped");
        following.abort();
        anyhow::Ok(seen)
    })?;
    tell(trades, bytes, [growing, cloning, in_one_go], &seen, report);
    Ok(())
}

/// What a leader saw while no snapshot was made, and while one was.
#[derive(Debug)]
struct Round {
    before: Stalls,
    during: Stalls,
    took: Duration,
}

/// How long commands took, from the end of the one before to their own.
#[derive(Debug, Default)]
struct Stalls {
    took: Latencies,
    /// The longest inside a batch, and for how long of that batch its thread ran, and waited for a processor.
    longest: Duration,
    ran: Duration,
    waited: Duration,
    /// The longest until it was the leader's turn again.
    turn: Duration,
}

impl Stalls {
    fn most(&self) -> Duration {
        self.longest.max(self.turn)
    }
}

/// Watches until the next snapshot is stored.
async fn watch(journal: &MemoryJournal, leader: &mut Large) -> Round {
    let made = journal.written();
    let count = made.len();
    // The follower counts from when it had encoded the last one, a little before that was stored.
    let due = made.last().map_or_else(Instant::now, |(encoded, _)| *encoded + QUIET);
    let mut hand = Hand::new(journal);
    let before = hand.handle(leader, || Instant::now() < due).await;
    let during = hand.handle(leader, || journal.written().len() == count).await;
    Round {
        before,
        during,
        took: due.elapsed(),
    }
}

/// Gives the leader its commands and journals what it did.
struct Hand<'a> {
    journal: &'a MemoryJournal,
    row: Vec<JournalEntry>,
    given: usize,
}

impl<'a> Hand<'a> {
    fn new(journal: &'a MemoryJournal) -> Self {
        Self {
            journal,
            row: Vec::with_capacity(ROW),
            given: 0,
        }
    }

    /// Commands until it is over.
    async fn handle(&mut self, leader: &mut Large, goes_on: impl Fn() -> bool) -> Stalls {
        let mut stalls = Stalls::default();
        let mut last = Instant::now();
        while goes_on() {
            let (ran, waited) = (thread_time(), thread_waited());
            let mut longest = Duration::ZERO;
            for n in 0..BATCH {
                self.give(leader);
                let now = Instant::now();
                let took = now - last;
                stalls.took.record(took);
                if n == 0 {
                    stalls.turn = stalls.turn.max(took);
                } else {
                    longest = longest.max(took);
                }
                last = now;
            }
            if longest > stalls.longest {
                stalls.longest = longest;
                stalls.ran = thread_time().saturating_sub(ran);
                stalls.waited = thread_waited().saturating_sub(waited);
            }
            tokio::task::yield_now().await;
        }
        if !self.row.is_empty() {
            self.journal.append(std::mem::take(&mut self.row), leader.shard.hash());
        }
        stalls
    }

    fn give(&mut self, leader: &mut Large) {
        self.given += 1;
        if !self.given.is_multiple_of(CHANGES) {
            leader.ask();
            return;
        }
        self.row.extend(leader.step());
        if self.row.len() == ROW {
            let row = std::mem::replace(&mut self.row, Vec::with_capacity(ROW));
            self.journal.append(row, leader.shard.hash());
        }
    }
}

fn tell(trades: usize, bytes: usize, beside: [Duration; 3], seen: &[Round], report: &mut Report) {
    let [growing, cloning, in_one_go] = beside;
    let named = |what: &str| format!("snapshot, {} open: {what}", size(trades));
    let millis = |took: Duration| took.as_secs_f64() * 1e3;
    let one = |value: f64| Spread::of(&[value]);
    report.figure(&named("its size"), "MB", one(bytes as f64 / 1e6));
    report.figure(&named("encoded in one go"), "ms", one(millis(in_one_go)));
    report.figure(&named("a copy of the core's state"), "ms", one(millis(cloning)));
    report.figure(&named("longest command while it grew"), "ms", one(millis(growing)));
    let mut of = |what: &str, unit: &'static str, of: &dyn Fn(&Round) -> f64| {
        let all = Spread::of(&seen.iter().map(of).collect::<Vec<_>>());
        report.figure(&named(what), unit, all);
        all
    };
    of("time to the next one stored", "ms", &|it| millis(it.took));
    for (when, stalls) in [
        ("before", (|it| &it.before) as fn(&Round) -> &Stalls),
        ("during", |it| &it.during),
    ] {
        of(&format!("commands {when}"), "", &|it| stalls(it).took.len() as f64);
        of(&format!("99 of 100 {when}"), "µs", &|it| {
            stalls(it).took.at_ns(0.99) / 1e3
        });
        of(&format!("999 of 1,000 {when}"), "µs", &|it| {
            stalls(it).took.at_ns(0.999) / 1e3
        });
        of(&format!("longest inside a batch {when}"), "ms", &|it| {
            millis(stalls(it).longest)
        });
        of(&format!("of which its thread ran at most, {when}"), "ms", &|it| {
            millis(stalls(it).ran)
        });
        of(&format!("of which it waited for a processor, {when}"), "ms", &|it| {
            millis(stalls(it).waited)
        });
        of(&format!("longest until its turn {when}"), "ms", &|it| {
            millis(stalls(it).turn)
        });
    }
    let longest = of("longest stall during", "ms", &|it| millis(it.during.most()));
    let ratio: Vec<f64> = seen
        .iter()
        .map(|it| it.during.most().as_secs_f64() / cloning.as_secs_f64())
        .collect();
    let tail: Vec<f64> = seen
        .iter()
        .map(|it| it.during.took.at_ns(0.99) / it.before.took.at_ns(0.99))
        .collect();
    let what = |what: &str| format!("snapshot of {} open: {what}", size(trades));
    report.judged(Mark::judge(15, &what("longest stall, ms"), Limit::AtMost(5.0), longest));
    report.judged(Mark::judge(
        15,
        &what("longest stall ÷ copying the state"),
        Limit::AtMost(0.05),
        Spread::of(&ratio),
    ));
    report.judged(Mark::judge(
        15,
        &what("99 of 100 commands, during ÷ before"),
        Limit::AtMost(1.3),
        Spread::of(&tail),
    ));
}
