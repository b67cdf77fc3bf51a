//! Time as a value: microseconds, handed in by the caller. Nothing here can ask what time it is.

use std::fmt;

/// A moment, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A moment so many microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The moment `micros` later (earlier when negative), or `None` past the range.
    #[must_use]
    pub const fn checked_add_micros(self, micros: i64) -> Option<Timestamp> {
        match self.0.checked_add(micros) {
            Some(sum) => Some(Timestamp(sum)),
            None => None,
        }
    }

    /// Microseconds from `earlier` to here, never negative: what is "from the future" is zero old.
    #[must_use]
    pub const fn age_us_since(self, earlier: Timestamp) -> i64 {
        let age = self.0.saturating_sub(earlier.0);
        if age < 0 { 0 } else { age }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}
