//! A journal in memory, for measurements: leases, fence and rows as the real one has them, and nothing that waits.
//!
//! It makes no promise: what is in it is gone with the process. One engine may lead on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use contracts::bus::{JournalBatch, JournalEntry};
use engine::journal::{
    Batch, DeadLetter, Engine, Head, Journal, JournalError, Owner, Row, SnapshotHead, Verdict, chain,
};
use prost::Message as _;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryJournal(Arc<Mutex<Inner>>);

/// A chunk and its digest.
type Chunk = (Bytes, [u8; 32]);

#[derive(Debug, Default)]
struct Inner {
    engine: Option<Engine>,
    shards: BTreeMap<u32, Place>,
    /// When each snapshot was handed over, and when it was stored.
    written: Vec<(Instant, Instant)>,
}

/// One shard's part.
#[derive(Debug, Default)]
struct Place {
    epoch: u64,
    leased: bool,
    rows: Vec<Row>,
    snapshot: Option<(SnapshotHead, Vec<Chunk>)>,
}

impl Place {
    fn head(&self, shard: u32) -> Head {
        Head {
            shard,
            epoch: self.epoch,
            sequence: self.rows.last().map_or(0, |row| row.last),
            chain: self.rows.last().map_or([0; 32], |row| row.chain),
            leased: self.leased,
            wanted: None,
        }
    }
}

