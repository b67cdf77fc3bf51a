//! Streams as their clients meet them.

use std::time::{Duration, Instant};

use contracts::v1::stream_account_events_response::Event;
use serde_json::json;

use crate::support::{Case, Door, bearer, call, call_stream, get, nowhere, send, start, start_with, token};

fn events(account_id: &str) -> Case {
    let message = json!({"accountId": account_id, "heartbeatInterval": "1s"});
    let path = format!("/v1/accounts/{account_id}/events:stream?heartbeatInterval=1s");
    get("TradeService/StreamAccountEvents", &path, message)
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
    assert_eq!(answer.messages.len(), 3, "{:?}", answer.messages);
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
