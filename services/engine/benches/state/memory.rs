//! A journal of one shard in memory: the rows, one snapshot, and nothing that waits.
#![allow(dead_code, reason = "each program uses its part")]

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use contracts::bus::{JournalBatch, JournalEntry};
use engine::journal::{
    Batch, DeadLetter, Engine, Head, Journal, JournalError, Owner, Row, SnapshotHead, Verdict, chain,
};
use prost::Message as _;

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Inner>>);

/// A chunk and its digest.
type Chunk = (Bytes, [u8; 32]);

#[derive(Debug, Default)]
struct Inner {
    rows: Vec<Row>,
    snapshot: Option<(SnapshotHead, Vec<Chunk>)>,
    written: Vec<Instant>,
}

impl Memory {
    /// Appends one row.
    pub fn append(&self, entries: Vec<JournalEntry>, state_hash: u128) {
        let mut inner = self.lock();
        let (first, last) = match entries.as_slice() {
            [] => return,
            [first, ..] => (first.sequence, entries[entries.len() - 1].sequence),
        };
        let body: Bytes = JournalBatch {
            entries,
            price_cursor: "1-0".to_owned(),
        }
        .encode_to_vec()
        .into();
        let before = inner.rows.last().map_or([0; 32], |row| row.chain);
        let chain = chain(&before, last, state_hash, &body);
        inner.rows.push(Row {
            first,
            last,
            body,
            state_hash,
            chain,
        });
    }

    /// Chain after the last row.
    pub fn chained(&self) -> [u8; 32] {
        self.lock().rows.last().map_or([0; 32], |row| row.chain)
    }

    /// When snapshots were handed over to be stored.
    pub fn written(&self) -> Vec<Instant> {
        self.lock().written.clone()
    }

    /// How many chunks the snapshot has.
    pub fn chunks(&self) -> usize {
        self.lock().snapshot.as_ref().map_or(0, |(_, chunks)| chunks.len())
    }

    /// How large the snapshot is. Bytes.
    pub fn snapshot_bytes(&self) -> usize {
        let inner = self.lock();
        let chunks = inner.snapshot.iter().flat_map(|(_, chunks)| chunks);
        chunks.map(|(body, _)| body.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl Journal for Memory {
    async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        let inner = self.lock();
        Ok(vec![Head {
            shard: 0,
            epoch: 1,
            sequence: inner.rows.last().map_or(0, |row| row.last),
            chain: inner.rows.last().map_or([0; 32], |row| row.chain),
            leased: true,
            wanted: None,
        }])
    }

    async fn rows(&self, _: u32, after: u64, limit: u32) -> Result<Vec<Row>, JournalError> {
        let inner = self.lock();
        let from = inner.rows.partition_point(|row| row.last <= after);
        Ok(inner.rows[from..].iter().take(limit as usize).cloned().collect())
    }

    async fn snapshots(&self, _: u32) -> Result<Vec<SnapshotHead>, JournalError> {
        Ok(self.lock().snapshot.iter().map(|(head, _)| head.clone()).collect())
    }

    async fn chunk(&self, _: u32, _: u64, n: u32) -> Result<Option<(Bytes, [u8; 32])>, JournalError> {
        let inner = self.lock();
        Ok(inner
            .snapshot
            .as_ref()
            .and_then(|(_, chunks)| chunks.get(n as usize).cloned()))
    }

    async fn write_snapshot(&self, _: u32, head: &SnapshotHead, chunks: &[Bytes]) -> Result<(), JournalError> {
        let mut stored = Vec::with_capacity(chunks.len());
        for body in chunks {
            stored.push((body.clone(), *blake3::hash(body).as_bytes()));
            // A statement each, in Postgres.
            tokio::task::yield_now().await;
        }
        let mut inner = self.lock();
        inner.written.push(Instant::now());
        inner.snapshot = Some((head.clone(), stored));
        Ok(())
    }

    async fn engines(&self) -> Result<Vec<Engine>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn retire(&self, _: &Owner) -> Result<(), JournalError> {
        unreachable!("nobody leads here")
    }

    async fn acquire(&self, _: u32, _: &Owner) -> Result<Option<Head>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn renew(&self, _: &Owner, _: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn release(&self, _: &Owner, _: &[(u32, u64)]) -> Result<(), JournalError> {
        unreachable!("nobody leads here")
    }

    async fn commit(&self, _: &[Batch], _: &[DeadLetter]) -> Result<Vec<Verdict>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn note_panic(&self, _: u32, _: &[u8; 32], _: u64, _: &str) -> Result<(), JournalError> {
        unreachable!("nobody leads here")
    }

    async fn poison(&self, _: u32) -> Result<Vec<[u8; 32]>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn settle(&self, _: &Batch) -> Result<Option<Verdict>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn still_leads(&self, _: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        unreachable!("nobody leads here")
    }

    async fn prune(&self, _: u32, _: u64, _: Duration) -> Result<u64, JournalError> {
        Ok(0)
    }
}
