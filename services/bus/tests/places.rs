//! The same bus on one Redis, on a master that sentinels name, and on a cluster; and what is left of it when a master is killed.
#![allow(clippy::print_stderr, reason = "what was measured is for people")]

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{
    Addressed, CallError, Caller, CallerOptions, Calls as _, EventReader, EventRow, NotAccepted, Presence as _,
    PricePublisher, PriceReader, Redis, RedisPresence, RedisShardBus, ShardBus as _,
};
use contracts::bus::{JournalBatch, JournalEntry, PriceBatch, Reply, Request, VenueQuote, reply};
use prost::Message as _;
use testkit::{PrivateRedis, PrivateRedisCluster, PrivateSentinels};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Enough that every master of a cluster has some.
const SHARDS: u32 = 8;
/// Nothing here takes so long unless it hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What the bus stands on, and how a master of it is lost.
enum Place {
    One(PrivateRedis),
    Sentinel(PrivateSentinels),
    Cluster(PrivateRedisCluster),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Self::One(redis) => redis.url(),
            Self::Sentinel(set) => set.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    fn redis(&self) -> Redis {
        Redis::open(&self.url()).expect("an address")
    }

    /// Kills the server that has the queue of shard 0. Only one Redis comes back, empty; elsewhere another server takes over.
    async fn lose_a_master(&mut self) {
        match self {
            Self::One(redis) => {
                redis.kill();
                redis.start_again().await;
            }
            Self::Sentinel(set) => {
                let master = set.master().await;
                set.kill(master);
            }
            Self::Cluster(cluster) => {
                let master = cluster.master_of("{s0}:requests").await;
                cluster.kill(master);
            }
        }
    }
}

/// Engines of all shards that answer each request with what it carried.
struct Echo {
    _stops: DropGuard,
}

impl Echo {
    async fn start(redis: &Redis) -> Self {
        let commands = redis.commands().await.expect("Redis is there");
        let stop = CancellationToken::new();
        for number in 0..SHARDS {
            let shard = RedisShardBus::new(redis.clone(), commands.clone(), number);
            let presence = RedisPresence::new(commands.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(echo(number, shard, presence)));
        }
        Self {
            _stops: stop.drop_guard(),
        }
    }
}

