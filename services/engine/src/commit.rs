//! The commit of a round: what all shards of this process decided, in one transaction, and dead letters before it.
//!
//! A commit whose answer is lost is settled, never guessed: the round waits until the journal itself says whether its rows are there.

use std::time::Duration;

use bus::backoff::Backoff;
use bus::mutants::{self, Mutant};
use tokio_util::task::AbortOnDropHandle;

use crate::journal::{Batch, DeadLetter, Journal, JournalError, Verdict};

/// What a round asks of the journal.
#[derive(Debug, Default)]
pub struct Work {
    /// Rows to write, at most one a shard.
    pub batches: Vec<Batch>,
    /// Messages that are not handled.
    pub dead: Vec<DeadLetter>,
    /// Leaderships, by shard and epoch, under which nothing but answers from memory waits to leave.
    pub checks: Vec<(u32, u64)>,
}

/// A round on its way. Dropped, it is given up; what had reached the journal by then stays there.
#[derive(Debug)]
pub struct Pending(AbortOnDropHandle<Vec<u32>>);

impl Pending {
    /// Waits for it. Returns the shards that somebody else leads: nothing of theirs was written, and nothing may be answered.
    pub async fn fenced(self) -> Vec<u32> {
        match self.0.await {
            Ok(fenced) => fenced,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// Starts to carry a round out, in a task of its own, so that the next one can be decided beside it.
pub fn start<J: Journal>(journal: J, work: Work) -> Pending {
    Pending(AbortOnDropHandle::new(tokio::spawn(carry_out(journal, work))))
}

async fn carry_out<J: Journal>(journal: J, work: Work) -> Vec<u32> {
    let Work { batches, dead, checks } = work;
    let shards: Vec<u32> = batches.iter().map(|batch| batch.shard).collect();
    let writing = async {
        if batches.is_empty() && dead.is_empty() {
            return Vec::new();
        }
        commit_for_certain(&journal, batches, &dead).await
    };
    let checking = async {
        if checks.is_empty() {
            return Vec::new();
        }
        ask_until_answered(|| journal.still_leads(&checks)).await
    };
    let (verdicts, standing) = futures::join!(writing, checking);
    let refused = shards
        .into_iter()
        .zip(verdicts)
        .filter_map(|(shard, verdict)| (verdict == Verdict::Fenced).then_some(shard));
    let over = checks.iter().map(|(shard, _)| *shard);
    refused.chain(over.filter(|shard| !standing.contains(shard))).collect()
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
