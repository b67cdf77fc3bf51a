//! From a frame to the pile of quotes that wait: parse, count, check the order, hand over. Never waits for anything.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::batch::{Dropped, Pending, Waiting};
use crate::feed::{Heard, Listener};
use crate::frame::{self, Frame, Quote, Rejection};
use crate::order::{Order, Verdict};
use crate::state::{Counters, add, count};

/// Where the reader leaves quotes and the publisher takes them.
#[derive(Debug)]
pub struct Desk {
    pending: Mutex<Pending>,
    filled: Notify,
    counters: Arc<Counters>,
}

impl Desk {
    /// An empty desk; `each` as in [`Pending::new`].
    #[must_use]
    pub fn new(each: bool, counters: Arc<Counters>) -> Self {
        Self {
            pending: Mutex::new(Pending::new(each)),
            filled: Notify::new(),
            counters,
        }
    }

    /// Waits until something lies here.
    pub async fn filled(&self) {
        loop {
            let filled = self.filled.notified();
            if !self.pending().is_empty() {
                return;
            }
            filled.await;
        }
    }

    /// Takes what is worth publishing.
    pub fn take(&self) -> Vec<Waiting> {
        let (taken, dropped) = self.pending().take(Instant::now());
        self.count(dropped);
        taken
    }

    /// Puts back what could not be published.
    pub fn put_back(&self, taken: Vec<Waiting>) {
        let dropped = self.pending().put_back(taken);
        self.count(dropped);
    }

    /// Forgets everything, when the source changes.
    pub fn clear(&self) {
        self.pending().clear();
    }

    pub(crate) fn push(&self, quote: Quote) {
        let dropped = self.pending().push(quote, Instant::now());
        self.count(dropped);
        self.filled.notify_one();
    }

    fn count(&self, dropped: Dropped) {
        add(&self.counters.conflated, dropped.conflated);
        add(&self.counters.expired, dropped.expired);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // No code that can panic runs under the lock, and a pile of quotes is usable in any state.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens to a feed on behalf of a desk.
#[derive(Debug)]
pub struct Intake {
    symbols: HashSet<String>,
    order: Order,
    desk: Arc<Desk>,
    counters: Arc<Counters>,
}

impl Intake {
    /// Lets in the quotes of these symbols.
    #[must_use]
    pub fn new(symbols: &[String], desk: Arc<Desk>, counters: Arc<Counters>) -> Self {
        Self {
            symbols: symbols.iter().cloned().collect(),
            order: Order::default(),
            desk,
            counters,
        }
    }

    fn quote(&mut self, quote: Quote, at_us: u64) {
        if !self.symbols.contains(&quote.symbol) {
            count(&self.counters.unsubscribed);
            return;
        }
        let counters = &self.counters;
        match self.order.judge(&quote, at_us) {
            Verdict::New => {}
            Verdict::Restarted => {
                count(&counters.restarted_ids);
                tracing::warn!(
                    symbol = quote.symbol,
                    update_id = quote.update_id,
                    "the venue's update ids start over"
                );
            }
            Verdict::Duplicate => return count(&counters.duplicates),
            Verdict::OutOfOrder => return count(&counters.out_of_order),
            Verdict::AheadOfClock => {
                tracing::warn!(
                    symbol = quote.symbol,
                    venue_time_us = quote.venue_time_us,
                    "a quote from the future: dropped"
                );
                return count(&counters.ahead_of_clock);
            }
        }
        count(&counters.quotes);
        self.desk.push(quote);
    }
}

impl Listener for Intake {
    fn frame(&mut self, at_us: u64, text: &str) -> Heard {
        match frame::parse(text) {
            Frame::Quote(quote) => {
                self.quote(quote, at_us);
                Heard::Data
            }
            Frame::Other(_) => {
                count(&self.counters.ignored);
                Heard::Data
            }
            Frame::Rejected { symbol, reason } => {
                count(match reason {
                    Rejection::OneSided => &self.counters.one_sided,
                    Rejection::NotPositive => &self.counters.not_positive,
                    Rejection::Crossed => &self.counters.crossed,
                    Rejection::Unreadable => &self.counters.unreadable,
                });
                tracing::debug!(symbol, ?reason, "quote dropped");
                Heard::Data
            }
            Frame::VenueError { code, message } => {
                count(&self.counters.venue_errors);
                tracing::warn!(code, message, "the venue answered with an error");
                Heard::Nothing
            }
            Frame::Garbage(why) => {
                count(&self.counters.garbage);
                tracing::debug!(?why, bytes = text.len(), "frame dropped");
                Heard::Nothing
            }
        }
    }
}
