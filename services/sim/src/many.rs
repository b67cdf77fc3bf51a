//! Many seeds, each on a thread of its own, a few threads at a time.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::coverage::Coverage;
use crate::options::Options;
use crate::run::{Outcome, run};

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Many {
    /// How many were run.
    pub seeds: u64,
    /// Corners of all of them.
    pub coverage: Coverage,
    /// Virtual time of all of them. Milliseconds.
    pub virtual_ms: u64,
    /// Runs in which something was wrong, by seed.
    pub failed: Vec<Outcome>,
}

/// Runs these seeds, until `enough` of them failed.
///
/// # Panics
/// When a run panics: the simulation is at fault then.
#[must_use]
pub fn run_many(seeds: Range<u64>, options: &Options, enough: usize) -> Many {
    let (next, all) = (AtomicU64::new(seeds.start), Mutex::new(Many::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || lock(&all).failed.len() >= enough {
                        return;
                    }
                    let outcome = run(seed, options);
                    let mut all = lock(&all);
                    all.seeds += 1;
                    all.virtual_ms += outcome.virtual_ms;
                    all.coverage.add(&outcome.coverage);
                    if !outcome.violations.is_empty() {
                        all.failed.push(outcome);
                    }
                }
            });
        }
    });
    let mut all = all.into_inner().expect("no thread panicked");
    all.failed.sort_by_key(|outcome| outcome.seed);
    all
}

fn lock(all: &Mutex<Many>) -> std::sync::MutexGuard<'_, Many> {
    all.lock().expect("no thread panicked")
}
