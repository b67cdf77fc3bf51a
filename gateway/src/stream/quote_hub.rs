//! The venue's newest quotes, kept once for the process, and the last ticks in the order they came.
//!
//! Who wants the newest looks at [`QuoteHub::snapshot`]; who wants every tick reads a ring that all such readers share, and a
//! reader that the ring has overtaken is told so.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bus::backoff::Backoff;
use bus::{PriceEntry, PriceReader, Redis, prices};
use contracts::bus::VenueQuote;
use tokio::sync::{broadcast, watch};

use super::now_us;
use crate::market::Prices;
use crate::metrics::Metrics;

/// Batches read at the start, for symbols that have not moved since: about a minute.
const NEWEST: usize = 600;
/// How far ahead of us a venue's clock may be.
const FUTURE_US_MAX: u64 = 2_000_000;
/// After a silence of this length a venue may have started its numbering anew.
const SILENCE_US: u64 = 30_000_000;
/// Ticks of all symbols that are kept for readers of every tick: at fifty a second more than a minute.
const TICKS_MAX: usize = 4_096;

/// The newest quote of each symbol, and the last ticks of all.
#[derive(Debug)]
pub(crate) struct QuoteHub {
    latest: RwLock<BTreeMap<Arc<str>, Latest>>,
    version: watch::Sender<u64>,
    ticks: broadcast::Sender<Tick>,
}

/// A quote that was newer than what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    /// What the venue says.
    pub prices: Prices,
    /// When it said so.
    pub venue_time_us: u64,
    /// Its number for it.
    pub update_id: u64,
    /// The how manieth of its symbol it is here, from 1.
    pub count: u64,
}

/// A quote as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// Of which symbol.
    pub symbol: Arc<str>,
    /// The quote.
    pub latest: Latest,
}

impl QuoteHub {
    /// Without quotes.
    pub fn new() -> Self {
        Self::keeping(TICKS_MAX)
    }

    /// The same, with room for so many ticks.
    pub fn keeping(ticks_max: usize) -> Self {
        Self {
            latest: RwLock::default(),
            version: watch::Sender::new(0),
            ticks: broadcast::Sender::new(ticks_max),
        }
    }

