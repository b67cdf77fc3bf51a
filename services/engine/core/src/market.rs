//! The last quotes: volatile, not hashed, not journaled, rebuilt from the feed.
//!
//! A quote earns its place. Crossed, late, repeated, future and absurd ones are dropped and told apart so that the
//! shell can count them; one that jumps beyond the instrument's band waits until a second agrees with it. Stale is a
//! state, not an error: past the soft age nothing opens, past the hard age nothing closes or fires, and after that it
//! takes two quotes to be believed again. The guard is here, in front of every use of a price, not at one caller.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::grid;
use crate::ids::Symbol;
use crate::instrument::Instrument;
use crate::money::Price;
use crate::quote::{Quote, TradableQuote};
use crate::refusal::{Refusal, StaleCause};
use crate::state::State;
use crate::time::Timestamp;

/// How far ahead of us a venue's clock may be, in microseconds.
pub const FUTURE_US_MAX: i64 = 2_000_000;

/// How many agreeing quotes in a row make a price that may fire triggers.
const AGREEING_MIN: u8 = 2;

/// The last quote of every instrument.
#[derive(Clone, Debug, Default)]
pub struct Market {
    feeds: BTreeMap<Symbol, Feed>,
}

#[derive(Clone, Debug)]
struct Feed {
    /// The last accepted quote, at the tick and markup below.
    quote: TradableQuote,
    tick: Price,
    spread_markup_bps: u32,
    /// A quote beyond the band, waiting for another to agree.
    pending: Option<Quote>,
    /// The newest time and number seen, accepted or pending: what is not newer is a repeat.
    seen: (Timestamp, u64),
    /// Accepted quotes in a row since the start or since a silence, counted up to [`AGREEING_MIN`].
    agreeing: u8,
    /// There was a silence past the hard age and too few quotes since.
    recovering: bool,
}

/// What became of a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It is the price now.
    Accepted,
    /// Its bid is not below its ask.
    Crossed,
    /// No such instrument.
    UnknownSymbol,
    /// Not newer than one already seen, by number or by time: late, or a repeat from a second poller.
    OutOfOrder,
    /// Stamped more than [`FUTURE_US_MAX`] ahead of the engine's clock.
    Future,
    /// Beyond the band; it waits for a second quote, and until then nothing trades or fires.
    AwaitingConfirmation,
    /// Past the instrument's hard age when it arrived.
    TooOld,
    /// Off the range of prices that can be held exactly, or with less than a tick of bid.
    OutOfRange,
}

/// How far a price can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Everything is allowed.
    Fresh,
    /// No new risk; closing is allowed and triggers fire.
    SoftStale,
    /// Nothing is allowed and nothing fires: too old, recovering from a silence, or awaiting confirmation.
    HardStale,
    /// There has been no quote.
    Missing,
}

impl Market {
    /// No quotes.
    #[must_use]
    pub fn new() -> Market {
        Market::default()
    }

    /// Takes in one quote, or says why not. `at` is the engine's clock, for age.
    ///
    /// The venue's numbering restarts when the venue does: after a silence past the hard age a lower number is taken.
    pub fn observe(&mut self, state: &State, at: Timestamp, quote: &Quote) -> Observation {
        let Some(instrument) = state.instrument(&quote.symbol) else {
            return Observation::UnknownSymbol;
        };
        if quote.bid >= quote.ask {
            return Observation::Crossed;
        }
        if quote.venue_time.age_us_since(at) > FUTURE_US_MAX {
            return Observation::Future;
        }
        let past_hard_age = |venue_time| at.age_us_since(venue_time) > instrument.stale_hard_us;
        if past_hard_age(quote.venue_time) {
            return Observation::TooOld;
        }
        let Some(tradable) = tradable(instrument, &quote.symbol, quote) else {
            return Observation::OutOfRange;
        };
        let Some(feed) = self.feeds.get_mut(&quote.symbol) else {
            self.feeds
                .insert(quote.symbol.clone(), Feed::started_by(instrument, tradable));
            return Observation::Accepted;
        };

        let (seen_time, seen_id) = feed.seen;
        if past_hard_age(seen_time) {
            feed.pending = None;
        } else if quote.update_id <= seen_id || quote.venue_time < seen_time {
            return Observation::OutOfOrder;
        }
        feed.seen = (quote.venue_time, quote.update_id);

        let band = instrument.band_bps;
        let jumps = is_beyond(band, (feed.quote.venue_bid, feed.quote.venue_ask), quote);
        let confirms = feed
            .pending
            .take()
            .is_some_and(|first| !is_beyond(band, (first.bid, first.ask), quote));
        if jumps && !confirms {
            feed.pending = Some(quote.clone());
            return Observation::AwaitingConfirmation;
        }
        if past_hard_age(feed.quote.venue_time) {
            feed.agreeing = 0;
            feed.recovering = true;
        }
        feed.agreeing = if confirms {
            AGREEING_MIN
        } else {
            feed.agreeing.saturating_add(1).min(AGREEING_MIN)
        };
        feed.recovering &= feed.agreeing < AGREEING_MIN;
        feed.quote = tradable;
        feed.tick = instrument.tick;
        feed.spread_markup_bps = instrument.spread_markup_bps;
        Observation::Accepted
    }

    /// The last accepted quote, however old.
    pub fn tradable(&self, symbol: &Symbol) -> Option<TradableQuote> {
        self.feeds.get(symbol).map(|feed| feed.quote.clone())
    }

