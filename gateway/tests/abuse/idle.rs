//! Streams on which nothing happens, and then something does.

use bytes::BytesMut;
use contracts::bus::{JournalBatch, JournalEntry};
use gateway::token::Claims;
use serde_json::json;
use testkit::PrivateRedis;

use bus::{EventRow, Redis, RedisShardBus, ShardBus as _};

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, grpc, put};
use crate::memory::Watch;
use crate::neighbour::Neighbour;
use crate::support::{SHARDS, bearer, claims, deposited, framed, nowhere, shard, signed, start_with};

/// How many, unless `IDLE_STREAMS` says so.
const STREAMS: usize = 1_000;
const STREAMS_EACH_CONNECTION: usize = 100;
/// What one may cost, the client's side included: a development build needs 14 KiB.
const BYTES_EACH_MAX: u64 = 48 << 10;

fn account(number: usize) -> String {
    format!("idle-{number}")
}

/// The token of a principal of its own for each connection.
fn authorization(connection: usize) -> String {
    let claims = Claims {
        sub: format!("holder-{connection}"),
        ..claims(&["*"], "view")
    };
    bearer(&signed(&claims))
}

/// Opens the streams of one connection, and waits for their snapshots.
async fn open(gateway: std::net::SocketAddr, connection: usize, count: usize) -> Raw {
    let raw = Raw::open(gateway).await;
    let headers = grpc("TradeService/StreamAccountEvents", &authorization(connection));
    let mut all = BytesMut::new();
    for number in 0..count {
        let stream = u32::try_from(2 * number + 1).unwrap();
        let account = account(connection * STREAMS_EACH_CONNECTION + number);
        let message = json!({"accountId": account, "heartbeatInterval": "60s"});
        put(&mut all, HEADERS, END_HEADERS, stream, &headers);
        let body = framed("TradeService/StreamAccountEvents", &message);
        put(&mut all, DATA, END_STREAM, stream, &body);
    }
    raw.write(&all).await.unwrap();
    raw.until(|seen| seen.messages.len() == count).await;
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_cost_little_and_each_gets_the_next_event() {
    let streams = std::env::var("IDLE_STREAMS").map_or(STREAMS, |count| count.parse().expect("a number"));
    let connections = streams.div_ceil(STREAMS_EACH_CONNECTION);
    let redis = PrivateRedis::start().await;
    let bus = Redis::open(&redis.url()).unwrap();
    let watch = Watch::begin().await;
    let gateway = start_with(nowhere(), |config| {
        config.redis = bus.clone();
        // All of them come from one address here.
        config.limits.address = gateway::Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        };
    })
    .await;
    // What the first calls cost once and for all is not the streams'.
    let neighbour = Neighbour::of(gateway.address).await;
    let empty = watch.held();

    let mut held = Vec::new();
    for connection in 0..connections {
        let count = STREAMS_EACH_CONNECTION.min(streams - connection * STREAMS_EACH_CONNECTION);
        held.push(open(gateway.address, connection, count).await);
    }
    neighbour.goes_on().await;
    let each = (watch.held() - empty) / u64::try_from(streams).unwrap();
    println!(
        "{streams} idle streams on {connections} connections: {each} bytes each, {} KiB in all",
        (watch.held() - empty) >> 10
    );
    assert!(each <= BYTES_EACH_MAX, "{each} bytes each");

    // One deposit for each account, in the journal of its shard, after the seven that the snapshots are of.
    let before = || (1..=7).map(|sequence| deposited(sequence, "somebody")).collect();
    let mut entries: Vec<Vec<JournalEntry>> = (0..SHARDS).map(|_| before()).collect();
    for number in 0..streams {
        let of_shard = &mut entries[shard(&account(number)) as usize];
        let sequence = 1 + of_shard.len() as u64;
        of_shard.push(deposited(sequence, &account(number)));
    }
    for (number, entries) in entries.into_iter().enumerate() {
        let publisher = RedisShardBus::new(
            bus.clone(),
            bus.commands().await.unwrap(),
            u32::try_from(number).unwrap(),
        );
        let batch = JournalBatch {
            entries,
            ..Default::default()
        };
        let rows: Vec<EventRow> = EventRow::of(&batch).into_iter().collect();
        publisher.publish(&rows).await.unwrap();
    }
    for raw in &held {
        raw.until(|seen| seen.messages.values().all(|count| *count == 2)).await;
        assert_eq!((raw.seen().ended, raw.seen().closed), (0, false), "all go on");
    }
    neighbour.leaves().await;
}
