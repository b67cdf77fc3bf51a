//! The price stream: the poller appends batches, engines and gateways follow.
//!
//! The position of a reader is a stream id that it keeps itself (the engine's is journaled); Redis's group position is only a
//! convenience for watching lag. Time is never taken from a stream id.

use std::future::Future;

use contracts::bus::PriceBatch;
use prost::Message as _;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamMaxlen, StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands as _, FromRedisValue as _};

use crate::backoff::Backoff;
use crate::connect::{BLOCK, BusError, Commands, Redis};
use crate::keys;

/// About how many batches the stream keeps: at ten a second, a quarter of an hour.
const STREAM_LENGTH: usize = 10_000;
/// Most batches read at once.
const READ_MAX: usize = 256;

/// One batch with its place in the stream.
#[derive(Clone, Debug)]
pub struct PriceEntry {
    /// Stream id, `<ms>-<n>`.
    pub id: String,
    /// The quotes.
    pub batch: PriceBatch,
}

/// Appends batches. One per poller.
#[derive(Clone, Debug)]
pub struct PricePublisher {
    connection: Commands,
}

impl PricePublisher {
    /// Connects.
    ///
    /// # Errors
    /// When Redis cannot be reached now.
    pub async fn connect(redis: &Redis) -> Result<Self, BusError> {
        Ok(Self {
            connection: redis.commands().await?,
        })
    }

    /// Appends one batch. On an error the batch may or may not be there; the next one carries newer prices, so it is not sent again.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn publish(&mut self, batch: &PriceBatch) -> Result<(), BusError> {
        let _: String = self
            .connection
            .xadd_maxlen(
                keys::PRICES,
                StreamMaxlen::Approx(STREAM_LENGTH),
                "*",
                &[("b", batch.encode_to_vec())],
            )
            .await?;
        Ok(())
    }
}

/// Follows the stream from a position. Survives restarts of Redis, and its being emptied.
#[derive(Debug)]
pub struct PriceReader {
    redis: Redis,
    connection: Option<MultiplexedConnection>,
    group: Option<Group>,
    cursor: String,
    backoff: Backoff,
}

#[derive(Debug)]
struct Group {
    name: String,
    consumer: String,
}

impl PriceReader {
    /// Follows after `cursor` (a stream id, or empty for "from now on") without a group.
    #[must_use]
    pub fn tail(redis: Redis, cursor: String) -> Self {
        Self {
            redis,
            connection: None,
            group: None,
            cursor,
            backoff: Backoff::store(),
        }
    }

    /// Follows after `cursor` as the one consumer of the group `name`.
    #[must_use]
    pub fn grouped(redis: Redis, name: &str, cursor: String) -> Self {
        let group = Group {
            name: name.to_owned(),
            consumer: "1".to_owned(),
        };
        Self {
            group: Some(group),
            ..Self::tail(redis, cursor)
        }
    }

