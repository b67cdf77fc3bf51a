//! Quotes to candles: pure.
//!
//! A quote belongs to the candles that its venue time falls into, whenever it comes. A quote that is older than one of its symbol that
//! came before is *late*: it counts, and widens high and low, but a candle that exists keeps its close, because what closed it may be
//! newer. A candle's open is the first quote that came. So the result depends on the order of the stream alone, and not on how it was cut
//! into batches.

use std::collections::{BTreeMap, HashMap};

use bus::PriceEntry;
use chrono::DateTime;
use contracts::bus::{PriceBatch, VenueQuote};
use contracts::v1::CandleInterval;
use contracts::{decimal, names};
use rust_decimal::Decimal;

/// The intervals, with their lengths in microseconds. Each divides the day, so all of them begin at midnight UTC.
pub(super) const INTERVALS: [(CandleInterval, i64); 7] = [
    (CandleInterval::CandleInterval1s, SECOND_US),
    (CandleInterval::CandleInterval1m, 60 * SECOND_US),
    (CandleInterval::CandleInterval5m, 5 * 60 * SECOND_US),
    (CandleInterval::CandleInterval15m, 15 * 60 * SECOND_US),
    (CandleInterval::CandleInterval1h, 60 * 60 * SECOND_US),
    (CandleInterval::CandleInterval4h, 4 * 60 * 60 * SECOND_US),
    (CandleInterval::CandleInterval1d, 24 * 60 * 60 * SECOND_US),
];
const SECOND_US: i64 = 1_000_000;

/// How far a quote may be ahead of the poller's clock. One from the far future would make every quote after it late.
const AHEAD_MAX_US: i64 = 300 * SECOND_US;

/// Venue time of the newest quote of each symbol, in microseconds: what tells a late one.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    at_us: HashMap<String, i64>,
}

impl Newest {
    pub(super) fn knows(&self, symbol: &str) -> bool {
        self.at_us.contains_key(symbol)
    }

    /// Begins a symbol with what the table knows of it.
    pub(super) fn start(&mut self, symbol: &str, at_us: i64) {
        self.at_us.insert(symbol.to_owned(), at_us);
    }

    /// Takes the next quote's time; whether it is late.
    fn is_late(&mut self, symbol: &str, at_us: i64) -> bool {
        match self.at_us.get_mut(symbol) {
            Some(newest) if *newest > at_us => return true,
            Some(newest) => *newest = at_us,
            None => self.start(symbol, at_us),
        }
        false
    }
}

/// Which candle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) symbol: String,
    pub(super) interval: i16,
    pub(super) open_us: i64,
}

/// What some quotes make of a candle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candle {
    pub(super) open: Decimal,
    pub(super) high: Decimal,
    pub(super) low: Decimal,
    pub(super) close: Decimal,
    pub(super) quotes: i64,
    /// All of these quotes were late: a candle that exists keeps its close.
    pub(super) late: bool,
}

/// A stretch of the stream, folded.
#[derive(Clone, Debug, Default)]
pub(super) struct Fold {
    /// Sorted, so that two recorders lock rows in one order.
    pub(super) candles: BTreeMap<Key, Candle>,
    /// Good quotes.
    pub(super) folded: u64,
    /// Bad ones.
    pub(super) refused: u64,
}

impl Fold {
    /// Folds entries, in the order of the stream.
    pub(super) fn of(entries: &[PriceEntry], newest: &mut Newest) -> Self {
        let mut fold = Self::default();
        for batch in entries.iter().map(|entry| &entry.batch) {
            for quote in &batch.quotes {
                match read(batch, quote) {
                    Some(tick) => fold.add(&tick, newest.is_late(tick.symbol, tick.at_us)),
                    None => fold.refused += 1,
                }
            }
        }
        fold
    }

    fn add(&mut self, tick: &Tick<'_>, late: bool) {
        self.folded += 1;
        for (interval, length_us) in INTERVALS {
            let interval = i16::try_from(i32::from(interval)).expect("the intervals are few");
            let open_us = tick.at_us - tick.at_us.rem_euclid(length_us);
            let key = Key {
                symbol: tick.symbol.to_owned(),
                interval,
                open_us,
            };
            let mid = tick.mid;
            let candle = self.candles.entry(key).or_insert(Candle {
                open: mid,
                high: mid,
                low: mid,
                close: mid,
                quotes: 0,
                late,
            });
            candle.high = candle.high.max(mid);
            candle.low = candle.low.min(mid);
            candle.quotes += 1;
            if !late {
                candle.close = mid;
                candle.late = false;
            }
        }
    }
}

/// A good quote.
struct Tick<'a> {
    symbol: &'a str,
    at_us: i64,
    mid: Decimal,
}

/// Reads a quote; nothing when a side is missing, unreadable or not above zero, when the bid is not below the ask, or when the time is
/// none.
fn read<'a>(batch: &PriceBatch, quote: &'a VenueQuote) -> Option<Tick<'a>> {
    names::check_symbol(&quote.symbol).ok()?;
    let price = |text| decimal::parse(text).ok().filter(|price| *price > Decimal::ZERO);
    let (bid, ask) = (price(&quote.bid)?, price(&quote.ask)?);
    if bid >= ask {
        return None;
    }
    let at_us = i64::try_from(quote.venue_time_us).ok().filter(|at_us| *at_us > 0)?;
    let latest = i64::try_from(batch.published_at_us).ok()?.saturating_add(AHEAD_MAX_US);
    if at_us > latest {
        return None;
    }
    DateTime::from_timestamp_micros(at_us)?;
    // Half of a sum of at most 19 digits has at most 20: exact.
    let mid = bid.checked_add(ask)?.checked_div(Decimal::TWO)?.normalize();
    Some(Tick {
        symbol: &quote.symbol,
        at_us,
        mid,
    })
}

#[cfg(test)]
mod tests;
