//! The event stream of a shard: committed journal rows, each under its last sequence as the stream id.
//!
//! Because the id is the sequence, publishing a row twice is refused by Redis itself: after a crash between commit and publish the
//! engine publishes the tail again without repeats. A reader that sees a sequence skipped knows exactly what it missed. Rows are passed
//! on as they were journaled: the writer encodes nothing twice, and a reader that nobody watches through decodes nothing.

use bytes::Bytes;
use contracts::bus::{JournalBatch, JournalEntry};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use redis::aio::MultiplexedConnection;
use redis::streams::{
    StreamAddOptions, StreamId, StreamReadOptions, StreamReadReply, StreamTrimStrategy, StreamTrimmingMode,
};
use redis::{AsyncCommands as _, FromRedisValue as _};

use crate::backoff::Backoff;
use crate::connect::{BLOCK, BusError, Commands, Redis};
use crate::keys;

/// About how many sequences a shard's stream keeps, some ten MB of them; older ones are read from the journal.
pub const SEQUENCES_KEPT: u64 = 20_000;
const READ_MAX: usize = 1_024;

/// The last sequence in the shard's stream; 0 when it is empty or gone.
pub(crate) async fn last_sequence(connection: &mut Commands, shard: u32) -> Result<u64, BusError> {
    let newest: redis::streams::StreamRangeReply = connection.xrevrange_count(keys::events(shard), "+", "-", 1).await?;
    Ok(newest.ids.first().map_or(0, |entry| sequence_of(&entry.id)))
}

/// Empties a shard's stream: its tail belongs to another journal.
pub(crate) async fn discard(connection: &mut Commands, shard: u32) -> Result<(), BusError> {
    Ok(connection.del(keys::events(shard)).await?)
}

/// A row of the journal on its way to those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Sequence of its first entry.
    pub first: u64,
    /// Sequence of its last entry.
    pub last: u64,
    /// Encoded [`JournalBatch`].
    pub body: Bytes,
}

impl EventRow {
    /// A row of entries; nothing for no entries.
    #[must_use]
    pub fn of(batch: &JournalBatch) -> Option<Self> {
        Some(Self {
            first: batch.entries.first()?.sequence,
            last: batch.entries.last()?.sequence,
            body: batch.encode_to_vec().into(),
        })
    }

    /// Its entries, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn entries(&self) -> Result<Vec<JournalEntry>, prost::DecodeError> {
        Ok(JournalBatch::decode(self.body.clone())?.entries)
    }

    fn read(mut entry: StreamId) -> Option<Self> {
        let mut field = |name| entry.map.remove(name);
        let first = u64::from_redis_value(field("first")?).ok()?;
        // The bytes as they were received: most rows pass by with nobody looking into them.
        let body = Vec::<u8>::from_redis_value(field("row")?).ok()?.into();
        let last = sequence_of(&entry.id);
        Some(Self { first, last, body })
    }
}

/// Adds one `XADD` a row to a pipeline. The reply of a repeat is an error, which the caller ignores.
pub(crate) fn append(pipeline: &mut redis::Pipeline, shard: u32, row: &EventRow) {
    // By sequence and not by count: a row may hold one entry or hundreds.
    let oldest = row.last.saturating_sub(SEQUENCES_KEPT);
    let kept = StreamTrimStrategy::minid(StreamTrimmingMode::Approx, oldest.to_string());
    pipeline
        .xadd_options(
            keys::events(shard),
            format!("{}-0", row.last),
            &[("first", row.first.to_string().as_bytes()), ("row", row.body.as_ref())],
            &StreamAddOptions::default().trim(kept),
        )
        .ignore();
}

fn sequence_of(id: &str) -> u64 {
    id.split_once('-')
        .and_then(|(sequence, _)| sequence.parse().ok())
        .unwrap_or(0)
}

/// What a read brought of one shard.
#[derive(Clone, Debug)]
pub struct ShardEvents {
    /// Which shard.
    pub shard: u32,
    /// Rows in order. The first may not follow on what was read before: then something was missed.
    pub rows: Vec<EventRow>,
}

/// Follows the event streams of all shards.
#[derive(Debug)]
pub struct EventReader {
    positions: Vec<Option<u64>>,
    /// Reads under way. They go on while nobody waits: a blocking command that is abandoned would hold its connection.
    reads: FuturesUnordered<BoxFuture<'static, (Lane, Vec<ShardEvents>)>>,
}