    /// The id of the last entry handed out, or the starting position.
    #[must_use]
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// Waits for the next entries; comes back empty about once a second when there are none. Never fails: while Redis is away it
    /// tries again with backoff and returns empty.
    pub async fn next(&mut self) -> Vec<PriceEntry> {
        match self.read().await {
            Ok(entries) => {
                self.backoff.reset();
                entries
            }
            Err(error) => {
                tracing::warn!(%error, "price stream: read failed, connecting again");
                self.connection = None;
                self.backoff.wait().await;
                Vec::new()
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<PriceEntry>, BusError> {
        if self.connection.is_none() {
            let connection = self.redis.blocking(keys::PRICES).await?;
            self.connection = Some(connection);
            self.settle().await?;
        }
        let connection = self.connection.as_mut().expect("set above");
        let options = StreamReadOptions::default()
            .block(usize::try_from(BLOCK.as_millis()).expect("small"))
            .count(READ_MAX);
        let reply: Option<StreamReadReply> = match &self.group {
            None => {
                connection
                    .xread_options(&[keys::PRICES], &[&self.cursor], &options)
                    .await?
            }
            Some(group) => {
                let options = options.group(&group.name, &group.consumer).noack();
                connection.xread_options(&[keys::PRICES], &[">"], &options).await?
            }
        };
        let Some(reply) = reply else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
            self.cursor.clone_from(&entry.id);
            let bytes = entry
                .map
                .get("b")
                .map(Vec::<u8>::from_redis_value_ref)
                .transpose()
                .ok()
                .flatten();
            match bytes.as_deref().map(PriceBatch::decode) {
                Some(Ok(batch)) => entries.push(PriceEntry { id: entry.id, batch }),
                // Somebody else wrote to the stream; skip it, the next batch is newer anyway.
                _ => tracing::warn!(id = entry.id, "price stream: an entry that is no price batch"),
            }
        }
        Ok(entries)
    }

    /// Makes the position valid on this Redis: an emptied or restored stream may end before it, and then everything would look old.
    async fn settle(&mut self) -> Result<(), BusError> {
        let connection = self.connection.as_mut().expect("called with a connection");
        let last = last_id(connection).await?.unwrap_or_else(|| "0-0".to_owned());
        if self.cursor.is_empty() {
            self.cursor = last;
        } else if after(&self.cursor, &last) {
            tracing::warn!(
                cursor = self.cursor,
                last,
                "price stream: it ends before our position, so it was emptied; starting over"
            );
            "0-0".clone_into(&mut self.cursor);
        }
        if let Some(group) = &self.group {
            let made: Result<(), redis::RedisError> = connection
                .xgroup_create_mkstream(keys::PRICES, &group.name, &self.cursor)
                .await;
            if let Err(error) = made {
                if error.code() != Some("BUSYGROUP") {
                    return Err(error.into());
                }
                let () = redis::cmd("XGROUP")
                    .arg("SETID")
                    .arg(keys::PRICES)
                    .arg(&group.name)
                    .arg(&self.cursor)
                    .query_async(connection)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Where prices are read from. Over Redis: [`RedisPrices`].
pub trait PriceStream: Clone + Send + Sync + 'static {
    /// A follower of the stream.
    type Follower: FollowPrices;

    /// Follows from now on as the one consumer of a group.
    fn follow(&self, group: &str) -> Self::Follower;

    /// The newest batches, oldest first: what a new follower shows before the next one comes.
    fn newest(&self, count: usize) -> impl Future<Output = Result<Vec<PriceEntry>, BusError>> + Send;

    /// The entries after one position, oldest first: what a shard catches up with when a reader is ahead of it.
    fn after(&self, position: &str) -> impl Future<Output = Result<Vec<PriceEntry>, BusError>> + Send;
}

/// Follows a price stream.
pub trait FollowPrices: Send + 'static {
    /// Waits for the next entries; may come back empty.
    fn next(&mut self) -> impl Future<Output = Vec<PriceEntry>> + Send;
}

/// [`PriceStream`] over Redis.
#[derive(Clone, Debug)]
pub struct RedisPrices {
    redis: Redis,
}

impl RedisPrices {
    /// Reads from this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

impl PriceStream for RedisPrices {
    type Follower = PriceReader;

    fn follow(&self, group: &str) -> PriceReader {
        PriceReader::grouped(self.redis.clone(), group, String::new())
    }

    async fn newest(&self, count: usize) -> Result<Vec<PriceEntry>, BusError> {
        newest(&self.redis, count).await
    }

    async fn after(&self, position: &str) -> Result<Vec<PriceEntry>, BusError> {
        let mut connection = self.redis.blocking(keys::PRICES).await?;
        let start = if position.is_empty() {
            "-".to_owned()
        } else {
            format!("({position}")
        };
        let reply: redis::streams::StreamRangeReply = connection.xrange(keys::PRICES, start, "+").await?;
        Ok(decoded(reply))
    }
}

impl FollowPrices for PriceReader {
    async fn next(&mut self) -> Vec<PriceEntry> {
        PriceReader::next(self).await
    }
}

/// The newest batches, oldest first: what a new follower shows before the next one comes.
///
/// # Errors
/// When Redis is away.
pub async fn newest(redis: &Redis, count: usize) -> Result<Vec<PriceEntry>, BusError> {
    let mut connection = redis.blocking(keys::PRICES).await?;
    let reply: redis::streams::StreamRangeReply = connection.xrevrange_count(keys::PRICES, "+", "-", count).await?;
    let mut entries = decoded(reply);
    entries.reverse();
    Ok(entries)
}

fn decoded(reply: redis::streams::StreamRangeReply) -> Vec<PriceEntry> {
    reply
        .ids
        .into_iter()
        .filter_map(|entry| {
            let bytes: Vec<u8> = entry.get("b")?;
            Some(PriceEntry {
                id: entry.id,
                batch: PriceBatch::decode(bytes.as_slice()).ok()?,
            })
        })
        .collect()
}

/// The last id ever given out by the stream; nothing when there is no stream.
async fn last_id(connection: &mut MultiplexedConnection) -> Result<Option<String>, BusError> {
    let info: Result<redis::streams::StreamInfoStreamReply, _> = connection.xinfo_stream(keys::PRICES).await;
    match info {
        Ok(info) => Ok(Some(info.last_generated_id)),
        Err(error) if error.detail().is_some_and(|detail| detail.contains("no such key")) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether stream id `a` comes after `b`.
#[must_use]
pub fn after(a: &str, b: &str) -> bool {
    fn parts(id: &str) -> (u64, u64) {
        let (ms, n) = id.split_once('-').unwrap_or((id, "0"));
        (ms.parse().unwrap_or(0), n.parse().unwrap_or(0))
    }
    parts(a) > parts(b)
}

#[cfg(test)]
mod tests {
    use super::after;

    #[test]
    fn stream_ids_compare_as_numbers() {
        assert!(after("10-0", "9-5"));
        assert!(after("9-10", "9-9"));
        assert!(!after("9-9", "9-9"));
        assert!(after("1-0", ""));
    }
}
