//! The follower: replays the journal of every shard as it grows, compares every hash, and writes snapshots.
//!
//! It is a continuous check that replay and live agree, the source of snapshots without a pause of the leader, and the warm standby:
//! a new leader takes its replica instead of starting from a snapshot. Where a time is set it also drops what nobody needs any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::Snapshots;
use crate::journal::{Head, Journal, JournalError};
use crate::recover::{self, RecoverError, Replica, apart, millis};
use crate::shard::Corrupt;
use crate::window::Limits;

/// How often the heads are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often old rows are looked for, at most.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The replicas of all shards. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Replicas(Arc<Mutex<HashMap<u32, Followed>>>);

#[derive(Debug)]
struct Followed {
    replica: Replica,
    snapshot_at: u64,
    snapshot_taken: Instant,
    pruned: Instant,
}

impl Replicas {
    /// Takes a replica away, for a new leader. The follower makes itself another one from the newest snapshot.
    pub async fn take(&self, shard: u32) -> Option<Replica> {
        self.0.lock().await.remove(&shard).map(|followed| followed.replica)
    }

    /// How far the replica of each shard is.
    pub async fn sequences(&self) -> HashMap<u32, u64> {
        self.0
            .lock()
            .await
            .iter()
            .map(|(shard, followed)| (*shard, followed.replica.shard.sequence()))
            .collect()
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
    loop {
        looks.tick().await;
        let heads = match journal.heads().await {
            Ok(heads) => heads,
            Err(error) => {
                tracing::warn!(%error, "follower: the journal is away");
                continue;
            }
        };
        for head in heads {
            match follow_one(&journal, &replicas, snapshots, window, &head).await {
                Ok(()) => {}
                Err(RecoverError::Corrupt(cause)) => return Err(cause),
                Err(RecoverError::Journal(error)) => {
                    tracing::warn!(%error, shard = head.shard, "follower: the journal is away")
                }
            }
        }
    }
}

async fn follow_one<J: Journal>(
    journal: &J,
    replicas: &Replicas,
    snapshots: Snapshots,
    window: Limits,
    head: &Head,
) -> Result<(), RecoverError> {
    // The lock is held over a bounded number of rows, so that a new leader waits for milliseconds, not for a recovery.
    let mut all = replicas.0.lock().await;
    if !all.contains_key(&head.shard) {
        drop(all);
        let replica = Replica::from_snapshot(journal, head.shard, window).await?;
        all = replicas.0.lock().await;
        let snapshot_at = replica.shard.sequence();
        all.insert(
            head.shard,
            Followed {
                replica,
                snapshot_at,
                snapshot_taken: Instant::now(),
                pruned: Instant::now(),
            },
        );
    }
    let Some(followed) = all.get_mut(&head.shard) else {
        return Ok(());
    };
    if head.sequence > followed.replica.shard.sequence() {
        followed.replica.advance(journal).await?;
    }
    let grown = followed.replica.shard.sequence() - followed.snapshot_at;
    let due = grown >= snapshots.every_entries || (grown > 0 && followed.snapshot_taken.elapsed() >= snapshots.every);
    if !due {
        return Ok(());
    }
    let started = Instant::now();
    let (snapshot, chunks) = apart(|| followed.replica.snapshot());
    followed.snapshot_at = snapshot.sequence;
    followed.snapshot_taken = Instant::now();
    let due_to_prune = snapshots
        .journal_kept
        .filter(|kept| followed.pruned.elapsed() >= PRUNE_EVERY.min(*kept));
    if due_to_prune.is_some() {
        followed.pruned = Instant::now();
    }
    drop(all);
    journal.write_snapshot(head.shard, &snapshot, &chunks).await?;
    tracing::info!(
        shard = head.shard,
        sequence = snapshot.sequence,
        chunks = snapshot.chunks,
        took_ms = millis(started),
        "snapshot written"
    );
    if let Some(kept) = due_to_prune {
        prune(journal, head.shard, window, kept).await?;
    }
    Ok(())
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