async fn echo(number: u32, mut shard: RedisShardBus, presence: RedisPresence) {
    loop {
        let _shown = presence.show(&[number], "echo").await;
        tokio::select! {
            () = shard.wait() => {}
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let Ok(messages) = shard.peek(0, 64).await else {
            continue;
        };
        let requests = messages
            .iter()
            .map(|message| Request::decode(message.clone()).expect("a request"));
        let replies: Vec<_> = requests
            .map(|request| {
                let reply = Reply {
                    correlation_id: request.correlation_id,
                    outcome: Some(reply::Outcome::Response(request.account_id.into())),
                    ..Reply::default()
                };
                Addressed {
                    shard: number,
                    list: request.reply_to,
                    reply,
                }
            })
            .collect();
        // Two gateways' lists in one call, one of them of nobody: in a cluster they are on different nodes.
        let mut all = replies.clone();
        all.extend(replies.into_iter().map(|it| Addressed {
            list: "replies:nobody".to_owned(),
            ..it
        }));
        if shard.reply(&all).await.is_ok() {
            let _trimmed = shard.trim(&messages).await;
        }
    }
}

fn request(shard: u32, text: &str) -> Request {
    Request {
        shard,
        account_id: text.to_owned(),
        ..Request::default()
    }
}

/// Calls until there is an answer, as a client does that was told to try again.
async fn answered(caller: &Caller, shard: u32, text: &str) -> Vec<CallError> {
    let mut before = Vec::new();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < HANGS, "shard {shard} is never answered: {before:?}");
        let deadline = Instant::now() + Duration::from_secs(2);
        match caller.call(request(shard, text), deadline).await {
            Ok(reply) => {
                let said = Some(reply::Outcome::Response(text.as_bytes().to_vec().into()));
                assert_eq!(reply.outcome, said, "the answer to this call and no other");
                return before;
            }
            Err(error) => before.push(error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn row(sequence: u64) -> EventRow {
    let entry = JournalEntry {
        sequence,
        ..JournalEntry::default()
    };
    let batch = JournalBatch {
        entries: vec![entry],
        price_cursor: "7-0".to_owned(),
    };
    EventRow::of(&batch).expect("an entry")
}

fn prices(bid: &str) -> PriceBatch {
    let quote = VenueQuote {
        symbol: "SOL_USDC".to_owned(),
        bid: bid.to_owned(),
        ..VenueQuote::default()
    };
    PriceBatch {
        quotes: vec![quote],
        ..PriceBatch::default()
    }
}

/// Everything the bus does, once.
async fn it_carries(place: &Place) {
    let redis = place.redis();
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    let caller = Caller::start(&redis, CallerOptions::default(), over);
    let mut events = EventReader::new(redis.clone(), SHARDS);
    while events.positions().contains(&None) {
        events.next().await;
    }
    let mut alone = PriceReader::tail(redis.clone(), String::new());
    let mut grouped = PriceReader::grouped(redis.clone(), "group", String::new());
    alone.next().await;
    grouped.next().await;

    let nobody = caller.call(request(0, "?"), Instant::now() + HANGS).await;
    assert_eq!(nobody, Err(CallError::NotAccepted(NotAccepted::NoLeader)));
    let _echo = Echo::start(&redis).await;
    let calls = (0..SHARDS * 4).map(|call| {
        let caller = caller.clone();
        async move { answered(&caller, call % SHARDS, &format!("call {call}")).await }
    });
    futures::future::join_all(calls).await;

    let commands = redis.commands().await.expect("Redis is there");
    for number in 0..SHARDS {
        let mut shard = RedisShardBus::new(redis.clone(), commands.clone(), number);
        shard.publish(&[row(1), row(2)]).await.expect("published");
        shard.publish(&[row(2), row(3)]).await.expect("a repeat is no error");
        assert_eq!(shard.published().await.expect("an answer"), 3);
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 3 * SHARDS as usize {
        for read in events.next().await {
            for row in read.rows {
                assert!(
                    seen.insert((read.shard, row.last)),
                    "shard {} row {} twice",
                    read.shard,
                    row.last
                );
            }
        }
    }

    let mut publisher = PricePublisher::connect(&redis).await.expect("Redis is there");
    publisher.publish(&prices("100")).await.expect("published");
    for reader in [&mut alone, &mut grouped] {
        let mut read = Vec::new();
        while read.is_empty() {
            read = reader.next().await;
        }
        assert_eq!(read[0].batch, prices("100"));
    }
    assert_eq!(bus::prices::newest(&redis, 5).await.expect("an answer").len(), 1);
    assert!(redis.time_us().await.expect("a clock") > 0);
    redis
        .commands()
        .await
        .expect("Redis is there")
        .ping()
        .await
        .expect("pong");
}

/// A master is killed while calls are made; nobody connects anew by hand.
async fn it_carries_again_after_a_master_is_lost(mut place: Place) {
    let redis = place.redis();
    let over = CancellationToken::new();
    let _over = over.clone().drop_guard();
    let caller = Caller::start(&redis, CallerOptions::default(), over);
    let _echo = Echo::start(&redis).await;
    let mut prices_read = PriceReader::tail(redis.clone(), String::new());
    prices_read.next().await;
    let mut events = EventReader::new(redis.clone(), SHARDS);
    while events.positions().contains(&None) {
        events.next().await;
    }
    for shard in 0..SHARDS {
        answered(&caller, shard, "before").await;
    }
    place.lose_a_master().await;
    let lost = Instant::now();
    let calls = (0..SHARDS * 4).map(|call| {
        let caller = caller.clone();
        async move { answered(&caller, call % SHARDS, &format!("call {call}")).await }
    });
    let refused: usize = futures::future::join_all(calls).await.iter().map(Vec::len).sum();
    eprintln!(
        "all shards answer {:?} after the kill, {refused} tries before that",
        lost.elapsed()
    );

    let mut publisher = PricePublisher::connect(&redis).await.expect("Redis is there");
    let mut read = Vec::new();
    while read.is_empty() {
        assert!(lost.elapsed() < HANGS, "prices are never read again");
        let _away = publisher.publish(&prices("101")).await;
        read = prices_read.next().await;
    }
    let commands = redis.commands().await.expect("Redis is there");
    let mut missing: BTreeSet<u32> = (0..SHARDS).collect();
    for number in 0..SHARDS {
        let shard = RedisShardBus::new(redis.clone(), commands.clone(), number);
        while shard.publish(&[row(9)]).await.is_err() {
            assert!(
                lost.elapsed() < HANGS,
                "events of shard {number} are never published again"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    while !missing.is_empty() {
        assert!(lost.elapsed() < HANGS, "events of {missing:?} are never read again");
        for read in events.next().await {
            missing.remove(&read.shard);
        }
    }
}

#[tokio::test]
async fn one_redis_carries_the_bus_and_again_when_it_lost_everything() {
    let place = Place::One(PrivateRedis::start().await);
    it_carries(&place).await;
    it_carries_again_after_a_master_is_lost(place).await;
}

#[tokio::test]
async fn a_sentinel_set_carries_the_bus_and_again_when_its_master_was_killed() {
    let place = Place::Sentinel(PrivateSentinels::start().await);
    it_carries(&place).await;
    it_carries_again_after_a_master_is_lost(place).await;
}

#[tokio::test]
async fn a_cluster_carries_the_bus_and_again_when_a_master_was_killed() {
    let place = Place::Cluster(PrivateRedisCluster::start().await);
    it_carries(&place).await;
    it_carries_again_after_a_master_is_lost(place).await;
}
