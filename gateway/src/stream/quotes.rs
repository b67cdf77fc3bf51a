//! A client's stream of quotes: the newest of each symbol at an interval of its own, or every tick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bus::Calls;
use contracts::v1::{Quote, QuoteGapEvent, StreamQuotesResponse};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::conflate::{Conflation, Mark, Next};
use super::quote_hub::{Latest, QuoteHub, Tick};
use super::{Ended, Messages, Out, now_us};
use crate::failure::Failure;
use crate::market::{Listing, unknown};
use crate::room::{Call, Room};
use crate::wire::time;

/// How often instruments are asked for, while there is news.
const LISTING_EVERY: Duration = Duration::from_secs(5);
/// How much later than on the dot a quote is looked at again, so that it has aged by then.
const AGED: Duration = Duration::from_millis(1);

/// Starts a stream: every tick when there is no interval.
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
        let terms = Asked {
            room,
            call,
            at: Instant::now(),
        };
        if interval.is_zero() {
            every_tick(terms, &symbols, &out).await
        } else {
            conflated(terms, &symbols, Conflation::new(interval), &out).await
        }
    })
}

/// The terms on which quotes are shown, as they were last heard.
struct Asked<C> {
    room: Arc<Room<C>>,
    call: Call,
    at: Instant,
}

impl<C: Calls> Asked<C> {
    /// What is known, while what is new is asked for on the side: quotes go on while the engine is away.
    fn listing(&mut self) -> Arc<Listing> {
        if self.at.elapsed() > LISTING_EVERY {
            self.at = Instant::now();
            let (room, call) = (Arc::clone(&self.room), self.call.clone());
            tokio::spawn(async move { room.listing(&call).await.map(drop) });
        }
        self.room.instruments.last().unwrap_or_default()
    }
}

/// The newest of each symbol, not more often than the interval.
async fn conflated<C: Calls>(
    mut terms: Asked<C>,
    symbols: &[String],
    mut conflation: Conflation,
    out: &Out<StreamQuotesResponse>,
) -> Ended {
    let hub = Arc::clone(&terms.room.quotes);
    let mut changed = hub.changes();
    loop {
        // Room first, choice after: a reader that was slow gets what is newest now.
        let place = out.room().await?;
        changed.mark_unchanged();
        let (listing, now) = (terms.listing(), Instant::now());
        let shown = Shown::of(&hub, &listing, symbols, now_us());
        match conflation.next(now, shown.marks()) {
            Next::Tell(symbol) => {
                if let Some((mark, quote)) = shown.quotes.iter().find(|(_, quote)| quote.symbol == symbol) {
                    conflation.told(symbol, *mark, now);
                    place.send(Box::new(Ok(told(quote.clone()))));
                }
            }
            wait => {
                drop(place);
                wait_for_news(&mut changed, shown.pause(wait, now)).await;
            }
        }
    }
}

/// Every tick in its order; where the reader was too slow it is told how many it missed, and goes on with the newest.
async fn every_tick<C: Calls>(mut terms: Asked<C>, symbols: &[String], out: &Out<StreamQuotesResponse>) -> Ended {
    let hub = Arc::clone(&terms.room.quotes);
    // Before the snapshot, so that nothing falls between the two; what is in both is told once.
    let mut ticks = hub.ticks();
    let mut reader = Reader::default();
    let (mut behind, mut ages_at) = (true, None);
    loop {
        if std::mem::take(&mut behind) {
            let (listing, now_us) = (terms.listing(), now_us());
            for (symbol, latest) in hub.snapshot(symbols) {
                let missed = reader.missed(&symbol, &latest);
                if missed > 0 {
                    terms.room.metrics.quotes_missed(missed);
                    out.send(gap(&symbol, missed)).await?;
                }
                if let Some(quote) = reader.take(&listing, &symbol, &latest, now_us) {
                    out.send(told(quote)).await?;
                }
            }
            reader.begun = true;
            ages_at = Some(Instant::now());
        }
        tokio::select! {
            biased;
            tick = ticks.recv() => match tick {
                Ok(Tick { symbol, latest }) => {
                    if !symbols.is_empty() && !symbols.iter().any(|it| **it == *symbol) {
                        continue;
                    }
                    let (listing, now_us) = (terms.listing(), now_us());
                    if let Some(quote) = reader.take(&listing, &symbol, &latest, now_us) {
                        out.send(told(quote)).await?;
                    }
                    let ages_in = listing.terms.get(&*symbol).and_then(|it| it.ages_in(latest.venue_time_us, now_us));
                    let its = ages_in.map(|ages_in| Instant::now() + ages_in + AGED);
                    ages_at = ages_at.into_iter().chain(its).min();
                }
                Err(RecvError::Lagged(_)) => {
                    ticks = hub.ticks();
                    behind = true;
                }
                // The hub lives as long as the room, and we hold that.
                Err(RecvError::Closed) => return Ok(()),
            },
            // What has aged since it was told is news too.
            () = sleep_until(ages_at) => {
                let shown = Shown::of(&hub, &terms.listing(), symbols, now_us());
                for (mark, quote) in &shown.quotes {
                    if reader.aged(mark, quote) {
                        out.send(told(quote.clone())).await?;
                    }
                }
                ages_at = shown.ages_in.map(|ages_in| Instant::now() + ages_in);
            }
        }
    }
}

