//! The repeat window: every operation of the last day with its first answer, so that none executes twice.
//!
//! An operation is found by who sent it and by its `request_id`. Because a `request_id` carries its own time, the window can be bounded
//! and still be safe: what is older than the [`Window::horizon_ms`] is refused, never executed, so an entry that left the window cannot
//! come back as new. The window is a function of the journal: a replay arrives at the same one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::mutants::{self, Mutant};
use contracts::bus::operation_record::Outcome;
use contracts::bus::{Failure, OperationRecord};
use engine_core::Timestamp;
use indexmap::IndexMap;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::wire::borrowed::{self, Borrowed as _};
use crate::wire::event::{Unreadable, unreadable};

/// How much a window remembers. One deployment has one: a journal replays only under the limits it was written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an operation is remembered. Milliseconds.
    pub window_ms: u64,
    /// Most operations remembered by one shard; past it the window gets shorter than `window_ms`.
    pub operations_max: usize,
    /// Operations leave the window together with all whose ids were made in the same stretch of this length. Milliseconds.
    pub bucket_ms: u64,
}

impl Default for Limits {
    /// A day, five million, a minute.
    fn default() -> Self {
        Self {
            window_ms: 24 * 60 * 60 * 1000,
            operations_max: 5_000_000,
            bucket_ms: 60_000,
        }
    }
}

/// Who sent an operation, and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperationKey {
    /// The token's subject.
    pub principal: Arc<str>,
    /// The UUIDv7 as a number.
    pub request_id: u128,
}

impl OperationKey {
    /// The operation that this principal sent under this id.
    #[must_use]
    pub fn new(principal: &str, id: [u8; 16]) -> Self {
        let principal = if mutants::is(Mutant::KeyNotScoped) {
            ""
        } else {
            principal
        };
        Self {
            principal: principal.into(),
            request_id: u128::from_be_bytes(id),
        }
    }

    /// When the id was made, milliseconds since the epoch.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        contracts::request_id::time_ms(uuid::Uuid::from_u128(self.request_id))
    }
}

/// An operation with its first answer, as it stands in the journal.
#[derive(Debug)]
pub struct Journaled<'a> {
    /// Nothing when its id is not 16 bytes.
    key: Option<OperationKey>,
    account_id: &'a str,
    /// Encoded `OperationRecord`.
    record: Box<[u8]>,
}

impl<'a> Journaled<'a> {
    /// Reads an encoded `OperationRecord`.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(record: &'a [u8]) -> Result<Self, Unreadable> {
        let it = borrowed::OperationRecord::read(record)?;
        if it.failure.is_some_and(|failure| Failure::decode(failure).is_err()) {
            return Err(unreadable("failure"));
        }
        let id = <[u8; 16]>::try_from(it.request_id).ok();
        Ok(Self {
            key: id.map(|id| OperationKey::new(it.principal, id)),
            account_id: it.account_id,
            record: record.into(),
        })
    }

    /// One that was just encoded, under its key and for its account.
    #[must_use]
    pub fn written(key: OperationKey, account_id: &'a str, record: Vec<u8>) -> Self {
        Self {
            key: Some(key),
            account_id,
            record: record.into(),
        }
    }

    /// Account it was for.
    #[must_use]
    pub fn account_id(&self) -> &'a str {
        self.account_id
    }
}

/// An operation with its first answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Journal sequence.
    pub sequence: u64,
    /// Engine time.
    pub at: Timestamp,
    /// The operation as journaled.
    pub record: OperationRecord,
}

/// What the window knows of an operation.
#[derive(Debug, PartialEq)]
pub enum Lookup {
    /// Never seen, and young enough to be executed.
    New,
    /// Seen with the same command.
    Repeat(Box<Remembered>),
    /// Seen with another command.
    Reused,
    /// Too old to tell: not to be executed.
    Expired,
}

/// A remembered operation as it is kept: its bytes, because there are millions and hardly one is ever asked for again.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    /// Encoded `OperationRecord`.
    pub(crate) record: Box<[u8]>,
}

impl Kept {
    fn hash(&self) -> u128 {
        xxh3_128_with_seed(&self.record, self.sequence)
    }

    fn read(&self) -> Remembered {
        Remembered {
            sequence: self.sequence,
            at: self.at,
            record: OperationRecord::decode(&*self.record).expect("it was read when it was journaled"),
        }
    }
}

/// The operations whose ids were made in the same stretch, in the order in which they came. They have a table of their own, so that no
/// table grows large: one that does makes somebody wait while it moves.
#[derive(Debug, Default)]
struct Bucket {
    kept: IndexMap<OperationKey, Kept>,
    /// Sum of their hashes.
    hash: u128,
}

