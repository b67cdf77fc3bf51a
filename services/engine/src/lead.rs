//! Leading one shard: peek, decide, commit, reply, publish, trim.
//!
//! While a batch commits the next one is peeked and decided; it is handed to the commit stage only when the one before is done, so the
//! journal's order is the order of deciding. A reply leaves only after the commit of everything that was decided before it.

mod market;
mod pipeline;

use std::sync::Arc;

use bus::shard::PRESENCE_EVERY;
use bus::{EventRow, Incoming, PriceEntry, ShardBus as _};
use contracts::bus::Request;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::pipeline::{Decided, InFlight};
use crate::commit::{Committer, ask_until_answered};
use crate::ground::Ground;
use crate::health::ShardMetrics;
use crate::inbox::{self, EngineClock};
use crate::journal::{DeadLetter, Head, Journal as _, JournalError};
use crate::poison::{self, Poison};
use crate::recover::Replica;
use crate::shard::Shard;
use crate::trace;

/// Most requests decided in one batch.
const BATCH_MAX: usize = 512;
/// How long after the last proof of leadership the shard is still shown as led.
const PROOF_MAX: std::time::Duration = std::time::Duration::from_millis(1_500);

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