/// What one reader of every tick was told of each symbol: which, and how current it was then.
#[derive(Default)]
struct Reader {
    told: HashMap<Arc<str>, Mark>,
    /// It has seen what there was when it came: what there was not has had no tick before.
    begun: bool,
}

impl Reader {
    /// How many ticks lie between what was told and this one.
    fn missed(&self, symbol: &str, latest: &Latest) -> u64 {
        match self.told.get(symbol) {
            Some(told) => latest.count.saturating_sub(told.version + 1),
            None if self.begun => latest.count.saturating_sub(1),
            None => 0,
        }
    }

    /// What is to be told of a tick: nothing when it was told before, or is not to be shown.
    fn take(&mut self, listing: &Listing, symbol: &Arc<str>, latest: &Latest, now_us: u64) -> Option<Quote> {
        if self.told.get(symbol).is_some_and(|told| told.version >= latest.count) {
            return None;
        }
        let shown = public(listing, symbol, latest, now_us);
        let mark = shown.as_ref().map(|(mark, _)| *mark);
        let unseen = Mark {
            version: latest.count,
            ..Mark::default()
        };
        self.told.insert(Arc::clone(symbol), mark.unwrap_or(unseen));
        shown.map(|(_, quote)| quote)
    }

    /// Whether what was told last is that quote, and less current by now.
    fn aged(&mut self, mark: &Mark, quote: &Quote) -> bool {
        match self.told.get_mut(quote.symbol.as_str()) {
            Some(told) if told.version == mark.version && told.state != mark.state => {
                *told = *mark;
                true
            }
            _ => false,
        }
    }
}

/// The newest quotes as they would be told now.
struct Shown {
    quotes: Vec<(Mark, Quote)>,
    /// When the first of them is less current, if one ever is.
    ages_in: Option<Duration>,
    /// Whether the client named its symbols, and all of them are here.
    whole: bool,
}

impl Shown {
    fn of(hub: &QuoteHub, listing: &Listing, symbols: &[String], now_us: u64) -> Self {
        let latest = hub.snapshot(symbols);
        let ages_in = latest.iter().filter_map(|(symbol, latest)| {
            let ages_in = listing.terms.get(&**symbol)?.ages_in(latest.venue_time_us, now_us)?;
            Some(ages_in + AGED)
        });
        let ages_in = ages_in.min();
        let quotes = latest
            .iter()
            .filter_map(|(symbol, latest)| public(listing, symbol, latest, now_us));
        let quotes: Vec<_> = quotes.collect();
        Self {
            ages_in,
            whole: !symbols.is_empty() && quotes.len() == symbols.len(),
            quotes,
        }
    }

    fn marks(&self) -> impl Iterator<Item = (&str, Mark)> {
        self.quotes.iter().map(|(mark, quote)| (quote.symbol.as_str(), *mark))
    }

    /// How long there is nothing to do, and whether news may end it.
    fn pause(&self, next: Next<'_>, now: Instant) -> Pause {
        let ages = self.ages_in.map(|ages_in| now + ages_in);
        match next {
            Next::Tell(_) => Pause {
                until: Some(now),
                listen: false,
            },
            // All of the symbols were told of less than an interval ago: whatever comes must wait.
            Next::Wait { ready, all: true } if self.whole => Pause {
                until: Some(ready),
                listen: false,
            },
            Next::Wait { ready, .. } => Pause {
                until: Some(ages.map_or(ready, |ages| ages.min(ready))),
                listen: true,
            },
            Next::Idle => Pause {
                until: ages,
                listen: true,
            },
        }
    }
}

/// See [`Shown::pause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    until: Option<Instant>,
    listen: bool,
}

async fn wait_for_news(changed: &mut tokio::sync::watch::Receiver<u64>, pause: Pause) {
    tokio::select! {
        _ = changed.changed(), if pause.listen => {}
        () = sleep_until(pause.until) => {}
    }
}

/// For ever, without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn told(quote: Quote) -> StreamQuotesResponse {
    StreamQuotesResponse {
        quote: Some(quote),
        gap: None,
    }
}

fn gap(symbol: &str, missed: u64) -> StreamQuotesResponse {
    let symbol = symbol.to_owned();
    StreamQuotesResponse {
        quote: None,
        gap: Some(QuoteGapEvent { symbol, missed }),
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
            version: latest.count,
            state,
        },
        quote,
    ))
}

#[cfg(test)]
mod tests;
