//! Leading one shard: peek, decide, commit, reply, publish, trim.
//!
//! While a batch commits the next one is peeked and decided; it is handed to the commit stage only when the one before is done, so the
//! journal's order is the order of deciding. A reply leaves only after the commit of everything that was decided before it.

use std::sync::Arc;

use bus::mutants::{self, Mutant};
use bus::prices::{self, PriceStream as _};
use bus::shard::PRESENCE_EVERY;
use bus::{EventRow, Incoming, PriceEntry, ShardBus as _};
use bytes::Bytes;
use contracts::bus::{Failure, JournalBatch, JournalEntry, Reply, Request, reply};
use contracts::v1::ErrorReason;
use futures::FutureExt as _;
use prost::Message as _;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::commit::{Committer, Pending, ask_until_answered};
use crate::ground::Ground;
use crate::health::ShardMetrics;
use crate::inbox::{self, EngineClock};
use crate::journal::{Batch, DeadLetter, Head, Journal, JournalError, Verdict, chain};
use crate::poison::{self, Poison};
use crate::recover::{Replica, snapshot_of};
use crate::shard::Shard;
use crate::trace::{self, CallSpan};

/// Most requests decided in one batch.
const BATCH_MAX: usize = 512;
/// How long after the last proof of leadership the shard is still shown as led.
const PROOF_MAX: std::time::Duration = std::time::Duration::from_millis(1_500);
/// Newest price batches that a new leader looks at to know the market, without firing on them.
const NEWEST_PRICES: usize = 64;

/// Why a leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Somebody else leads the shard.
    #[error("shard {shard}: another engine leads it now")]
    Fenced {
        /// Which.
        shard: u32,
    },
    /// The journal could not be read while taking over.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A command's handling panicked, so the state is not to be trusted any more.
    #[error("shard {shard}: a command panicked: {said}")]
    Panicked {
        /// Which.
        shard: u32,
        /// What the panic said.
        said: String,
    },
}

/// What the shards of a process share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Name of the process.
    pub name: String,
    /// Number of shards of the deployment.
    pub shards: u32,
    /// The commit stage.
    pub committer: Committer,
    /// When the leases of this process were last proven to stand.
    pub proven: watch::Receiver<Instant>,
}

/// One leadership.
pub struct Leader<G: Ground> {
    ground: G,
    shared: Shared,
    shard: Shard,
    epoch: u64,
    chain: [u8; 32],
    bus: G::Bus,
    clock: EngineClock,
    prices: broadcast::Receiver<Arc<[PriceEntry]>>,
    /// The market was learnt from the stream, as it is to be before anything new of it is looked at.
    learned: bool,
    /// When the newest prices seen were published, the poller's clock. Microseconds since the epoch.
    published_us: u64,
    in_flight: Option<InFlight>,
    poison: Poison,
    metrics: ShardMetrics,
}

/// What was decided in one step.
#[derive(Debug, Default)]
struct Decided {
    messages: Vec<Incoming>,
    replies: Vec<(String, Reply)>,
    entries: Vec<JournalEntry>,
    dead: Vec<DeadLetter>,
    spans: Vec<CallSpan>,
}

/// A batch on its way into the journal.
#[derive(Debug)]
struct InFlight {
    pending: Pending,
    commit_span: tracing::Span,
    decided: Instant,
    then: Then,
}

/// What is to be done once a batch is in the journal.
#[derive(Debug)]
struct Then {
    messages: Vec<Incoming>,
    replies: Vec<(String, Reply)>,
    /// The row, for those who watch; none when there were only answers from memory.
    row: Option<EventRow>,
    spans: Vec<CallSpan>,
}

impl<G: Ground> Leader<G> {
    /// Takes over `replica`, which has everything up to `head`.
    #[must_use]
    pub fn new(
        ground: G,
        shared: Shared,
        replica: Replica,
        head: &Head,
        clock: EngineClock,
        prices: broadcast::Receiver<Arc<[PriceEntry]>>,
    ) -> Self {
        Self {
            bus: ground.bus(head.shard),
            clock,
            ground,
            shared,
            shard: replica.shard,
            epoch: head.epoch,
            chain: replica.chain,
            prices,
            learned: false,
            published_us: 0,
            in_flight: None,
            poison: Poison::default(),
            metrics: ShardMetrics::new(head.shard),
        }
    }

