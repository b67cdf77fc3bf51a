//! The world that everything simulated shares: its stores, its weather, its chance, its time, and what was seen of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use contracts::bus::{JournalBatch, Reply, reply};
use contracts::v1::ErrorReason;
use engine::journal::{Batch, Head, Verdict};
use prost::Message as _;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};
use tokio::time::Instant;

use crate::coverage::{Corner, Coverage};
use crate::dice::Dice;
use crate::feed::Mood;
use crate::history::{History, is, key_of};
use crate::journal::{CommitFault, corner_of};
use crate::options::Options;
use crate::postgres::{Freed, Postgres};
use crate::redis::Redis;
use crate::trace::Trace;
use crate::weather::Weather;

/// The wall clock's time at the start of every run. Microseconds since the epoch.
pub const START_US: i64 = 1_700_000_000_000_000;
/// Most that may be noted in one millisecond: more is a loop that waits for nothing.
const NOTES_PER_MS_MAX: u64 = 50_000;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    inner: Mutex<Inner>,
    head_rows: Vec<Arc<AsyncMutex<()>>>,
    request_bells: Vec<Notify>,
    reply_bell: Notify,
    price_bell: Notify,
}

/// What is in it.
#[derive(Debug)]
pub struct Inner {
    /// Time of the run, microseconds since its start; set on every visit.
    pub now_us: u64,
    pub options: Options,
    pub dice: Dice,
    pub trace: Trace,
    pub coverage: Coverage,
    pub history: History,
    pub postgres: Postgres,
    pub postgres_weather: Weather,
    /// What befalls the next commit.
    pub commit_fault: Option<CommitFault>,
    /// The engine that sends the next commit dies while it is under way.
    pub die_in_commit: bool,
    pub redis: Redis,
    pub redis_weather: Weather,
    /// How often connections to Redis broke all at once.
    pub redis_lives: u64,
    /// Replies get lost and doubled until then.
    pub replies_lossy_until_us: u64,
    /// Replies that come again later.
    pub late_replies: Vec<(String, Vec<u8>)>,
    /// What the venue does at the moment.
    pub mood: Mood,
    /// Take-overs so far, by shard: after each, old operations are sent again.
    pub take_overs: Vec<u64>,
    /// Trades that clients know of, by account.
    pub trades: BTreeMap<String, Vec<String>>,
    /// How long the run took. Milliseconds.
    pub history_ms: u64,
    /// What is wrong.
    pub violations: Vec<String>,
    notes_this_ms: (u64, u64),
}

impl World {
    /// A world at its beginning. Must be made inside of its runtime, because its time starts here.
    pub fn new(seed: u64, options: Options) -> Self {
        let shards = options.shards;
        Self(Arc::new(Shared {
            started: Instant::now(),
            head_rows: (0..shards).map(|_| Arc::default()).collect(),
            request_bells: (0..shards).map(|_| Notify::new()).collect(),
            reply_bell: Notify::new(),
            price_bell: Notify::new(),
            inner: Mutex::new(Inner {
                now_us: 0,
                dice: Dice::new(seed),
                trace: Trace::default(),
                coverage: Coverage::default(),
                history: History::new(shards),
                postgres: Postgres::new(shards),
                postgres_weather: Weather::default(),
                commit_fault: None,
                die_in_commit: false,
                redis: Redis::new(shards),
                redis_weather: Weather::default(),
                redis_lives: 0,
                replies_lossy_until_us: 0,
                late_replies: Vec::new(),
                mood: Mood::default(),
                take_overs: vec![0; shards as usize],
                trades: BTreeMap::new(),
                history_ms: 0,
                violations: Vec::new(),
                notes_this_ms: (0, 0),
                options,
            }),
        }))
    }

    /// Visits it.
    pub fn with<T>(&self, visit: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.0.inner.lock().expect("a visitor does not panic");
        inner.now_us = self.now_us();
        visit(&mut inner)
    }

    /// Time of the run. Microseconds since its start.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_micros()).expect("a short run")
    }

    /// True time. Microseconds since the epoch.
    pub fn true_us(&self) -> i64 {
        START_US + i64::try_from(self.now_us()).expect("a short run")
    }

    /// Waits until nobody else holds these head rows, and holds them.
    pub async fn lock_heads(&self, shards: &[u32]) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::with_capacity(shards.len());
        for shard in shards {
            held.push(Arc::clone(&self.0.head_rows[*shard as usize]).lock_owned().await);
        }
        held
    }

    /// Whether a statement holds this head row.
    pub fn head_is_locked(&self, shard: u32) -> bool {
        self.0.head_rows[shard as usize].try_lock().is_err()
    }

    /// Rings when something is put into a shard's queue.
    pub fn request_bell(&self, shard: u32) -> &Notify {
        &self.0.request_bells[shard as usize]
    }

    /// Rings when a reply is there.
    pub fn reply_bell(&self) -> &Notify {
        &self.0.reply_bell
    }

    /// Rings when there are prices.
    pub fn price_bell(&self) -> &Notify {
        &self.0.price_bell
    }
}

impl Inner {
    /// Notes in the trace.
    pub fn note(&mut self, what: &'static str, who: u64, number: u64, detail: impl FnOnce() -> String) {
        let ms = self.now_us / 1_000;
        if self.notes_this_ms.0 != ms {
            self.notes_this_ms = (ms, 0);
        }
        self.notes_this_ms.1 += 1;
        assert!(
            self.notes_this_ms.1 < NOTES_PER_MS_MAX,
            "something runs in circles without waiting: {what} by {who}"
        );
        self.trace.note(self.now_us, what, who, number, detail);
    }

