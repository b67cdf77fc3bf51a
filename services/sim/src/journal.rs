//! The engine's journal over the simulated Postgres: what a statement goes through on its way there and back.
//!
//! A commit is carried out by the server, not by the client: it goes on when the engine that sent it has given up or died, and a row
//! lock makes whoever comes after wait for it.

use std::time::Duration;

use bytes::Bytes;
use engine::journal::{Batch, DeadLetter, Engine, Head, Journal, JournalError, Owner, Row, SnapshotHead, Verdict};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::coverage::Corner;
use crate::postgres::{Freed, Postgres};
use crate::process::Process;
use crate::weather::Fate;
use crate::world::{Inner, World};

/// How long an engine waits for an answer that never comes. Milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// How long a statement usually takes, at most, one way. Milliseconds.
const USUAL_MS: u64 = 3;

/// What was decided for the next commits, besides the weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Carried out, the answer is lost.
    AnswerLost,
    /// Never carried out.
    Lost,
    /// The client is cut off at once; the server carries it out this much later, and holds the row until then. Milliseconds.
    LandsLaterLocked(u64),
    /// The same, but it reaches the server only then, so that nothing shows that it is on its way. Milliseconds.
    LandsLater(u64),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct SimJournal {
    world: World,
    process: Process,
}

impl SimJournal {
    /// The journal as one process sees it.
    pub fn new(world: World, process: Process) -> Self {
        Self { world, process }
    }

    /// `SELECT clock_timestamp()`.
    pub async fn clock_us(&self) -> Result<i64, JournalError> {
        self.ask(|_, clock| clock).await
    }

    /// A statement that is carried out in one moment and waits for nobody.
    async fn ask<T>(&self, what: impl FnOnce(&mut Inner, i64) -> T) -> Result<T, JournalError> {
        self.ask_locked(&[], what).await
    }

    /// A statement that is carried out in one moment, when nobody else holds these head rows.
    async fn ask_locked<T>(&self, shards: &[u32], what: impl FnOnce(&mut Inner, i64) -> T) -> Result<T, JournalError> {
        self.process.pass().await;
        let fate = self.world.with(|inner| {
            let now = inner.now_us;
            inner.postgres_weather.fate(&mut inner.dice, now, USUAL_MS, PATIENCE_MS)
        });
        let answer = match fate {
            Fate::Lost { after_ms } => {
                wait(after_ms).await;
                Err(JournalError::Timeout)
            }
            Fate::Answered { there_ms, back_ms } => {
                wait(there_ms).await;
                let answer = self.at_server(shards, what).await;
                wait(back_ms).await;
                answer
            }
            Fate::AnswerLost { there_ms, after_ms } => {
                wait(there_ms).await;
                let _lost = self.at_server(shards, what).await;
                wait(after_ms).await;
                Err(JournalError::Timeout)
            }
        };
        self.process.pass().await;
        answer
    }

    async fn at_server<T>(&self, shards: &[u32], what: impl FnOnce(&mut Inner, i64) -> T) -> Result<T, JournalError> {
        let _rows = self.world.lock_heads(shards).await;
        self.world.with(|inner| {
            if inner.postgres_weather.is_away(inner.now_us) {
                return Err(JournalError::Timeout);
            }
            let clock = inner.postgres_clock_us();
            Ok(what(inner, clock))
        })
    }

    fn who(&self) -> u64 {
        self.process.number()
    }

