//! The commit stage: one task that writes what the shards of this process decided, several shards in one transaction.
//!
//! There is no timer: it takes what is there, and while a transaction is under way the next one fills. A commit whose answer is lost
//! is settled, never guessed: the shard waits until the journal itself says whether the row is there.

use std::time::Duration;

use bus::backoff::Backoff;
use bus::mutants::{self, Mutant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::journal::{Batch, DeadLetter, Journal, JournalError, Verdict};

/// Most pieces of work taken at once.
const WORK_MAX: usize = 256;

/// Work for the commit stage.
#[derive(Debug)]
enum Work {
    Commit {
        batch: Option<Batch>,
        dead: Vec<DeadLetter>,
        done: oneshot::Sender<Verdict>,
    },
    Check {
        shard: u32,
        epoch: u64,
        done: oneshot::Sender<Verdict>,
    },
}

/// The way to the commit stage. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Committer {
    work: mpsc::Sender<Work>,
}

/// A verdict that is being made. Ends with `Fenced` when the stage ends: then nothing may be answered either.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Verdict>);

impl Pending {
    /// One that was made already.
    pub(crate) fn committed() -> Self {
        let (done, verdict) = oneshot::channel();
        let _received = done.send(Verdict::Committed);
        Self(verdict)
    }

    /// Waits for it.
    pub async fn verdict(self) -> Verdict {
        self.0.await.unwrap_or(Verdict::Fenced)
    }
}

impl Committer {
    /// Starts the stage.
    pub fn start<J: Journal>(journal: J, shutdown: CancellationToken) -> Self {
        let (work, todo) = mpsc::channel(WORK_MAX);
        tokio::spawn(shutdown.run_until_cancelled_owned(stage(journal, todo)));
        Self { work }
    }

    /// Hands over a batch and dead letters.
    pub async fn commit(&self, batch: Option<Batch>, dead: Vec<DeadLetter>) -> Pending {
        let (done, verdict) = oneshot::channel();
        // A closed stage drops the sender, which the receiver reads as fenced.
        let _closed = self.work.send(Work::Commit { batch, dead, done }).await;
        Pending(verdict)
    }

    /// Asks whether a leadership still stands, before answers from memory leave.
    pub async fn check(&self, shard: u32, epoch: u64) -> Pending {
        let (done, verdict) = oneshot::channel();
        let _closed = self.work.send(Work::Check { shard, epoch, done }).await;
        Pending(verdict)
    }
}

async fn stage<J: Journal>(journal: J, mut todo: mpsc::Receiver<Work>) {
    let mut taken = Vec::with_capacity(WORK_MAX);
    while todo.recv_many(&mut taken, WORK_MAX).await > 0 {
        let (mut batches, mut waiting, mut dead, mut only_dead, mut checks) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for work in taken.drain(..) {
            match work {
                Work::Commit {
                    batch: Some(batch),
                    dead: letters,
                    done,
                } => {
                    batches.push(batch);
                    waiting.push(done);
                    dead.extend(letters);
                }
                Work::Commit {
                    batch: None,
                    dead: letters,
                    done,
                } => {
                    dead.extend(letters);
                    only_dead.push(done);
                }
                Work::Check { shard, epoch, done } => checks.push(((shard, epoch), done)),
            }
        }
        let writing = async {
            if !batches.is_empty() || !dead.is_empty() {
                for (verdict, done) in commit_for_certain(&journal, batches, &dead)
                    .await
                    .into_iter()
                    .zip(waiting)
                {
                    let _gone = done.send(verdict);
                }
                for done in only_dead {
                    let _gone = done.send(Verdict::Committed);
                }
            }
        };
        let checking = async {
            let held: Vec<(u32, u64)> = checks.iter().map(|(held, _)| *held).collect();
            if !held.is_empty() {
                let standing = ask_until_answered(|| journal.still_leads(&held)).await;
                for ((shard, _), done) in checks {
                    let verdict = if standing.contains(&shard) {
                        Verdict::Committed
                    } else {
                        Verdict::Fenced
                    };
                    let _gone = done.send(verdict);
                }
            }
        };
        futures::join!(writing, checking);
    }
}

/// Commits, however often Postgres goes away in between. While it is away the batches are held and nothing is answered.
async fn commit_for_certain<J: Journal>(journal: &J, mut batches: Vec<Batch>, dead: &[DeadLetter]) -> Vec<Verdict> {
    if mutants::is(Mutant::NoFence) {
        unfence(journal, &mut batches).await;
    }
    match journal.commit(&batches, dead).await {
        Ok(verdicts) => return verdicts,
        Err(_) if mutants::is(Mutant::FailedOnAmbiguous) => return vec![Verdict::Fenced; batches.len()],
        Err(error) => tracing::warn!(%error, "commit unanswered; finding out whether it was carried out"),
    }
    let mut verdicts = Vec::with_capacity(batches.len());
    for batch in &batches {
        verdicts.push(settle_one(journal, batch).await);
    }
    if !dead.is_empty() {
        // Dead letters carry their digest as a key: writing them again writes nothing twice.
        ask_until_answered(|| journal.commit(&[], dead)).await;
    }
    verdicts
}

/// What [`Mutant::NoFence`] does: the head row decides what the batch says, not the other way round.
async fn unfence<J: Journal>(journal: &J, batches: &mut [Batch]) {
    let heads = journal.heads().await.unwrap_or_default();
    for batch in batches {
        if let Some(head) = heads.iter().find(|head| head.shard == batch.shard) {
            batch.epoch = head.epoch;
            batch.sequence_before = head.sequence;
        }
    }
}

async fn settle_one<J: Journal>(journal: &J, batch: &Batch) -> Verdict {
    loop {
        if let Some(verdict) = ask_until_answered(|| journal.settle(batch)).await {
            return verdict;
        }
        match journal.commit(std::slice::from_ref(batch), &[]).await {
            Ok(verdicts) if verdicts.first() == Some(&Verdict::Committed) => return Verdict::Committed,
            // Perhaps by itself: the first try may have landed in between. The head row knows.
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "commit unanswered again"),
        }
    }
}

/// Asks until there is an answer: for questions that change nothing, or nothing twice.
pub async fn ask_until_answered<T, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, JournalError>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(%error, "the journal is away; trying again"),
        }
        backoff.wait().await;
    }
}
