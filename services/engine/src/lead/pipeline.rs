//! From decided to answered: one batch on its way into the journal, the next one decided meanwhile.

use bus::mutants::{self, Mutant};
use bus::{EventRow, Incoming, ShardBus as _};
use bytes::Bytes;
use contracts::bus::{Failure, JournalBatch, JournalEntry, Reply, reply};
use contracts::v1::ErrorReason;
use futures::FutureExt as _;
use prost::Message as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{LeadError, Leader};
use crate::commit::Pending;
use crate::ground::Ground;
use crate::journal::{Batch, DeadLetter, Journal as _, Verdict, chain};
use crate::recover::snapshot_of;
use crate::trace::{self, CallSpan};

/// What was decided in one step.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) messages: Vec<Incoming>,
    pub(super) replies: Vec<(String, Reply)>,
    pub(super) entries: Vec<JournalEntry>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) spans: Vec<CallSpan>,
}

/// A batch on its way into the journal.
#[derive(Debug)]
pub(super) struct InFlight {
    pending: Pending,
    commit_span: tracing::Span,
    decided: Instant,
    pub(super) then: Then,
}

/// What is to be done once a batch is in the journal.
#[derive(Debug)]
pub(super) struct Then {
    pub(super) messages: Vec<Incoming>,
    replies: Vec<(String, Reply)>,
    /// The row, for those who watch; none when there were only answers from memory.
    row: Option<EventRow>,
    spans: Vec<CallSpan>,
}

impl<G: Ground> Leader<G> {
    /// Journals entries that no message caused.
    pub(super) async fn submit_entries(&mut self, entries: Vec<JournalEntry>) -> Result<(), LeadError> {
        let decided = Decided {
            entries,
            ..Decided::default()
        };
        self.submit(decided).await
    }

    /// Waits for the batch under way to be committed, hands over the next, then answers for the one before: while replies, events and
    /// the trim are on their way to Redis, Postgres has something to do.
    pub(super) async fn submit(&mut self, decided: Decided) -> Result<(), LeadError> {
        let Decided {
            mut messages,
            mut replies,
            entries,
            dead,
            spans,
        } = decided;
        let committed = self.commit_under_way().await?;
        let commit_span = trace::commit_span(&spans, self.shard.number(), entries.len());
        let mut row = None;
        let pending = if entries.is_empty() {
            if !dead.is_empty() {
                // Rare, and fenced by nothing: the check below is what lets answers leave.
                self.shared.committer.commit(None, dead).await.verdict().await;
            }
            if messages.is_empty() {
                self.answer(committed).await;
                return Ok(());
            }
            // Only answers from memory: they may leave if this process leads at this moment.
            if mutants::is(Mutant::ReadsBeforeCheck) {
                Pending::committed()
            } else {
                self.shared.committer.check(self.shard.number(), self.epoch).await
            }
        } else {
            let batch = self.batch(entries);
            row = Some(EventRow {
                first: batch.sequence_before + 1,
                last: batch.sequence,
                body: batch.body.clone(),
            });
            if mutants::is(Mutant::SnapshotOfUncommitted) {
                self.snapshot_too_early();
            }
            self.shared.committer.commit(Some(batch), dead).await
        };
        if mutants::is(Mutant::ReplyBeforeCommit) {
            let _lost = self.bus.reply(&std::mem::take(&mut replies)).await;
        }
        if mutants::is(Mutant::PopBeforeCommit) {
            let _refused = self.bus.trim(&std::mem::take(&mut messages)).await;
        }
        self.in_flight = Some(InFlight {
            pending,
            commit_span,
            decided: Instant::now(),
            then: Then {
                messages,
                replies,
                row,
                spans,
            },
        });
        self.answer(committed).await;
        Ok(())
    }

    /// Makes a row of entries.
    fn batch(&mut self, entries: Vec<JournalEntry>) -> Batch {
        let first = entries.first().map_or(0, |entry| entry.sequence);
        let sequence = self.shard.sequence();
        let row = JournalBatch {
            entries,
            price_cursor: self.shard.price_cursor().to_owned(),
        };
        let body = Bytes::from(row.encode_to_vec());
        let state_hash = self.shard.hash();
        self.chain = chain(&self.chain, sequence, state_hash, &body);
        Batch {
            shard: self.shard.number(),
            epoch: self.epoch,
            sequence_before: first - 1,
            sequence,
            id: self.ground.fresh_id(),
            body,
            state_hash,
            chain: self.chain,
        }
    }

    /// Waits for the batch under way; then answers, publishes and trims.
    pub(super) async fn finish(&mut self) -> Result<(), LeadError> {
        let committed = self.commit_under_way().await?;
        self.answer(committed).await;
        Ok(())
    }

    /// Waits for the batch under way; nothing may be told of it before.
    async fn commit_under_way(&mut self) -> Result<Option<Then>, LeadError> {
        let Some(batch) = self.in_flight.take() else {
            return Ok(None);
        };
        let verdict = batch.pending.verdict().instrument(batch.commit_span).await;
        if verdict == Verdict::Fenced {
            if mutants::is(Mutant::FailedOnAmbiguous) {
                self.tell_failed(batch.then.replies).await;
            }
            return Err(LeadError::Fenced {
                shard: self.shard.number(),
            });
        }
        if let Some(row) = &batch.then.row {
            self.metrics
                .committed(row.last + 1 - row.first, batch.decided.elapsed());
        }
        Ok(Some(batch.then))
    }

    /// Replies, publishes and trims what was committed, all in one go.
    async fn answer(&mut self, committed: Option<Then>) {
        let Some(then) = committed else { return };
        let shard = self.shard.number();
        let began = Instant::now();
        // Redis may be away: the answers are then found by a repeat, the events by the next leader or a reader of the journal, and
        // what was not trimmed is recognised.
        let (replied, published, trimmed) = futures::join!(
            self.bus
                .reply(&then.replies)
                .inspect(|_| self.metrics.replied(began.elapsed())),
            self.bus.publish(then.row.as_slice()),
            self.bus.trim(&then.messages),
        );
        then.spans.into_iter().for_each(CallSpan::replied);
        if let Err(error) = replied {
            tracing::warn!(%error, shard, "replies not sent");
        }
        if let Err(error) = published {
            tracing::warn!(%error, shard, "events not published");
        }
        match trimmed {
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
    }

    /// What [`Mutant::SnapshotOfUncommitted`] does.
    fn snapshot_too_early(&self) {
        let (head, chunks) = snapshot_of(&self.shard, self.chain);
        let (journal, shard) = (self.ground.journal().clone(), self.shard.number());
        tokio::spawn(async move { journal.write_snapshot(shard, &head, &chunks).await });
    }

    /// What [`Mutant::FailedOnAmbiguous`] does.
    async fn tell_failed(&mut self, mut replies: Vec<(String, Reply)>) {
        for (_, reply) in &mut replies {
            reply.outcome = Some(reply::Outcome::Failure(Failure {
                reason: ErrorReason::NotAccepted.into(),
                ..Failure::default()
            }));
        }
        let _lost = self.bus.reply(&replies).await;
    }
}
