//! What clients and the driver of a run tell each other: how far it is, what went wrong, and when to repeat old orders.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Shared by all clients of a run and its driver.
#[derive(Debug)]
pub struct Progress {
    acknowledged: AtomicU64,
    answered: AtomicU64,
    repeated: AtomicU64,
    round: AtomicU64,
    stop: AtomicBool,
    by_shard: Vec<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    /// Longest time without an acknowledgement: in all, and since somebody looked.
    worst_gap: Duration,
    worst_since: Duration,
    again: BTreeMap<String, u64>,
    faults: Vec<String>,
}

impl Progress {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(shards: u32) -> Self {
        Self {
            acknowledged: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            round: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            by_shard: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            state: Mutex::new(State {
                last: Instant::now(),
                worst_gap: Duration::ZERO,
                worst_since: Duration::ZERO,
                again: BTreeMap::new(),
                faults: Vec::new(),
            }),
        }
    }

    /// A new order was answered for good; it is not on disk yet.
    pub fn answer(&self, shard: u32) {
        self.answered.fetch_add(1, Ordering::SeqCst);
        self.by_shard[shard as usize].fetch_add(1, Ordering::SeqCst);
        let mut state = self.lock();
        let gap = state.last.elapsed();
        state.last = Instant::now();
        state.worst_gap = state.worst_gap.max(gap);
        state.worst_since = state.worst_since.max(gap);
    }

    /// It is on disk: now it counts.
    pub fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// An order had to be sent again.
    pub fn again(&self, reason: &str) {
        *self.lock().again.entry(reason.to_owned()).or_default() += 1;
    }

    /// An old order was sent again, to see whether its answer is the same.
    pub fn repeat(&self) {
        self.repeated.fetch_add(1, Ordering::SeqCst);
    }

    /// Something that must not be.
    pub fn fault(&self, text: String) {
        self.lock().faults.push(text);
    }

    /// Acknowledgements on disk.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// New orders answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// The same for some shards.
    #[must_use]
    pub fn answered_on(&self, shards: &[(u32, u64)]) -> u64 {
        let of = |(shard, _): &(u32, u64)| self.by_shard[*shard as usize].load(Ordering::SeqCst);
        shards.iter().map(of).sum()
    }

    /// Old orders sent again.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::SeqCst)
    }

    /// Makes every client repeat old orders.
    pub fn next_round(&self) {
        self.round.fetch_add(1, Ordering::SeqCst);
    }

    /// Which round it is.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::SeqCst)
    }

    /// Makes every client finish what it is at and end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether clients are to end.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Longest time without an acknowledgement so far.
    #[must_use]
    pub fn worst_gap(&self) -> Duration {
        self.lock().worst_gap
    }

    /// The same since this was asked last.
    pub fn take_gap(&self) -> Duration {
        std::mem::take(&mut self.lock().worst_since)
    }

    /// Why and how often orders were sent again.
    #[must_use]
    pub fn agains(&self) -> BTreeMap<String, u64> {
        self.lock().again.clone()
    }

    /// What must not be, and was.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}