impl MemoryJournal {
    /// An empty one of so many shards.
    #[must_use]
    pub fn new(shards: u32) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            shards: (0..shards).map(|shard| (shard, Place::default())).collect(),
            ..Inner::default()
        })))
    }

    /// One of one shard, with room for so many rows: a table that is moved when it grows would be a stall of ours.
    #[must_use]
    pub fn with_room(rows: usize) -> Self {
        let journal = Self::new(1);
        journal.of(0, |place| place.rows.reserve_exact(rows));
        journal
    }

    /// Appends one row to shard 0, as if its leader had.
    pub fn append(&self, entries: Vec<JournalEntry>, state_hash: u128) {
        let (first, last) = match entries.as_slice() {
            [] => return,
            [first, .., last] => (first.sequence, last.sequence),
            [only] => (only.sequence, only.sequence),
        };
        let body: Bytes = JournalBatch {
            entries,
            price_cursor: "1-0".to_owned(),
        }
        .encode_to_vec()
        .into();
        let before = self.chained();
        let chain = chain(&before, last, state_hash, &body);
        self.of(0, |place| {
            place.rows.push(Row {
                first,
                last,
                body,
                state_hash,
                chain,
            });
        });
    }

    /// Chain after the last row of shard 0.
    #[must_use]
    pub fn chained(&self) -> [u8; 32] {
        self.of(0, |place| place.head(0).chain)
    }

    /// When each snapshot of shard 0 was handed over, and when it was stored.
    #[must_use]
    pub fn written(&self) -> Vec<(Instant, Instant)> {
        self.lock().written.clone()
    }

    /// How many chunks the snapshot of shard 0 has.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.of(0, |place| place.snapshot.as_ref().map_or(0, |(_, chunks)| chunks.len()))
    }

    /// How large the snapshot of shard 0 is. Bytes.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        self.of(0, |place| {
            let chunks = place.snapshot.iter().flat_map(|(_, chunks)| chunks);
            chunks.map(|(body, _)| body.len()).sum()
        })
    }

    fn of<T>(&self, shard: u32, what: impl FnOnce(&mut Place) -> T) -> T {
        what(self.lock().shards.entry(shard).or_default())
    }

    fn standing(&self, held: &[(u32, u64)]) -> Vec<u32> {
        let inner = self.lock();
        let stands = |(shard, epoch): &&(u32, u64)| {
            inner
                .shards
                .get(shard)
                .is_some_and(|it| it.leased && it.epoch == *epoch)
        };
        held.iter().filter(stands).map(|(shard, _)| *shard).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Journal for MemoryJournal {
    async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        Ok(self
            .lock()
            .shards
            .iter()
            .map(|(shard, place)| place.head(*shard))
            .collect())
    }

    async fn rows(&self, shard: u32, after: u64, limit: u32) -> Result<Vec<Row>, JournalError> {
        Ok(self.of(shard, |place| {
            let from = place.rows.partition_point(|row| row.last <= after);
            place.rows[from..].iter().take(limit as usize).cloned().collect()
        }))
    }

    async fn snapshots(&self, shard: u32) -> Result<Vec<SnapshotHead>, JournalError> {
        Ok(self.of(shard, |place| {
            place.snapshot.iter().map(|(head, _)| head.clone()).collect()
        }))
    }

    async fn chunk(&self, shard: u32, _: u64, n: u32) -> Result<Option<(Bytes, [u8; 32])>, JournalError> {
        Ok(self.of(shard, |place| {
            let (_, chunks) = place.snapshot.as_ref()?;
            chunks.get(n as usize).cloned()
        }))
    }

    async fn write_snapshot(&self, shard: u32, head: &SnapshotHead, chunks: &[Bytes]) -> Result<(), JournalError> {
        let handed_over = Instant::now();
        let mut stored = Vec::with_capacity(chunks.len());
        for body in chunks {
            stored.push((body.clone(), *blake3::hash(body).as_bytes()));
            // A statement each, in Postgres.
            tokio::task::yield_now().await;
        }
        // The one before is freed when nobody waits for the lock: half a gigabyte takes its time.
        let before = {
            let mut inner = self.lock();
            inner.written.push((handed_over, Instant::now()));
            let place = inner.shards.entry(shard).or_default();
            place.snapshot.replace((head.clone(), stored))
        };
        drop(before);
        Ok(())
    }

    async fn engines(&self) -> Result<Vec<Engine>, JournalError> {
        Ok(self.lock().engine.iter().cloned().collect())
    }

    async fn retire(&self, _: &Owner) -> Result<(), JournalError> {
        Ok(())
    }

    async fn acquire(&self, shard: u32, _: &Owner) -> Result<Option<Head>, JournalError> {
        Ok(self.of(shard, |place| {
            if place.leased {
                return None;
            }
            place.leased = true;
            place.epoch += 1;
            Some(place.head(shard))
        }))
    }

    async fn renew(&self, owner: &Owner, held: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        self.lock().engine = Some(Engine {
            id: owner.id,
            name: owner.name.clone(),
            draining: false,
        });
        Ok(self.standing(held))
    }

    async fn release(&self, _: &Owner, held: &[(u32, u64)]) -> Result<(), JournalError> {
        for shard in self.standing(held) {
            self.of(shard, |place| place.leased = false);
        }
        Ok(())
    }

    async fn commit(&self, batches: &[Batch], _: &[DeadLetter]) -> Result<Vec<Verdict>, JournalError> {
        let append = |batch: &Batch| {
            self.of(batch.shard, |place| {
                if place.epoch != batch.epoch || place.head(batch.shard).sequence != batch.sequence_before {
                    return Verdict::Fenced;
                }
                place.rows.push(Row {
                    first: batch.sequence_before + 1,
                    last: batch.sequence,
                    body: batch.body.clone(),
                    state_hash: batch.state_hash,
                    chain: batch.chain,
                });
                Verdict::Committed
            })
        };
        Ok(batches.iter().map(append).collect())
    }

    async fn note_panic(&self, _: u32, _: &[u8; 32], _: u64, _: &str) -> Result<(), JournalError> {
        Ok(())
    }

    async fn poison(&self, _: u32) -> Result<Vec<[u8; 32]>, JournalError> {
        Ok(Vec::new())
    }

    async fn settle(&self, batch: &Batch) -> Result<Option<Verdict>, JournalError> {
        let sequence = self.of(batch.shard, |place| place.head(batch.shard).sequence);
        Ok((sequence >= batch.sequence).then_some(Verdict::Committed))
    }

    async fn still_leads(&self, held: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        Ok(self.standing(held))
    }

    async fn prune(&self, _: u32, _: u64, _: Duration) -> Result<u64, JournalError> {
        Ok(0)
    }
}
