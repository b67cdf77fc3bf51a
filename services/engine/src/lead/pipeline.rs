//! From decided to answered: one round on its way into the journal, the next one decided meanwhile.

use bus::mutants::{self, Mutant};
use bus::{Addressed, EventRow, Incoming, ShardBus as _};
use bytes::Bytes;
use contracts::bus::{Failure, JournalBatch, JournalEntry, reply};
use contracts::v1::ErrorReason;
use futures::future::join_all;
use prost::Message as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{LeadError, Leader, Led};
use crate::commit::{self, Pending, Work};
use crate::ground::Ground;
use crate::journal::{Batch, DeadLetter, Journal as _, Row, chain};
use crate::recover::snapshot_of;
use crate::trace::{self, CallSpan};

/// What a shard decided in one round.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) messages: Vec<Incoming>,
    pub(super) replies: Vec<Addressed>,
    pub(super) entries: Entries,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) spans: Vec<CallSpan>,
}

impl Decided {
    /// Makes room for so many messages.
    pub(super) fn expect(&mut self, messages: usize) {
        self.replies.reserve(messages);
        self.spans.reserve(messages);
    }

    /// Whether there is nothing to hand over.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.entries.first.is_none() && self.dead.is_empty()
    }
}

/// Entries of one row, written the moment they are decided: as they are they hold a hundred pieces of memory each, which those of a whole
/// round would take from the caches.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// An encoded `JournalBatch` without a cursor. The bytes of two such messages, one after the other, are those of both's entries.
    written: Vec<u8>,
    /// Sequence of the first.
    first: Option<u64>,
}

impl Entries {
    /// Adds the one that follows.
    pub(super) fn add(&mut self, entry: JournalEntry) {
        self.first.get_or_insert(entry.sequence);
        let alone = JournalBatch {
            entries: vec![entry],
            ..JournalBatch::default()
        };
        alone.encode(&mut self.written).expect("a vector grows");
    }

    /// Takes them out as a row's body, and tells the sequence of the first; nothing when there is none. The room stays for the next.
    fn take(&mut self, price_cursor: &str) -> Option<(u64, Bytes)> {
        let first = self.first.take()?;
        let cursor = JournalBatch {
            price_cursor: price_cursor.to_owned(),
            ..JournalBatch::default()
        };
        cursor.encode(&mut self.written).expect("a vector grows");
        let body = Bytes::copy_from_slice(&self.written);
        self.written.clear();
        Some((first, body))
    }
}

impl Extend<JournalEntry> for Entries {
    fn extend<I: IntoIterator<Item = JournalEntry>>(&mut self, entries: I) {
        entries.into_iter().for_each(|entry| self.add(entry));
    }
}

/// A round on its way into the journal.
#[derive(Debug)]
pub(super) struct InFlight {
    pending: Pending,
    commit_span: tracing::Span,
    decided: Instant,
    parts: Vec<Part>,
}

/// What is to be done for a shard once its part of a round is in the journal.
#[derive(Debug)]
struct Part {
    shard: u32,
    messages: Vec<Incoming>,
    replies: Vec<Addressed>,
    /// The row, for those who watch and for the replica; none when there were only answers from memory.
    row: Option<Row>,
    spans: Vec<CallSpan>,
}

impl<G: Ground> Leader<G> {
    /// Waits for the round under way to be committed, hands over the next, then answers for the one before: while replies, events and
    /// trims are on their way to Redis, Postgres has something to do.
    pub(super) async fn submit(&mut self) -> Result<(), LeadError> {
        let committed = self.commit_under_way().await?;
        let (mut work, mut parts) = (Work::default(), Vec::with_capacity(self.led.len()));
        for led in self.led.values_mut() {
            parts.extend(led.hand_over(&mut work));
        }
        self.sabotage(&mut parts).await;
        let commit_span = trace::commit_span(parts.iter().flat_map(|part| &part.spans), &work);
        self.in_flight = Some(InFlight {
            pending: commit::start(self.ground.journal().clone(), work),
            commit_span,
            decided: Instant::now(),
            parts,
        });
        self.answer(committed).await;
        Ok(())
    }

    /// Waits for the round under way; then answers, publishes and trims.
    pub(super) async fn finish(&mut self) -> Result<(), LeadError> {
        let committed = self.commit_under_way().await?;
        self.answer(committed).await;
        for led in self.led.values_mut() {
            led.under_way = 0;
        }
        Ok(())
    }

    /// Waits for the round under way; nothing may be told of it before. When a shard was fenced the others are still answered.
    async fn commit_under_way(&mut self) -> Result<Vec<Part>, LeadError> {
        let Some(round) = self.in_flight.take() else {
            return Ok(Vec::new());
        };
        let fenced = round.pending.fenced().instrument(round.commit_span).await;
        let (lost, committed): (Vec<Part>, Vec<Part>) =
            round.parts.into_iter().partition(|part| fenced.contains(&part.shard));
        for part in &committed {
            if let (Some(row), Some(led)) = (&part.row, self.led.get(&part.shard)) {
                let trace = trace::one_of(&part.spans);
                led.metrics
                    .committed(row.last + 1 - row.first, round.decided.elapsed(), trace);
                self.replicas.committed(part.shard, row.clone());
            }
        }
        let Some(first) = lost.first().map(|part| part.shard) else {
            return Ok(committed);
        };
        self.answer(committed).await;
        if mutants::is(Mutant::FailedOnAmbiguous) {
            self.tell_failed(lost).await;
        }
        Err(LeadError::Fenced { shard: first })
    }

