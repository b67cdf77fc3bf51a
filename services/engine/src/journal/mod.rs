//! The journal in Postgres: the only truth.
//!
//! Two mechanisms, not to be confused. The *lease* says who should lead a shard, on the database's clock, so that work goes on when a
//! leader dies; it is for liveness. The *fence* says who may write: every commit compares and sets `(epoch, seq)` of the shard's head
//! row; it is for safety, and holds whatever clocks, pauses and networks do.

mod postgres;

use std::future::Future;
use std::time::Duration;

use bus::EventRow;
use bytes::Bytes;
use uuid::Uuid;

pub use self::postgres::{PgJournal, UnsafeSetting, unled};

/// How long a lease lasts. Renewed well before, see [`LEASE_RENEW`].
pub const LEASE: Duration = Duration::from_millis(2_000);
/// How long an engine counts as running: a little shorter than its leases, so that who sees one of these free reckons without it.
const RUNNING: Duration = Duration::from_millis(1_900);
/// How often a leader renews its leases.
pub const LEASE_RENEW: Duration = Duration::from_millis(500);
/// How long one statement may take before its outcome counts as unknown.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many snapshots of a shard are kept.
const SNAPSHOTS_KEPT: i64 = 3;
/// Most rows dropped in one statement.
const PRUNED_MAX: i64 = 1_000;

/// How much of a dead letter is kept. Bytes.
pub const DEAD_LETTER_BYTES_MAX: usize = 64 * 1024;
/// The reason of a dead letter whose handling panics; what the panics said stands with them.
pub const PANICS: &str = "its handling panics";

/// The journal cannot do it now.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Postgres refused, dropped or timed out.
    #[error("postgres: {0}")]
    Database(#[from] sqlx::Error),
    /// No answer within the time a statement may take.
    #[error("postgres: no answer within {} s", STATEMENT_TIMEOUT.as_secs())]
    Timeout,
}

/// Which process this is: a new id at each start, so that a restarted one does not take its predecessor's lease for its own.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Made at each start.
    pub id: Uuid,
    /// For people.
    pub name: String,
}

/// Where a shard's journal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which shard.
    pub shard: u32,
    /// Number of the leadership.
    pub epoch: u64,
    /// Sequence of the last entry.
    pub sequence: u64,
    /// Hash over all rows so far.
    pub chain: [u8; 32],
    /// Whether a lease runs.
    pub leased: bool,
    /// Name of the engine that an operator wants to lead it.
    pub wanted: Option<String>,
}

/// An engine that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Made at each start.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// An operator wants its shards to move away.
    pub draining: bool,
}

/// One row to be written.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Which shard.
    pub shard: u32,
    /// Leadership under which it was decided.
    pub epoch: u64,
    /// Sequence before it.
    pub sequence_before: u64,
    /// Sequence of its last entry.
    pub sequence: u64,
    /// Its id.
    pub id: Uuid,
    /// Encoded `JournalBatch`.
    pub body: Bytes,
    /// State hash after it.
    pub state_hash: u128,
    /// Hash over this row and all before it.
    pub chain: [u8; 32],
}

impl Batch {
    /// As it will be read.
    #[must_use]
    pub fn row(&self) -> Row {
        Row {
            first: self.sequence_before + 1,
            last: self.sequence,
            body: self.body.clone(),
            state_hash: self.state_hash,
            chain: self.chain,
        }
    }
}

/// One row as read.
#[derive(Clone, Debug)]
pub struct Row {
    /// Sequence of its first entry.
    pub first: u64,
    /// Sequence of its last entry.
    pub last: u64,
    /// Encoded `JournalBatch`.
    pub body: Bytes,
    /// State hash after it.
    pub state_hash: u128,
    /// Hash over this row and all before it.
    pub chain: [u8; 32],
}

impl From<Row> for EventRow {
    fn from(row: Row) -> Self {
        Self {
            first: row.first,
            last: row.last,
            body: row.body,
        }
    }
}

