//! The simulated Redis: lists of requests and replies, who shows presence, the price and event streams.
//!
//! It does to them what the scripts and commands of the bus do. Faults that a Redis has as a whole (emptied, restored from an old copy,
//! its newest lost, its oldest back) are here too; what befalls single calls is in [`crate::weather`].

use std::collections::{BTreeMap, VecDeque};

use bus::presence::PRESENCE_MS;
use bytes::Bytes;
use contracts::bus::PriceBatch;

/// Most price batches kept.
const PRICES_KEPT: usize = 400;
/// Most trimmed messages that can come back.
const TRIMMED_KEPT: usize = 8;

/// What Redis holds. A clone is a copy of it on disk.
#[derive(Clone, Debug, Default)]
pub struct Redis {
    pub requests: Vec<VecDeque<Bytes>>,
    pub trimmed: Vec<VecDeque<Bytes>>,
    pub replies: BTreeMap<String, VecDeque<Vec<u8>>>,
    /// Who leads a shard, and until when that stands. Microseconds of the run.
    pub leaders: Vec<Option<(String, u64)>>,
    /// Last sequence in each event stream; 0 for an empty one.
    pub events: Vec<u64>,
    pub prices: VecDeque<(u64, PriceBatch)>,
    /// Last id given out by the price stream. Milliseconds.
    pub last_price: u64,
    /// The clock that price ids come from is behind by this. Milliseconds.
    pub ids_behind_ms: u64,
}

impl Redis {
    /// An empty one.
    pub fn new(shards: u32) -> Self {
        let mut redis = Self::default();
        redis.requests.resize(shards as usize, VecDeque::new());
        redis.trimmed.resize(shards as usize, VecDeque::new());
        redis.leaders.resize(shards as usize, None);
        redis.events.resize(shards as usize, 0);
        redis
    }

    /// Pushes as many as the cap leaves room for, if somebody leads; `None` for nobody.
    pub fn admit(&mut self, shard: u32, requests: &[Vec<u8>], length_max: usize, now_us: u64) -> Option<usize> {
        self.leaders[shard as usize]
            .as_ref()
            .filter(|(_, until)| *until > now_us)?;
        let queue = &mut self.requests[shard as usize];
        let room = length_max.saturating_sub(queue.len()).min(requests.len());
        queue.extend(requests[..room].iter().map(|request| Bytes::from(request.clone())));
        Some(room)
    }

    /// Messages of a queue from one position on.
    pub fn peek(&self, shard: u32, skip: usize, count_max: usize) -> Vec<Bytes> {
        self.requests[shard as usize]
            .iter()
            .skip(skip)
            .take(count_max)
            .cloned()
            .collect()
    }

    /// Compares and trims; `None` when something else stands at the front. `blindly` cuts off as many, whatever they are.
    pub fn trim(&mut self, shard: u32, processed: &[Bytes], blindly: bool) -> Option<Vec<Bytes>> {
        let queue = &mut self.requests[shard as usize];
        let same = queue.len() >= processed.len() && queue.iter().zip(processed).all(|(ours, theirs)| ours == theirs);
        if !same && !blindly {
            return None;
        }
        let removed: Vec<Bytes> = queue.drain(..processed.len().min(queue.len())).collect();
        let trimmed = &mut self.trimmed[shard as usize];
        trimmed.extend(removed.iter().cloned());
        while trimmed.len() > TRIMMED_KEPT {
            trimmed.pop_front();
        }
        Some(removed)
    }

    /// Shows who leads.
    pub fn show_presence(&mut self, shard: u32, engine: &str, now_us: u64) {
        self.leaders[shard as usize] = Some((engine.to_owned(), now_us + PRESENCE_MS * 1_000));
    }

    /// Hides a leader, unless another one is shown.
    pub fn hide_presence(&mut self, shard: u32, engine: &str) {
        self.leaders[shard as usize].take_if(|(shown, _)| shown == engine);
    }

    /// Appends a price batch under the next id.
    pub fn publish_prices(&mut self, batch: PriceBatch, now_us: u64) {
        // Far from zero, so that there is room for ids that start over.
        let clock_ms = (1_000_000 + now_us / 1_000).saturating_sub(self.ids_behind_ms);
        self.last_price = clock_ms.max(self.last_price + 1);
        self.prices.push_back((self.last_price, batch));
        if self.prices.len() > PRICES_KEPT {
            self.prices.pop_front();
        }
    }

    /// The price stream is gone; its ids start over.
    pub fn restart_prices(&mut self, behind_ms: u64) {
        self.prices.clear();
        self.last_price = 0;
        self.ids_behind_ms = behind_ms;
    }

    /// Everything is gone.
    pub fn empty(&mut self) {
        let shards = u32::try_from(self.requests.len()).expect("few shards");
        let ids_behind_ms = self.ids_behind_ms;
        *self = Self {
            ids_behind_ms,
            ..Self::new(shards)
        };
    }

    /// The newest requests of a shard are gone. Returns how many.
    pub fn lose_tail(&mut self, shard: u32, count: usize) -> usize {
        let queue = &mut self.requests[shard as usize];
        let lost = count.min(queue.len());
        queue.truncate(queue.len() - lost);
        lost
    }

    /// What was trimmed last is back at the front of the queue. Returns how many.
    pub fn undo_trim(&mut self, shard: u32, count: usize) -> usize {
        let trimmed = &mut self.trimmed[shard as usize];
        let back = count.min(trimmed.len());
        for message in trimmed.split_off(trimmed.len() - back).into_iter().rev() {
            self.requests[shard as usize].push_front(message);
        }
        back
    }
}