    /// Replies, publishes and trims what was committed, all in one go; the replies of all shards together.
    async fn answer(&mut self, mut committed: Vec<Part>) {
        let Some(sender) = committed.first().and_then(|part| self.led.get(&part.shard)) else {
            return;
        };
        let began = Instant::now();
        let mut replies: Vec<Addressed> = Vec::with_capacity(committed.iter().map(|part| part.replies.len()).sum());
        for part in &mut committed {
            replies.append(&mut part.replies);
        }
        // Redis may be away: the answers are then found by a repeat, the events by the next leader or a reader of the journal, and
        // what was not trimmed is recognised.
        let replying = async {
            if let Err(error) = sender.bus.reply(&replies).await {
                tracing::warn!(%error, "replies not sent");
            }
            for part in &committed {
                if let Some(led) = self.led.get(&part.shard) {
                    led.metrics.replied(began.elapsed(), trace::one_of(&part.spans));
                }
            }
        };
        let tidying = committed.iter().filter_map(|part| {
            let led = self.led.get(&part.shard)?;
            Some(async move { (part.shard, led.tidy_up(part).await) })
        });
        let ((), in_step) = futures::join!(replying, join_all(tidying));
        for (shard, in_step) in in_step {
            if let Some(led) = self.led.get_mut(&shard) {
                led.astray |= !in_step;
            }
        }
        let spans = committed.into_iter().flat_map(|part| part.spans);
        spans.for_each(CallSpan::replied);
    }

    /// What mutants do to a round before it is committed.
    async fn sabotage(&self, parts: &mut [Part]) {
        for part in parts {
            let Some(led) = self.led.get(&part.shard) else {
                continue;
            };
            if mutants::is(Mutant::ReplyBeforeCommit) {
                let _lost = led.bus.reply(&std::mem::take(&mut part.replies)).await;
            }
            if mutants::is(Mutant::PopBeforeCommit) {
                let _refused = led.bus.trim(&std::mem::take(&mut part.messages)).await;
            }
        }
    }

    /// What [`Mutant::FailedOnAmbiguous`] does.
    async fn tell_failed(&self, parts: Vec<Part>) {
        for mut part in parts {
            for told in &mut part.replies {
                told.reply.outcome = Some(reply::Outcome::Failure(Failure {
                    reason: ErrorReason::NotAccepted.into(),
                    ..Failure::default()
                }));
            }
            if let Some(led) = self.led.get(&part.shard) {
                let _lost = led.bus.reply(&part.replies).await;
            }
        }
    }
}

impl<G: Ground> Led<G> {
    /// Hands what was decided over to the commit, as one row; nothing when nothing was.
    fn hand_over(&mut self, work: &mut Work) -> Option<Part> {
        self.under_way = self.decided.messages.len();
        if self.decided.is_empty() {
            return None;
        }
        let messages = std::mem::take(&mut self.decided.messages);
        let replies = std::mem::take(&mut self.decided.replies);
        let spans = std::mem::take(&mut self.decided.spans);
        work.dead.append(&mut self.decided.dead);
        let mut row = None;
        if let Some((first, body)) = self.decided.entries.take(self.shard.price_cursor()) {
            let batch = self.batch(first, body);
            row = Some(batch.row());
            work.batches.push(batch);
            if mutants::is(Mutant::SnapshotOfUncommitted) {
                self.snapshot_too_early();
            }
        } else if !mutants::is(Mutant::ReadsBeforeCheck) {
            // Only answers from memory: they may leave if this process leads at this moment.
            work.checks.push((self.number(), self.epoch));
        }
        Some(Part {
            shard: self.number(),
            messages,
            replies,
            row,
            spans,
        })
    }

    /// Makes a row of what was decided.
    fn batch(&mut self, first: u64, body: Bytes) -> Batch {
        let sequence = self.shard.sequence();
        let state_hash = self.shard.hash();
        self.chain = chain(&self.chain, sequence, state_hash, &body);
        Batch {
            shard: self.number(),
            epoch: self.epoch,
            sequence_before: first - 1,
            sequence,
            id: self.ground.fresh_id(),
            body,
            state_hash,
            chain: self.chain,
        }
    }

    /// Publishes and trims what was committed; false when the queue is not known to begin behind it now.
    async fn tidy_up(&self, part: &Part) -> bool {
        let shard = self.number();
        let row: Option<EventRow> = part.row.clone().map(EventRow::from);
        let (published, trimmed) = futures::join!(self.bus.publish(row.as_slice()), self.bus.trim(&part.messages));
        if let Err(error) = published {
            tracing::warn!(%error, shard, "events not published");
        }
        match &trimmed {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.trim_refused();
                tracing::warn!(
                    shard,
                    "queue: it changed under us, nothing trimmed; repeats are recognised"
                );
            }
            Err(error) => tracing::warn!(%error, shard, "queue: trim failed; repeats are recognised"),
        }
        matches!(trimmed, Ok(true))
    }

    /// What [`Mutant::SnapshotOfUncommitted`] does.
    fn snapshot_too_early(&self) {
        let (head, chunks) = snapshot_of(&self.shard, self.chain);
        let (journal, shard) = (self.ground.journal().clone(), self.number());
        tokio::spawn(async move { journal.write_snapshot(shard, &head, &chunks).await });
    }
}