    /// Takes in what the stream held at the start: the newest of each symbol is a tick, the others are past.
    pub(super) fn begin(&self, entries: &[PriceEntry], now_us: u64) {
        let past = Self::keeping(1);
        past.observe(entries, now_us);
        for (symbol, latest) in past.snapshot(&[]) {
            self.put(&symbol, latest);
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Takes in batches; what is not newer, from the future, or no quote at all is passed over.
    pub(super) fn observe(&self, entries: &[PriceEntry], now_us: u64) {
        for quote in entries.iter().flat_map(|entry| &entry.batch.quotes) {
            if quote.venue_time_us <= now_us.saturating_add(FUTURE_US_MAX)
                && let Some(latest) = latest(quote)
            {
                self.put(&quote.symbol, latest);
            }
        }
        self.version.send_modify(|version| *version += 1);
    }

    fn put(&self, symbol: &str, mut next: Latest) {
        let mut all = self.latest.write().expect("nothing panics while it holds this lock");
        let symbol = match all.get_key_value(symbol) {
            Some((_, before)) if !is_newer(before, &next) => return,
            Some((known, before)) => {
                next.count = before.count + 1;
                Arc::clone(known)
            }
            None => {
                next.count = 1;
                symbol.into()
            }
        };
        all.insert(Arc::clone(&symbol), next);
        // Under the lock: who subscribes and then takes a snapshot has each tick in one of the two.
        let _nobody_reads_every_tick = self.ticks.send(Tick { symbol, latest: next });
    }

    /// Tells that there is something newer, of any symbol.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Every tick from now on, as long as the reader keeps up.
    pub fn ticks(&self) -> broadcast::Receiver<Tick> {
        self.ticks.subscribe()
    }

    /// How long ago the venue made the newest quote of each symbol.
    pub fn ages(&self, now_us: u64) -> Vec<(String, Duration)> {
        let age = |latest: &Latest| Duration::from_micros(now_us.saturating_sub(latest.venue_time_us));
        let latest = self.latest.read().expect("nothing panics while it holds this lock");
        latest
            .iter()
            .map(|(symbol, latest)| (symbol.to_string(), age(latest)))
            .collect()
    }

    /// A copy of what is watched: `symbols`, or all when there are none.
    pub fn snapshot(&self, symbols: &[String]) -> Vec<(Arc<str>, Latest)> {
        let latest = self.latest.read().expect("nothing panics while it holds this lock");
        if symbols.is_empty() {
            return latest
                .iter()
                .map(|(symbol, latest)| (Arc::clone(symbol), *latest))
                .collect();
        }
        let found = symbols
            .iter()
            .filter_map(|symbol| latest.get_key_value(symbol.as_str()));
        found.map(|(symbol, latest)| (Arc::clone(symbol), *latest)).collect()
    }
}

/// A quote that makes sense, as the first of its symbol.
fn latest(quote: &VenueQuote) -> Option<Latest> {
    Some(Latest {
        prices: Prices::of(quote)?,
        venue_time_us: quote.venue_time_us,
        update_id: quote.update_id,
        count: 1,
    })
}

/// By number and time, as the engine has it; a venue that was silent for long may count anew.
fn is_newer(before: &Latest, next: &Latest) -> bool {
    let counted = next.update_id > before.update_id && next.venue_time_us >= before.venue_time_us;
    counted || next.venue_time_us > before.venue_time_us.saturating_add(SILENCE_US)
}

/// Follows the price stream for ever, and shows the ages of what it follows.
pub(crate) async fn follow(hub: Arc<QuoteHub>, redis: Redis) {
    Metrics::watch_quotes(&hub);
    let mut backoff = Backoff::store();
    let newest = loop {
        match prices::newest(&redis, NEWEST).await {
            Ok(newest) => break newest,
            Err(error) => {
                tracing::warn!(%error, "price stream: cannot read the newest");
                backoff.wait().await;
            }
        }
    };
    hub.begin(&newest, now_us());
    let cursor = newest.last().map(|entry| entry.id.clone()).unwrap_or_default();
    let mut reader = PriceReader::tail(redis, cursor);
    loop {
        let entries = reader.next().await;
        if !entries.is_empty() {
            hub.observe(&entries, now_us());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use contracts::bus::PriceBatch;

    /// A batch of one quote.
    pub fn entry(symbol: &str, bid: &str, ask: &str, at_s: u64, update_id: u64) -> PriceEntry {
        let quote = VenueQuote {
            symbol: symbol.into(),
            bid: bid.into(),
            ask: ask.into(),
            venue_time_us: at_s * 1_000_000,
            update_id,
            ..Default::default()
        };
        PriceEntry {
            id: String::new(),
            batch: PriceBatch {
                quotes: vec![quote],
                ..Default::default()
            },
        }
    }

    fn bid(hub: &QuoteHub) -> String {
        hub.snapshot(&["A".to_owned()])
            .first()
            .map(|(_, latest)| latest.prices.bid.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn only_what_is_newer_and_possible_becomes_the_latest() {
        let hub = QuoteHub::new();
        let now = 100 * 1_000_000;
        let see = |bid_text: &str, ask: &str, at_s, update_id| {
            hub.observe(&[entry("A", bid_text, ask, at_s, update_id)], now);
            bid(&hub)
        };
        assert_eq!(see("10", "11", 50, 5), "10");
        assert_eq!(see("12", "11", 51, 6), "10", "crossed");
        assert_eq!(see("9", "11", 51, 5), "10", "a repeat");
        assert_eq!(see("9", "11", 49, 6), "10", "older");
        assert_eq!(see("9", "11", 103, 6), "10", "from the future");
        assert_eq!(see("10.5", "11", 51, 6), "10.5");
        assert_eq!(see("8", "9", 90, 1), "8", "counting anew after a silence");
        assert!(hub.snapshot(&["B".to_owned()]).is_empty());
        assert_eq!(hub.snapshot(&[]).len(), 1);
    }

    #[test]
    fn every_tick_is_kept_in_order_and_of_the_past_only_the_newest() {
        let hub = QuoteHub::new();
        let mut ticks = hub.ticks();
        let batch = |bid: &str, at_s, update_id| entry("A", bid, "20", at_s, update_id);
        hub.begin(&[batch("10", 1, 1), batch("11", 2, 2), batch("12", 3, 3)], 100_000_000);
        hub.observe(&[batch("13", 4, 4), batch("12", 4, 4), batch("14", 5, 5)], 100_000_000);
        hub.observe(&[batch("15", 6, 6)], 100_000_000);
        let mut seen = Vec::new();
        while let Ok(tick) = ticks.try_recv() {
            seen.push((tick.latest.prices.bid.to_string(), tick.latest.count));
        }
        let want = [("12", 1), ("13", 2), ("14", 3), ("15", 4)].map(|(bid, count)| (bid.to_owned(), count));
        assert_eq!(seen, want);
    }
}
