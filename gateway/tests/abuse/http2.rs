//! HTTP/2 as it should not be spoken.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use futures::future::join_all;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, REFUSED_STREAM, RST_STREAM,
    Raw, SETTINGS, grpc, grpc_to, put, put_length,
};
use crate::memory::Watch;
use crate::neighbour::{self, Neighbour};
use crate::support::{Running, bearer, framed, nowhere, start_with, token};

/// Longer than any story: what waits for its deadline still waits at the end.
fn patient(config: &mut gateway::Config) {
    let long = Duration::from_secs(3_600);
    config.deadlines = gateway::Deadlines {
        default: long,
        max: long,
    };
}

/// A gateway whose limits of calls an attacker never reaches: what holds then does not hold because of those.
async fn gateway(change: impl FnOnce(&mut gateway::Config)) -> Running {
    start_with(nowhere(), |config| {
        let boundless = gateway::Rate {
            per_second: 1_000_000,
            burst: 1_000_000,
        };
        (config.limits.address, config.limits.principal) = (boundless, boundless);
        change(config);
    })
    .await
}

fn order() -> String {
    bearer(&token(&["stuck"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_costs_the_connection_it_comes_on() {
    const CONNECTIONS: usize = 20;
    const STREAMS: u32 = 2_000;
    let watch = Watch::begin().await;
    let gateway = gateway(|_| {}).await;
    let neighbour = Neighbour::of(gateway.address).await;

    let headers = grpc("TradeService/OpenTrade", &order());
    let body = framed(
        "TradeService/OpenTrade",
        &json!({"accountId": "stuck", "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "1", "leverage": "1"}),
    );
    let mut burst = BytesMut::new();
    for stream in (0..STREAMS).map(|it| 2 * it + 1) {
        put(&mut burst, HEADERS, END_HEADERS, stream, &headers);
        put(&mut burst, DATA, END_STREAM, stream, &body);
        put(&mut burst, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    }
    put(&mut burst, PING, 0, 0, &[0; 8]);
    let attackers = join_all((0..CONNECTIONS).map(|_| async {
        let raw = Raw::open(gateway.address).await;
        // It may be closed in the middle of it. The ping is answered, if it is, once all of it was read.
        let _cut = raw.write(&burst).await;
        raw
    }))
    .await;
    for raw in &attackers {
        raw.until(|seen| seen.closed || seen.pongs > 0).await;
        let goaway = raw.seen().goaway;
        assert!(matches!(goaway, Some(ENHANCE_YOUR_CALM) | None), "{:?}", raw.seen());
    }
    let told = attackers.iter().filter(|raw| raw.seen().goaway.is_some()).count();
    assert!(told > 0, "not one of them was told to be calm");
    let reached = gateway.engine.of("stuck").len();
    println!(
        "{told} of {CONNECTIONS} connections were told why; {reached} orders of {}",
        CONNECTIONS as u32 * STREAMS
    );
    // On a connection that was cut off no more than may run at once.
    let most = told * 100 + (CONNECTIONS - told) * STREAMS as usize;
    assert!(reached <= most, "{reached} orders, at most {most}");
    neighbour.leaves().await;
    watch.end("rapid reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_past_the_limit_are_refused_and_those_without_a_request_end_at_the_deadline() {
    const CONNECTIONS: u64 = 50;
    const OPEN: u64 = 100;
    const MORE: u64 = 40;
    /// What a call costs that waits for its request, in a development build twice what it needs.
    const BYTES_EACH_MAX: u64 = 56 << 10;
    let watch = Watch::begin().await;
    let gateway = gateway(|config| {
        config.deadlines = gateway::Deadlines {
            default: Duration::from_secs(4),
            max: Duration::from_secs(4),
        };
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;

    // Half of the calls would be answered with a stream, which has no deadline unless it asks for one.
    for method in ["TradeService/OpenTrade", "TradeService/StreamAccountEvents"] {
        let headers = grpc(method, &order());
        let mut flood = BytesMut::new();
        for stream in (0..OPEN + MORE).map(|it| u32::try_from(2 * it + 1).unwrap()) {
            put(&mut flood, HEADERS, END_HEADERS, stream, &headers);
        }
        let attackers = join_all((0..CONNECTIONS).map(|_| async {
            let raw = Raw::open(gateway.address).await;
            raw.write(&flood).await.expect("it is read");
            raw
        }))
        .await;
        for raw in &attackers {
            raw.until(|seen| seen.resets.get(&REFUSED_STREAM) == Some(&MORE)).await;
            raw.until(|seen| seen.ended >= OPEN).await;
            assert_eq!(
                (raw.seen().answered, raw.seen().closed),
                (OPEN, false),
                "{:?}",
                raw.seen()
            );
        }
    }
    assert_eq!(gateway.engine.of("stuck").len(), 0);
    neighbour.leaves().await;
    let most = CONNECTIONS * OPEN * BYTES_EACH_MAX;
    watch.end_within("thousands of streams that never say what they want", most);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_limited_by_address_and_the_rest_is_told_to_come_back() {
    const CONNECTIONS: u64 = 10;
    const EACH: u64 = 100;
    /// Of 400 in all: a quarter.
    const WAITING: u64 = 100;
    let watch = Watch::begin().await;
    let gateway = gateway(|config| {
        patient(config);
        config.calls.in_flight_max = 400;
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;
    let headers = grpc("TradeService/OpenTrade", &order());
    let mut flood = BytesMut::new();
    for stream in (0..EACH).map(|it| u32::try_from(2 * it + 1).unwrap()) {
        put(&mut flood, HEADERS, END_HEADERS, stream, &headers);
    }
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        let raw = Raw::open(gateway.address).await;
        raw.write(&flood).await.unwrap();
        attackers.push(raw);
    }
    let ended = || attackers.iter().map(|raw| raw.seen().ended).sum::<u64>();
    while ended() < CONNECTIONS * EACH - WAITING {
        neighbour.goes_on().await;
    }
    assert_eq!(
        ended(),
        CONNECTIONS * EACH - WAITING,
        "those that have a place wait for their request"
    );
    neighbour.leaves().await;
    watch.end("calls that wait, from one address");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_rest_that_do_not_come_are_waited_for_in_small_numbers() {
    const CONNECTIONS: u32 = 10;
    const EACH: u32 = 100;
    const READ: u64 = 500;
    /// Each sends almost all that is looked at, and then nothing.
    const BODY: usize = 60_000;
    let watch = Watch::begin().await;
    let gateway = gateway(patient).await;
    let neighbour = Neighbour::of(gateway.address).await;
    let headers = crate::frames::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/accounts/demo/trades"),
        (":authority", "x"),
        ("content-type", "application/json"),
    ]);
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        let raw = Raw::open(gateway.address).await;
        for stream in (0..EACH).map(|it| 2 * it + 1) {
            let mut all = BytesMut::new();
            put(&mut all, HEADERS, END_HEADERS, stream, &headers);
            raw.write(&all).await.unwrap();
        }
        attackers.push(raw);
    }
    let answered = || attackers.iter().map(|raw| raw.seen().answered).sum::<u64>();
    while answered() < u64::from(CONNECTIONS * EACH) - READ {
        neighbour.goes_on().await;
    }
    // Those that were let in send what they have: the windows of the connections are wide enough for eight of them.
    let mut part = BytesMut::new();
    for raw in &attackers {
        let waiting: Vec<u32> = (0..EACH)
            .map(|it| 2 * it + 1)
            .filter(|it| !raw.seen().streams.contains(it))
            .collect();
        for stream in waiting.into_iter().take(8) {
            part.clear();
            for _ in 0..BODY / 15_000 {
                put(&mut part, DATA, 0, stream, &vec![b' '; 15_000]);
            }
            raw.write(&part).await.unwrap();
        }
    }
    neighbour.goes_on().await;
    assert_eq!(
        answered(),
        u64::from(CONNECTIONS * EACH) - READ,
        "and the others were told to come back"
    );
    neighbour.leaves().await;
    watch.end("bodies of REST that do not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_all_places_for_streams() {
    let watch = Watch::begin().await;
    let gateway = gateway(|config| (config.streams.count_max, config.streams.principal_max) = (60, 40)).await;
    let neighbour = Neighbour::of(gateway.address).await;

    let raw = Raw::open(gateway.address).await;
    let body = framed("TradeService/StreamAccountEvents", &json!({"accountId": "demo"}));
    let headers = grpc("TradeService/StreamAccountEvents", &bearer(&token(&["demo"])));
    let mut all = BytesMut::new();
    for stream in (0..100).map(|it| 2 * it + 1) {
        put(&mut all, HEADERS, END_HEADERS, stream, &headers);
        put(&mut all, DATA, END_STREAM, stream, &body);
    }
    raw.write(&all).await.unwrap();
    raw.until(|seen| seen.answered == 100 && seen.messages.len() == 40)
        .await;
    assert_eq!(raw.seen().ended, 60, "refused at once: {:?}", raw.seen());

    let stream = TokioIo::new(neighbour::connect(gateway.address).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let message = json!({"accountId": "calm"});
    let mut streams = Vec::new();
    for _ in 0..20 {
        let asked = neighbour::ask(
            &mut sender,
            gateway.address,
            "TradeService/StreamAccountEvents",
            &message,
        );
        let mut body = asked.await.into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data(), "a snapshot");
        streams.push(body);
    }
    neighbour.leaves().await;
    watch.end("a hundred streams of one principal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_asks_for_no_token_can_be_left_open_only_so_often() {
    let watch = Watch::begin().await;
    let gateway = gateway(|_| {}).await;
    let neighbour = Neighbour::of(gateway.address).await;

    let empty = crate::support::frame(&[]);
    let mut flood = BytesMut::new();
    for stream in (0..100).map(|it| 2 * it + 1) {
        put(
            &mut flood,
            HEADERS,
            END_HEADERS,
            stream,
            &grpc_to("/grpc.health.v1.Health/Watch", ""),
        );
        put(&mut flood, DATA, END_STREAM, stream, &empty);
    }
    let mut open = 0;
    let mut attackers = Vec::new();
    for _ in 0..3 {
        let raw = Raw::open(gateway.address).await;
        raw.write(&flood).await.unwrap();
        raw.until(|seen| seen.answered == 100).await;
        open += 100 - raw.seen().ended;
        attackers.push(raw);
    }
    assert_eq!(open, 100, "as many as one address may have");
    // Whoever asks once is answered all the same, also from there.
    let raw = Raw::open(gateway.address).await;
    let mut check = BytesMut::new();
    put(
        &mut check,
        HEADERS,
        END_HEADERS,
        1,
        &grpc_to("/grpc.health.v1.Health/Check", ""),
    );
    put(&mut check, DATA, END_STREAM, 1, &empty);
    raw.write(&check).await.unwrap();
    raw.until(|seen| seen.messages.get(&1) == Some(&1)).await;
    drop(attackers);
    // Their places are free again.
    let raw = loop {
        let raw = Raw::open(gateway.address).await;
        raw.write(&flood).await.unwrap();
        raw.until(|seen| seen.answered == 100).await;
        if raw.seen().ended == 0 {
            break raw;
        }
    };
    drop(raw);
    neighbour.leaves().await;
    watch.end("health, watched by one who wants nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cost_nothing_to_send_cost_little_to_get() {
    const FRAMES: usize = 100_000;
    let watch = Watch::begin().await;
    let gateway = gateway(|_| {}).await;
    let neighbour = Neighbour::of(gateway.address).await;
    let mut setting = BytesMut::new();
    // SETTINGS_MAX_CONCURRENT_STREAMS.
    setting.put_u16(3);
    setting.put_u32(1);
    for (what, kind, flags, payload) in [
        ("pings", PING, 0, &[0; 8][..]),
        ("answers to pings that nobody sent", PING, ACK, &[1; 8][..]),
        ("settings", SETTINGS, 0, &setting[..]),
        ("frames of a kind that there is not", 0x42, 0, &[0; 8][..]),
    ] {
        let mut flood = BytesMut::new();
        for _ in 0..FRAMES {
            put(&mut flood, kind, flags, 0, payload);
        }
        let raw = Raw::mute(gateway.address).await;
        let written = raw.write(&flood).await;
        println!("{what}: all read: {}", written.is_ok());
        neighbour.goes_on().await;
    }
    // On a stream that is open: data frames without data.
    let raw = Raw::open(gateway.address).await;
    let mut flood = BytesMut::new();
    put(
        &mut flood,
        HEADERS,
        END_HEADERS,
        1,
        &grpc("TradeService/OpenTrade", &order()),
    );
    for _ in 0..FRAMES {
        put(&mut flood, DATA, 0, 1, &[]);
    }
    let _cut = raw.write(&flood).await;
    raw.until(|seen| seen.closed || seen.answered == 1).await;
    neighbour.leaves().await;
    watch.end("five floods of frames");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_cut_off() {
    const ATTEMPTS: usize = 20;
    /// What is still read: a few frames, and what lies in the sockets of both sides.
    const TAKEN_MAX: usize = 16 << 20;
    let watch = Watch::begin().await;
    let gateway = gateway(|_| {}).await;
    let neighbour = Neighbour::of(gateway.address).await;
    for _ in 0..ATTEMPTS {
        let raw = Raw::open(gateway.address).await;
        let mut frames = BytesMut::new();
        put(&mut frames, HEADERS, 0, 1, &grpc("TradeService/OpenTrade", &order()));
        let part = crate::frames::block(&[("x-part", &"a".repeat(16_000))]);
        let mut taken = 0;
        while raw.write(&frames).await.is_ok() && taken <= TAKEN_MAX {
            taken += frames.len();
            frames.clear();
            put(&mut frames, CONTINUATION, 0, 1, &part);
        }
        assert!(taken <= TAKEN_MAX, "{taken} bytes of headers and more are taken");
        raw.until(|seen| seen.closed).await;
    }
    neighbour.leaves().await;
    watch.end("headers without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_swell_are_never_unpacked() {
    const ATTEMPTS: u32 = 50;
    let watch = Watch::begin().await;
    let gateway = gateway(|_| {}).await;
    let neighbour = Neighbour::of(gateway.address).await;
    for _ in 0..ATTEMPTS {
        let raw = Raw::open(gateway.address).await;
        let mut headers = grpc("TradeService/OpenTrade", &order());
        // Put into the table once: 4,000 bytes.
        headers.put_u8(0x40);
        put_length(&mut headers, 1);
        headers.put_slice(b"x");
        put_length(&mut headers, 3_900);
        headers.put_bytes(b'a', 3_900);
        // Named from there 9,000 times, a byte each: 36 MB.
        headers.put_bytes(0x80 | 62, 9_000);
        let mut frames = BytesMut::new();
        put(&mut frames, HEADERS, END_HEADERS | END_STREAM, 1, &headers);
        raw.write(&frames).await.unwrap();
        raw.until(|seen| seen.answered == 1 || !seen.resets.is_empty() || seen.closed)
            .await;
    }
    assert_eq!(gateway.engine.of("stuck").len(), 0);
    neighbour.leaves().await;
    watch.end("headers that swell");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_too_large_are_answered_with_431() {
    let watch = Watch::begin().await;
    let gateway = gateway(|_| {}).await;
    let neighbour = Neighbour::of(gateway.address).await;
    let large = "a".repeat(12_000);
    let many: Vec<String> = (0..400).map(|number| format!("x-{number}")).collect();
    for http2 in [true, false] {
        let base = || http::Request::get(format!("http://{}/v1/instruments", gateway.address)).header("host", "x");
        // HTTP/1.1 has 64 KiB for all of them.
        let value = if http2 { large.clone() } else { large.repeat(8) };
        let one = base().header("x-large", value).body(bytes::Bytes::new()).unwrap();
        let several = many
            .iter()
            .fold(base(), |request, name| request.header(name, "some text"));
        let several = several.body(bytes::Bytes::new()).unwrap();
        for request in [one, several] {
            let answer = crate::support::send(gateway.address, http2, request).await;
            assert_eq!(answer.status.as_u16(), 431, "http2: {http2}");
        }
    }
    neighbour.leaves().await;
    watch.end("headers too large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_silent_in_the_middle_of_its_headers_is_let_go() {
    const CONNECTIONS: usize = 200;
    let watch = Watch::begin().await;
    let gateway = gateway(|config| {
        config.connections.first_request = Duration::from_millis(500);
        config.connections.ping_every = Duration::from_millis(200);
        config.connections.ping_timeout = Duration::from_millis(300);
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;
    let mut whole = BytesMut::new();
    put(
        &mut whole,
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &grpc_to("/nowhere/Nothing", ""),
    );
    let mut half = BytesMut::new();
    put(&mut half, HEADERS, 0, 3, &grpc("TradeService/OpenTrade", &order()));
    put(&mut half, CONTINUATION, 0, 3, &crate::frames::block(&[("x-a", "b")]));
    let attackers = join_all((0..CONNECTIONS).map(|number| {
        let (whole, half) = (&whole, &half);
        let address = gateway.address;
        async move {
            let raw = Raw::mute(address).await;
            // Every second one has made a call before, and is not new any more.
            if number % 2 == 0 {
                raw.write(whole).await.unwrap();
                raw.until(|seen| seen.answered == 1).await;
            }
            raw.write(half).await.unwrap();
            raw
        }
    }))
    .await;
    for raw in &attackers {
        raw.until(|seen| seen.closed).await;
    }
    neighbour.leaves().await;
    watch.end("silence in the middle of headers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_no_sign_of_life_is_let_go_and_one_that_does_stays() {
    let watch = Watch::begin().await;
    let gateway = gateway(|config| {
        config.connections.ping_every = Duration::from_millis(200);
        config.connections.ping_timeout = Duration::from_millis(300);
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;
    let mut stream = BytesMut::new();
    let headers = grpc("TradeService/StreamAccountEvents", &bearer(&token(&["demo"])));
    put(&mut stream, HEADERS, END_HEADERS, 1, &headers);
    let body = framed(
        "TradeService/StreamAccountEvents",
        &json!({"accountId": "demo", "heartbeatInterval": "1s"}),
    );
    put(&mut stream, DATA, END_STREAM, 1, &body);
    let (mute, alive) = (Raw::mute(gateway.address).await, Raw::open(gateway.address).await);
    for raw in [&mute, &alive] {
        raw.write(&stream).await.unwrap();
        raw.until(|seen| seen.messages.get(&1).is_some_and(|count| *count >= 1))
            .await;
    }
    mute.until(|seen| seen.closed).await;
    alive.until(|seen| seen.messages[&1] >= 3).await;
    assert!(!alive.seen().closed);
    neighbour.leaves().await;
    watch.end("no sign of life");
}
