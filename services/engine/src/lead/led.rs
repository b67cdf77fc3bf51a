//! One shard of the loop: what it decides, and what it needs for that.

use std::sync::Arc;

use bus::{Addressed, EventRow, Incoming, PriceEntry, ShardBus as _};
use contracts::bus::Request;
use engine_core::{Instrument, Timestamp};
use futures::FutureExt as _;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::LeadError;
use super::pipeline::Decided;
use crate::commit::ask_until_answered;
use crate::ground::Ground;
use crate::health::ShardMetrics;
use crate::inbox;
use crate::journal::{DeadLetter, Head, Journal as _, JournalError};
use crate::poison::{self, Poison, tripwire};
use crate::recover::Replica;
use crate::shard::Shard;
use crate::trace;

/// See the module.
#[derive(Debug)]
pub struct Led<G: Ground> {
    pub(super) ground: G,
    pub(super) shard: Shard,
    pub(super) epoch: u64,
    pub(super) chain: [u8; 32],
    pub(super) bus: G::Bus,
    pub(super) prices: broadcast::Receiver<Arc<[PriceEntry]>>,
    /// The market was learnt from the stream, as it is to be before anything new of it is looked at.
    pub(super) learned: bool,
    /// When the newest prices seen were published, the poller's clock. Microseconds since the epoch.
    pub(super) published_us: u64,
    /// Peeked, not decided yet.
    messages: Vec<Incoming>,
    /// Decided, not handed over yet.
    pub(super) decided: Decided,
    /// So many messages at the front of the queue are on their way into the journal.
    pub(super) under_way: usize,
    /// Something may stand in the queue.
    stirred: bool,
    /// A trim did not do what it should, so positions behind what is under way mean nothing: it is looked at from the front again, when
    /// nothing is under way.
    pub(super) astray: bool,
    pub(super) poison: Poison,
    pub(super) metrics: ShardMetrics,
}

impl<G: Ground> Led<G> {
    /// Makes ready to lead a shard of which `replica` has everything up to `head`: its event stream is mended, its market learnt, and
    /// what `catalogue` changes is decided, to be journaled in the first round.
    ///
    /// # Errors
    /// [`LeadError::Journal`] when it cannot be read, [`LeadError::Panicked`] when a quote could not be looked at.
    pub async fn take_up(
        ground: G,
        replica: Replica,
        head: &Head,
        now: Timestamp,
        prices: broadcast::Receiver<Arc<[PriceEntry]>>,
        catalogue: &[Instrument],
    ) -> Result<Self, LeadError> {
        let shard = head.shard;
        let unreadable = |error| LeadError::Journal { shard, error };
        let mut led = Self {
            poison: Poison::of(ground.journal(), shard).await.map_err(unreadable)?,
            bus: ground.bus(head.shard),
            ground,
            shard: replica.shard,
            epoch: head.epoch,
            chain: replica.chain,
            prices,
            learned: false,
            published_us: 0,
            messages: Vec::new(),
            decided: Decided::default(),
            under_way: 0,
            stirred: true,
            astray: false,
            metrics: ShardMetrics::new(head.shard),
        };
        led.repair_events().await.map_err(unreadable)?;
        led.learn_prices(now).await?;
        led.decided.entries.extend(led.shard.configure(now, catalogue));
        Ok(led)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.shard.number()
    }

    /// Nothing is decided that is not handed over.
    pub(super) fn is_idle(&self) -> bool {
        self.decided.is_empty()
    }

    /// Itself, if something may stand in the queue behind what is under way.
    pub(super) fn if_stirred(&mut self) -> Option<&mut Self> {
        if self.astray {
            if self.under_way > 0 {
                return None;
            }
            self.astray = false;
            return Some(self);
        }
        if !self.stirred && self.under_way == 0 && self.bus.wait().now_or_never().is_none() {
            return None;
        }
        Some(self)
    }

    /// Waits until something may stand in the queue.
    pub(super) async fn stirs(&mut self) {
        self.bus.wait().await;
        self.stirred = true;
    }

    /// Takes the message that ended the last wait for one as all that stands in the queue; false when it is not known.
    pub(super) fn take_head(&mut self) -> bool {
        self.messages.extend(self.bus.head());
        self.stirred |= !self.messages.is_empty();
        !self.messages.is_empty()
    }

    /// Looks at what stands in the queue behind what is under way, at most `count_max` messages.
    pub(super) async fn peek(&mut self, count_max: usize) {
        match self.bus.peek(self.under_way, count_max).await {
            Ok(messages) => self.messages = messages,
            Err(error) => tracing::warn!(%error, shard = self.number(), "queue: peek failed"),
        }
        self.stirred = !self.messages.is_empty();
    }

