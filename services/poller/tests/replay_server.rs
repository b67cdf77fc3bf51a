//! The replay server's side of the protocol, over a byte pipe with paused time.

use std::io::Write as _;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use poller::replay::{Hall, PING_EVERY, PING_FIRST, PONG_WITHIN};
use poller::{Playback, Speed, TapeSource, VenueTime};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

/// How long anything expected may take; paused time makes it cheap.
const PATIENCE: Duration = Duration::from_secs(3_600);

type Client = WebSocketStream<DuplexStream>;

async fn connect(hall: &Hall, shutdown: &CancellationToken) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(hall.clone().serve(far, shutdown.clone()));
    client_async("ws://replay/", near).await.expect("an upgrade").0
}

async fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).await.expect("the server reads");
}

/// The next text; pings are answered by the library in passing.
async fn text(client: &mut Client) -> String {
    loop {
        match timeout(PATIENCE, client.next())
            .await
            .expect("in time")
            .expect("open")
            .expect("well-formed")
        {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn tape(content: &str) -> (tempfile::NamedTempFile, Playback) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    let tape = TapeSource::File(file.path().to_owned());
    (
        file,
        Playback {
            tape,
            repeat: false,
            venue_time: VenueTime::Recorded,
            ..Playback::default()
        },
    )
}

const QUOTES: &str = "ts_us,symbol,bid,bid_qty,ask,ask_qty
1000000,SOL_USDC,143.53,58.157,143.54,205.146
2000000,BTC_USDC,87232.00,2.42385,87232.01,2.64517
3000000,SOL_USDC,143.54,58.157,143.55,1
";
const SOL_1: &str = r#"{"data":{"A":"205.146","B":"58.157","E":1000000,"T":1000000,"a":"143.54","b":"143.53","e":"bookTicker","s":"SOL_USDC","u":1},"stream":"bookTicker.SOL_USDC"}"#;
const BTC_2: &str = r#"{"data":{"A":"2.64517","B":"2.42385","E":2000000,"T":2000000,"a":"87232.01","b":"87232.00","e":"bookTicker","s":"BTC_USDC","u":2},"stream":"bookTicker.BTC_USDC"}"#;
const SOL_3: &str = r#"{"data":{"A":"1","B":"58.157","E":3000000,"T":3000000,"a":"143.55","b":"143.54","e":"bookTicker","s":"SOL_USDC","u":3},"stream":"bookTicker.SOL_USDC"}"#;

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_its_streams_and_no_acknowledgement() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let (_file, playback) = tape(QUOTES);
    let mut solana = connect(&hall, &shutdown).await;
    let mut both = connect(&hall, &shutdown).await;
    say(
        &mut both,
        r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC","bookTicker.BTC_USDC","bookTicker.BTC_USDC"]}"#,
    )
    .await;
    say(
        &mut solana,
        r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC"]}"#,
    )
    .await;
    // Both are heard before the tape begins.
    sleep(Duration::from_millis(1)).await;
    let played = tokio::spawn(async move { hall.play(&playback).await });
    assert_eq!(text(&mut solana).await, SOL_1);
    assert_eq!(text(&mut solana).await, SOL_3);
    for expected in [SOL_1, BTC_2, SOL_3] {
        assert_eq!(text(&mut both).await, expected);
    }
    assert_eq!(played.await.unwrap().unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_tape_waits_for_the_first_subscriber_and_then_for_nobody() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let (_file, playback) = tape(QUOTES);
    let player = hall.clone();
    tokio::spawn(async move { player.play(&playback).await });
    sleep(Duration::from_secs(100)).await;
    let mut early = connect(&hall, &shutdown).await;
    say(&mut early, r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC"]}"#).await;
    assert_eq!(text(&mut early).await, SOL_1);
    drop(early);
    sleep(Duration::from_millis(1_500)).await;
    // The second row went by while nobody listened.
    let mut late = connect(&hall, &shutdown).await;
    say(
        &mut late,
        r#"{"method":"SUBSCRIBE","params":["bookTicker.BTC_USDC","bookTicker.SOL_USDC"]}"#,
    )
    .await;
    assert_eq!(text(&mut late).await, SOL_3);
}

#[tokio::test(start_paused = true)]
async fn frames_stop_when_a_stream_is_unsubscribed() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let (_file, playback) = tape(QUOTES);
    let mut client = connect(&hall, &shutdown).await;
    say(
        &mut client,
        r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC","bookTicker.BTC_USDC"]}"#,
    )
    .await;
    tokio::spawn(async move { hall.play(&playback).await });
    assert_eq!(text(&mut client).await, SOL_1);
    say(
        &mut client,
        r#"{"method":"UNSUBSCRIBE","params":["bookTicker.BTC_USDC"]}"#,
    )
    .await;
    assert_eq!(text(&mut client).await, SOL_3);
}

#[tokio::test(start_paused = true)]
async fn faults_are_answered_as_the_venue_does_and_the_socket_stays_open() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let mut client = connect(&hall, &shutdown).await;
    for (request, answer) in [
        (
            r#"{"method":"SUBSCRIBE","params":["nope.BTC_USDC_PERP"]}"#,
            r#"{"id":null,"error":{"code":4006,"message":"Invalid stream"}}"#,
        ),
        ("hello", r#"{"id":null,"error":{"code":4002,"message":"Parse error"}}"#),
        (
            r#"{"method":"SING","id":7}"#,
            r#"{"id":null,"error":{"code":4002,"message":"Parse error"}}"#,
        ),
        (
            r#"{"method":"SUBSCRIBE","params":["depth.100ms.X"]}"#,
            r#"{"id":null,"error":{"code":4008,"message":"Invalid depth window"}}"#,
        ),
    ] {
        say(&mut client, request).await;
        assert_eq!(text(&mut client).await, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_pinged_every_minute_and_stays_while_it_answers() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let mut client = connect(&hall, &shutdown).await;
    let began = Instant::now();
    for count in 0..10 {
        let message = timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(message, Message::Ping(Bytes::new()));
        assert_eq!(began.elapsed().as_secs(), (PING_FIRST + count * PING_EVERY).as_secs());
    }
    assert!(began.elapsed() > 2 * PONG_WITHIN);
    // A client's own ping is answered.
    client.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(
        client.next().await.unwrap().unwrap(),
        Message::Pong(Bytes::from_static(b"x"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_answers_a_ping_is_closed() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let (near, far) = tokio::io::duplex(64 * 1024);
    let began = Instant::now();
    let served = tokio::spawn(hall.clone().serve(far, shutdown.clone()));
    // Upgraded and then never read, so no pong leaves.
    let _mute = client_async("ws://replay/", near).await.unwrap();
    timeout(PATIENCE, served).await.expect("it is given up").unwrap();
    let took = began.elapsed();
    assert!(
        took >= PING_FIRST + PONG_WITHIN && took < PING_FIRST + PONG_WITHIN + Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_each_client_is_told_with_a_close() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let mut client = connect(&hall, &shutdown).await;
    shutdown.cancel();
    assert!(matches!(client.next().await, Some(Ok(Message::Close(Some(_))))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_misses_frames_and_does_not_hold_the_others() {
    let (hall, shutdown) = (Hall::default(), CancellationToken::new());
    let rows: String = (1..=30_000)
        .map(|row| format!("{row},SOL_USDC,143.53,1,143.54,{row}\n"))
        .collect();
    let (_file, playback) = tape(&format!("ts_us,symbol,bid,bid_qty,ask,ask_qty\n{rows}"));
    let playback = Playback {
        speed: Speed::permille(1).unwrap(),
        ..playback
    };
    let mut slow = connect(&hall, &shutdown).await;
    let mut quick = connect(&hall, &shutdown).await;
    let subscribe = r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC"]}"#;
    say(&mut slow, subscribe).await;
    say(&mut quick, subscribe).await;
    sleep(Duration::from_millis(1)).await;
    tokio::spawn(async move { hall.play(&playback).await });
    for row in 1..=30_000 {
        assert!(text(&mut quick).await.contains(&format!("\"u\":{row}}}")), "row {row}");
    }
    drop(slow);
}
