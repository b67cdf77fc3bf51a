//! Waiting until the read models reflect a sequence: however many wait, one query looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::unsigned;
use crate::deadline::Deadline;
use crate::failure::Failure;

/// How often the cursor is looked at while somebody waits, and after the database failed.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a look is believed: tables that are being made anew go back to the beginning.
const LOOK_AGE_MAX: Duration = Duration::from_secs(1);
/// Kept back from a deadline, so that "not yet" is said before it.
const LAST_WORD: Duration = Duration::from_millis(20);

/// How far the recorder is, as last seen. Cheap to clone.
#[derive(Clone)]
pub(super) struct Barrier(Arc<Shared>);

struct Shared {
    seen: watch::Sender<Seen>,
    wanted: Notify,
    waiting: AtomicUsize,
}

struct Seen {
    /// Of each shard.
    cursors: Vec<u64>,
    /// When; `None` before the first look.
    at: Option<Instant>,
}

impl Seen {
    fn cursor(&self, shard: u32) -> u64 {
        self.cursors.get(shard as usize).copied().unwrap_or(0)
    }

    /// The cursor of a shard if it was looked at lately and reaches `sequence`.
    fn reaches(&self, shard: u32, sequence: u64) -> Option<u64> {
        let lately = self.at.is_some_and(|at| at.elapsed() < LOOK_AGE_MAX);
        Some(self.cursor(shard)).filter(|cursor| lately && *cursor >= sequence)
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        shared.wanted.notify_one();
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Barrier {
    /// Looks through this pool until `stop`, while somebody waits.
    pub fn new(pool: PgPool, shards: u32, stop: CancellationToken) -> Self {
        let seen = Seen {
            cursors: vec![0; shards as usize],
            at: None,
        };
        let shared = Shared {
            seen: watch::Sender::new(seen),
            wanted: Notify::new(),
            waiting: AtomicUsize::new(0),
        };
        let shared = Arc::new(shared);
        tokio::spawn(stop.run_until_cancelled_owned(look(pool, Arc::clone(&shared))));
        Self(shared)
    }

    /// Waits until the tables reflect `sequence` of a shard, and says how far they are.
    pub async fn reach(&self, shard: u32, sequence: u64, deadline: Deadline) -> Result<u64, Failure> {
        let mut seen = self.0.seen.subscribe();
        if let Some(cursor) = seen.borrow().reaches(shard, sequence) {
            return Ok(cursor);
        }
        let _waiting = Waiting::new(&self.0);
        let reached = seen.wait_for(|seen| seen.reaches(shard, sequence).is_some());
        let patience = deadline.at.checked_sub(LAST_WORD).unwrap_or(deadline.at);
        match tokio::time::timeout_at(patience, reached).await {
            Ok(Ok(seen)) => Ok(seen.cursor(shard)),
            Ok(Err(_)) | Err(_) => {
                let why = format!("the history does not reach sequence {sequence} yet: try again");
                Err(Failure::HistoryBehind(why))
            }
        }
    }
}

/// Looks at the cursor while somebody waits for it.
async fn look(pool: PgPool, shared: Arc<Shared>) {
    loop {
        shared.wanted.notified().await;
        while shared.waiting.load(Ordering::SeqCst) > 0 {
            let rows: Result<Vec<(i32, i64)>, _> = sqlx::query_as("SELECT shard, seq FROM recorder_cursor")
                .fetch_all(&pool)
                .await;
            match rows {
                Ok(rows) => {
                    shared.seen.send_modify(|seen| {
                        seen.cursors.fill(0);
                        for (shard, sequence) in rows {
                            if let Some(cursor) = usize::try_from(shard).ok().and_then(|it| seen.cursors.get_mut(it)) {
                                *cursor = unsigned(sequence);
                            }
                        }
                        seen.at = Some(Instant::now());
                    });
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "history: the recorder's cursor cannot be read");
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_counts_only_for_a_while() {
        let mut seen = Seen {
            cursors: vec![0, 7],
            at: None,
        };
        assert_eq!(seen.reaches(1, 0), None, "never looked");
        seen.at = Some(Instant::now());
        assert_eq!(seen.reaches(1, 7), Some(7));
        assert_eq!(seen.reaches(1, 8), None);
        assert_eq!(seen.reaches(0, 0), Some(0), "an empty shard is all there");
        tokio::time::advance(LOOK_AGE_MAX).await;
        assert_eq!(seen.reaches(1, 7), None);
    }
}