    /// Decides what was peeked.
    ///
    /// # Errors
    /// [`LeadError::Panicked`], written down; the shard is of no further use, and what it decided in this round must not be handed over.
    /// [`LeadError::Journal`] when it could not be asked.
    pub(super) async fn decide(&mut self, now: Timestamp, wall_us: i64, shards: u32) -> Result<(), LeadError> {
        let messages = std::mem::take(&mut self.messages);
        if messages.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.decided.expect(messages.len());
        for message in &messages {
            match inbox::read(message, self.number(), shards) {
                Ok(request) => self.decide_one(now, wall_us, message, request).await?,
                Err(reason) => {
                    tracing::warn!(reason, shard = self.number(), "dead letter");
                    self.metrics.dead_letter();
                    let letter = DeadLetter::unread(self.number(), message, reason);
                    self.decided.dead.push(letter);
                }
            }
        }
        self.metrics
            .decided(began.elapsed(), trace::one_of(&self.decided.spans));
        self.decided.messages = messages;
        Ok(())
    }

    async fn decide_one(
        &mut self,
        now: Timestamp,
        wall_us: i64,
        message: &Incoming,
        request: Request,
    ) -> Result<(), LeadError> {
        let put_away = self.put_away(message, &request).await;
        let reply = match put_away.map_err(|error| self.unreadable(error))? {
            Some(letter) => {
                self.decided.dead.push(letter);
                poison::reply_to(&request, self.shard.sequence())
            }
            None => {
                self.metrics
                    .taken_up(wall_us, request.sent_at_us, latency::recorded(&request.traceparent));
                let span = trace::call_span(&request, self.number());
                let handled = span.in_scope(|| {
                    poison::guarded(|| {
                        tripwire::step_on(&request);
                        self.shard.handle(now, &request)
                    })
                });
                let handled = match handled {
                    Ok(handled) => handled,
                    Err(said) => return Err(self.panicked(poison::digest(&request), &request.principal, said).await),
                };
                self.metrics.handled(&handled);
                self.decided.entries.extend(handled.entry);
                self.decided.spans.push(span);
                handled.reply
            }
        };
        self.decided.replies.push(Addressed {
            shard: self.number(),
            list: request.reply_to,
            reply,
        });
        Ok(())
    }

    fn unreadable(&self, error: JournalError) -> LeadError {
        LeadError::Journal {
            shard: self.number(),
            error,
        }
    }

    /// What becomes of a command that ended too many leaderships; nothing for any other.
    async fn put_away(&mut self, message: &Incoming, request: &Request) -> Result<Option<DeadLetter>, JournalError> {
        let shard = self.number();
        let Some(digest) = self.poison.holds(self.ground.journal(), shard, request).await? else {
            return Ok(None);
        };
        tracing::error!(shard, principal = request.principal, "dead letter: its handling panics");
        self.metrics.dead_letter();
        Ok(Some(DeadLetter::panics(shard, message, digest)))
    }

    /// Writes down what panicked.
    pub(super) async fn panicked(&mut self, digest: [u8; 32], whose: &str, said: String) -> LeadError {
        let (shard, epoch) = (self.number(), self.epoch);
        tracing::error!(shard, said, whose, "handling panicked; the shard starts over");
        self.metrics.panicked();
        let journal = self.ground.journal();
        ask_until_answered(|| journal.note_panic(shard, &digest, epoch, &said)).await;
        LeadError::Panicked { shard, said }
    }

    /// Publishes what was committed but not published by the leader before.
    async fn repair_events(&mut self) -> Result<(), JournalError> {
        let published = match self.bus.published().await {
            Ok(published) => published,
            Err(error) => {
                tracing::warn!(%error, shard = self.number(), "event stream: not readable, readers will use the journal");
                return Ok(());
            }
        };
        let sequence = self.shard.sequence();
        if published > sequence {
            tracing::warn!(
                published,
                sequence,
                "event stream: it is ahead of the journal, so not its own; emptied"
            );
            if let Err(error) = self.bus.discard_events().await {
                tracing::warn!(%error, "event stream: not emptied");
            }
        }
        let mut after = if published > sequence { 0 } else { published };
        after = after.max(sequence.saturating_sub(bus::events::SEQUENCES_KEPT));
        while after < sequence {
            let rows = self.ground.journal().rows(self.number(), after, 64).await?;
            let missing: Vec<EventRow> = rows.into_iter().map(EventRow::from).collect();
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
}
