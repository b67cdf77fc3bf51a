//! When calls of an open loop begin: at moments that were fixed before, whatever the calls before them do.
//!
//! The times are kept by a thread of its own, because a timer of the runtime is a millisecond coarse and late when the runtime is busy:
//! its lateness would look like the server's.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Most starts that are told at once after a pause: a pacer that was not let run for a second must not flood.
const BURST_MAX: u64 = 10_000;

/// The moments at which calls begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    begin: Instant,
    per_second: f64,
}

impl Pace {
    pub(super) fn new(begin: Instant, per_second: f64) -> Self {
        Self { begin, per_second }
    }

    /// When call number `n` is meant to begin.
    pub(super) fn intended(&self, n: u64) -> Instant {
        self.begin + Duration::from_secs_f64(n as f64 / self.per_second)
    }

    /// How many calls are meant to have begun at `now`.
    pub(super) fn due(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begin);
        (elapsed.as_secs_f64() * self.per_second).floor() as u64 + 1
    }
}

/// Tells `starts` each intended moment when it has come, for so long. Runs on its thread until then, or until nobody listens.
pub(super) fn keep(pace: Pace, lasts: Duration, starts: &mpsc::UnboundedSender<Instant>) {
    let end = pace.begin + lasts;
    let mut told = 0;
    loop {
        let now = Instant::now();
        if now >= end {
            return;
        }
        let due = pace.due(now).min(told + BURST_MAX).max(told);
        for n in told..due {
            if starts.send(pace.intended(n)).is_err() {
                return;
            }
        }
        told = due;
        std::thread::sleep(pace.intended(told).min(end).saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_where_they_were_meant_to_be_whenever_we_look() {
        let begin = Instant::now();
        let pace = Pace::new(begin, 1_000.0);
        assert_eq!(pace.intended(0), begin);
        assert_eq!(pace.intended(500), begin + Duration::from_millis(500));
        assert_eq!(pace.due(begin), 1);
        assert_eq!(pace.due(begin + Duration::from_micros(10_500)), 11);
    }

    #[test]
    fn a_late_look_makes_up_for_what_was_missed() {
        // Begun 50 ms ago: fifty calls are due at once, each with its own intended time in the past.
        let begin = Instant::now().checked_sub(Duration::from_millis(50)).unwrap();
        let (send, mut starts) = mpsc::unbounded_channel();
        keep(Pace::new(begin, 1_000.0), Duration::from_millis(60), &send);
        drop(send);
        let mut intended = Vec::new();
        while let Some(start) = starts.blocking_recv() {
            intended.push(start);
        }
        assert!((50..=61).contains(&intended.len()), "{}", intended.len());
        assert!(intended.is_sorted());
        assert_eq!(intended[49], begin + Duration::from_millis(49));
    }
}
