//! What a shard's leader knows of the market: quotes as they come, and those that were seen before it led.

use bus::PriceEntry;
use bus::mutants::{self, Mutant};
use bus::prices::{self, PriceStream as _};
use bytes::Bytes;
use contracts::bus::VenueQuote;
use engine_core::Timestamp;
use prost::Message as _;
use tokio::sync::broadcast::error::TryRecvError;

use super::{LeadError, Led};
use crate::ground::Ground;
use crate::journal::DeadLetter;
use crate::poison::{self, tripwire};
use crate::shard::Shard;
use crate::trace;

/// Newest price batches that a new leader looks at to know the market, without firing on them.
const NEWEST_PRICES: usize = 64;

impl<G: Ground> Led<G> {
    /// Takes the quotes that came; what they fire is decided.
    ///
    /// # Errors
    /// [`LeadError::Panicked`], written down; the shard is of no further use, and what it decided must not be handed over.
    pub(super) async fn take_prices(&mut self, now: Timestamp) -> Result<(), LeadError> {
        loop {
            let came = self.prices.try_recv();
            let missed;
            let entries: &[PriceEntry] = match &came {
                Ok(entries) => entries,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
                Err(TryRecvError::Lagged(_)) => {
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
                self.learn_prices(now).await?;
            }
            self.observe(now, entries).await?;
        }
    }

    /// Looks at what is new of these.
    async fn observe(&mut self, now: Timestamp, entries: &[PriceEntry]) -> Result<(), LeadError> {
        let mut fired = Vec::new();
        for entry in entries {
            if !self.is_new(entry) {
                continue;
            }
            self.published_us = self.published_us.max(entry.batch.published_at_us);
            self.shard.feed_is(&entry.batch.source);
            let before = fired.len();
            for quote in &entry.batch.quotes {
                let traceparent = &entry.batch.traceparent;
                let looked = self.look_at(quote, |shard| shard.observe(now, quote, traceparent, &mut fired));
                if let Some(observation) = looked.await? {
                    self.metrics.quote(observation);
                }
            }
            if fired.len() > before {
                let span = trace::prices_span(&entry.batch.traceparent, self.shard.number(), fired.len() - before);
                self.decided.spans.push(span);
            }
            self.shard.advance_price_cursor(&entry.id);
        }
        self.metrics.fired(&fired);
        self.decided.entries.extend(fired);
        Ok(())
    }

    /// Does something with a quote, unless it was put away; `None` then.
    async fn look_at<T>(
        &mut self,
        quote: &VenueQuote,
        look: impl FnOnce(&mut Shard) -> T,
    ) -> Result<Option<T>, LeadError> {
        if let Some(digest) = self.poison.holds_quote(quote) {
            tracing::error!(symbol = quote.symbol, "dead letter: looking at this price panics");
            self.metrics.dead_letter();
            let message = Bytes::from(quote.encode_to_vec());
            let letter = DeadLetter::panics(self.number(), &message, digest);
            self.decided.dead.push(letter);
            return Ok(None);
        }
        let looked = poison::guarded(|| {
            tripwire::step_on_quote(quote);
            look(&mut self.shard)
        });
        match looked {
            Ok(looked) => Ok(Some(looked)),
            Err(said) => Err(self.panicked(poison::quote_digest(quote), &quote.symbol, said).await),
        }
    }

    /// Whether an entry was not seen yet. One at or before our position that was published after everything we saw is new too: the
    /// stream was emptied and its ids started over, and to wait until they catch up would freeze the market.
    fn is_new(&self, entry: &PriceEntry) -> bool {
        let cursor = self.shard.price_cursor();
        cursor.is_empty() || prices::after(&entry.id, cursor) || entry.batch.published_at_us > self.published_us
    }

    /// Learns the market: the newest quotes without firing on what was seen before, then what the leader before did not see. With
    /// Redis away it is done when prices come again, and before them.
    pub(super) async fn learn_prices(&mut self, now: Timestamp) -> Result<(), LeadError> {
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
            for quote in &entry.batch.quotes {
                self.look_at(quote, |shard| shard.learn(now, quote)).await?;
            }
        }
        if cursor.is_empty() && !newest.is_empty() {
            self.shard.advance_price_cursor(last);
            return Ok(());
        }
        self.observe(now, &missed).await
    }

    /// The newest batches, and those after a position.
    async fn recent_prices(&mut self, cursor: &str) -> Result<(Vec<PriceEntry>, Vec<PriceEntry>), bus::BusError> {
        let prices = self.ground.prices();
        Ok((prices.newest(NEWEST_PRICES).await?, prices.after(cursor).await?))
    }
}