/// The operations of the last day.
#[derive(Debug)]
pub struct Window {
    buckets: BTreeMap<u64, Bucket>,
    count: usize,
    horizon_ms: u64,
    limits: Limits,
    hash: u128,
    /// Forgotten and not freed yet: that is done a few at a time.
    forgotten: Vec<IndexMap<OperationKey, Kept>>,
}

impl Default for Window {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Window {
    /// A window of these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            buckets: BTreeMap::new(),
            count: 0,
            horizon_ms: 0,
            limits,
            hash: 0,
            forgotten: Vec::new(),
        }
    }

    /// Ids made before this are refused. Milliseconds since the epoch.
    #[must_use]
    pub fn horizon_ms(&self) -> u64 {
        self.horizon_ms
    }

    /// How many operations it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sum of the hashes of its entries.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// What is known of an operation whose command hashes to `payload_hash`.
    #[must_use]
    pub fn lookup(&self, key: &OperationKey, payload_hash: &[u8], at: Timestamp) -> Lookup {
        match self.get(key).filter(|_| !mutants::is(Mutant::NoDedupe)) {
            Some(seen) if seen.record.payload_hash == payload_hash => Lookup::Repeat(Box::new(seen)),
            Some(_) => Lookup::Reused,
            None if key.time_ms() < self.horizon_at(at) && !mutants::is(Mutant::EvictWithoutAgeCheck) => {
                Lookup::Expired
            }
            None => Lookup::New,
        }
    }

    /// The operation, whatever its command was.
    #[must_use]
    pub fn get(&self, key: &OperationKey) -> Option<Remembered> {
        let bucket = self.buckets.get(&self.bucket_of(key))?;
        bucket.kept.get(key).map(Kept::read)
    }

    /// Remembers an operation, and forgets what is too old or too much.
    pub fn insert(&mut self, sequence: u64, at: Timestamp, operation: Journaled<'_>) {
        self.place(sequence, at, operation);
        self.horizon_ms = self.horizon_at(at);
        while let Some(bucket) = self.buckets.first_entry() {
            let bucket_end = (*bucket.key() + 1) * self.limits.bucket_ms;
            let full = self.count > self.limits.operations_max;
            if bucket_end > self.horizon_ms && !full {
                break;
            }
            // The horizon moves first: an id in this minute is refused from now on, so forgetting it is safe.
            self.horizon_ms = self.horizon_ms.max(bucket_end);
            let bucket = bucket.remove();
            self.count -= bucket.kept.len();
            self.hash = self.hash.wrapping_sub(bucket.hash);
            self.forgotten.push(bucket.kept);
        }
        self.free_some();
    }

    /// Puts an entry of a snapshot back, with the horizon that goes with it set by [`Window::set_horizon`].
    pub fn restore(&mut self, sequence: u64, at: Timestamp, operation: Journaled<'_>) {
        self.place(sequence, at, operation);
    }

    /// Sets the horizon of a snapshot.
    pub fn set_horizon(&mut self, horizon_ms: u64) {
        self.horizon_ms = horizon_ms;
    }

    /// Everything it holds, by the minute of the id.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Kept> {
        self.buckets.values().flat_map(|bucket| bucket.kept.values())
    }

    fn place(&mut self, sequence: u64, at: Timestamp, operation: Journaled<'_>) {
        let Journaled { key, record, .. } = operation;
        let Some(key) = key else { return };
        let kept = Kept { sequence, at, record };
        let hash = kept.hash();
        let bucket = self.buckets.entry(self.bucket_of(&key)).or_default();
        let replaced = bucket.kept.insert(key, kept);
        // Only a journal that holds one operation twice can bring us to the second; the recorder's unique key tells it to people.
        let change = replaced.as_ref().map_or(hash, |it| hash.wrapping_sub(it.hash()));
        bucket.hash = bucket.hash.wrapping_add(change);
        self.hash = self.hash.wrapping_add(change);
        match replaced {
            None => self.count += 1,
            Some(_) => tracing::error!(sequence, "an operation stands in the journal twice"),
        }
    }

    /// More than comes with each insertion, so that it ends.
    fn free_some(&mut self) {
        const AT_ONCE: usize = 4;
        if let Some(kept) = self.forgotten.last_mut() {
            kept.truncate(kept.len().saturating_sub(AT_ONCE));
            if kept.is_empty() {
                self.forgotten.pop();
            }
        }
    }

    fn bucket_of(&self, key: &OperationKey) -> u64 {
        key.time_ms() / self.limits.bucket_ms
    }

    fn horizon_at(&self, at: Timestamp) -> u64 {
        let now_ms = micros(at) / 1000;
        self.horizon_ms.max(now_ms.saturating_sub(self.limits.window_ms))
    }
}

