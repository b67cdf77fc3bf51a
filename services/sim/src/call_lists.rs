//! The gateway's lists over the simulated Redis: under them runs the caller that gateways have.

use std::time::Duration;

use bus::lists::{CallLists, Group};
use bus::mutants::{self, Mutant};
use bus::{BusError, Pushed};
use uuid::Uuid;

use crate::shard_bus::{Broken, Connection};

/// See the module.
#[derive(Clone, Debug)]
pub struct SimLists {
    connection: Connection,
    /// For the mutant whose ids count: starts over with each gateway.
    counted: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl SimLists {
    /// The lists as one gateway sees them.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            counted: std::sync::Arc::default(),
        }
    }
}

impl CallLists for SimLists {
    async fn push(&mut self, groups: &[Group], length_max: usize) -> Vec<Pushed> {
        let mut outcomes = Vec::with_capacity(groups.len());
        for (shard, requests) in groups {
            let pushed = self
                .connection
                .ask(|inner| inner.redis.admit(*shard, requests, length_max, inner.now_us))
                .await;
            outcomes.push(match pushed {
                Ok(Some(count)) => Pushed::Count(count),
                Ok(None) => Pushed::NoLeader,
                Err(Broken::NeverSent) => Pushed::NeverSent,
                Err(Broken::Unknown) => Pushed::Unknown,
            });
            self.connection.world.request_bell(*shard).notify_waiters();
        }
        outcomes
    }

    async fn pop(&mut self, list: &str, count_max: usize) -> Result<Vec<Vec<u8>>, BusError> {
        let rings = self.connection.world.reply_bell().notified();
        let take = |connection: &Connection| {
            let (list, connection) = (list.to_owned(), connection.clone());
            async move {
                connection
                    .ask(|inner| {
                        let waiting = inner.redis.replies.get_mut(&list);
                        waiting.map_or_else(Vec::new, |waiting| {
                            waiting.drain(..count_max.min(waiting.len())).collect()
                        })
                    })
                    .await
            }
        };
        let popped = take(&self.connection).await?;
        if !popped.is_empty() {
            return Ok(popped);
        }
        let _looks_up = tokio::time::timeout(Duration::from_secs(1), rings).await;
        Ok(take(&self.connection).await?)
    }

    fn fresh_id(&self) -> Uuid {
        if mutants::is(Mutant::CorrelationReused) {
            let count = self.counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Uuid::from_u64_pair(self.connection.process.number(), count);
        }
        self.connection.world.with(|inner| inner.dice.id())
    }
}
