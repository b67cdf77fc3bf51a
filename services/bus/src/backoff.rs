//! Waiting between tries: doubling, capped, with jitter, so that a thousand clients do not come back in step.

use std::cell::RefCell;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

thread_local! {
    static JITTER: RefCell<SmallRng> = RefCell::new(rand::make_rng());
}

/// Makes the jitter of this thread a function of a seed: for simulations, which must run the same twice.
pub fn seed_this_thread(seed: u64) {
    JITTER.with_borrow_mut(|jitter| *jitter = SmallRng::seed_from_u64(seed));
}

/// The state of one sequence of tries.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits about `first` after the first failure, doubling up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    /// For a store that is expected back soon: 50 ms to 2 s.
    #[must_use]
    pub fn store() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How long to wait now: between half and all of the step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.first.saturating_mul(1 << self.tries.min(16)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        step.mul_f64(JITTER.with_borrow_mut(|jitter| jitter.random_range(0.5..=1.0)))
    }

    /// Waits.
    pub async fn wait(&mut self) {
        let delay = self.next_delay();
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_a_cap_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next_delay();
            assert!(
                delay >= Duration::from_millis(step / 2) && delay <= Duration::from_millis(step),
                "{delay:?} of {step}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
