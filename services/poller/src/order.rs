//! What is new per symbol: a quote older than the last one, or the same again, is not.
//!
//! The venue gives no sequence on quotes beyond `u`, which rises with gaps, so a decrease of `u` or of `T` means disorder. The memory
//! outlives a socket: a new connection must not bring an old price back.

use std::collections::HashMap;

use crate::frame::Quote;

/// How far ahead of our clock a venue's time may be. Beyond it the stamp is wrong, and believing it would shut out every later quote.
pub const AHEAD_MAX_US: u64 = 10_000_000;
/// How much later in time a lower update id must be to mean that the venue counts anew, and not that frames overtook each other.
/// Without this, a venue that starts over would be silent to us for ever.
pub const RESTART_AFTER_US: u64 = 5_000_000;

/// What a quote is next to the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Newer.
    New,
    /// Newer, though its update id is lower: the venue counts anew.
    Restarted,
    /// The same again.
    Duplicate,
    /// Older.
    OutOfOrder,
    /// From a future that our clock does not believe.
    AheadOfClock,
}

/// The last quote of each symbol, as far as order needs it. Its size is bounded by the symbols the caller lets in.
#[derive(Debug, Default)]
pub struct Order {
    last: HashMap<String, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    update_id: u64,
    venue_time_us: u64,
}

impl Order {
    /// Judges a quote and, when it is newer, remembers it.
    pub fn judge(&mut self, quote: &Quote, now_us: u64) -> Verdict {
        let place = Place {
            update_id: quote.update_id,
            venue_time_us: quote.venue_time_us,
        };
        if place.venue_time_us > now_us.saturating_add(AHEAD_MAX_US) {
            return Verdict::AheadOfClock;
        }
        let Some(last) = self.last.get_mut(&quote.symbol) else {
            self.last.insert(quote.symbol.clone(), place);
            return Verdict::New;
        };
        let verdict = if place.venue_time_us < last.venue_time_us {
            Verdict::OutOfOrder
        } else if place.update_id > last.update_id {
            Verdict::New
        } else if place.update_id == last.update_id {
            Verdict::Duplicate
        } else if place.venue_time_us - last.venue_time_us >= RESTART_AFTER_US {
            Verdict::Restarted
        } else {
            Verdict::OutOfOrder
        };
        if matches!(verdict, Verdict::New | Verdict::Restarted) {
            *last = place;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    const NOW_US: u64 = 1_700_000_000_000_000;

    /// Judges `(update id, venue time)` one after another.
    fn check(story: &[(u64, u64, Verdict)]) {
        let mut order = Order::default();
        for (step, (update_id, venue_time_us, expected)) in story.iter().enumerate() {
            assert_eq!(
                order.judge(&quote("SOL_USDC", *update_id, *venue_time_us), NOW_US),
                *expected,
                "step {step}"
            );
        }
    }

    fn quote(symbol: &str, update_id: u64, venue_time_us: u64) -> Quote {
        let (one, zero) = (Decimal::ONE, Decimal::ZERO);
        let symbol = symbol.to_owned();
        Quote {
            symbol,
            bid: one,
            ask: one + one,
            bid_quantity: zero,
            ask_quantity: zero,
            venue_time_us,
            update_id,
        }
    }

    #[test]
    fn a_lower_update_id_or_an_older_time_is_out_of_order() {
        check(&[
            (10, 1_000, Verdict::New),
            (12, 1_001, Verdict::New),
            (11, 1_002, Verdict::OutOfOrder),
            (13, 1_000, Verdict::OutOfOrder),
            (13, 1_001, Verdict::New),
        ]);
    }

    #[test]
    fn the_same_update_twice_is_a_duplicate() {
        check(&[
            (10, 1_000, Verdict::New),
            (10, 1_000, Verdict::Duplicate),
            (10, 1_001, Verdict::Duplicate),
        ]);
    }

    #[test]
    fn a_venue_that_counts_anew_is_believed_when_time_has_moved_on() {
        let later = 1_000 + RESTART_AFTER_US;
        check(&[
            (6_730_019_258, 1_000, Verdict::New),
            (1, later - 1, Verdict::OutOfOrder),
            (1, later, Verdict::Restarted),
            (2, later, Verdict::New),
        ]);
    }

    #[test]
    fn a_stamp_from_the_future_does_not_shut_out_the_present() {
        check(&[
            (1, NOW_US, Verdict::New),
            (2, NOW_US + AHEAD_MAX_US + 1, Verdict::AheadOfClock),
            (3, NOW_US + 1, Verdict::New),
            (4, u64::MAX, Verdict::AheadOfClock),
            (5, NOW_US + AHEAD_MAX_US, Verdict::New),
        ]);
    }

    #[test]
    fn each_symbol_has_its_own_order() {
        let mut order = Order::default();
        assert_eq!(order.judge(&quote("SOL_USDC", 10, 1_000), NOW_US), Verdict::New);
        assert_eq!(order.judge(&quote("BTC_USDC", 1, 1), NOW_US), Verdict::New);
    }
}
