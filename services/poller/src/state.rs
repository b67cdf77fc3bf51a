//! What the poller says about itself: where it listens, whether data comes, and what it counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::clock;

/// Where the quotes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The venue.
    #[default]
    Live,
    /// A tape.
    Replay,
}

impl Mode {
    /// As it stands in `PriceBatch.source`.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Replay => "replay",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.source())
    }
}

/// The feed now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedState {
    /// Live or replay. With [`crate::Feed::Auto`] it is `Live` while that is being tried.
    pub mode: Mode,
    /// The address or the tape.
    pub origin: String,
    /// Whether a socket is open and subscribed.
    pub connected: bool,
    /// When the last data frame came; none before the first.
    pub last_frame_at: Option<SystemTime>,
    /// How often a lost, closed or silent socket was replaced.
    pub reconnects: u64,
    /// Everything counted since the start.
    pub counts: Counts,
}

impl FeedState {
    /// Whether quotes flow: a socket is open and data has come. A fresh process is not ready before its first quote.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.connected && self.last_frame_at.is_some()
    }
}

macro_rules! counters {
    ($(#[doc = $what:literal] $name:ident,)*) => {
        /// What happened since the start. Read by the ops endpoint, written by the poller.
        #[derive(Debug, Default)]
        pub struct Counters {
            last_frame_us: AtomicU64,
            $(#[doc = $what] pub(crate) $name: AtomicU64,)*
        }

        /// [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $(#[doc = $what] pub $name: u64,)*
        }

        impl Counters {
            /// All of them now.
            #[must_use]
            pub fn counts(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Names, what they count, and values, for a metrics page: each is a counter that only rises.
            #[must_use]
            pub fn each(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), $what.trim_ascii(), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Text frames received.
    frames,
    /// Quotes taken from them.
    quotes,
    /// Quotes that a newer one replaced before they were published.
    conflated,
    /// Batches published.
    batches,
    /// Quotes published.
    published,
    /// Batches Redis did not take.
    publish_failures,
    /// Quotes that waited too long for Redis and were dropped instead of being published late.
    expired,
    /// Frames of streams the poller does not use.
    ignored,
    /// Error frames of the venue.
    venue_errors,
    /// Frames that are no message of the venue's.
    garbage,
    /// Quotes with an empty side.
    one_sided,
    /// Quotes with a price that is not above zero or a quantity below.
    not_positive,
    /// Quotes whose bid is not below the ask.
    crossed,
    /// Quotes with a price that is not a plain decimal text.
    unreadable,
    /// Quotes of symbols nobody asked for.
    unsubscribed,
    /// Quotes stamped later than our clock allows.
    ahead_of_clock,
    /// Quotes older than the one before.
    out_of_order,
    /// Quotes seen already.
    duplicates,
    /// Symbols whose update ids started over at the venue.
    restarted_ids,
    /// Sockets opened and subscribed.
    connects,
    /// Sockets that could not be opened.
    connect_failures,
    /// Sockets replaced because the venue closed or dropped them.
    disconnects,
    /// Sockets replaced because no data came.
    silences,
}

impl Counters {
    /// When the last data frame came, microseconds since the epoch; none before the first.
    #[must_use]
    pub fn last_frame_at(&self) -> Option<SystemTime> {
        match self.last_frame_us.load(Ordering::Relaxed) {
            0 => None,
            at_us => Some(clock::system_time(at_us)),
        }
    }
}

/// Keeps [`FeedState`] for those who watch, and the [`Counters`] below it.
///
/// Counters move with every frame, the state only when the connection changes and when [`Status::refresh`] is called: nobody is woken
/// a thousand times a second.
#[derive(Debug, Default)]
pub struct Status {
    counters: Arc<Counters>,
    state: watch::Sender<FeedState>,
}

impl Status {
    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The feed as it is.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<FeedState> {
        self.state.subscribe()
    }

    /// Where the quotes come from.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.state.borrow().mode
    }

    /// Says where the quotes come from from now on; data of another origin no longer counts.
    pub fn set_origin(&self, mode: Mode, origin: &str) {
        self.counters.last_frame_us.store(0, Ordering::Relaxed);
        self.change(|state| {
            state.mode = mode;
            origin.clone_into(&mut state.origin);
            state.connected = false;
        });
    }

    /// Brings the state up to date with the counters.
    pub fn refresh(&self) {
        self.change(|_| {});
    }

    pub(crate) fn connected(&self) {
        self.change(|state| state.connected = true);
    }

    pub(crate) fn disconnected(&self) {
        self.change(|state| state.connected = false);
    }

    pub(crate) fn data_came(&self, at_us: u64) {
        self.counters.last_frame_us.store(at_us, Ordering::Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut FeedState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            state.counts = self.counters.counts();
            state.last_frame_at = self.counters.last_frame_at();
            state.reconnects = state.counts.disconnects + state.counts.silences;
            *state != before
        });
    }
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Counts several.
pub(crate) fn add(counter: &AtomicU64, several: usize) {
    counter.fetch_add(several as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let counters = Counters::default();
        count(&counters.garbage);
        add(&counters.published, 3);
        let counts = counters.counts();
        assert_eq!((counts.garbage, counts.published, counts.frames), (1, 3, 0));
        assert!(counts.each().contains(&("published", "Quotes published.", 3)));
        assert_eq!(counters.last_frame_at(), None);
    }

    #[test]
    fn readiness_needs_a_socket_and_data() {
        let mut state = FeedState {
            connected: true,
            ..FeedState::default()
        };
        assert!(!state.ready());
        state.last_frame_at = Some(SystemTime::UNIX_EPOCH);
        assert!(state.ready());
        state.connected = false;
        assert!(!state.ready());
    }
}
