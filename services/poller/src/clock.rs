//! The only place that reads the wall clock, in the venue's unit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, microseconds since the epoch; zero on a clock before it.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A time in microseconds since the epoch as a `SystemTime`, for people and for `elapsed`.
#[must_use]
pub fn system_time(at_us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at_us)
}
