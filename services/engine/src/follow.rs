//! The follower: replays the journal of every shard as it grows, compares every hash, and writes snapshots.
//!
//! It is a continuous check that replay and live agree, the source of snapshots without a pause of the leader, and the warm standby:
//! a new leader takes its replica instead of starting from a snapshot. Where a time is set it also drops what nobody needs any more.
//!
//! What this process itself has journaled it need not read back: the leader hands each row over once it is committed, as it was written,
//! and it is folded in like any other. That the journal holds the same shows in the hash of all rows at its head.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Short};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::config::Snapshots;
use crate::journal::{Head, Journal, JournalError, Row, SnapshotHead};
use crate::recover::{self, ROWS_MAX, RecoverError, Replica, millis};
use crate::shard::Corrupt;
use crate::window::Limits;

/// How often the heads are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often old rows are looked for, at most.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Most that rows may hold which a leader handed over and which are not folded in yet, of one shard. Past it they are read back. Bytes.
const HANDED_OVER_MAX: usize = 4 * 1024 * 1024;

/// How much others come before the thread that makes a snapshot: the most that the system knows.
const BEHIND: i32 = 19;

/// The replicas of all shards, each behind a lock of its own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Replicas(Arc<Short<HashMap<u32, Arc<Place>>>>);

/// Where one replica stands.
#[derive(Debug, Default)]
struct Place {
    /// A new leader waits for it: whoever works on it lets go at the next occasion.
    wanted: AtomicBool,
    followed: Arc<Mutex<Option<Followed>>>,
    handed_over: Short<HandedOver>,
}

/// Rows that a leader of this process has journaled, oldest first, none missing between them.
#[derive(Debug, Default)]
struct HandedOver {
    rows: VecDeque<Row>,
    bytes: usize,
}

impl HandedOver {
    fn add(&mut self, row: Row) {
        let follows = self.rows.back().is_none_or(|last| last.last + 1 == row.first);
        if !follows || self.bytes + row.body.len() > HANDED_OVER_MAX {
            *self = Self::default();
        }
        self.bytes += row.body.len();
        self.rows.push_back(row);
    }

    /// Takes those that come after a sequence, a bounded number; none while some before them are missing.
    fn after(&mut self, sequence: u64) -> Vec<Row> {
        while let Some(known) = self.rows.pop_front_if(|row| row.last <= sequence) {
            self.bytes -= known.body.len();
        }
        if self.rows.front().is_none_or(|next| next.first != sequence + 1) {
            return Vec::new();
        }
        let taken: Vec<Row> = self.rows.drain(..self.rows.len().min(ROWS_MAX)).collect();
        self.bytes -= taken.iter().map(|row| row.body.len()).sum::<usize>();
        taken
    }
}

#[derive(Debug)]
struct Followed {
    replica: Replica,
    snapshot_at: u64,
    snapshot_taken: Instant,
    pruned: Instant,
}

impl Followed {
    fn new(replica: Replica) -> Self {
        Self {
            snapshot_at: replica.shard.sequence(),
            replica,
            snapshot_taken: Instant::now(),
            pruned: Instant::now(),
        }
    }

    fn is_due(&self, snapshots: Snapshots) -> bool {
        let grown = self.replica.shard.sequence() - self.snapshot_at;
        grown >= snapshots.every_entries || (grown > 0 && self.snapshot_taken.elapsed() >= snapshots.every)
    }
}

impl Replicas {
    /// Takes a replica away, for a new leader. The follower makes itself another one from the newest snapshot.
    ///
    /// It is there once a bounded number of rows is folded in, or one chunk of a snapshot written, which is then given up.
    pub async fn take(&self, shard: u32) -> Option<Replica> {
        let place = self.lock().remove(&shard)?;
        place.wanted.store(true, Ordering::Relaxed);
        let followed = place.followed.lock().await.take()?;
        Some(followed.replica)
    }

    /// How far the replica of each shard is; without those that are being worked on.
    pub async fn sequences(&self) -> HashMap<u32, u64> {
        let places: Vec<_> = self
            .lock()
            .iter()
            .map(|(shard, place)| (*shard, Arc::clone(place)))
            .collect();
        places
            .into_iter()
            .filter_map(|(shard, place)| {
                let followed = place.followed.try_lock().ok()?;
                Some((shard, followed.as_ref()?.replica.shard.sequence()))
            })
            .collect()
    }

