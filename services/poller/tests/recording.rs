//! Recording a feed and playing it back, over real sockets and files.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bus::Redis;
use poller::frame::{Frame, parse};
use poller::player::render;
use poller::tape::Tape;
use poller::timeline::Timeline;
use poller::{Config, Feed, Playback, PollerError, RecordConfig, ReplayServer, Speed, TapeSource, VenueTime};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long anything expected may take before the test gives up; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn symbols(list: &[&str]) -> Vec<String> {
    list.iter().map(|&symbol| symbol.to_owned()).collect()
}

fn file(directory: &Path, name: &str, content: &str) -> TapeSource {
    let path = directory.join(name);
    std::fs::File::create(&path)
        .unwrap()
        .write_all(content.as_bytes())
        .unwrap();
    TapeSource::File(path)
}

/// A tape's quotes as text, with their times and update ids.
fn tape_quotes(source: &TapeSource) -> Vec<String> {
    let Ok(tape) = Tape::open(source) else {
        return Vec::new();
    };
    let mut line = Timeline::begin(Speed::default(), VenueTime::Recorded, 0, 0);
    tape.map(|event| match parse(render(event.unwrap(), &mut line).text.as_str()) {
        Frame::Quote(quote) => format!("{quote:?}"),
        other => panic!("{other:?}"),
    })
    .collect()
}

#[tokio::test]
async fn what_was_recorded_replays_as_the_same_quotes() {
    let directory = tempfile::tempdir().unwrap();
    // The last row comes late enough for the recorder to flush with it, which is how the test knows that the file is whole.
    let rows: String = (1..=200)
        .map(|row| (row, if row < 200 { row * 1_000 } else { 1_500_000 }))
        .map(|(row, at_us)| format!("{at_us},SOL_USDC,143.{:02},1.{row},144.{:02},2\n", row % 100, row % 97))
        .collect();
    let quotes = file(
        directory.path(),
        "quotes.csv",
        &format!("ts_us,symbol,bid,bid_qty,ask,ask_qty\n{rows}"),
    );
    let from_quotes = Playback {
        tape: quotes.clone(),
        repeat: false,
        venue_time: VenueTime::Recorded,
        ..Playback::default()
    };

    for name in ["frames.jsonl", "frames.jsonl.zst"] {
        let path = directory.path().join(name);
        let server = ReplayServer::bind(LOOPBACK, from_quotes.clone()).await.unwrap();
        let url = server.url();
        let (venue, recorder) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(venue.clone()));
        let config = RecordConfig {
            url,
            symbols: symbols(&["SOL_USDC"]),
            file: path.clone(),
            silence: PATIENCE,
        };
        let recording = tokio::spawn(poller::record(config, recorder.clone()));
        let whole = async {
            while tape_quotes(&TapeSource::File(path.clone())).len() < 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, whole).await.expect("the recording grows");
        recorder.cancel();
        let recorded = timeout(PATIENCE, recording).await.unwrap().unwrap().unwrap();
        venue.cancel();
        serving.await.unwrap().unwrap();
        assert_eq!((recorded.frames, recorded.reconnects), (200, 0));
        let tape = TapeSource::File(path);
        assert_eq!(tape_quotes(&tape), tape_quotes(&quotes), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_played_is_an_error_and_not_a_silent_market() {
    let redis = Redis::open("redis+unix:///nonexistent.sock").unwrap();
    let feed = |file: &str| format!("replay:{file}").parse::<Feed>().unwrap();
    let missing = Config::new(redis.clone(), feed("/nonexistent.jsonl"), symbols(&["SOL_USDC"]));
    let error = poller::run(missing, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, PollerError::Tape { .. }), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let TapeSource::File(path) = file(
        directory.path(),
        "torn.csv",
        "ts_us,symbol,bid,bid_qty,ask,ask_qty\n1,SOL_USDC,1,1,2,1\n2,SOL\n",
    ) else {
        unreachable!("a file")
    };
    let torn = Config::new(redis, feed(path.to_str().unwrap()), symbols(&["SOL_USDC"]));
    let error = timeout(PATIENCE, poller::run(torn, CancellationToken::new()))
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
}
