//! Bringing a shard back: the newest snapshot that verifies, then the journal after it, every hash compared.

use bytes::Bytes;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::journal::{Head, Journal, JournalError, Row, SnapshotHead, chain};
use crate::shard::{Corrupt, Shard};
use crate::window::Limits;

/// Most rows read, or folded in, at once.
pub(crate) const ROWS_MAX: usize = 512;
/// So many are folded in before others on the same thread have their turn.
const ROWS_BESIDE: usize = 4;

/// Why a shard did not come back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal cannot be read now.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// A shard as of some row, with the journal's hash there.
#[derive(Debug)]
pub struct Replica {
    /// The state.
    pub shard: Shard,
    /// Journal chain at its sequence.
    pub chain: [u8; 32],
}

impl Replica {
    /// A shard before its first entry.
    #[must_use]
    pub fn genesis(number: u32, limits: Limits) -> Self {
        Self {
            shard: Shard::with_window(number, limits),
            chain: [0; 32],
        }
    }

    /// Loads the newest snapshot that verifies; from the beginning when none does.
    ///
    /// # Errors
    /// When the journal is away. A damaged snapshot is logged and the one before it is tried.
    pub async fn from_snapshot<J: Journal>(journal: &J, number: u32, limits: Limits) -> Result<Self, JournalError> {
        for head in journal.snapshots(number).await? {
            match load(journal, number, limits, &head).await {
                Ok(replica) => return Ok(replica),
                Err(RecoverError::Journal(error)) => return Err(error),
                Err(RecoverError::Corrupt(cause)) => {
                    tracing::error!(%cause, sequence = head.sequence, "a snapshot is damaged; trying the one before it");
                }
            }
        }
        Ok(Self::genesis(number, limits))
    }

    /// Folds in what the journal has beyond this replica, at most a batch of rows. Returns how many rows.
    ///
    /// # Errors
    /// [`RecoverError`]; after `Corrupt` the replica is of no further use.
    pub async fn advance<J: Journal>(&mut self, journal: &J) -> Result<usize, RecoverError> {
        let rows = journal
            .rows(self.shard.number(), self.shard.sequence(), ROWS_MAX as u32)
            .await?;
        self.fold_all(&rows)?;
        Ok(rows.len())
    }

    /// Folds rows in, one after the other.
    ///
    /// # Errors
    /// As [`Replica::advance`].
    pub(crate) fn fold_all(&mut self, rows: &[Row]) -> Result<(), Corrupt> {
        // More than a few are work for a while, and a leader of another shard may be waiting for this thread.
        let mut fold = || rows.iter().try_for_each(|row| self.fold(row));
        if rows.len() <= ROWS_BESIDE { fold() } else { apart(fold) }
    }

    /// Compares the hash over all rows with the one at the journal's head, when this replica stands there.
    ///
    /// # Errors
    /// When they differ.
    pub(crate) fn check_head(&self, head: &Head) -> Result<(), Corrupt> {
        if head.sequence == self.shard.sequence() && head.chain != self.chain {
            return Err(Corrupt::Digest {
                shard: head.shard,
                sequence: head.sequence,
                what: "the head of the journal".to_owned(),
            });
        }
        Ok(())
    }

    /// Folds in everything up to the end of the journal.
    ///
    /// # Errors
    /// As [`Replica::advance`].
    pub async fn catch_up<J: Journal>(&mut self, journal: &J) -> Result<(), RecoverError> {
        while self.advance(journal).await? > 0 {}
        Ok(())
    }

    /// Folds one row in.
    ///
    /// # Errors
    /// As [`Replica::advance`]. A row whose chain does not fit has changed nothing.
    pub(crate) fn fold(&mut self, row: &Row) -> Result<(), Corrupt> {
        let number = self.shard.number();
        let chained = chain(&self.chain, row.last, row.state_hash, &row.body);
        if chained != row.chain {
            return Err(Corrupt::Digest {
                shard: number,
                sequence: row.first,
                what: "a journal row".to_owned(),
            });
        }
        self.shard.replay(&row.body)?;
        if self.shard.sequence() != row.last {
            return Err(Corrupt::Gap {
                shard: number,
                before: row.last,
                found: self.shard.sequence(),
            });
        }
        let ours = self.shard.hash();
        if ours != row.state_hash {
            return Err(Corrupt::Hash {
                shard: number,
                sequence: row.last,
                ours,
                journal: row.state_hash,
            });
        }
        self.chain = chained;
        Ok(())
    }

    /// What a snapshot of this replica consists of.
    #[must_use]
    pub fn snapshot(&self) -> (SnapshotHead, Vec<Bytes>) {
        snapshot_of(&self.shard, self.chain)
    }

    /// The head over these chunks of a snapshot of this replica.
    pub(crate) fn snapshot_head(&self, chunks: &[Bytes]) -> SnapshotHead {
        head_over(&self.shard, self.chain, chunks)
    }
}

/// What a snapshot of a shard consists of, given the journal's hash at its sequence.
#[must_use]
pub(crate) fn snapshot_of(shard: &Shard, chain: [u8; 32]) -> (SnapshotHead, Vec<Bytes>) {
    let chunks: Vec<Bytes> = shard.chunks().collect();
    (head_over(shard, chain, &chunks), chunks)
}

fn head_over(shard: &Shard, chain: [u8; 32], chunks: &[Bytes]) -> SnapshotHead {
    SnapshotHead {
        sequence: shard.sequence(),
        state_hash: shard.hash(),
        chain,
        chunks: u32::try_from(chunks.len()).expect("few chunks"),
    }
}

/// Does something long while the other tasks of this thread go on, on another one. Where there is only one thread they wait.
pub(crate) fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => block_in_place(work),
    }
}

/// How long ago that was. Milliseconds, for a log.
pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Loads one snapshot, and verifies it by its digests and its hash.
pub(crate) async fn load<J: Journal>(
    journal: &J,
    number: u32,
    limits: Limits,
    head: &SnapshotHead,
) -> Result<Replica, RecoverError> {
    let damaged = |what: &str| Corrupt::Digest {
        shard: number,
        sequence: head.sequence,
        what: what.to_owned(),
    };
    let mut chunks = Vec::new();
    for n in 0..head.chunks {
        let (body, digest) = journal
            .chunk(number, head.sequence, n)
            .await?
            .ok_or_else(|| damaged(&format!("chunk {n}, which is missing,")))?;
        if blake3::hash(&body).as_bytes() != &digest {
            return Err(damaged(&format!("chunk {n}")).into());
        }
        chunks.push(body);
    }
    let shard = apart(|| Shard::restore(number, limits, head.sequence, chunks))?;
    if shard.hash() != head.state_hash {
        return Err(Corrupt::Hash {
            shard: number,
            sequence: head.sequence,
            ours: shard.hash(),
            journal: head.state_hash,
        }
        .into());
    }
    Ok(Replica {
        shard,
        chain: head.chain,
    })
}