/// A message that is not handled.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it was found.
    pub shard: u32,
    /// What it is recognised by: one that comes again is not kept twice.
    pub digest: [u8; 32],
    /// As found, cut at [`DEAD_LETTER_BYTES_MAX`].
    pub body: Bytes,
    /// How long it was. Bytes.
    pub bytes: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl DeadLetter {
    /// One that could not be understood.
    #[must_use]
    pub fn unread(shard: u32, message: &Bytes, reason: &'static str) -> Self {
        let body = message.slice(..message.len().min(DEAD_LETTER_BYTES_MAX));
        Self {
            shard,
            digest: *blake3::hash(&body).as_bytes(),
            body,
            bytes: message.len(),
            reason,
        }
    }

    /// A request whose handling panics, under the digest of its command.
    #[must_use]
    pub fn panics(shard: u32, message: &Bytes, digest: [u8; 32]) -> Self {
        Self {
            digest,
            ..Self::unread(shard, message, PANICS)
        }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the journal, for ever.
    Committed,
    /// Somebody else leads the shard; nothing was written.
    Fenced,
}

/// The head of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotHead {
    /// Sequence of the last entry it contains.
    pub sequence: u64,
    /// State hash it must load to.
    pub state_hash: u128,
    /// Journal chain at that sequence.
    pub chain: [u8; 32],
    /// Number of chunks.
    pub chunks: u32,
}

/// What an engine needs of the journal. In Postgres: [`PgJournal`].
pub trait Journal: Clone + Send + Sync + 'static {
    /// The heads of all shards.
    fn heads(&self) -> impl Future<Output = Result<Vec<Head>, JournalError>> + Send;

    /// Takes the lead of a shard that nobody leads: raises its epoch. `None` when somebody does.
    fn acquire(&self, shard: u32, owner: &Owner) -> impl Future<Output = Result<Option<Head>, JournalError>> + Send;

    /// The engines that run.
    fn engines(&self) -> impl Future<Output = Result<Vec<Engine>, JournalError>> + Send;

    /// Says that this engine runs and prolongs its leases; returns the shards still held.
    fn renew(&self, owner: &Owner, held: &[(u32, u64)]) -> impl Future<Output = Result<Vec<u32>, JournalError>> + Send;

    /// Gives leases back, so that the next leader need not wait for them to run out.
    fn release(&self, owner: &Owner, held: &[(u32, u64)]) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Says that this engine runs no longer.
    fn retire(&self, owner: &Owner) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Writes rows, at most one a shard, in one transaction, and before them dead letters, each once however often it is written. An error
    /// says nothing about whether they were written: see `settle`.
    fn commit(
        &self,
        batches: &[Batch],
        dead: &[DeadLetter],
    ) -> impl Future<Output = Result<Vec<Verdict>, JournalError>> + Send;

    /// Writes down that a command ended the leadership `epoch` by panicking; once, however often it is asked to.
    fn note_panic(
        &self,
        shard: u32,
        digest: &[u8; 32],
        epoch: u64,
        said: &str,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The digests of commands that ended [`crate::poison::ENDED_MAX`] leaderships within [`crate::poison::POISON_FOR`].
    fn poison(&self, shard: u32) -> impl Future<Output = Result<Vec<[u8; 32]>, JournalError>> + Send;

    /// After an unanswered commit: `Some` when the row is written or can never be, `None` when it was not and may be tried again.
    /// Waits for a transaction that is still in flight.
    fn settle(&self, batch: &Batch) -> impl Future<Output = Result<Option<Verdict>, JournalError>> + Send;

    /// Which of these leaderships still stand: to be asked before an answer from memory leaves.
    fn still_leads(&self, held: &[(u32, u64)]) -> impl Future<Output = Result<Vec<u32>, JournalError>> + Send;

    /// Rows that hold entries after a sequence, in order, at most `limit`.
    fn rows(&self, shard: u32, after: u64, limit: u32) -> impl Future<Output = Result<Vec<Row>, JournalError>> + Send;

    /// Heads of the snapshots of a shard, newest first.
    fn snapshots(&self, shard: u32) -> impl Future<Output = Result<Vec<SnapshotHead>, JournalError>> + Send;

    /// One chunk of a snapshot with its digest; `None` when it is missing.
    fn chunk(
        &self,
        shard: u32,
        sequence: u64,
        n: u32,
    ) -> impl Future<Output = Result<Option<(Bytes, [u8; 32])>, JournalError>> + Send;

    /// Writes a snapshot, head last, and drops all but the newest few.
    fn write_snapshot(
        &self,
        shard: u32,
        head: &SnapshotHead,
        chunks: &[Bytes],
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Drops the oldest rows of a shard: those up to a sequence that are older than this and that the recorder has seen, a bounded number
    /// at once and never one behind another that stays. Returns how many.
    fn prune(
        &self,
        shard: u32,
        up_to: u64,
        older_than: Duration,
    ) -> impl Future<Output = Result<u64, JournalError>> + Send;
}

/// The hash that a row carries over itself and all before it.
#[must_use]
pub fn chain(before: &[u8; 32], sequence: u64, state_hash: u128, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&sequence.to_be_bytes());
    hasher.update(&state_hash.to_be_bytes());
    hasher.update(body);
    *hasher.finalize().as_bytes()
}
