//! The engine's side of a shard on a real Redis: what two engines that overlap may do to each other, and what a reader gets.

use std::pin::pin;

use bus::{
    CallError, Caller, CallerOptions, Calls as _, EventReader, EventRow, NotAccepted, Presence as _, Redis,
    RedisPresence, RedisShardBus, ShardBus as _,
};
use contracts::bus::{JournalBatch, JournalEntry, Request};
use testkit::PrivateRedis;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

async fn shard(redis: &Redis) -> RedisShardBus {
    RedisShardBus::new(redis.clone(), redis.commands().await.expect("Redis is there"), 0)
}

fn row(sequences: std::ops::RangeInclusive<u64>) -> EventRow {
    let entries = sequences.map(|sequence| JournalEntry {
        sequence,
        ..JournalEntry::default()
    });
    let batch = JournalBatch {
        entries: entries.collect(),
        price_cursor: "7-0".to_owned(),
    };
    EventRow::of(&batch).expect("entries")
}

/// Whether a call is queued, which it is when somebody is seen to lead.
async fn is_led(redis: &Redis) -> bool {
    let (mut queue, over) = (shard(redis).await, CancellationToken::new());
    let before = queue.length().await.unwrap();
    let caller = Caller::start(redis, CallerOptions::default(), over.clone());
    let mut call = pin!(caller.call(Request::default(), Instant::now() + Duration::from_secs(60)));
    let led = loop {
        tokio::select! {
            answer = call.as_mut() => {
                assert_eq!(answer, Err(CallError::NotAccepted(NotAccepted::NoLeader)));
                break false;
            }
            length = queue.length() => if length.unwrap() > before { break true },
        }
    };
    over.cancel();
    led
}

#[tokio::test]
async fn an_engine_that_leaves_hides_its_own_presence_and_not_its_successors() {
    let server = PrivateRedis::start().await;
    let redis = Redis::open(&server.url()).unwrap();
    let presence = RedisPresence::new(redis.commands().await.unwrap());
    assert!(!is_led(&redis).await);
    presence.show(&[0], "second").await.unwrap();
    presence.hide(&[0], "first").await.unwrap();
    assert!(is_led(&redis).await, "the successor is still shown");
    presence.hide(&[0], "second").await.unwrap();
    assert!(!is_led(&redis).await);
}

/// A connection of the test's own.
async fn plain(server: &PrivateRedis) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Puts messages at the end of shard 0's queue, as a caller does.
async fn push(server: &PrivateRedis, messages: &[&'static [u8]]) {
    let mut plain = plain(server).await;
    for message in messages {
        let _: () = redis::cmd("RPUSH")
            .arg("{s0}:requests")
            .arg(*message)
            .query_async(&mut plain)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn exactly_what_was_processed_is_trimmed_or_nothing() {
    let server = PrivateRedis::start().await;
    let redis = Redis::open(&server.url()).unwrap();
    let (mut first, second) = (shard(&redis).await, shard(&redis).await);
    push(&server, &[b"a", b"b", b"c", b"d"]).await;
    let seen = first.peek(0, 3).await.unwrap();
    assert!(first.trim(&seen[..2]).await.unwrap());
    assert!(
        !second.trim(&seen[..2]).await.unwrap(),
        "the other engine was there first"
    );
    assert!(!second.trim(&seen).await.unwrap(), "and its place is gone");
    assert_eq!(first.peek(0, 9).await.unwrap(), ["c", "d"]);
    // Redis crashes, forgets the newest push, and takes another.
    let seen = first.peek(0, 2).await.unwrap();
    let mut plain = plain(&server).await;
    let _: () = redis::cmd("RPOP")
        .arg("{s0}:requests")
        .query_async(&mut plain)
        .await
        .unwrap();
    push(&server, &[b"e"]).await;
    assert!(
        !first.trim(&seen).await.unwrap(),
        "the second is not what was processed"
    );
    assert_eq!(first.peek(0, 9).await.unwrap(), ["c", "e"]);
    let _: () = redis::cmd("FLUSHALL").query_async(&mut plain).await.unwrap();
    assert!(!first.trim(&seen).await.unwrap(), "nothing is there");
    assert!(first.trim(&[]).await.unwrap());
}

#[tokio::test]
async fn what_ended_a_wait_is_known_until_the_next_look() {
    let server = PrivateRedis::start().await;
    let redis = Redis::open(&server.url()).unwrap();
    let mut shard = shard(&redis).await;
    push(&server, &[b"a", b"b"]).await;
    assert_eq!(shard.head(), None, "nobody waited");
    shard.wait().await;
    assert_eq!(shard.head().unwrap(), "a");
    assert_eq!(shard.head(), None);
    shard.wait().await;
    assert_eq!(shard.peek(0, 9).await.unwrap(), ["a", "b"]);
    assert_eq!(shard.head(), None, "it may be trimmed by now");
}

#[tokio::test]
async fn a_row_published_twice_is_read_once_and_as_it_was() {
    let server = PrivateRedis::start().await;
    let redis = Redis::open(&server.url()).unwrap();
    let (first, mut second) = (shard(&redis).await, shard(&redis).await);
    let mut reader = EventReader::new(redis.clone(), 1);
    while reader.positions() != [Some(0)] {
        reader.next().await;
    }
    first.publish(&[row(1..=3)]).await.unwrap();
    // A new leader does not know how far the one before came.
    second.publish(&[row(1..=3), row(4..=4)]).await.unwrap();
    let mut read = Vec::new();
    while read.len() < 2 {
        read.extend(reader.next().await.into_iter().flat_map(|events| events.rows));
    }
    assert_eq!(read, [row(1..=3), row(4..=4)]);
    assert_eq!(read[0].entries().unwrap().len(), 3);
    assert_eq!(second.published().await.unwrap(), 4);
}
