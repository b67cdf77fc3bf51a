//! The simulated Postgres: the tables of the journal, and what each statement of the engine does to them.
//!
//! The statements are those of the engine's `PgJournal`, with the same conditions and the same unique keys. Time, faults and locks are
//! next door, in [`crate::journal`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use engine::journal::{Batch, DeadLetter, Engine, Head, LEASE, Owner, SnapshotHead, Verdict};
use engine::poison::ENDED_MAX;
use uuid::Uuid;

/// How many snapshots of a shard are kept.
const SNAPSHOTS_KEPT: usize = 3;

/// The row of a shard in `shard_head`.
#[derive(Clone, Debug)]
pub struct HeadRow {
    pub epoch: u64,
    pub sequence: u64,
    pub batch: Option<Uuid>,
    pub chain: [u8; 32],
    pub owner: Option<Uuid>,
    /// Who gave it back last.
    pub given_by: Option<Uuid>,
    /// On Postgres's clock; `None` is minus infinity.
    pub until_us: Option<i64>,
    /// Name of the engine that an operator wants to lead it.
    pub wanted: Option<String>,
}

/// A row of `engines`.
#[derive(Clone, Debug)]
pub struct EngineRow {
    pub name: String,
    /// On Postgres's clock.
    pub until_us: i64,
    pub draining: bool,
}

/// A row of `journal`.
#[derive(Clone, Debug)]
pub struct StoredRow {
    pub first: u64,
    pub last: u64,
    pub epoch: u64,
    pub batch: Uuid,
    pub body: Bytes,
    pub state_hash: u128,
    pub chain: [u8; 32],
    /// When it landed, in the time of the run.
    pub landed_us: u64,
}

/// How a lease came to be free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// There was no leader before.
    First,
    /// The leader before gave it back and ended.
    GivenBack,
    /// The leader before gave it back and runs on.
    Given,
    /// It ran out.
    RanOut,
}

/// A unique key or check of a table refused a row.
#[derive(Clone, Copy, Debug)]
pub struct Constraint;

/// All tables.
#[derive(Debug)]
pub struct Postgres {
    pub heads: Vec<HeadRow>,
    pub engines: BTreeMap<Uuid, EngineRow>,
    pub rows: Vec<Vec<StoredRow>>,
    pub snapshots: BTreeMap<(u32, u64), SnapshotHead>,
    pub chunks: BTreeMap<(u32, u64, u32), (Bytes, [u8; 32])>,
    pub dead_letters: BTreeMap<(u32, [u8; 32]), &'static str>,
    /// Shard, command and the leadership it ended.
    pub panics: BTreeSet<(u32, [u8; 32], u64)>,
    /// How far its clock is off. Microseconds.
    pub clock_off_us: i64,
}

impl Postgres {
    /// Freshly migrated.
    pub fn new(shards: u32) -> Self {
        let head = HeadRow {
            epoch: 0,
            sequence: 0,
            batch: None,
            chain: [0; 32],
            owner: None,
            given_by: None,
            until_us: None,
            wanted: None,
        };
        Self {
            engines: BTreeMap::new(),
            heads: vec![head; shards as usize],
            rows: vec![Vec::new(); shards as usize],
            snapshots: BTreeMap::new(),
            chunks: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            panics: BTreeSet::new(),
            clock_off_us: 0,
        }
    }

    /// `SELECT … FROM shard_head`.
    pub fn all_heads(&self, clock_us: i64) -> Vec<Head> {
        (0..)
            .zip(&self.heads)
            .map(|(shard, row)| head(shard, row, clock_us))
            .collect()
    }

    /// `UPDATE shard_head SET epoch = epoch + 1 … WHERE lease_until < clock_timestamp()`.
    pub fn acquire(&mut self, shard: u32, owner: &Owner, clock_us: i64) -> Option<(Head, Freed)> {
        let row = &mut self.heads[shard as usize];
        let freed = match row.until_us {
            Some(until) if stands(until, clock_us) => return None,
            Some(_) => Freed::RanOut,
            None if row.epoch == 0 => Freed::First,
            None if row
                .given_by
                .is_some_and(|id| id != owner.id && self.engines.contains_key(&id)) =>
            {
                Freed::Given
            }
            None => Freed::GivenBack,
        };
        row.epoch += 1;
        row.owner = Some(owner.id);
        row.until_us = Some(clock_us + lease_us());
        Some((head(shard, row, clock_us), freed))
    }

    /// `SELECT … FROM engines WHERE seen_until …`.
    pub fn running(&self, clock_us: i64) -> Vec<Engine> {
        let running = self.engines.iter().filter(|(_, row)| stands(row.until_us, clock_us));
        let mut running: Vec<Engine> = running
            .map(|(id, row)| Engine {
                id: *id,
                name: row.name.clone(),
                draining: row.draining,
            })
            .collect();
        running.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        running
    }

    /// `INSERT INTO engines … ON CONFLICT …`, and `UPDATE shard_head SET lease_until … WHERE epoch AND owner`.
    pub fn renew(&mut self, owner: &Owner, held: &[(u32, u64)], clock_us: i64) -> Vec<u32> {
        let until_us = clock_us + lease_us() - 100_000;
        let row = self.engines.entry(owner.id).or_insert_with(|| EngineRow {
            name: owner.name.clone(),
            until_us,
            draining: false,
        });
        row.until_us = until_us;
        let mut kept = Vec::new();
        for (shard, epoch) in held {
            let row = &mut self.heads[*shard as usize];
            if row.epoch == *epoch && row.owner == Some(owner.id) {
                row.until_us = Some(clock_us + lease_us());
                kept.push(*shard);
            }
        }
        kept
    }