    /// The server's side of a commit.
    async fn carry_out(
        self,
        batches: Vec<Batch>,
        dead: Vec<DeadLetter>,
        fault: Option<CommitFault>,
        there_ms: u64,
    ) -> Option<Vec<Verdict>> {
        wait(there_ms).await;
        match fault {
            Some(CommitFault::Lost) => return None,
            Some(CommitFault::LandsLater(after_ms)) => wait(after_ms).await,
            _ => {}
        }
        let mut shards: Vec<u32> = batches.iter().map(|batch| batch.shard).collect();
        shards.sort_unstable();
        let rows = self.world.lock_heads(&shards).await;
        let hold_ms = match fault {
            Some(CommitFault::LandsLaterLocked(after_ms)) => after_ms,
            _ => self.world.with(|inner| inner.dice.between(0, USUAL_MS)),
        };
        wait(hold_ms).await;
        let fault_is_late = matches!(
            fault,
            Some(CommitFault::LandsLater(_) | CommitFault::LandsLaterLocked(_))
        );
        let carried_out = |inner: &mut Inner, _: i64| {
            let now = inner.now_us;
            let verdicts = inner.postgres.commit(&batches, &dead, now).ok()?;
            for (batch, verdict) in batches.iter().zip(&verdicts) {
                inner.committed(self.process.number(), batch, *verdict);
                if *verdict == Verdict::Committed && (fault_is_late || self.process.is_dead()) {
                    inner.coverage.visit(Corner::ZombieCommit);
                }
            }
            for _ in &dead {
                inner.coverage.visit(Corner::DeadLetter);
            }
            Some(verdicts)
        };
        let verdicts = self.at_server(&[], carried_out).await;
        drop(rows);
        verdicts.ok().flatten()
    }
}

impl Journal for SimJournal {
    async fn heads(&self) -> Result<Vec<Head>, JournalError> {
        self.ask(|inner, clock| inner.postgres.all_heads(clock)).await
    }

    async fn acquire(&self, shard: u32, owner: &Owner) -> Result<Option<Head>, JournalError> {
        let who = self.who();
        self.ask_locked(&[shard], |inner, clock| {
            let (head, freed) = inner.postgres.acquire(shard, owner, clock)?;
            inner.taken_over(who, &head, freed);
            Some(head)
        })
        .await
    }

    async fn engines(&self) -> Result<Vec<Engine>, JournalError> {
        self.ask(|inner, clock| inner.postgres.running(clock)).await
    }

    async fn renew(&self, owner: &Owner, held: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        let shards: Vec<u32> = held.iter().map(|(shard, _)| *shard).collect();
        self.ask_locked(&shards, |inner, clock| inner.postgres.renew(owner, held, clock))
            .await
    }

    async fn release(&self, owner: &Owner, held: &[(u32, u64)]) -> Result<(), JournalError> {
        self.ask(|inner, _| inner.postgres.release(owner, held)).await
    }

    async fn retire(&self, owner: &Owner) -> Result<(), JournalError> {
        self.ask(|inner, _| inner.postgres.retire(owner)).await
    }

