//! How many calls may wait at once: as many as are answered in a fifth of a second.
//!
//! A queue that is longer than that answers nobody sooner; it only makes everybody wait until their deadlines, and the work is done for
//! callers who have gone. So a caller beyond it is told at once to come again.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long a call that is let in waits at most, at the rate seen.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// So many may always wait: what a mesh that has just started, or was idle, takes at once.
const FLOOR: usize = 1_024;
/// Length of one measurement.
const STRETCH: Duration = Duration::from_secs(1);
/// Measurements looked back at, so that a pause, of a take-over say, does not count as slowness.
const STRETCHES: usize = 10;

/// The rate at which calls are answered, and what follows from it.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    answered: usize,
    seen: VecDeque<usize>,
}

impl Pace {
    pub(crate) fn start(now: Instant) -> Self {
        Self {
            begun: now,
            answered: 0,
            seen: VecDeque::with_capacity(STRETCHES),
        }
    }

    /// So many calls were answered. Returns how many may wait from now on, when that was worked out anew.
    pub(crate) fn answered(&mut self, now: Instant, calls: usize) -> Option<usize> {
        self.answered += calls;
        let took = now.duration_since(self.begun);
        if took < STRETCH {
            return None;
        }
        let per_wait = self.answered as u128 * WAIT_MAX.as_micros() / took.as_micros();
        if self.seen.len() == STRETCHES {
            self.seen.pop_front();
        }
        self.seen.push_back(usize::try_from(per_wait).unwrap_or(usize::MAX));
        (self.begun, self.answered) = (now, 0);
        Some(self.limit())
    }

    /// How many calls may wait.
    pub(crate) fn limit(&self) -> usize {
        self.seen.iter().copied().max().unwrap_or(0).max(FLOOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_wait_as_are_answered_in_a_fifth_of_a_second() {
        let begun = Instant::now();
        let mut pace = Pace::start(begun);
        assert_eq!(pace.limit(), FLOOR);
        assert_eq!(pace.answered(begun + STRETCH / 2, 10_000), None);
        assert_eq!(
            pace.answered(begun + STRETCH, 10_000),
            Some(4_000),
            "a fifth of 20,000 a second"
        );
        // Two seconds without an answer, then as before: a pause is no slowness.
        assert_eq!(pace.answered(begun + STRETCH * 3, 0), Some(4_000));
        // It stays slow: after a while that is what counts.
        let mut now = begun + STRETCH * 3;
        for _ in 0..STRETCHES {
            now += STRETCH;
            pace.answered(now, 6_000);
        }
        assert_eq!(pace.limit(), 1_200);
        for _ in 0..STRETCHES {
            now += STRETCH;
            pace.answered(now, 10);
        }
        assert_eq!(pace.limit(), FLOOR, "few may always wait");
    }
}