    /// Leads until told to stop or fenced. On a stop everything decided is committed and answered first.
    ///
    /// # Errors
    /// [`LeadError::Fenced`] when another engine leads.
    pub async fn lead(
        mut self,
        catalogue: &[engine_core::Instrument],
        stop: CancellationToken,
    ) -> Result<Shard, LeadError> {
        self.poison = Poison::of(self.ground.journal(), self.shard.number()).await?;
        self.repair_events().await?;
        self.learn_prices().await?;
        let now = self.clock.now(self.ground.wall_us());
        let configured = self.shard.configure(now, catalogue);
        self.submit_entries(configured).await?;
        self.show_presence().await;
        let mut presence = tokio::time::interval(PRESENCE_EVERY);
        presence.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            if stop.is_cancelled() {
                break self.finish().await;
            }
            let progressed = match self.step().await {
                Ok(progressed) => progressed,
                Err(error) => break Err(error),
            };
            if presence.tick().now_or_never_ready() {
                self.show_presence().await;
            }
            if progressed {
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = presence.tick() => self.show_presence().await,
                more = self.prices.recv() => self.take_prices(more).await?,
                () = self.bus.wait() => {}
            }
        };
        // A fenced one leaves it alone: what is shown is its successor's, and hiding it would turn calls away. So does one that panicked:
        // somebody leads again at once.
        if !matches!(outcome, Err(LeadError::Fenced { .. } | LeadError::Panicked { .. }))
            && let Err(error) = self.bus.hide_presence(&self.shared.name).await
        {
            tracing::debug!(%error, "presence runs out by itself");
        }
        outcome.map(|()| self.shard)
    }

    /// One round; false when there was nothing to do.
    async fn step(&mut self) -> Result<bool, LeadError> {
        while let Ok(more) = self.prices.try_recv() {
            self.take_prices(Ok(more)).await?;
        }
        let waiting = self.in_flight.as_ref().map_or(0, |batch| batch.then.messages.len());
        let messages = match self.bus.peek(waiting, BATCH_MAX).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(%error, shard = self.shard.number(), "queue: peek failed");
                Vec::new()
            }
        };
        if messages.is_empty() {
            let had_work = self.in_flight.is_some();
            self.finish().await?;
            return Ok(had_work);
        }
        self.decide(messages).await?;
        Ok(true)
    }

    /// Decides a batch of messages and hands it to the commit stage behind the one that is under way.
    async fn decide(&mut self, messages: Vec<Incoming>) -> Result<(), LeadError> {
        let (began, wall_us) = (Instant::now(), self.ground.wall_us());
        let now = self.clock.now(wall_us);
        let mut decided = Decided {
            replies: Vec::with_capacity(messages.len()),
            entries: Vec::with_capacity(messages.len()),
            spans: Vec::with_capacity(messages.len()),
            ..Decided::default()
        };
        for message in &messages {
            match inbox::read(message, self.shard.number(), self.shared.shards) {
                Ok(request) => {
                    if let Some(letter) = self.put_away(message, &request).await? {
                        decided.dead.push(letter);
                        let reply = poison::reply_to(&request, self.shard.sequence());
                        decided.replies.push((request.reply_to, reply));
                        continue;
                    }
                    self.metrics.taken_up(wall_us, request.sent_at_us);
                    let span = trace::call_span(&request, self.shard.number());
                    let handled = span.in_scope(|| poison::guarded(&request, || self.shard.handle(now, &request)));
                    let handled = match handled {
                        Ok(handled) => handled,
                        Err(said) => return Err(self.panicked(&request, said).await),
                    };
                    self.metrics.handled(&handled);
                    decided.entries.extend(handled.entry);
                    decided.replies.push((request.reply_to, handled.reply));
                    decided.spans.push(span);
                }
                Err(reason) => {
                    tracing::warn!(reason, shard = self.shard.number(), "dead letter");
                    self.metrics.dead_letter();
                    let letter = DeadLetter::unread(self.shard.number(), message, reason);
                    decided.dead.push(letter);
                }
            }
        }
        self.metrics.decided(began.elapsed());
        decided.messages = messages;
        self.submit(decided).await
    }

    /// What becomes of a command that ended too many leaderships; nothing for any other.
    async fn put_away(&mut self, message: &Incoming, request: &Request) -> Result<Option<DeadLetter>, LeadError> {
        let shard = self.shard.number();
        let Some(digest) = self.poison.holds(self.ground.journal(), shard, request).await? else {
            return Ok(None);
        };
        tracing::error!(shard, principal = request.principal, "dead letter: its handling panics");
        self.metrics.dead_letter();
        Ok(Some(DeadLetter::panics(shard, message, digest)))
    }

    /// Writes down what panicked, after what was decided before it was answered.
    async fn panicked(&mut self, request: &Request, said: String) -> LeadError {
        let (shard, epoch, digest) = (self.shard.number(), self.epoch, poison::digest(request));
        tracing::error!(
            shard,
            said,
            principal = request.principal,
            "a command panicked; its shard starts over"
        );
        self.metrics.panicked();
        if let Err(error) = self.finish().await {
            return error;
        }
        let journal = self.ground.journal();
        ask_until_answered(|| journal.note_panic(shard, &digest, epoch, &said)).await;
        LeadError::Panicked { shard, said }
    }

    /// Takes quotes; what they fire is committed like a batch of requests.
    async fn take_prices(
        &mut self,
        more: Result<Arc<[PriceEntry]>, broadcast::error::RecvError>,
    ) -> Result<(), LeadError> {
        let missed;
        let entries: &[PriceEntry] = match &more {
            Ok(entries) => entries,
            Err(_) => {
                // This shard was slower than the feed for a while: read what it missed from the stream itself.
                missed = self
                    .ground
                    .prices()
                    .after(self.shard.price_cursor())
                    .await
                    .unwrap_or_default();
                &missed
            }
        };
        if !self.learned {
            self.learn_prices().await?;
        }
        self.observe(entries).await
    }

    /// Looks at what is new of these.
    async fn observe(&mut self, entries: &[PriceEntry]) -> Result<(), LeadError> {
        let now = self.clock.now(self.ground.wall_us());
        let mut fired = Vec::new();
        for entry in entries {
            if !self.is_new(entry) {
                continue;
            }
            self.published_us = self.published_us.max(entry.batch.published_at_us);
            self.shard.feed_is(&entry.batch.source);
            for quote in &entry.batch.quotes {
                let observation = self.shard.observe(now, quote, &entry.batch.traceparent, &mut fired);
                self.metrics.quote(observation);
            }
            self.shard.advance_price_cursor(&entry.id);
        }
        if fired.is_empty() {
            return Ok(());
        }
        self.metrics.fired(&fired);
        self.submit_entries(fired).await
    }

    /// Whether an entry was not seen yet. One at or before our position that was published after everything we saw is new too: the
    /// stream was emptied and its ids started over, and to wait until they catch up would freeze the market.
    fn is_new(&self, entry: &PriceEntry) -> bool {
        let cursor = self.shard.price_cursor();
        cursor.is_empty() || prices::after(&entry.id, cursor) || entry.batch.published_at_us > self.published_us
    }

    /// Journals entries that no message caused.
    async fn submit_entries(&mut self, entries: Vec<JournalEntry>) -> Result<(), LeadError> {
        let decided = Decided {
            entries,
            ..Decided::default()
        };
        self.submit(decided).await
    }

    /// Waits for the batch under way to be committed, hands over the next, then answers for the one before: while replies, events and
    /// the trim are on their way to Redis, Postgres has something to do.
    async fn submit(&mut self, decided: Decided) -> Result<(), LeadError> {
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
    async fn finish(&mut self) -> Result<(), LeadError> {
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

    /// Publishes what was committed but not published by the leader before.
    async fn repair_events(&mut self) -> Result<(), LeadError> {
        let published = match self.bus.published().await {
            Ok(published) => published,
            Err(error) => {
                tracing::warn!(%error, shard = self.shard.number(), "event stream: not readable, readers will use the journal");
                return Ok(());
            }
        };
        if published > self.shard.sequence() {
            tracing::warn!(
                published,
                sequence = self.shard.sequence(),
                "event stream: it is ahead of the journal, so not its own; emptied"
            );
            if let Err(error) = self.bus.discard_events().await {
                tracing::warn!(%error, "event stream: not emptied");
            }
        }
        let mut after = if published > self.shard.sequence() {
            0
        } else {
            published
        };
        after = after.max(self.shard.sequence().saturating_sub(bus::events::SEQUENCES_KEPT));
        while after < self.shard.sequence() {
            let rows = self.ground.journal().rows(self.shard.number(), after, 64).await?;
            let missing: Vec<EventRow> = rows
                .into_iter()
                .map(|row| EventRow {
                    first: row.first,
                    last: row.last,
                    body: row.body,
                })
                .collect();
            let Some(last) = missing.last().map(|row| row.last) else {
                break;
            };
            if let Err(error) = self.bus.publish(&missing).await {
                tracing::warn!(%error, "event stream: not repaired, readers will use the journal");
                return Ok(());
            }
            after = last;
        }
        Ok(())
    }

    /// Learns the market: the newest quotes without firing on what was seen before, then what the leader before did not see. With
    /// Redis away it is done when prices come again, and before them.
    async fn learn_prices(&mut self) -> Result<(), LeadError> {
        let now = self.clock.now(self.ground.wall_us());
        if mutants::is(Mutant::CursorInGroup) {
            self.shard.advance_price_cursor("");
        }
        let cursor = self.shard.price_cursor().to_owned();
        let (newest, missed) = match self.recent_prices(&cursor).await {
            // A group that was lost with Redis begins at the beginning, and knows of nothing that was seen.
            Ok((_, everything)) if mutants::is(Mutant::CursorInGroup) => (Vec::new(), everything),
            Ok(recent) => recent,
            Err(error) => {
                tracing::warn!(%error, shard = self.shard.number(), "price stream: not readable, the market is not known yet");
                return Ok(());
            }
        };
        self.learned = true;
        let last = newest.last().map_or("", |last| last.id.as_str());
        let starts_over = !cursor.is_empty() && !newest.is_empty() && prices::after(&cursor, last);
        if starts_over || newest.is_empty() {
            if !cursor.is_empty() {
                tracing::warn!(
                    cursor,
                    last,
                    shard = self.shard.number(),
                    "price stream: it ends before our position, so it was emptied; starting over"
                );
            }
            self.shard.advance_price_cursor(last);
        }
        for entry in newest
            .iter()
            .filter(|entry| cursor.is_empty() || !prices::after(&entry.id, &cursor))
        {
            self.published_us = self.published_us.max(entry.batch.published_at_us);
            self.shard.feed_is(&entry.batch.source);
            entry.batch.quotes.iter().for_each(|quote| self.shard.learn(now, quote));
        }
        if cursor.is_empty() && !newest.is_empty() {
            self.shard.advance_price_cursor(last);
            return Ok(());
        }
        self.observe(&missed).await
    }

    /// The newest batches, and those after a position.
    async fn recent_prices(&mut self, cursor: &str) -> Result<(Vec<PriceEntry>, Vec<PriceEntry>), bus::BusError> {
        let prices = self.ground.prices();
        Ok((prices.newest(NEWEST_PRICES).await?, prices.after(cursor).await?))
    }

    async fn show_presence(&mut self) {
        // Shown only while the journal takes our writes: with Postgres away, gateways stop queueing within seconds.
        if self.shared.proven.borrow().elapsed() > PROOF_MAX {
            return;
        }
        if let Err(error) = self.bus.show_presence(&self.shared.name).await {
            tracing::debug!(%error, "presence not shown");
        }
    }
}

/// A timer that is looked at without waiting.
trait NowOrNever {
    fn now_or_never_ready(self) -> bool;
}

impl<F: Future> NowOrNever for F {
    fn now_or_never_ready(self) -> bool {
        futures::FutureExt::now_or_never(self).is_some()
    }
}