    async fn commit(&self, batches: &[Batch], dead: &[DeadLetter]) -> Result<Vec<Verdict>, JournalError> {
        self.process.pass().await;
        let (fate, fault, dies) = self.world.with(|inner| {
            let now = inner.now_us;
            let fate = inner.postgres_weather.fate(&mut inner.dice, now, USUAL_MS, PATIENCE_MS);
            (
                fate,
                inner.commit_fault.take(),
                std::mem::take(&mut inner.die_in_commit),
            )
        });
        let (there_ms, back_ms) = match fate {
            Fate::Lost { after_ms } => {
                wait(after_ms).await;
                self.process.pass().await;
                return Err(JournalError::Timeout);
            }
            Fate::Answered { there_ms, back_ms } => (there_ms, Some(back_ms)),
            Fate::AnswerLost { there_ms, .. } => (there_ms, None),
        };
        let (answer, answered) = oneshot::channel();
        let server = self.clone();
        let (batches, dead) = (batches.to_vec(), dead.to_vec());
        tokio::spawn(async move {
            let verdicts = server.carry_out(batches, dead, fault, there_ms).await;
            let _gone = answer.send(verdicts);
        });
        if dies {
            let after = self.world.with(|inner| {
                inner.coverage.visit(Corner::KilledInCommit);
                inner.dice.between(0, 2 * USUAL_MS)
            });
            wait(after).await;
            self.process.kill();
        }
        let cut_off = matches!(
            fault,
            Some(CommitFault::AnswerLost | CommitFault::LandsLater(_) | CommitFault::LandsLaterLocked(_))
        );
        let verdicts = match back_ms {
            Some(back_ms) if !cut_off => {
                let verdicts = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), answered).await;
                wait(back_ms).await;
                verdicts.ok().and_then(Result::ok).flatten()
            }
            _ => {
                let after = self.world.with(|inner| inner.dice.between(1, 120));
                wait(after).await;
                None
            }
        };
        self.process.pass().await;
        verdicts.ok_or(JournalError::Timeout)
    }

    async fn note_panic(&self, shard: u32, digest: &[u8; 32], epoch: u64, _said: &str) -> Result<(), JournalError> {
        self.ask(|inner, _| {
            inner.postgres.panics.insert((shard, *digest, epoch));
        })
        .await
    }

    async fn poison(&self, shard: u32) -> Result<Vec<[u8; 32]>, JournalError> {
        self.ask(|inner, _| inner.postgres.poison(shard)).await
    }

    async fn settle(&self, batch: &Batch) -> Result<Option<Verdict>, JournalError> {
        if self.world.head_is_locked(batch.shard) {
            self.world.with(|inner| inner.coverage.visit(Corner::SettleWaited));
        }
        let settled = self
            .ask_locked(&[batch.shard], |inner, _| inner.postgres.settle(batch))
            .await?;
        self.world.with(|inner| {
            match settled {
                Some(Verdict::Committed) => inner.coverage.visit(Corner::AmbiguousCommitted),
                None => inner.coverage.visit(Corner::AmbiguousNot),
                Some(Verdict::Fenced) => inner.coverage.visit(Corner::Fenced),
            }
            inner.note("settled", self.who(), batch.sequence, || format!("{settled:?}"));
        });
        Ok(settled)
    }

    async fn still_leads(&self, held: &[(u32, u64)]) -> Result<Vec<u32>, JournalError> {
        self.ask(|inner, _| {
            let standing = inner.postgres.still_leads(held);
            if standing.len() < held.len() {
                inner.coverage.visit(Corner::ReadFenced);
            }
            standing
        })
        .await
    }

    async fn rows(&self, shard: u32, after: u64, limit: u32) -> Result<Vec<Row>, JournalError> {
        self.ask(|inner, _| rows(&inner.postgres, shard, after, limit)).await
    }

    async fn snapshots(&self, shard: u32) -> Result<Vec<SnapshotHead>, JournalError> {
        self.ask(|inner, _| inner.postgres.snapshots_of(shard)).await
    }

    async fn chunk(&self, shard: u32, sequence: u64, n: u32) -> Result<Option<(Bytes, [u8; 32])>, JournalError> {
        self.ask(|inner, _| {
            let chunk = inner.postgres.chunks.get(&(shard, sequence, n)).cloned();
            if chunk.is_some() {
                inner.coverage.visit(Corner::SnapshotUsed);
            }
            chunk
        })
        .await
    }

    async fn write_snapshot(&self, shard: u32, head: &SnapshotHead, chunks: &[Bytes]) -> Result<(), JournalError> {
        for (n, body) in (0..).zip(chunks) {
            let stored = (body.clone(), *blake3::hash(body).as_bytes());
            self.ask(|inner, _| {
                inner.postgres.chunks.entry((shard, head.sequence, n)).or_insert(stored);
            })
            .await?;
        }
        self.ask(|inner, _| {
            inner.postgres.finish_snapshot(shard, head);
            inner.coverage.visit(Corner::SnapshotWritten);
            inner.note("snapshot", self.who(), head.sequence, || format!("shard {shard}"));
        })
        .await
    }

    async fn prune(&self, _shard: u32, _up_to: u64, _older_than: Duration) -> Result<u64, JournalError> {
        // A simulated journal is kept: the audit after a run reads all of it.
        Ok(0)
    }
}

/// `SELECT … FROM journal WHERE last_seq > $after ORDER BY last_seq LIMIT $limit`.
fn rows(postgres: &Postgres, shard: u32, after: u64, limit: u32) -> Vec<Row> {
    let rows = &postgres.rows[shard as usize];
    rows.iter()
        .filter(|row| row.last > after)
        .take(limit as usize)
        .map(|row| Row {
            first: row.first,
            last: row.last,
            body: row.body.clone(),
            state_hash: row.state_hash,
            chain: row.chain,
        })
        .collect()
}

/// Waits; no time at all for zero.
pub async fn wait(ms: u64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}

/// How a lease came to be free, as a corner.
pub fn corner_of(freed: Freed) -> Option<Corner> {
    match freed {
        Freed::First => None,
        Freed::GivenBack => Some(Corner::TakeOverClean),
        Freed::Given => Some(Corner::Given),
        Freed::RanOut => Some(Corner::TakeOverExpired),
    }
}