impl EventReader {
    /// Follows shards 0 to `shards` − 1 from now on.
    #[must_use]
    pub fn new(redis: Redis, shards: u32) -> Self {
        let keys = redis.together((0..shards).map(keys::events).collect());
        let lanes = keys.into_iter().scan(0, |first, keys| {
            let lane = Lane {
                redis: redis.clone(),
                connection: None,
                first: *first,
                positions: vec![None; keys.len()],
                keys,
                backoff: Backoff::store(),
                failed: false,
            };
            *first += lane.keys.len();
            Some(lane.next().boxed())
        });
        Self {
            positions: vec![None; shards as usize],
            reads: lanes.collect(),
        }
    }

    /// The last sequence read, or found at the start, of each shard; `None` before the first contact with Redis.
    #[must_use]
    pub fn positions(&self) -> &[Option<u64>] {
        &self.positions
    }

    /// Waits for the next rows; comes back empty about once a second when there are none. Never fails: while Redis is away it
    /// tries again with backoff and returns empty.
    pub async fn next(&mut self) -> Vec<ShardEvents> {
        let Some((lane, events)) = self.reads.next().await else {
            // Without shards there is nothing to wait for.
            return std::future::pending().await;
        };
        let known = self.positions.iter_mut().skip(lane.first);
        for (known, read) in known.zip(&lane.positions) {
            *known = *read;
        }
        self.reads.push(lane.next().boxed());
        events
    }
}

/// Streams that one command can read: those of all shards, or in a cluster of one.
#[derive(Debug)]
struct Lane {
    redis: Redis,
    connection: Option<MultiplexedConnection>,
    /// The shard of the first key; the others follow.
    first: usize,
    keys: Vec<String>,
    positions: Vec<Option<u64>>,
    backoff: Backoff,
    /// The last try did.
    failed: bool,
}

impl Lane {
    async fn next(mut self) -> (Self, Vec<ShardEvents>) {
        // Before the next try and not after one that failed: that it failed is news.
        if self.failed {
            self.backoff.wait().await;
        }
        let events = self.read().await;
        self.failed = events.is_err();
        let events = events.unwrap_or_else(|error| {
            tracing::warn!(%error, "event streams: read failed, connecting again");
            self.connection = None;
            Vec::new()
        });
        if !self.failed {
            self.backoff.reset();
        }
        (self, events)
    }

    async fn read(&mut self) -> Result<Vec<ShardEvents>, BusError> {
        let Some(connection) = &mut self.connection else {
            let first = self.keys.first().map_or("", String::as_str);
            let mut connection = self.redis.blocking(first).await?;
            for (key, position) in self.keys.iter().zip(&mut self.positions) {
                let newest: redis::streams::StreamRangeReply = connection.xrevrange_count(key, "+", "-", 1).await?;
                let last = newest.ids.first().map_or(0, |entry| sequence_of(&entry.id));
                // A stream that ends before our position was emptied and starts anew: follow it from its end, the jump shows the gap.
                *position = Some(position.map_or(last, |ours| ours.min(last)));
            }
            self.connection = Some(connection);
            // Where they stand is news: somebody may wait for it.
            return Ok(Vec::new());
        };
        let ids: Vec<String> = self
            .positions
            .iter()
            .map(|position| format!("{}-0", position.unwrap_or(0)))
            .collect();
        let options = StreamReadOptions::default()
            .block(usize::try_from(BLOCK.as_millis()).expect("small"))
            .count(READ_MAX);
        let reply: Option<StreamReadReply> = connection.xread_options(&self.keys, &ids, &options).await?;
        let mut all = Vec::new();
        for stream in reply.into_iter().flat_map(|reply| reply.keys) {
            let Some(index) = self.keys.iter().position(|key| *key == stream.key) else {
                continue;
            };
            let mut rows = Vec::with_capacity(stream.ids.len());
            for entry in stream.ids {
                let sequence = sequence_of(&entry.id);
                self.positions[index] = Some(sequence);
                match EventRow::read(entry) {
                    Some(row) => rows.push(row),
                    None => tracing::warn!(key = stream.key, sequence, "event stream: an entry that is no row"),
                }
            }
            all.push(ShardEvents {
                shard: u32::try_from(self.first + index).expect("a shard number"),
                rows,
            });
        }
        Ok(all)
    }
}
