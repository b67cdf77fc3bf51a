//! The price stream over the simulated Redis, read as the bus's `PriceReader` reads it.

use std::time::Duration;

use bus::{BusError, FollowPrices, PriceEntry, PriceStream};
use contracts::bus::PriceBatch;

use crate::shard_bus::Connection;
use crate::world::Inner;

/// See the module.
#[derive(Clone, Debug)]
pub struct SimPrices {
    connection: Connection,
}

impl SimPrices {
    /// The stream as one process sees it.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

/// Follows from a position; settles it anew whenever the connection broke.
#[derive(Debug)]
pub struct SimFollower {
    connection: Connection,
    /// Last id handed out; `None`: from now on.
    cursor: Option<u64>,
    /// Which life of Redis the position was settled in.
    settled_in: Option<u64>,
}

impl PriceStream for SimPrices {
    type Follower = SimFollower;

    fn follow(&self, _group: &str) -> SimFollower {
        SimFollower {
            connection: self.connection.clone(),
            cursor: None,
            settled_in: None,
        }
    }

    async fn newest(&self, count: usize) -> Result<Vec<PriceEntry>, BusError> {
        Ok(self
            .connection
            .ask(|inner| {
                let prices = &inner.redis.prices;
                let skipped = prices.len().saturating_sub(count);
                prices.iter().skip(skipped).map(entry).collect()
            })
            .await?)
    }

    async fn after(&self, position: &str) -> Result<Vec<PriceEntry>, BusError> {
        let after = number(position);
        Ok(self
            .connection
            .ask(|inner| {
                inner
                    .redis
                    .prices
                    .iter()
                    .filter(|(id, _)| *id > after)
                    .map(entry)
                    .collect()
            })
            .await?)
    }
}

impl FollowPrices for SimFollower {
    async fn next(&mut self) -> Vec<PriceEntry> {
        let world = self.connection.world.clone();
        let rings = world.price_bell().notified();
        match self.read().await {
            Ok(entries) if !entries.is_empty() => return entries,
            Ok(_) => {}
            Err(_) => self.settled_in = None,
        }
        let _looks_up = tokio::time::timeout(Duration::from_secs(1), rings).await;
        match self.read().await {
            Ok(entries) => entries,
            Err(_) => {
                self.settled_in = None;
                Vec::new()
            }
        }
    }
}

impl SimFollower {
    async fn read(&mut self) -> Result<Vec<PriceEntry>, BusError> {
        let (cursor, settled_in) = (self.cursor, self.settled_in);
        let (entries, cursor, lives) = self
            .connection
            .ask(|inner| {
                let cursor = settle(inner, cursor, settled_in);
                let entries: Vec<PriceEntry> = inner
                    .redis
                    .prices
                    .iter()
                    .filter(|(id, _)| *id > cursor)
                    .map(entry)
                    .collect();
                let last = entries.last().map_or(cursor, |last| number(&last.id));
                (entries, last, inner.redis_lives)
            })
            .await?;
        self.cursor = Some(cursor);
        self.settled_in = Some(lives);
        Ok(entries)
    }
}

/// The position to read after: as it is on a connection that stands, made valid on a new one.
fn settle(inner: &Inner, cursor: Option<u64>, settled_in: Option<u64>) -> u64 {
    let last = inner.redis.last_price;
    match cursor {
        None => last,
        Some(cursor) if settled_in == Some(inner.redis_lives) => cursor,
        Some(cursor) if cursor > last => 0,
        Some(cursor) => cursor,
    }
}

fn entry((id, batch): &(u64, PriceBatch)) -> PriceEntry {
    PriceEntry {
        id: format!("{id}-0"),
        batch: batch.clone(),
    }
}

fn number(id: &str) -> u64 {
    id.split_once('-').map_or(id, |(ms, _)| ms).parse().unwrap_or(0)
}