/// Engine time as the wire has it.
#[must_use]
pub fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.micros()).unwrap_or(0)
}

/// Whether an outcome is remembered: what is told "nothing happened, send it again" must stay able to happen.
#[must_use]
pub fn is_final(outcome: &Outcome) -> bool {
    use contracts::v1::ErrorReason;
    match outcome {
        Outcome::Response(_) => true,
        Outcome::Failure(failure) => !matches!(
            failure.reason(),
            ErrorReason::StalePrice | ErrorReason::InvalidField | ErrorReason::NotAccepted | ErrorReason::Expired
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    const BUCKET_MS: u64 = 60_000;
    const T0: u64 = 1_700_000_000_000;

    fn id(time_ms: u64, n: u64) -> u128 {
        (u128::from(time_ms) << 80) | (7 << 76) | (2 << 62) | u128::from(n)
    }

    fn at(time_ms: u64) -> Timestamp {
        Timestamp::from_micros(i64::try_from(time_ms * 1000).unwrap())
    }

    fn insert(window: &mut Window, sequence: u64, at: Timestamp, principal: &str, request_id: u128, payload: &[u8]) {
        let record = OperationRecord {
            principal: principal.to_owned(),
            request_id: request_id.to_be_bytes().to_vec().into(),
            payload_hash: payload.to_vec().into(),
            outcome: Some(Outcome::Response(b"first".to_vec().into())),
            ..OperationRecord::default()
        };
        let bytes = record.encode_to_vec();
        window.insert(sequence, at, Journaled::read(&bytes).unwrap());
    }

    fn of_at_most(operations_max: usize) -> Window {
        Window::new(Limits {
            operations_max,
            ..Limits::default()
        })
    }

    fn key(principal: &str, request_id: u128) -> OperationKey {
        OperationKey {
            principal: principal.into(),
            request_id,
        }
    }

    #[test]
    fn a_repeat_is_recognised_and_a_reuse_too() {
        let mut window = Window::default();
        insert(&mut window, 1, at(T0), "alice", id(T0, 1), b"a");
        assert!(
            matches!(window.lookup(&key("alice", id(T0, 1)), b"a", at(T0)), Lookup::Repeat(seen) if seen.sequence == 1)
        );
        assert_eq!(window.lookup(&key("alice", id(T0, 1)), b"b", at(T0)), Lookup::Reused);
    }

    #[test]
    fn the_same_id_of_another_principal_is_another_operation() {
        let mut window = Window::default();
        insert(&mut window, 1, at(T0), "alice", id(T0, 1), b"a");
        assert_eq!(window.lookup(&key("bob", id(T0, 1)), b"a", at(T0)), Lookup::New);
    }

    #[test]
    fn what_left_the_window_is_refused_never_new() {
        let mut window = Window::default();
        insert(&mut window, 1, at(T0), "alice", id(T0, 1), b"a");
        let later = T0 + DAY_MS + 120_000;
        insert(&mut window, 2, at(later), "alice", id(later, 2), b"b");
        assert_eq!(window.len(), 1);
        assert_eq!(
            window.lookup(&key("alice", id(T0, 1)), b"a", at(later)),
            Lookup::Expired
        );
    }

    #[test]
    fn a_full_window_gets_shorter_instead_of_forgetting_silently() {
        let mut window = of_at_most(10);
        for n in 0..100 {
            let time = T0 + n * BUCKET_MS;
            insert(&mut window, n + 1, at(time), "alice", id(time, n), b"a");
            assert!(window.len() <= 10);
        }
        for n in 0..100 {
            let time = T0 + n * BUCKET_MS;
            let found = window.lookup(&key("alice", id(time, n)), b"a", at(T0 + 99 * BUCKET_MS));
            assert!(!matches!(found, Lookup::New | Lookup::Reused), "{n}: {found:?}");
        }
    }

    #[test]
    fn a_restored_window_is_the_same_window() {
        let mut window = of_at_most(50);
        for n in 0..200 {
            let time = T0 + n * 7_000;
            insert(&mut window, n + 1, at(time), "alice", id(time, n), b"a");
        }
        let mut restored = of_at_most(50);
        restored.set_horizon(window.horizon_ms());
        for entry in window.entries() {
            restored.restore(entry.sequence, entry.at, Journaled::read(&entry.record).unwrap());
        }
        assert_eq!(
            (restored.hash(), restored.len(), restored.horizon_ms()),
            (window.hash(), window.len(), window.horizon_ms())
        );
        let time = T0 + 200 * 7_000;
        insert(&mut window, 201, at(time), "alice", id(time, 200), b"a");
        insert(&mut restored, 201, at(time), "alice", id(time, 200), b"a");
        assert_eq!(restored.hash(), window.hash());
    }
}
