//! Coming back: the journal of a large shard replayed from its first row, a start from a snapshot of it, and what came after.
//!
//! Each beside what the core alone needs for the same events. The journal is in memory, so what the database takes is not in it; all of
//! it runs on one thread, and its processor time counts.

use std::time::Duration;

use anyhow::Context as _;
use contracts::bus::{JournalBatch, JournalEntry};
use engine::journal::Journal as _;
use engine::recover::Replica;
use engine::window::Limits;
use engine::wire::event;
use engine_core::{Event, State, Timestamp};
use prost::Message as _;

use super::journal::MemoryJournal;
use super::large::{Content, Large};
use super::{size, timed};
use crate::marks::{Limit, Mark};
use crate::report::Report;
use crate::sample::Spread;
use crate::say;

/// Entries of a row, as a busy leader writes them.
const ROW: usize = 20;
/// Most rows read at once by what reads them here.
const ROWS_MAX: u32 = 512;

/// Measures a start with so many open trades and so many entries after the snapshot, `rounds` times, and judges mark 14.
///
/// # Errors
/// When something does not replay to what it was.
pub fn run(trades: usize, tail: usize, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("a runtime")?;
    say::aside(format!("recovery: opening {trades} trades"));
    let journal = MemoryJournal::new(1);
    let mut row = Row::new(&journal);
    let mut live = Large::build(trades, Content::Trades, |entries, hash| row.add(entries, hash));
    row.end(live.shard.hash());
    let made = live.shard.sequence();

    let mut of_core = Vec::new();
    let (mut replays, mut applied, mut loads, mut tails) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut replica = Replica::genesis(0, Limits::default());
    for round in 0..rounds {
        say::aside(format!("recovery: round {} of {rounds}", round + 1));
        drop(std::mem::replace(&mut replica, Replica::genesis(0, Limits::default())));
        let (replayed, took) = timed(|| runtime.block_on(replica.catch_up(&journal)));
        replayed.context("replaying")?;
        anyhow::ensure!(replica.shard.hash() == live.shard.hash(), "replayed to another state");
        replays.push(took);
        let mut core = State::new();
        let took = runtime.block_on(apply(&journal, 0, &mut core))?;
        anyhow::ensure!(
            core.hash() == live.shard.state().hash(),
            "the core came to another state"
        );
        applied.push(took);
        of_core = core.entities().map(|it| it.to_owned()).collect();
    }
    let (head, chunks) = replica.snapshot();
    drop(replica);
    runtime
        .block_on(journal.write_snapshot(0, &head, &chunks))
        .context("storing")?;
    drop(chunks);
    let mut row = Row::new(&journal);
    while live.shard.sequence() < made + tail as u64 {
        let entries = live.step().into_iter().collect();
        row.add(entries, live.shard.hash());
    }
    row.end(live.shard.hash());
    let mut tails_of_core = Vec::new();
    for _ in 0..rounds {
        let (loaded, took) = timed(|| runtime.block_on(Replica::from_snapshot(&journal, 0, Limits::default())));
        let mut replica = loaded.context("loading")?;
        anyhow::ensure!(replica.shard.sequence() == made, "the snapshot was not used");
        loads.push(took);
        let (replayed, took) = timed(|| runtime.block_on(replica.catch_up(&journal)));
        replayed.context("replaying")?;
        anyhow::ensure!(replica.shard.hash() == live.shard.hash(), "replayed to another state");
        tails.push(took);
        let mut core = State::try_restore(of_core.clone().into_iter())?;
        tails_of_core.push(runtime.block_on(apply(&journal, made, &mut core))?);
    }

    let named = |what: &str| format!("recovery, {} open: {what}", size(trades));
    let mut seconds = |what: &str, took: &[Duration]| report.figure(&named(what), "s", spread(took, |it| it));
    seconds("replay all that made it", &replays);
    seconds("the core alone applies the same", &applied);
    seconds("load and verify a snapshot", &loads);
    seconds(&format!("replay {tail} entries after it"), &tails);
    seconds(&format!("the core alone applies these {tail}"), &tails_of_core);
    let bytes = journal.snapshot_bytes() as f64 / 1e6;
    report.figure(&named("size of the snapshot"), "MB", Spread::of(&[bytes]));
    let per_million = 1e6 / made as f64;
    let million = spread(&replays, |it| it * per_million);
    report.figure("recovery: a million journal entries", "s", million);
    let ratio = |ours: &[Duration], theirs: &[Duration]| {
        let pairs = ours.iter().zip(theirs).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
        Spread::of(&pairs.collect::<Vec<_>>())
    };
    report.judged(Mark::judge(
        14,
        &format!("replay of {made} journal entries ÷ the core applying them"),
        Limit::AtMost(1.1),
        ratio(&replays, &applied),
    ));
    report.judged(Mark::judge(
        14,
        &format!(
            "start from a snapshot of {} open ÷ replaying what made it",
            size(trades)
        ),
        Limit::AtMost(0.2),
        ratio(&loads, &replays),
    ));
    Ok(())
}

fn spread(took: &[Duration], of: impl Fn(f64) -> f64) -> Option<Spread> {
    Spread::of(&took.iter().map(|it| of(it.as_secs_f64())).collect::<Vec<_>>())
}

/// What the core alone takes for the entries after a sequence; reading them is not counted.
async fn apply(journal: &MemoryJournal, mut after: u64, core: &mut State) -> anyhow::Result<Duration> {
    let mut took = Duration::ZERO;
    loop {
        let rows = journal.rows(0, after, ROWS_MAX).await?;
        let Some(last) = rows.last() else { return Ok(took) };
        after = last.last;
        let mut events = Vec::new();
        for row in &rows {
            for entry in JournalBatch::decode(row.body.clone())?.entries {
                events.push(read(&entry)?);
            }
        }
        let (applied, some) = timed(|| {
            events
                .iter()
                .try_for_each(|(at, events)| events.iter().try_for_each(|event| core.try_apply(*at, event)))
        });
        applied?;
        took += some;
    }
}

fn read(entry: &JournalEntry) -> anyhow::Result<(Timestamp, Vec<Event>)> {
    let at = Timestamp::from_micros(i64::try_from(entry.at_us)?);
    let events = entry.events.iter().map(|event| event::read(&event.encode_to_vec()));
    let events = events.collect::<Result<_, _>>();
    Ok((at, events.map_err(|cause| anyhow::anyhow!("{cause:?}"))?))
}

/// Collects entries until they make a row.
struct Row<'a> {
    journal: &'a MemoryJournal,
    entries: Vec<JournalEntry>,
}

impl<'a> Row<'a> {
    fn new(journal: &'a MemoryJournal) -> Self {
        Self {
            journal,
            entries: Vec::with_capacity(ROW),
        }
    }

    fn add(&mut self, entries: Vec<JournalEntry>, hash: u128) {
        self.entries.extend(entries);
        if self.entries.len() >= ROW {
            self.end(hash);
        }
    }

    fn end(&mut self, hash: u128) {
        self.journal.append(std::mem::take(&mut self.entries), hash);
    }
}
