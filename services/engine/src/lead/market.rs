//! What a shard's leader knows of the market: quotes as they come, and those that were seen before it led.

use bus::PriceEntry;
use bus::mutants::{self, Mutant};
use bus::prices::{self, PriceStream as _};
use engine_core::Timestamp;
use tokio::sync::broadcast::error::TryRecvError;

use super::Led;
use crate::ground::Ground;
use crate::trace;

/// Newest price batches that a new leader looks at to know the market, without firing on them.
const NEWEST_PRICES: usize = 64;

impl<G: Ground> Led<G> {
    /// Takes the quotes that came; what they fire is decided.
    pub(super) async fn take_prices(&mut self, now: Timestamp) {
        loop {
            let came = self.prices.try_recv();
            let missed;
            let entries: &[PriceEntry] = match &came {
                Ok(entries) => entries,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
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
                self.learn_prices(now).await;
            }
            self.observe(now, entries);
        }
    }

    /// Looks at what is new of these.
    fn observe(&mut self, now: Timestamp, entries: &[PriceEntry]) {
        let mut fired = Vec::new();
        for entry in entries {
            if !self.is_new(entry) {
                continue;
            }
            self.published_us = self.published_us.max(entry.batch.published_at_us);
            self.shard.feed_is(&entry.batch.source);
            let before = fired.len();
            for quote in &entry.batch.quotes {
                let observation = self.shard.observe(now, quote, &entry.batch.traceparent, &mut fired);
                self.metrics.quote(observation);
            }
            if fired.len() > before {
                let span = trace::prices_span(&entry.batch.traceparent, self.shard.number(), fired.len() - before);
                self.decided.spans.push(span);
            }
            self.shard.advance_price_cursor(&entry.id);
        }
        self.metrics.fired(&fired);
        self.decided.entries.append(&mut fired);
    }

    /// Whether an entry was not seen yet. One at or before our position that was published after everything we saw is new too: the
    /// stream was emptied and its ids started over, and to wait until they catch up would freeze the market.
    fn is_new(&self, entry: &PriceEntry) -> bool {
        let cursor = self.shard.price_cursor();
        cursor.is_empty() || prices::after(&entry.id, cursor) || entry.batch.published_at_us > self.published_us
    }

    /// Learns the market: the newest quotes without firing on what was seen before, then what the leader before did not see. With
    /// Redis away it is done when prices come again, and before them.
    pub(super) async fn learn_prices(&mut self, now: Timestamp) {
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
                return;
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
            return;
        }
        self.observe(now, &missed);
    }

    /// The newest batches, and those after a position.
    async fn recent_prices(&mut self, cursor: &str) -> Result<(Vec<PriceEntry>, Vec<PriceEntry>), bus::BusError> {
        let prices = self.ground.prices();
        Ok((prices.newest(NEWEST_PRICES).await?, prices.after(cursor).await?))
    }
}
