//! The loop: look which shards have moved, expand a stretch of each in one transaction, look again.

use std::pin::pin;
use std::time::Duration;

use bus::backoff::Backoff;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::RecorderError;
use crate::expand::expand;
use crate::metrics::Metrics;
use crate::rows::Stretch;
use crate::store::{self, Committed, Position};

/// After little work the next look comes this many times sooner than an idle one, so that whoever reads his own trade hardly waits.
const SOONER: u32 = 5;
/// Entries of one look that are much: the engine is busy, and a transaction costs the database it writes to as much as many rows do.
/// So a few large stretches are taken instead of many small ones.
const MUCH: i64 = 32;
/// Longest wait for the round that is under way when the recorder is told to stop.
const LAST_ROUND_MAX: Duration = Duration::from_secs(2);

/// Expands the journal until told to stop.
pub(crate) async fn follow(
    pool: &PgPool,
    poll: Duration,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), RecorderError> {
    let mut backoff = Backoff::store();
    let mut idle = poll;
    loop {
        // Dropped in the middle of a transaction it leaves nothing behind but a connection that is of no use: what is being copied cannot
        // be taken back in order. So it may finish, for a while.
        let mut round = pin!(round(pool, metrics));
        let looked = tokio::select! {
            () = shutdown.cancelled() => {
                let _ = tokio::time::timeout(LAST_ROUND_MAX, round).await;
                return Ok(());
            }
            looked = &mut round => looked,
        };
        let pause = match looked {
            Ok(round) => {
                backoff.reset();
                idle = match round.entries {
                    0 => (idle * 2).min(poll),
                    1..MUCH => poll / SOONER,
                    _ => poll,
                };
                if round.more { Duration::ZERO } else { idle }
            }
            Err(error) => patience(error, &mut backoff)?,
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Empties operations, trades and ledger and expands the whole journal again; candles are not the journal's and stay. Recorders that are
/// running meanwhile join in.
///
/// # Errors
/// [`RecorderError::JournalTrimmed`], before anything was touched, when the journal does not reach back to its first entry; otherwise as
/// [`run`](crate::run).
pub async fn rebuild(pool: &PgPool) -> Result<(), RecorderError> {
    let goals = store::empty(pool).await?;
    let metrics = Metrics::new();
    let mut backoff = Backoff::store();
    loop {
        let step = async {
            round(pool, &metrics).await?;
            store::positions(pool).await
        };
        match step.await {
            Ok(now) if reached(&now, &goals) => return Ok(()),
            Ok(_) => backoff.reset(),
            Err(error) => tokio::time::sleep(patience(error, &mut backoff)?).await,
        }
    }
}

/// Whether every shard is where the journal ended at the beginning: a busy journal has no other end.
fn reached(now: &[Position], goals: &[Position]) -> bool {
    let cursor = |shard| {
        now.iter()
            .find(|position| position.shard == shard)
            .map_or(0, |position| position.cursor)
    };
    goals.iter().all(|goal| cursor(goal.shard) >= goal.head)
}

/// How long to wait before trying again, for an error that waiting may mend; otherwise the error.
pub(crate) fn patience(error: RecorderError, backoff: &mut Backoff) -> Result<Duration, RecorderError> {
    if !error.is_passing() {
        return Err(error);
    }
    let delay = backoff.next_delay();
    tracing::warn!(%error, ?delay, "not recorded, trying again");
    Ok(delay)
}

/// What one look came to.
#[derive(Debug, Default)]
struct Round {
    /// Entries expanded.
    entries: i64,
    /// A shard has more than was taken at once.
    more: bool,
}

/// Expands the next stretch of every shard that has moved. A bounded one each, so that a long one does not keep the others waiting.
async fn round(pool: &PgPool, metrics: &Metrics) -> Result<Round, RecorderError> {
    let mut behind = store::positions(pool).await?;
    for position in &behind {
        metrics.lag(position.shard, (position.head - position.cursor).max(0));
    }
    behind.retain(|position| position.head > position.cursor);
    if behind.is_empty() {
        return Ok(Round::default());
    }
    let Some(stretches) = stretches(pool, &behind).await? else {
        return Ok(Round { entries: 0, more: true });
    };
    if store::commit(pool, &stretches).await? == Committed::Overtaken {
        return Ok(Round { entries: 0, more: true });
    }
    let mut round = Round::default();
    for (position, Stretch { expansion, .. }) in behind.iter().zip(&stretches) {
        metrics.lag(position.shard, (position.head - expansion.last_seq).max(0));
        round.entries += expansion.last_seq - position.cursor;
        round.more |= expansion.last_seq < position.head;
    }
    metrics.expanded(round.entries);
    Ok(round)
}

/// Reads and expands what follows these positions, one stretch each; nothing when another recorder was faster.
async fn stretches(pool: &PgPool, behind: &[Position]) -> Result<Option<Vec<Stretch>>, RecorderError> {
    let rows = store::journal_after(pool, behind).await?;
    let mut stretches = Vec::with_capacity(behind.len());
    for &Position { shard, cursor, .. } in behind {
        let first = rows.partition_point(|row| row.shard < shard);
        let last = rows.partition_point(|row| row.shard <= shard);
        let expansion = match rows.get(first..last) {
            Some(rows) if !rows.is_empty() => expand(shard, cursor, rows),
            _ => Err(RecorderError::Gap {
                shard,
                expected: cursor + 1,
                found: None,
            }),
        };
        match expansion {
            Ok(expansion) => stretches.push(Stretch {
                shard,
                cursor,
                expansion,
            }),
            // Behind the cursor the journal may be trimmed, and to one who was overtaken that looks like a gap.
            Err(RecorderError::Gap { .. }) if store::cursor(pool, shard).await? != cursor => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(stretches))
}
