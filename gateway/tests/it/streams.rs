//! Streams as their clients meet them.

use std::time::{Duration, Instant};

use bus::{EventRow, PricePublisher, Redis, RedisShardBus, ShardBus as _};
use contracts::bus::{JournalBatch, JournalEntry, PriceBatch, VenueQuote};
use contracts::v1::{self, stream_account_events_response::Event};
use serde_json::json;
use testkit::{PrivatePostgres, PrivateRedis};

use crate::history::{fill, journal};
use crate::support::{
    Case, Door, Streamed, bearer, call, call_messages, call_stream, deposited, get, nowhere, send, shard, start,
    start_with, token,
};

fn events(account_id: &str) -> Case {
    let message = json!({"accountId": account_id, "heartbeatInterval": "1s"});
    let path = format!("/v1/accounts/{account_id}/events:stream?heartbeatInterval=1s");
    get("TradeService/StreamAccountEvents", &path, message)
}

/// One row of the journal.
fn rows<const N: usize>(entries: [JournalEntry; N]) -> Vec<EventRow> {
    let batch = JournalBatch {
        entries: entries.into(),
        ..Default::default()
    };
    EventRow::of(&batch).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_starts_with_a_snapshot_and_then_beats() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "2500m")];
    let answer = call_stream(gateway.address, &events("demo"), &headers).await;
    let Some(Event::Snapshot(snapshot)) = &answer.messages[0].event else {
        panic!("a snapshot first")
    };
    assert_eq!((snapshot.as_of_sequence, snapshot.open_trades.len()), (7, 1));
    assert!((2..=3).contains(&answer.messages.len()), "{:?}", answer.messages);
    for beat in &answer.messages[1..] {
        let Some(Event::Heartbeat(heartbeat)) = &beat.event else {
            panic!("a heartbeat")
        };
        assert_eq!((beat.sequence, heartbeat.last_sequence), (7, 7));
    }
    assert_eq!((answer.code, answer.reason.as_str()), (4, "EXPIRED"));
    assert!(
        answer.headers_after < Duration::from_millis(900),
        "headers go out at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_stream_comes_as_server_sent_events() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let request = http::Request::get(format!("http://{}{}", gateway.address, events("demo").path))
        .header("host", "x")
        .header("accept", "text/event-stream")
        .header("authorization", &authorization)
        .header("x-request-timeout", "1500ms");
    let answer = send(gateway.address, false, request.body(bytes::Bytes::new()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(
        text.contains("id: 7") && text.contains("\"snapshot\"") && text.contains("\"heartbeat\""),
        "{text}"
    );
    assert!(text.contains("EXPIRED"), "the end is told: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_start_has_a_real_status() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo", "away"]));
    let headers = [("authorization", authorization.as_str())];
    let (answer, outcome) = call(gateway.address, Door::Rest, &events("away"), &headers).await;
    assert_eq!((answer.status.as_u16(), outcome.reason()), (503, "NOT_ACCEPTED"));
    let (answer, _) = call(
        gateway.address,
        Door::Rest,
        &get("x/y", "/v1/quotes:stream?symbols=NO", json!({})),
        &headers,
    )
    .await;
    assert_eq!(answer.status.as_u16(), 404);
    let answer = call_stream(gateway.address, &events("away"), &headers).await;
    assert_eq!((answer.code, answer.reason.as_str()), (14, "NOT_ACCEPTED"));
    let resumed = Case {
        message: json!({"accountId": "demo", "resumeAfterSequence": "3"}),
        ..events("demo")
    };
    let answer = call_stream(gateway.address, &resumed, &headers).await;
    assert_eq!(
        (answer.code, answer.reason.as_str()),
        (14, "HISTORY_BEHIND"),
        "without a database nothing is replayed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_unavailable_when_the_server_leaves() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let address = gateway.address;
    let stream =
        tokio::spawn(async move { call_stream(address, &events("demo"), &[("authorization", &authorization)]).await });
    while gateway.engine.of("demo").is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    gateway.shutdown.cancel();
    let answer = stream.await.unwrap();
    assert_eq!((answer.code, answer.reason.as_str()), (14, "NOT_ACCEPTED"));
    assert_eq!(answer.messages.len(), 1, "what was told before is not lost");
    gateway.served.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_unavailable_when_their_connections_time_is_over_and_go_on_over_another() {
    let aged = |config: &mut gateway::Config| {
        config.connections.age_max = Duration::from_millis(300);
        config.connections.age_grace = Duration::from_millis(300);
    };
    let gateway = start_with(nowhere(), aged).await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    for _ in 0..2 {
        let answer = call_stream(gateway.address, &events("demo"), &headers).await;
        assert_eq!((answer.code, answer.reason.as_str()), (14, "NOT_ACCEPTED"));
        assert!(
            matches!(answer.messages[0].event, Some(Event::Snapshot(_))),
            "{answer:?}"
        );
    }
    // The same over SSE: the event's id is where to go on.
    let request = http::Request::get(format!("http://{}{}", gateway.address, events("demo").path))
        .header("host", "x")
        .header("accept", "text/event-stream")
        .header("authorization", &authorization);
    let answer = send(gateway.address, false, request.body(bytes::Bytes::new()).unwrap()).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(
        text.contains("id: 7") && text.contains("NOT_ACCEPTED") && text.contains("RetryInfo"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_place_for_so_many_streams() {
    let gateway = start_with(nowhere(), |config| config.streams.count_max = 1).await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "1500m")];
    let case = events("demo");
    let (first, second) = tokio::join!(
        call_stream(gateway.address, &case, &headers),
        call_stream(gateway.address, &case, &headers),
    );
    let mut codes = [first.code, second.code];
    codes.sort_unstable();
    assert_eq!(
        codes,
        [4, 8],
        "one waits for its deadline, the other is told that there is no room"
    );
    let third = call_stream(gateway.address, &case, &headers).await;
    assert_eq!(third.code, 4, "the place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_wait_for_the_first_one() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "300m")];
    let case = get("MarketService/StreamQuotes", "", json!({"symbols": ["SOL_USDC"]}));
    let answer = call_stream(gateway.address, &case, &headers).await;
    assert_eq!((answer.code, answer.messages.len()), (4, 0));
    let wrong = Case {
        message: json!({"symbols": vec!["A"; 101], "conflationInterval": "61s"}),
        ..case
    };
    let answer = call_stream(gateway.address, &wrong, &headers).await;
    assert_eq!((answer.code, answer.reason.as_str()), (3, "INVALID_FIELD"));
}

/// Sequences told, without heartbeats.
fn told(streamed: &Streamed) -> Vec<u64> {
    let beats = |it: &&v1::StreamAccountEventsResponse| !matches!(it.event, Some(Event::Heartbeat(_)));
    streamed.messages.iter().filter(beats).map(|it| it.sequence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_entries_are_told_and_what_redis_lost_comes_from_the_journal() {
    let (redis, postgres) = (PrivateRedis::start().await, PrivatePostgres::migrated().await);
    fill(&postgres.pool()).await;
    let bus = Redis::open(&redis.url()).unwrap();
    let gateway = start_with(postgres.pool(), |config| config.redis = bus.clone()).await;
    let authorization = bearer(&token(&["demo"]));
    let address = gateway.address;
    let stream = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "4S")];
        call_stream(address, &events("demo"), &headers).await
    });
    while gateway.engine.of("demo").is_empty() {
        tokio::task::yield_now().await;
    }
    let shard = shard("demo");
    let mut publisher = RedisShardBus::new(bus.clone(), bus.commands().await.unwrap(), shard);
    // The snapshot is of 7. 8 is somebody else's, 9 to 11 never reach Redis, and 9 and 11 are ours.
    publisher.publish(&rows([deposited(8, "other")])).await.unwrap();
    journal(&postgres.pool(), i32::try_from(shard).unwrap(), 10, 11).await;
    publisher
        .publish(&rows([deposited(12, "demo"), deposited(13, "demo")]))
        .await
        .unwrap();
    // What was told once is not told again.
    publisher.discard_events().await.unwrap();
    publisher
        .publish(&rows([
            deposited(12, "demo"),
            deposited(13, "demo"),
            deposited(14, "demo"),
        ]))
        .await
        .unwrap();
    let streamed = stream.await.unwrap();
    assert_eq!(told(&streamed), [7, 9, 11, 12, 13, 14], "{streamed:?}");
    let last = streamed.messages.last().unwrap();
    let Some(Event::Heartbeat(beat)) = &last.event else {
        panic!("a heartbeat at the end: {last:?}")
    };
    assert_eq!(beat.last_sequence, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_before_redis_was_there_is_told_of_a_gap_and_never_left_in_silence() {
    let mut redis = PrivateRedis::start().await;
    let bus = Redis::open(&redis.url()).unwrap();
    // Published before the gateway could see it, and after the snapshot of 7.
    redis.kill();
    let gateway = start_with(nowhere(), |config| config.redis = bus.clone()).await;
    let authorization = bearer(&token(&["demo"]));
    let address = gateway.address;
    let stream = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "30S")];
        call_stream(address, &events("demo"), &headers).await
    });
    while gateway.engine.of("demo").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    redis.start_again().await;
    let publisher = RedisShardBus::new(bus.clone(), bus.commands().await.unwrap(), shard("demo"));
    publisher.publish(&rows([deposited(8, "demo")])).await.unwrap();
    let streamed = stream.await.unwrap();
    let Some(Event::Gap(gap)) = &streamed.messages.last().unwrap().event else {
        panic!("a gap: {streamed:?}")
    };
    assert_eq!((streamed.code, gap.resume_after_sequence), (0, 7), "{streamed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_that_nobody_can_fill_is_said_with_the_place_to_resume() {
    let (redis, postgres) = (PrivateRedis::start().await, PrivatePostgres::migrated().await);
    fill(&postgres.pool()).await;
    let bus = Redis::open(&redis.url()).unwrap();
    let gateway = start_with(postgres.pool(), |config| config.redis = bus.clone()).await;
    let authorization = bearer(&token(&["demo"]));
    let address = gateway.address;
    let stream = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "4S")];
        call_stream(address, &events("demo"), &headers).await
    });
    while gateway.engine.of("demo").is_empty() {
        tokio::task::yield_now().await;
    }
    let publisher = RedisShardBus::new(bus.clone(), bus.commands().await.unwrap(), shard("demo"));
    publisher.publish(&rows([deposited(8, "demo")])).await.unwrap();
    // 10 and 11 are in no journal, though what follows is.
    journal(&postgres.pool(), i32::try_from(shard("demo")).unwrap(), 12, 12).await;
    publisher.publish(&rows([deposited(12, "demo")])).await.unwrap();
    let streamed = stream.await.unwrap();
    assert_eq!((streamed.code, told(&streamed)), (0, vec![7, 8, 9, 9]), "{streamed:?}");
    let Some(Event::Gap(gap)) = &streamed.messages.last().unwrap().event else {
        panic!("a gap: {streamed:?}")
    };
    assert_eq!(gap.resume_after_sequence, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_start_with_the_newest_and_skip_what_a_reader_cannot_use() {
    let redis = PrivateRedis::start().await;
    let bus = Redis::open(&redis.url()).unwrap();
    let mut publisher = PricePublisher::connect(&bus).await.unwrap();
    let now_us = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
    let batch = |bid: &str, ask: &str, update_id: u64| PriceBatch {
        quotes: vec![VenueQuote {
            symbol: "SOL_USDC".into(),
            bid: bid.into(),
            ask: ask.into(),
            venue_time_us: now_us + update_id,
            update_id,
            ..Default::default()
        }],
        ..Default::default()
    };
    publisher.publish(&batch("199.999", "200.011", 1)).await.unwrap();
    let gateway = start_with(nowhere(), |config| config.redis = bus.clone()).await;
    let authorization = bearer(&token(&["demo"]));
    let address = gateway.address;
    let stream = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "2500m")];
        let case = get("MarketService/StreamQuotes", "", json!({"conflationInterval": "1s"}));
        call_messages::<v1::StreamQuotesResponse>(address, &case, &headers).await
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    publisher.publish(&batch("201", "200", 2)).await.unwrap();
    for update_id in 3..50 {
        publisher.publish(&batch("205", "206", update_id)).await.unwrap();
    }
    let (quotes, code, _) = stream.await.unwrap();
    let quotes: Vec<v1::Quote> = quotes.into_iter().filter_map(|it| it.quote).collect();
    let seen: Vec<_> = quotes
        .iter()
        .map(|it| (it.bid.as_str(), it.ask.as_str(), it.update_id))
        .collect();
    assert_eq!(
        (code, seen),
        (4, vec![("199.99", "200.02", 1), ("205.00", "206.00", 49)])
    );
    assert!(quotes.iter().all(|quote| quote.state() == v1::QuoteState::Fresh));
}
