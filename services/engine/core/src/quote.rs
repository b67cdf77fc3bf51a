//! A price from the venue, and the price we trade at.

use crate::ids::Symbol;
use crate::money::Price;
use crate::time::Timestamp;

/// A venue's best bid and ask as received; it may have more decimals than the tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The instrument.
    pub symbol: Symbol,
    /// What the venue's best buyer pays.
    pub bid: Price,
    /// What the venue's best seller asks.
    pub ask: Price,
    /// When the venue says it was so; age is counted from here, never from when it reached us.
    pub venue_time: Timestamp,
    /// The venue's number for this update; it grows within one symbol.
    pub update_id: u64,
}

/// The two prices we trade at, with the venue quote they came from: provenance for every trade and liquidation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradableQuote {
    /// The instrument.
    pub symbol: Symbol,
    /// A long closes and a short opens here. Venue bid less half the markup, floored to the tick.
    pub bid: Price,
    /// A long opens and a short closes here. Venue ask plus half the markup, raised to the tick.
    pub ask: Price,
    /// The venue's bid as received.
    pub venue_bid: Price,
    /// The venue's ask as received.
    pub venue_ask: Price,
    /// When the venue says it was so.
    pub venue_time: Timestamp,
    /// The venue's number for this update.
    pub update_id: u64,
}
