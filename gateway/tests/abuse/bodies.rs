//! Bodies that are too large, too deep or never end.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::frames::{DATA, END_HEADERS, HEADERS, Raw, grpc, put};
use crate::memory::Watch;
use crate::neighbour::{Neighbour, PATIENCE};
use crate::support::{Case, Door, Running, bearer, frame, nowhere, post, raw, start, start_with, token};

/// What is still taken of a body that is refused: what is looked at, and what lies in the sockets of both sides.
const TAKEN_MAX: usize = 16 << 20;

fn order(account_id: &str) -> Case {
    let message =
        json!({"accountId": account_id, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "1", "leverage": "1"});
    let path = format!("/v1/accounts/{account_id}/trades");
    post("TradeService/OpenTrade", &path, &["accountId"], message)
}

/// Writes a head, and then a part again and again until nobody reads it any more; how much was taken, and the answer.
async fn pour(gateway: &Running, head: &str, part: &[u8]) -> (usize, String) {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let answer = tokio::spawn(async move {
        let mut all = Vec::new();
        // A reset is an end, too.
        let _end = tokio::time::timeout(PATIENCE, read.read_to_end(&mut all))
            .await
            .expect("the connection is closed");
        String::from_utf8_lossy(&all).into_owned()
    });
    write.write_all(head.as_bytes()).await.unwrap();
    let mut taken = 0;
    while !answer.is_finished() && taken <= TAKEN_MAX && write.write_all(part).await.is_ok() {
        taken += part.len();
    }
    drop(write);
    (taken, answer.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_refused_at_the_limit_through_every_door() {
    const ATTEMPTS: usize = 10;
    let watch = Watch::begin().await;
    let gateway = start().await;
    let neighbour = Neighbour::of(gateway.address).await;
    let authorization = bearer(&token(&["demo"]));
    let chunk = |payload: &[u8]| {
        let mut all = format!("{:x}\r\n", payload.len()).into_bytes();
        all.extend_from_slice(payload);
        all.extend_from_slice(b"\r\n");
        all
    };
    let name = "/fulcrum.v1.TradeService/OpenTrade";
    // The first frame says that four gigabytes follow.
    let lie = [0, 0xff, 0xff, 0xff, 0xff];
    let mut web = lie.to_vec();
    web.resize(16_000, 0);
    let text = BASE64_STANDARD.encode(&web[..15_999]);
    for (path, media_type, part, says) in [
        (
            "/v1/accounts/demo/trades",
            "application/json",
            vec![b' '; 16_000],
            "BODY_TOO_LARGE",
        ),
        (name, "application/grpc-web+proto", web.clone(), "grpc-status: 8"),
        (name, "application/grpc-web-text", text.into_bytes(), "grpc-status: 8"),
    ] {
        for length in ["transfer-encoding: chunked", "content-length: 1000000000"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\nauthorization: {authorization}\r\n\
                 {length}\r\n\r\n"
            );
            let part = if length.starts_with('t') {
                chunk(&part)
            } else {
                part.clone()
            };
            for _ in 0..ATTEMPTS {
                let (taken, answer) = pour(&gateway, &head, &part).await;
                assert!(
                    taken <= TAKEN_MAX,
                    "{media_type}, {length}: {taken} bytes and more are taken"
                );
                assert!(answer.contains(says), "{media_type}, {length}: {answer}");
            }
        }
    }
    assert!(gateway.engine.of("demo").is_empty());
    neighbour.leaves().await;
    watch.end("bodies without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_sends_message_after_message_ends_at_its_deadline_and_does_not_pile_up() {
    const CONNECTIONS: usize = 10;
    let watch = Watch::begin().await;
    let gateway = start_with(nowhere(), |config| {
        config.deadlines = gateway::Deadlines {
            default: Duration::from_secs(1),
            max: Duration::from_secs(1),
        };
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;
    let headers = grpc("TradeService/OpenTrade", &bearer(&token(&["demo"])));
    let attackers = futures::future::join_all((0..CONNECTIONS).map(|_| async {
        let raw = Raw::open(gateway.address).await;
        let mut first = BytesMut::new();
        put(&mut first, HEADERS, END_HEADERS, 1, &headers);
        raw.write(&first).await.unwrap();
        // Each is an order without anything in it. More than a stream's window must not be sent, and is not what is tried here: 65,535
        // bytes until we have acknowledged that the gateway gives more, which may be before they come or after.
        let mut messages = BytesMut::new();
        messages.put_bytes(0, 5 * 3_000);
        let mut data = BytesMut::new();
        put(&mut data, DATA, 0, 1, &messages);
        for _ in 0..4 {
            raw.write(&data).await.unwrap();
        }
        raw.until(|seen| seen.ended == 1 || seen.closed).await;
        raw
    }))
    .await;
    assert_eq!(attackers.len(), CONNECTIONS);
    assert!(gateway.engine.of("demo").is_empty());
    neighbour.leaves().await;
    watch.end("messages without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_swells_when_it_is_unpacked_is_refused() {
    const ATTEMPTS: usize = 50;
    /// As large as the largest message, and a thousand times that when unpacked.
    const UNPACKED: usize = 60 << 20;
    let zeros = vec![0_u8; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..UNPACKED >> 20 {
        gzip.write_all(&zeros).unwrap();
    }
    let gzip = gzip.finish().unwrap();
    drop(zeros);
    assert!(gzip.len() < 64 * 1024, "{}", gzip.len());
    let mut packed = BytesMut::new();
    packed.put_u8(1);
    packed.put_u32(u32::try_from(gzip.len()).unwrap());
    packed.put_slice(&gzip);
    let packed = packed.freeze();

    let watch = Watch::begin().await;
    let gateway = start().await;
    let neighbour = Neighbour::of(gateway.address).await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str()), ("grpc-encoding", "gzip")];
    for (door, media_type) in [
        (Door::Grpc, "application/grpc"),
        (Door::WebBinary, "application/grpc-web+proto"),
    ] {
        let case = order("demo");
        let all = (0..ATTEMPTS).map(|_| raw(gateway.address, door, &case, media_type, packed.clone(), &headers));
        for (_, outcome) in futures::future::join_all(all).await {
            assert_eq!(
                (outcome.code, outcome.reason()),
                (8, "BODY_TOO_LARGE"),
                "{door:?}: {}",
                outcome.json
            );
        }
    }
    // REST takes no packed bodies at all.
    let packed = [("authorization", authorization.as_str()), ("content-encoding", "gzip")];
    let (answer, _) = raw(
        gateway.address,
        Door::Rest,
        &order("demo"),
        "application/json",
        gzip.into(),
        &packed,
    )
    .await;
    assert_eq!(answer.status.as_u16(), 415);
    assert!(gateway.engine.of("demo").is_empty());
    neighbour.leaves().await;
    watch.end("messages that swell");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_or_repeated_without_end_is_refused() {
    const ATTEMPTS: usize = 20;
    let watch = Watch::begin().await;
    let gateway = start().await;
    let neighbour = Neighbour::of(gateway.address).await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    let deep = |open: &str, inner: &str, close: &str| {
        let depth = 60_000 / (open.len() + close.len());
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for (what, body) in [
        ("arrays", deep("[", "", "]")),
        ("arrays that are not closed", "[".repeat(60_000)),
        ("objects", deep("{\"a\":", "1", "}")),
        (
            "objects in a field there is",
            format!("{{\"symbol\":{}}}", deep("{\"a\":", "1", "}")),
        ),
        (
            "a field again and again",
            format!("{{{}\"symbol\":\"A\"}}", "\"symbol\":\"A\",".repeat(4_000)),
        ),
        ("fields that there are not", {
            let fields: Vec<String> = (0..6_000).map(|number| format!("\"{number}\":1")).collect();
            format!("{{{}}}", fields.join(","))
        }),
        (
            "a number of many digits",
            format!("{{\"margin\":{}}}", "9".repeat(60_000)),
        ),
        (
            "a text of many digits",
            format!("{{\"margin\":\"{}\"}}", "9".repeat(60_000)),
        ),
        (
            "escapes",
            format!("{{\"symbol\":\"{}\"}}", "\\ud83d\\ude00".repeat(5_000)),
        ),
        (
            "halves of escapes",
            format!("{{\"symbol\":\"{}\"}}", "\\ud83d".repeat(10_000)),
        ),
    ] {
        for _ in 0..ATTEMPTS {
            let payload = Bytes::from(body.clone());
            let case = order("demo");
            let (answer, outcome) = raw(
                gateway.address,
                Door::Rest,
                &case,
                "application/json",
                payload,
                &headers,
            )
            .await;
            assert_eq!(
                (answer.status.as_u16(), outcome.code),
                (400, 3),
                "{what}: {}",
                outcome.json
            );
            // An answer is not a copy of what it is about.
            assert!(
                answer.body.len() < 4_096,
                "{what}: {} bytes of answer",
                answer.body.len()
            );
        }
    }
    // Messages in messages, of a field that there is not: 60 KiB of nothing but depth.
    let mut nested = Vec::new();
    while nested.len() < 60_000 {
        nested.extend_from_slice(&[0xa3, 0x06]);
    }
    for door in [Door::Grpc, Door::WebBinary] {
        let media_type = if door == Door::Grpc {
            "application/grpc"
        } else {
            "application/grpc-web"
        };
        let case = order("demo");
        let (_, outcome) = raw(gateway.address, door, &case, media_type, frame(&nested), &headers).await;
        assert_eq!(outcome.code, 3, "{door:?}: {}", outcome.json);
    }
    assert!(gateway.engine.of("demo").is_empty());
    neighbour.leaves().await;
    watch.end("depth and repetition");
}