    /// How far the last quote can be relied on at this moment. An unknown instrument has no price.
    pub fn freshness(&self, state: &State, at: Timestamp, symbol: &Symbol) -> Freshness {
        match (self.feeds.get(symbol), state.instrument(symbol)) {
            (Some(feed), Some(instrument)) => {
                if feed.distrust(at, instrument.stale_hard_us).is_some() {
                    Freshness::HardStale
                } else if feed.distrust(at, instrument.stale_soft_us).is_some() {
                    Freshness::SoftStale
                } else {
                    Freshness::Fresh
                }
            }
            _ => Freshness::Missing,
        }
    }

    /// The quote to take new risk at: within the soft age.
    pub(crate) fn to_open(&self, instrument: &Instrument, at: Timestamp) -> Result<TradableQuote, Refusal> {
        self.within(instrument, at, instrument.stale_soft_us)
    }

    /// The quote to close at: within the hard age.
    pub(crate) fn to_close(&self, instrument: &Instrument, at: Timestamp) -> Result<TradableQuote, Refusal> {
        self.within(instrument, at, instrument.stale_hard_us)
    }

    /// The quote to fire triggers at: within the hard age, and not the first one after a start. A process that has
    /// just taken over has nothing to hold one wild quote against, so it waits for a second before it liquidates.
    pub(crate) fn to_fire(&self, instrument: &Instrument, at: Timestamp) -> Option<TradableQuote> {
        let settled = self.feeds.get(&instrument.symbol)?.agreeing >= AGREEING_MIN;
        self.to_close(instrument, at).ok().filter(|_| settled)
    }

    fn within(&self, instrument: &Instrument, at: Timestamp, limit_us: i64) -> Result<TradableQuote, Refusal> {
        let symbol = || instrument.symbol.clone();
        let feed = self
            .feeds
            .get(&instrument.symbol)
            .ok_or_else(|| Refusal::PriceMissing { symbol: symbol() })?;
        if let Some(cause) = feed.distrust(at, limit_us) {
            let age_us = at.age_us_since(feed.quote.venue_time);
            return Err(Refusal::StalePrice {
                symbol: symbol(),
                age_us,
                limit_us,
                cause,
            });
        }
        feed.at(instrument)
            .ok_or_else(|| Refusal::PriceMissing { symbol: symbol() })
    }
}

impl Feed {
    fn started_by(instrument: &Instrument, quote: TradableQuote) -> Feed {
        Feed {
            seen: (quote.venue_time, quote.update_id),
            quote,
            tick: instrument.tick,
            spread_markup_bps: instrument.spread_markup_bps,
            pending: None,
            agreeing: 1,
            recovering: false,
        }
    }

    /// Why the quote cannot be used under this age limit, if it cannot.
    fn distrust(&self, at: Timestamp, limit_us: i64) -> Option<StaleCause> {
        if at.age_us_since(self.quote.venue_time) > limit_us {
            Some(StaleCause::Age)
        } else if self.pending.is_some() {
            Some(StaleCause::Unconfirmed)
        } else if self.recovering {
            Some(StaleCause::Recovering)
        } else {
            None
        }
    }

    /// The quote on the instrument's grid, worked out again if tick or markup were changed since it came.
    fn at(&self, instrument: &Instrument) -> Option<TradableQuote> {
        if self.tick == instrument.tick && self.spread_markup_bps == instrument.spread_markup_bps {
            return Some(self.quote.clone());
        }
        let &TradableQuote {
            venue_bid: bid,
            venue_ask: ask,
            venue_time,
            update_id,
            ..
        } = &self.quote;
        let symbol = instrument.symbol.clone();
        tradable(
            instrument,
            &instrument.symbol,
            &Quote {
                symbol,
                bid,
                ask,
                venue_time,
                update_id,
            },
        )
    }
}

/// Puts the markup on a venue quote and brings it onto the grid, outward: against the client, never by more than a
/// tick. `None` when either side leaves the range.
fn tradable(instrument: &Instrument, symbol: &Symbol, quote: &Quote) -> Option<TradableQuote> {
    let tick = instrument.tick.get();
    // Half of so many hundredths of a percent.
    let half = Decimal::new(i64::from(instrument.spread_markup_bps), 0).checked_div(Decimal::from(20_000))?;
    let (bid, ask) = if half.is_zero() {
        (quote.bid.get(), quote.ask.get())
    } else {
        (
            quote.bid.get().checked_mul(Decimal::ONE.checked_sub(half)?)?,
            quote.ask.get().checked_mul(Decimal::ONE.checked_add(half)?)?,
        )
    };
    let price = |ticks: i64| {
        let in_range = (1..=grid::PRICE_TICKS_MAX).contains(&ticks);
        in_range
            .then(|| grid::value(ticks, tick))
            .flatten()
            .and_then(|value| Price::new(value).ok())
    };
    Some(TradableQuote {
        symbol: symbol.clone(),
        bid: price(grid::floor(bid, tick)?)?,
        ask: price(grid::ceil(ask, tick)?)?,
        venue_bid: quote.bid,
        venue_ask: quote.ask,
        venue_time: quote.venue_time,
        update_id: quote.update_id,
    })
}

/// Whether either side of a quote is further than the band from where it was. Exactly at the band is within it.
fn is_beyond(band_bps: u32, before: (Price, Price), quote: &Quote) -> bool {
    let beyond = |before: Price, now: Price| {
        let moved = now
            .get()
            .checked_sub(before.get())?
            .abs()
            .checked_mul(Decimal::from(10_000))?;
        Some(moved > before.get().checked_mul(Decimal::from(band_bps))?)
    };
    // A move too large to be multiplied is beyond any band.
    beyond(before.0, quote.bid).unwrap_or(true) || beyond(before.1, quote.ask).unwrap_or(true)
}