    /// Hands over a row that is in the journal for ever.
    pub fn committed(&self, shard: u32, row: Row) {
        self.place(shard).handed_over().add(row);
    }

    /// Where a shard's replica stands, or will.
    fn place(&self, shard: u32) -> Arc<Place> {
        Arc::clone(self.lock().entry(shard).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Place>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Place {
    fn handed_over(&self) -> std::sync::MutexGuard<'_, HandedOver> {
        self.handed_over
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

/// Follows until the process ends.
///
/// # Errors
/// [`Corrupt`] when the journal does not replay to the state its writer had: nothing may be served from it.
pub async fn follow<J: Journal>(
    journal: J,
    replicas: Replicas,
    snapshots: Snapshots,
    window: Limits,
) -> Result<std::convert::Infallible, Corrupt> {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // One at a time, beside the following of the other shards: it may take long, and all of it is in memory at once.
    let mut writing: JoinSet<Result<(), RecoverError>> = JoinSet::new();
    loop {
        looks.tick().await;
        if let Some(written) = writing.try_join_next() {
            survived("a snapshot was not written", ended(written))?;
        }
        let heads = match journal.heads().await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(%error, "follower: the journal is away");
                continue;
            }
        };
        for head in heads {
            match follow_one(&journal, &replicas, window, &head).await {
                Ok(Some((place, followed))) if writing.is_empty() && is_due(&followed, snapshots) => {
                    writing.spawn(write(journal.clone(), head.shard, place, followed, snapshots, window));
                }
                Ok(_) => {}
                Err(error) => survived("not followed", Err(error))?,
            }
        }
    }
}

/// What ends a follower; the journal's being away does not.
fn survived(what: &str, outcome: Result<(), RecoverError>) -> Result<(), Corrupt> {
    match outcome {
        Ok(()) => Ok(()),
        Err(RecoverError::Corrupt(cause)) => Err(cause),
        Err(RecoverError::Journal(error)) => {
            tracing::warn!(%error, what, "follower: the journal is away");
            Ok(())
        }
    }
}

fn ended(written: Result<Result<(), RecoverError>, JoinError>) -> Result<(), RecoverError> {
    match written {
        Ok(outcome) => outcome,
        Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => Ok(()),
    }
}

/// A replica that its follower holds.
type Held = OwnedMutexGuard<Option<Followed>>;

fn is_due(followed: &Held, snapshots: Snapshots) -> bool {
    followed.as_ref().is_some_and(|followed| followed.is_due(snapshots))
}

/// Folds in what is new, a bounded number of rows; nothing when a snapshot is being made of it, or a leader has taken it.
async fn follow_one<J: Journal>(
    journal: &J,
    replicas: &Replicas,
    window: Limits,
    head: &Head,
) -> Result<Option<(Arc<Place>, Held)>, RecoverError> {
    let place = replicas.place(head.shard);
    let Ok(mut held) = Arc::clone(&place.followed).try_lock_owned() else {
        return Ok(None);
    };
    if held.is_none() {
        // Not under the lock: this takes long, and a new leader would rather do it itself.
        drop(held);
        let replica = Replica::from_snapshot(journal, head.shard, window).await?;
        held = Arc::clone(&place.followed).lock_owned().await;
        if place.wanted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        *held = Some(Followed::new(replica));
    }
    let Some(followed) = held.as_mut() else {
        return Ok(None);
    };
    let replica = &mut followed.replica;
    let rows = place.handed_over().after(replica.shard.sequence());
    replica.fold_all(&rows)?;
    if head.sequence > replica.shard.sequence() {
        replica.advance(journal).await?;
    }
    replica.check_head(head)?;
    Ok(Some((place, held)))
}

/// Makes a snapshot and writes it. The replica is held only while it is encoded, and let go at once when a leader wants it.
async fn write<J: Journal>(
    journal: J,
    shard: u32,
    place: Arc<Place>,
    held: Held,
    snapshots: Snapshots,
    window: Limits,
) -> Result<(), RecoverError> {
    let started = Instant::now();
    let Some((mut held, snapshot, chunks)) = encode_held(place, held).await else {
        return Ok(());
    };
    let Some(followed) = held.as_mut() else { return Ok(()) };
    followed.snapshot_at = snapshot.sequence;
    followed.snapshot_taken = Instant::now();
    let due_to_prune = snapshots
        .journal_kept
        .filter(|kept| followed.pruned.elapsed() >= PRUNE_EVERY.min(*kept));
    if due_to_prune.is_some() {
        followed.pruned = Instant::now();
    }
    drop(held);
    journal.write_snapshot(shard, &snapshot, &chunks).await?;
    tracing::info!(
        shard,
        sequence = snapshot.sequence,
        chunks = snapshot.chunks,
        took_ms = millis(started),
        "snapshot written"
    );
    if let Some(kept) = due_to_prune {
        prune(&journal, shard, window, kept).await?;
    }
    Ok(())
}

/// A snapshot with the replica that it was made of.
type Encoded = (Held, SnapshotHead, Vec<Bytes>);

/// Encodes what is held; nothing when a leader came in between. Where there are several threads it is done on one of its own, which the
/// system lets wait when a leader wants the processor; where there is one, others have their turn after each chunk.
async fn encode_held(place: Arc<Place>, held: Held) -> Option<Encoded> {
    let runtime = Handle::current();
    if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return encode_in_turns(&place, held).await;
    }
    let (done, made) = oneshot::channel();
    let working = move || {
        if let Err(error) = rustix::process::nice(BEHIND) {
            tracing::debug!(%error, "a snapshot is made at the priority of everything else");
        }
        let made = runtime.block_on(encode_in_turns(&place, held));
        // Nobody waits for it any more when the process ends.
        let _unheard = done.send(made);
    };
    if let Err(error) = std::thread::Builder::new().name("snapshot".to_owned()).spawn(working) {
        tracing::warn!(%error, "no thread for a snapshot");
        return None;
    }
    made.await.ok().flatten()
}

async fn encode_in_turns(place: &Place, held: Held) -> Option<Encoded> {
    let (head, chunks) = encode(place, &held.as_ref()?.replica).await?;
    Some((held, head, chunks))
}

/// Encodes chunk by chunk; nothing when a leader came in between. Other tasks of this thread wait for one chunk at most.
async fn encode(place: &Place, replica: &Replica) -> Option<(SnapshotHead, Vec<Bytes>)> {
    let mut chunks = Vec::new();
    for chunk in replica.shard.chunks() {
        chunks.push(chunk);
        tokio::task::yield_now().await;
        if place.wanted.load(Ordering::Relaxed) {
            return None;
        }
    }
    Some((replica.snapshot_head(&chunks), chunks))
}

/// Drops journal rows that are older than they need be kept, and that two snapshots make needless: without the newest one a shard comes
/// back from the one before, so that one must do, and the rows after it stay. What is dropped does not come back, so both are loaded
/// first; when one is damaged nothing is dropped. Returns how many rows were.
///
/// # Errors
/// When the journal is away.
pub async fn prune<J: Journal>(journal: &J, shard: u32, window: Limits, kept: Duration) -> Result<u64, JournalError> {
    let snapshots = journal.snapshots(shard).await?;
    let [newest, second, ..] = snapshots.as_slice() else {
        return Ok(0);
    };
    let oldest = journal.rows(shard, 0, 1).await?;
    if oldest.first().is_none_or(|row| row.last > second.sequence) {
        return Ok(0);
    }
    for snapshot in [newest, second] {
        match recover::load(journal, shard, window, snapshot).await {
            Ok(loaded) => drop(loaded),
            Err(RecoverError::Corrupt(cause)) => {
                tracing::error!(%cause, shard, "the journal is not pruned: a snapshot is damaged");
                return Ok(0);
            }
            Err(RecoverError::Journal(error)) => return Err(error),
        }
    }
    let mut pruned = 0;
    loop {
        let rows = journal.prune(shard, second.sequence, kept).await?;
        if rows == 0 {
            break;
        }
        pruned += rows;
    }
    if pruned > 0 {
        tracing::info!(shard, rows = pruned, up_to = second.sequence, "journal pruned");
    }
    Ok(pruned)
}

#[cfg(test)]
mod tests;
