//! The venue's newest quotes, kept once for the process, and each client's stream of them.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bus::backoff::Backoff;
use bus::{Calls, PriceEntry, PriceReader, Redis, prices};
use contracts::v1::{Quote, StreamQuotesResponse};
use tokio::sync::watch;
use tokio::time::Instant;

use super::conflate::{Conflation, Mark, Next};
use super::{Ended, Messages, Out, now_us};
use crate::failure::Failure;
use crate::market::{Listing, Prices, unknown};
use crate::metrics::Metrics;
use crate::room::{Call, Room};
use crate::wire::time;

/// Batches read at the start, for symbols that have not moved since: about a minute.
const NEWEST: usize = 600;
/// How far ahead of us a venue's clock may be.
const FUTURE_US_MAX: u64 = 2_000_000;
/// After a silence of this length a venue may have started its numbering anew.
const SILENCE_US: u64 = 30_000_000;
/// How often ages are looked at, and how often instruments are asked for.
const AGE_EVERY: Duration = Duration::from_millis(500);
const LISTING_EVERY: Duration = Duration::from_secs(5);

/// The newest quote of each symbol.
#[derive(Debug)]
pub(crate) struct QuoteHub {
    latest: RwLock<BTreeMap<String, Latest>>,
    version: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latest {
    prices: Prices,
    venue_time_us: u64,
    update_id: u64,
    version: u64,
}

impl QuoteHub {
    /// Without quotes.
    pub fn new() -> Self {
        Self {
            latest: RwLock::default(),
            version: watch::Sender::new(0),
        }
    }

    /// Takes in batches; what is not newer, from the future, or no quote at all is passed over.
    fn observe(&self, entries: &[PriceEntry], now_us: u64) {
        let version = *self.version.borrow() + 1;
        {
            let mut latest = self.latest.write().expect("nothing panics while it holds this lock");
            for quote in entries.iter().flat_map(|entry| &entry.batch.quotes) {
                let Some(prices) = Prices::of(quote) else { continue };
                let next = Latest {
                    prices,
                    venue_time_us: quote.venue_time_us,
                    update_id: quote.update_id,
                    version,
                };
                if quote.venue_time_us > now_us.saturating_add(FUTURE_US_MAX) {
                    continue;
                }
                match latest.get_mut(&quote.symbol) {
                    Some(before) if !is_newer(before, &next) => {}
                    Some(before) => *before = next,
                    None => _ = latest.insert(quote.symbol.clone(), next),
                }
            }
        }
        self.version.send_replace(version);
    }

    /// How long ago the venue made the newest quote of each symbol.
    pub fn ages(&self, now_us: u64) -> Vec<(String, Duration)> {
        let age = |latest: &Latest| Duration::from_micros(now_us.saturating_sub(latest.venue_time_us));
        let latest = self.latest.read().expect("nothing panics while it holds this lock");
        latest
            .iter()
            .map(|(symbol, latest)| (symbol.clone(), age(latest)))
            .collect()
    }

    /// A copy of what is watched: `symbols`, or all when there are none.
    fn snapshot(&self, symbols: &[String]) -> Vec<(String, Latest)> {
        let latest = self.latest.read().expect("nothing panics while it holds this lock");
        if symbols.is_empty() {
            return latest
                .iter()
                .map(|(symbol, latest)| (symbol.clone(), *latest))
                .collect();
        }
        symbols
            .iter()
            .filter_map(|symbol| Some((symbol.clone(), *latest.get(symbol)?)))
            .collect()
    }
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
    hub.observe(&newest, now_us());
    let cursor = newest.last().map(|entry| entry.id.clone()).unwrap_or_default();
    let mut reader = PriceReader::tail(redis, cursor);
    loop {
        let entries = reader.next().await;
        if !entries.is_empty() {
            hub.observe(&entries, now_us());
        }
    }
}

/// Starts a stream.
pub(crate) fn open<C: Calls>(
    room: Arc<Room<C>>,
    call: Call,
    symbols: Vec<String>,
    interval: Duration,
) -> Result<Messages<StreamQuotesResponse>, Failure> {
    let principal = call.identity.principal.clone();
    super::start(&Arc::clone(&room), principal, "StreamQuotes", move |out| async move {
        let listing = room.listing(&call).await?;
        if let Some(symbol) = symbols.iter().find(|symbol| !listing.terms.contains_key(*symbol)) {
            return Err(unknown(symbol).into());
        }
        run(room, call, &symbols, Conflation::new(interval), &out).await
    })
}

async fn run<C: Calls>(
    room: Arc<Room<C>>,
    call: Call,
    symbols: &[String],
    mut conflation: Conflation,
    out: &Out<StreamQuotesResponse>,
) -> Ended {
    let mut changed = room.quotes.version.subscribe();
    let mut listing_at = Instant::now();
    loop {
        // Room first, choice after: a reader that was slow gets what is newest now.
        let place = out.room().await?;
        changed.mark_unchanged();
        if listing_at.elapsed() > LISTING_EVERY {
            listing_at = Instant::now();
            let (room, call) = (Arc::clone(&room), call.clone());
            // On the side: quotes go on while the engine is away.
            tokio::spawn(async move { room.listing(&call).await.map(drop) });
        }
        let listing = room.instruments.last().unwrap_or_default();
        let now_us = now_us();
        let quotes: Vec<(Mark, Quote)> = room
            .quotes
            .snapshot(symbols)
            .iter()
            .filter_map(|(symbol, latest)| public(&listing, symbol, latest, now_us))
            .collect();
        let now = Instant::now();
        let until = match conflation.next(now, quotes.iter().map(|(mark, quote)| (quote.symbol.as_str(), *mark))) {
            Next::Tell(symbol) => {
                let found = quotes.iter().find(|(_, quote)| quote.symbol == symbol);
                if let Some((mark, quote)) = found {
                    conflation.told(symbol, *mark, now);
                    place.send(Box::new(Ok(StreamQuotesResponse {
                        quote: Some(quote.clone()),
                    })));
                }
                continue;
            }
            Next::Wait(ready) => ready.min(now + AGE_EVERY),
            Next::Idle => now + AGE_EVERY,
        };
        drop(place);
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// A quote as we trade it; nothing for a symbol that is not traded or a price off its range.
fn public(listing: &Listing, symbol: &str, latest: &Latest, now_us: u64) -> Option<(Mark, Quote)> {
    let terms = listing.terms.get(symbol)?;
    let (bid, ask) = terms.tradable(&latest.prices)?;
    let state = terms.state(latest.venue_time_us, now_us);
    let quote = Quote {
        symbol: symbol.to_owned(),
        bid,
        ask,
        venue_time: Some(time(latest.venue_time_us)),
        update_id: latest.update_id,
        state: state.into(),
    };
    Some((
        Mark {
            version: latest.version,
            state,
        },
        quote,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::bus::{PriceBatch, VenueQuote};

    fn entry(symbol: &str, bid: &str, ask: &str, at_s: u64, update_id: u64) -> PriceEntry {
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
    fn a_symbol_that_is_not_traded_is_not_shown() {
        let hub = QuoteHub::new();
        hub.observe(&[entry("A", "10", "11", 50, 5)], 100_000_000);
        let (symbol, latest) = hub.snapshot(&[]).remove(0);
        assert_eq!(public(&Listing::default(), &symbol, &latest, 0), None);
    }
}