    /// Something is wrong.
    pub fn violation(&mut self, what: String) {
        self.note("VIOLATION", 0, self.violations.len() as u64, || what.clone());
        self.violations.push(what);
    }

    /// True time. Milliseconds since the epoch.
    pub fn true_ms(&self) -> u64 {
        (START_US.unsigned_abs() + self.now_us) / 1_000
    }

    /// A `request_id` made now.
    pub fn fresh_request_id(&mut self) -> u128 {
        let time_ms = self.true_ms();
        self.request_id_at(time_ms)
    }

    /// A `request_id` made at that time, milliseconds since the epoch.
    pub fn request_id_at(&mut self, time_ms: u64) -> u128 {
        let random = (u128::from(self.dice.number()) << 64) | u128::from(self.dice.number());
        let random = random & !((0xffff_ffff_ffff_f000_u128 << 64) | (0b11 << 62));
        (u128::from(time_ms) << 80) | (7 << 76) | (2 << 62) | random
    }

    /// Postgres's clock.
    pub fn postgres_clock_us(&self) -> i64 {
        START_US + i64::try_from(self.now_us).expect("a short run") + self.postgres.clock_off_us
    }

    /// A shard has a new leader.
    pub fn taken_over(&mut self, who: u64, head: &Head, freed: Freed) {
        if let Some(corner) = corner_of(freed) {
            self.coverage.visit(corner);
        }
        self.take_overs[head.shard as usize] += 1;
        self.note("take-over", who, head.epoch, || {
            format!("shard {} at {}, {freed:?}", head.shard, head.sequence)
        });
    }

    /// A batch was committed, or not.
    pub fn committed(&mut self, who: u64, batch: &Batch, verdict: Verdict) {
        self.note("commit", who, batch.sequence, || {
            format!(
                "shard {} epoch {} after {}: {verdict:?}",
                batch.shard, batch.epoch, batch.sequence_before
            )
        });
        if verdict == Verdict::Fenced {
            self.coverage.visit(Corner::Fenced);
            let head = &self.postgres.heads[batch.shard as usize];
            let landed_before = self.postgres.rows[batch.shard as usize]
                .iter()
                .any(|row| row.batch == batch.id);
            if head.epoch == batch.epoch && landed_before {
                self.coverage.visit(Corner::RetryMetFirst);
            } else if head.epoch == batch.epoch {
                let what = format!(
                    "shard {}: a leader was fenced by itself: the journal is at {}, its batch follows on {}",
                    batch.shard, head.sequence, batch.sequence_before
                );
                self.violation(what);
            }
            return;
        }
        let Ok(row) = JournalBatch::decode(batch.body.clone()) else {
            self.violation(format!("shard {}: an unreadable row", batch.shard));
            return;
        };
        for entry in &row.entries {
            let Some(operation) = &entry.operation else { continue };
            let Ok(id) = <[u8; 16]>::try_from(operation.request_id.as_ref()) else {
                continue;
            };
            let key = (batch.shard, operation.principal.clone(), u128::from_be_bytes(id));
            if self.history.executed.insert(key.clone(), self.now_us).is_some() {
                self.violation(format!("{}/{:032x} was executed twice", key.1, key.2));
            }
        }
    }

    /// Messages left a queue.
    pub fn trimmed(&mut self, shard: u32, removed: &[Bytes]) {
        for message in removed {
            let shards = self.options.shards;
            match engine::inbox::read(message, shard, shards) {
                Ok(request) => {
                    let is_known = key_of(&request).is_some_and(|key| self.history.executed.contains_key(&key));
                    if !is_known && !self.history.was_answered(&request.correlation_id) {
                        self.violation(format!(
                            "shard {shard}: a request of {} was taken off the queue and never answered",
                            request.principal
                        ));
                    }
                }
                Err(_) => {
                    let kept = message.slice(..message.len().min(64 * 1024));
                    let digest = *blake3::hash(&kept).as_bytes();
                    if !self.postgres.dead_letters.contains_key(&(shard, digest)) {
                        self.violation(format!(
                            "shard {shard}: a message that is none left without a dead letter"
                        ));
                    }
                }
            }
        }
    }

    /// An engine sends a reply.
    pub fn answered(&mut self, who: u64, shard: u32, reply: &Reply) {
        self.history.answered(reply.correlation_id.clone());
        let head = self.postgres.heads[shard as usize].sequence;
        if reply.sequence > head {
            self.violation(format!(
                "shard {shard}: an answer tells of sequence {}, the journal is at {head}",
                reply.sequence
            ));
        }
        if let Some(outcome) = &reply.outcome {
            for (reason, corner) in [
                (ErrorReason::Expired, Corner::DeadlineExpired),
                (ErrorReason::RequestIdExpired, Corner::IdExpired),
                (ErrorReason::RequestIdReused, Corner::Reused),
                (ErrorReason::StalePrice, Corner::StalePrice),
            ] {
                if is(outcome, reason) {
                    self.coverage.visit(corner);
                }
            }
        }
        self.note("reply", who, reply.sequence, || match &reply.outcome {
            Some(reply::Outcome::Failure(failure)) => failure.reason().code().to_owned(),
            _ => "OK".to_owned(),
        });
    }

    /// An engine publishes an entry.
    pub fn published(&mut self, shard: u32, sequence: u64) {
        let head = self.postgres.heads[shard as usize].sequence;
        if sequence > head {
            self.violation(format!(
                "shard {shard}: sequence {sequence} was published, the journal is at {head}"
            ));
        }
    }
}
