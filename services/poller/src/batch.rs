//! Quotes on their way out: what changed since the last batch, the newest of each symbol.
//!
//! Reading never waits for Redis. While it is away quotes pile up here, and the pile is bounded: one per symbol when batching, and when
//! each quote is to be forwarded at most [`FORWARD_MAX`], beyond which it, too, keeps the newest per symbol. A new frame counts as a
//! change even when the prices are the same: its venue time is what shows that the price is fresh.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::frame::Quote;
use crate::trace::FrameSpan;

/// Most quotes that wait when each is forwarded.
pub const FORWARD_MAX: usize = 1_024;
/// How long a quote may wait for Redis. An older one is dropped: published late it would look like news.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// A quote and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The quote.
    pub quote: Quote,
    /// When its frame was read.
    pub since: Instant,
    /// The frame in a trace.
    pub frame: FrameSpan,
}

/// The quotes that wait, in the order they came.
#[derive(Debug)]
pub struct Pending {
    each: bool,
    /// Redis refused the last batch: until the next try only the newest of a symbol is kept, even when each is to be forwarded.
    refused: bool,
    waiting: Vec<Waiting>,
}

/// What a step dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Replaced by a newer quote of the same symbol.
    pub conflated: usize,
    /// Waited longer than [`WAIT_MAX`].
    pub expired: usize,
}

impl Pending {
    /// Nothing waits. `each` forwards every quote; otherwise only the newest of a symbol.
    #[must_use]
    pub fn new(each: bool) -> Self {
        Self {
            each,
            refused: false,
            waiting: Vec::new(),
        }
    }

    /// Adds a quote that is newer than all before it.
    pub fn push(&mut self, quote: Quote, now: Instant) -> Dropped {
        let frame = FrameSpan::begin(&quote.symbol);
        self.waiting.push(Waiting {
            quote,
            since: now,
            frame,
        });
        let conflated = if !self.each || self.refused {
            self.replace_older()
        } else if self.waiting.len() > FORWARD_MAX {
            self.keep_newest()
        } else {
            0
        };
        Dropped { conflated, expired: 0 }
    }

    /// Takes everything that is still worth publishing.
    pub fn take(&mut self, now: Instant) -> (Vec<Waiting>, Dropped) {
        self.refused = false;
        let before = self.waiting.len();
        let mut taken = std::mem::take(&mut self.waiting);
        taken.retain(|waiting| now.duration_since(waiting.since) < WAIT_MAX);
        let expired = before - taken.len();
        (taken, Dropped { conflated: 0, expired })
    }

    /// Puts back what Redis did not take; a quote that came meanwhile wins.
    pub fn put_back(&mut self, mut taken: Vec<Waiting>) -> Dropped {
        self.refused = true;
        taken.append(&mut self.waiting);
        self.waiting = taken;
        Dropped {
            conflated: self.keep_newest(),
            expired: 0,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Removes the quote that the last one replaces, if there is one.
    fn replace_older(&mut self) -> usize {
        let Some((last, before)) = self.waiting.split_last() else {
            return 0;
        };
        match before
            .iter()
            .position(|waiting| waiting.quote.symbol == last.quote.symbol)
        {
            Some(index) => {
                self.waiting.remove(index);
                1
            }
            None => 0,
        }
    }

    /// Keeps the last quote of each symbol.
    fn keep_newest(&mut self) -> usize {
        let before = self.waiting.len();
        let mut seen = HashSet::new();
        let mut kept: Vec<Waiting> = Vec::with_capacity(before);
        for waiting in std::mem::take(&mut self.waiting).into_iter().rev() {
            if seen.insert(waiting.quote.symbol.clone()) {
                kept.push(waiting);
            }
        }
        kept.reverse();
        self.waiting = kept;
        before - self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    fn quote(symbol: &str, update_id: u64) -> Quote {
        let (one, zero) = (Decimal::ONE, Decimal::ZERO);
        let symbol = symbol.to_owned();
        Quote {
            symbol,
            bid: one,
            ask: one + one,
            bid_quantity: zero,
            ask_quantity: zero,
            venue_time_us: update_id,
            update_id,
        }
    }

    fn shown(waiting: &[Waiting]) -> Vec<String> {
        waiting
            .iter()
            .map(|it| format!("{} {}", it.quote.symbol, it.quote.update_id))
            .collect()
    }

    fn filled(each: bool, quotes: &[(&str, u64)], now: Instant) -> Pending {
        let mut pending = Pending::new(each);
        for (symbol, update_id) in quotes {
            pending.push(quote(symbol, *update_id), now);
        }
        pending
    }

    #[test]
    fn a_batch_holds_the_newest_of_what_changed_and_nothing_twice() {
        let now = Instant::now();
        let mut pending = filled(false, &[("BTC", 1), ("SOL", 1), ("BTC", 2), ("ETH", 1)], now);
        let (taken, _) = pending.take(now);
        assert_eq!(shown(&taken), ["SOL 1", "BTC 2", "ETH 1"]);
        pending.push(quote("SOL", 2), now);
        assert_eq!(shown(&pending.take(now).0), ["SOL 2"]);
        assert!(pending.is_empty());
        assert_eq!(pending.take(now), (vec![], Dropped::default()));
    }

    #[test]
    fn forwarding_keeps_each_quote_in_order() {
        let now = Instant::now();
        let mut pending = filled(true, &[("BTC", 1), ("SOL", 1), ("BTC", 2)], now);
        assert_eq!(shown(&pending.take(now).0), ["BTC 1", "SOL 1", "BTC 2"]);
    }

    #[test]
    fn forwarding_is_bounded() {
        let now = Instant::now();
        let mut pending = Pending::new(true);
        let mut conflated = 0;
        for update_id in 1..=10 * FORWARD_MAX as u64 {
            conflated += pending.push(quote("SOL", update_id), now).conflated;
        }
        let (taken, _) = pending.take(now);
        assert!(taken.len() <= FORWARD_MAX);
        assert_eq!(taken.len() + conflated, 10 * FORWARD_MAX);
        assert_eq!(taken.last().unwrap().quote.update_id, 10 * FORWARD_MAX as u64);
    }

    #[test]
    fn what_redis_did_not_take_comes_back_unless_something_newer_came() {
        for each in [false, true] {
            let now = Instant::now();
            let mut pending = filled(each, &[("BTC", 1), ("SOL", 1)], now);
            let (taken, _) = pending.take(now);
            pending.push(quote("BTC", 2), now);
            assert_eq!(pending.put_back(taken).conflated, 1);
            assert_eq!(pending.push(quote("BTC", 3), now).conflated, 1, "still away");
            assert_eq!(shown(&pending.take(now).0), ["SOL 1", "BTC 3"]);
            // The next try is under way: each is kept again.
            pending.push(quote("BTC", 4), now);
            assert_eq!(pending.push(quote("BTC", 5), now).conflated, usize::from(!each));
        }
    }

    #[test]
    fn a_quote_that_waited_too_long_is_not_published_late() {
        let now = Instant::now();
        let mut pending = filled(false, &[("BTC", 1)], now);
        pending.push(quote("SOL", 1), now + Duration::from_secs(1));
        let (taken, dropped) = pending.take(now + WAIT_MAX);
        assert_eq!(shown(&taken), ["SOL 1"]);
        assert_eq!(
            dropped,
            Dropped {
                conflated: 0,
                expired: 1
            }
        );
    }
}