    /// `UPDATE shard_head SET lease_until = '-infinity' … WHERE epoch AND owner`.
    pub fn release(&mut self, owner: &Owner, held: &[(u32, u64)]) {
        for (shard, epoch) in held {
            let row = &mut self.heads[*shard as usize];
            if row.epoch == *epoch && row.owner == Some(owner.id) {
                row.until_us = None;
                row.given_by = row.owner.take();
            }
        }
    }

    /// `DELETE FROM engines WHERE id`.
    pub fn retire(&mut self, owner: &Owner) {
        self.engines.remove(&owner.id);
    }

    /// `SELECT digest FROM panics … GROUP BY digest HAVING count(*) >= …`.
    pub fn poison(&self, shard: u32) -> Vec<[u8; 32]> {
        let ended = |digest: &[u8; 32]| {
            self.panics
                .range((shard, *digest, 0)..=(shard, *digest, u64::MAX))
                .count()
        };
        let mut digests: Vec<[u8; 32]> = self.panics.iter().filter(|it| it.0 == shard).map(|it| it.1).collect();
        digests.dedup();
        digests.retain(|digest| ended(digest) >= ENDED_MAX as usize);
        digests
    }

    /// The one statement of a commit: compares and sets the heads, inserts the rows of those that were as expected, and the dead letters.
    pub fn commit(&mut self, batches: &[Batch], dead: &[DeadLetter], now_us: u64) -> Result<Vec<Verdict>, Constraint> {
        let fits = |row: &HeadRow, batch: &Batch| row.epoch == batch.epoch && row.sequence == batch.sequence_before;
        // A refused row takes the whole transaction with it, so the keys are looked at first.
        for batch in batches {
            let rows = &self.rows[batch.shard as usize];
            let first = batch.sequence_before + 1;
            let clashes = batch.sequence < first
                || rows
                    .iter()
                    .rev()
                    .any(|row| row.first == first || row.last == batch.sequence);
            if fits(&self.heads[batch.shard as usize], batch) && clashes {
                return Err(Constraint);
            }
        }
        let mut verdicts = Vec::with_capacity(batches.len());
        for batch in batches {
            let row = &mut self.heads[batch.shard as usize];
            if !fits(row, batch) {
                verdicts.push(Verdict::Fenced);
                continue;
            }
            row.sequence = batch.sequence;
            row.batch = Some(batch.id);
            row.chain = batch.chain;
            self.rows[batch.shard as usize].push(StoredRow {
                first: batch.sequence_before + 1,
                last: batch.sequence,
                epoch: batch.epoch,
                batch: batch.id,
                body: batch.body.clone(),
                state_hash: batch.state_hash,
                chain: batch.chain,
                landed_us: now_us,
            });
            verdicts.push(Verdict::Committed);
        }
        for letter in dead {
            self.dead_letters
                .entry((letter.shard, letter.digest))
                .or_insert(letter.reason);
        }
        Ok(verdicts)
    }

    /// `SELECT … FOR UPDATE`, and what the engine reads out of it.
    pub fn settle(&self, batch: &Batch) -> Option<Verdict> {
        let row = &self.heads[batch.shard as usize];
        if row.batch == Some(batch.id) {
            return Some(Verdict::Committed);
        }
        let unchanged = row.epoch == batch.epoch && row.sequence == batch.sequence_before;
        (!unchanged).then_some(Verdict::Fenced)
    }

    /// `SELECT shard … WHERE epoch`.
    pub fn still_leads(&self, held: &[(u32, u64)]) -> Vec<u32> {
        held.iter()
            .filter(|(shard, epoch)| self.heads[*shard as usize].epoch == *epoch)
            .map(|(shard, _)| *shard)
            .collect()
    }

    /// `INSERT INTO snapshot_head`, then the deletes of what is too old.
    pub fn finish_snapshot(&mut self, shard: u32, head: &SnapshotHead) {
        self.snapshots
            .entry((shard, head.sequence))
            .or_insert_with(|| head.clone());
        let kept: Vec<u64> = self
            .snapshots_of(shard)
            .iter()
            .map(|head| head.sequence)
            .take(SNAPSHOTS_KEPT)
            .collect();
        self.snapshots
            .retain(|(of, sequence), _| *of != shard || kept.contains(sequence));
        let oldest = kept.last().copied().unwrap_or(0);
        self.chunks
            .retain(|(of, sequence, _), _| *of != shard || *sequence >= oldest);
    }

    /// Heads of the snapshots of a shard, newest first.
    pub fn snapshots_of(&self, shard: u32) -> Vec<SnapshotHead> {
        self.snapshots
            .range((shard, 0)..=(shard, u64::MAX))
            .rev()
            .map(|(_, head)| head.clone())
            .collect()
    }
}

fn head(shard: u32, row: &HeadRow, clock_us: i64) -> Head {
    Head {
        shard,
        epoch: row.epoch,
        sequence: row.sequence,
        chain: row.chain,
        leased: row.until_us.is_some_and(|until| stands(until, clock_us)),
        wanted: row.wanted.clone(),
    }
}

/// Whether a lease stands. One that ends later than a lease can last was written by a clock that was wrong.
fn stands(until_us: i64, clock_us: i64) -> bool {
    (clock_us..=clock_us + lease_us()).contains(&until_us)
}

fn lease_us() -> i64 {
    i64::try_from(LEASE.as_micros()).expect("a few seconds")
}
