//! The whole poller over real sockets: tape, replay server, client, order, batches, and a Redis of its own.
//!
//! Redis is started for each test on a socket in a temporary directory and killed at the end. Without a `redis-server` on the path those
//! tests say so and pass.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bus::{PriceReader, Redis};
use contracts::bus::{PriceBatch, VenueQuote};
use poller::{Config, Counts, Feed, Mode, Playback, Poller, PollerError, ReplayServer, TapeSource, VenueTime};
use redis::OwnRedis;
use rust_decimal::Decimal;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[path = "support/redis.rs"]
mod redis;

/// How long anything expected may take before the test gives up; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running poller.
struct Running {
    state: tokio::sync::watch::Receiver<poller::FeedState>,
    counters: std::sync::Arc<poller::Counters>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), PollerError>>,
}

impl Running {
    fn start(config: Config) -> Self {
        let poller = Poller::new(config).unwrap();
        let (state, counters, shutdown) = (poller.state(), poller.counters(), CancellationToken::new());
        let task = tokio::spawn(poller.run(shutdown.clone()));
        Self {
            state,
            counters,
            shutdown,
            task,
        }
    }

    fn counts(&self) -> Counts {
        self.counters.counts()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
    }
}

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

/// Reads the stream until `enough` says so.
async fn batches(reader: &mut PriceReader, mut enough: impl FnMut(&[VenueQuote]) -> bool) -> Vec<PriceBatch> {
    let mut batches: Vec<PriceBatch> = Vec::new();
    let reading = async {
        let mut quotes = Vec::new();
        while !enough(&quotes) {
            for entry in reader.next().await {
                quotes.extend(entry.batch.quotes.clone());
                batches.push(entry.batch);
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the prices come");
    batches
}

fn text(quotes: impl IntoIterator<Item = VenueQuote>) -> Vec<String> {
    quotes
        .into_iter()
        .map(|quote| {
            format!(
                "{} {}x{} {}x{}",
                quote.symbol, quote.bid, quote.bid_quantity, quote.ask, quote.ask_quantity
            )
        })
        .collect()
}

#[tokio::test]
async fn the_built_in_sample_reaches_the_bus() {
    let Some(redis) = OwnRedis::start().await else { return };
    let list = ["BTC_USDC", "ETH_USDC", "SOL_USDC"];
    let mut reader = PriceReader::tail(redis.redis(), "0-0".to_owned());
    let running = Running::start(Config::new(redis.redis(), Feed::sample(), symbols(&list)));
    let all = |quotes: &[VenueQuote]| {
        list.iter()
            .all(|symbol| quotes.iter().any(|quote| quote.symbol == *symbol))
    };
    let batches = batches(&mut reader, all).await;

    for batch in &batches {
        assert_eq!((batch.source.as_str(), batch.traceparent.as_str()), ("replay", ""));
        for quote in &batch.quotes {
            let (bid, ask): (Decimal, Decimal) = (quote.bid.parse().unwrap(), quote.ask.parse().unwrap());
            assert!(Decimal::ZERO < bid && bid < ask);
            // Shifted to the present, so that it is not stale.
            assert!(quote.venue_time_us.abs_diff(batch.published_at_us) < 30_000_000);
        }
    }
    let state = running
        .state
        .clone()
        .wait_for(|state| state.ready())
        .await
        .unwrap()
        .clone();
    assert_eq!(
        (state.mode, state.origin.as_str(), state.reconnects),
        (Mode::Replay, "the built-in sample", 0)
    );
    running.stop().await;
}

#[tokio::test]
async fn each_quote_is_forwarded_with_its_digits_when_there_is_no_interval() {
    let Some(redis) = OwnRedis::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let rows = "ts_us,symbol,bid,bid_qty,ask,ask_qty
1000000,SOL_USDC,143.50,58.157,143.51,205.146
1000010,SOL_USDC,143.51,1,143.50,1
1000020,SOL_USDC,143.51,0.10,143.52,
1000030,AAPL.US_USDC_PERP,340.4,1,340.5,2
1000040,BTC_USDC,1,1,2,1
1000050,SOL_USDC,143.60,0.10,143.61,3
";
    let playback = Playback {
        tape: file(directory.path(), "quotes.csv", rows),
        repeat: false,
        venue_time: VenueTime::Recorded,
        ..Playback::default()
    };
    let mut config = Config::new(
        redis.redis(),
        Feed::Replay(playback),
        symbols(&["SOL_USDC", "AAPL.US_USDC_PERP"]),
    );
    config.batch = Duration::ZERO;
    let mut reader = PriceReader::tail(redis.redis(), "0-0".to_owned());
    let running = Running::start(config);
    let batches = batches(&mut reader, |quotes| quotes.len() >= 4).await;
    assert_eq!(
        text(batches.into_iter().flat_map(|batch| batch.quotes)),
        [
            "SOL_USDC 143.50x58.157 143.51x205.146",
            "SOL_USDC 143.51x0.10 143.52x1",
            "AAPL.US_USDC_PERP 340.4x1 340.5x2",
            "SOL_USDC 143.60x0.10 143.61x3",
        ]
    );
    assert_eq!((running.counts().crossed, running.counts().published), (1, 4));
    running.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_empty_gets_prices_again() {
    let Some(mut redis) = OwnRedis::start().await else {
        return;
    };
    let running = Running::start(Config::new(
        redis.redis(),
        Feed::sample(),
        symbols(&["BTC_USDC", "SOL_USDC"]),
    ));
    let mut reader = PriceReader::tail(redis.redis(), "0-0".to_owned());
    batches(&mut reader, |quotes| !quotes.is_empty()).await;
    redis.kill();
    let before = running.counts();
    let mut state = running.state.clone();
    state
        .wait_for(|state| state.counts.publish_failures > before.publish_failures)
        .await
        .unwrap();
    // Reading goes on meanwhile.
    state
        .wait_for(|state| state.counts.quotes > before.quotes + 10)
        .await
        .unwrap();
    assert!(state.borrow().ready());
    redis.start_again().await;
    let mut reader = PriceReader::tail(redis.redis(), "0-0".to_owned());
    batches(&mut reader, |quotes| !quotes.is_empty()).await;
    assert_eq!(running.counts().connects, 1);
    running.stop().await;
}

#[tokio::test]
async fn it_starts_before_redis_does() {
    let directory = tempfile::tempdir().unwrap();
    let away = Redis::open(&format!(
        "redis+unix://{}",
        directory.path().join("none.sock").display()
    ))
    .unwrap();
    let running = Running::start(Config::new(away, Feed::sample(), symbols(&["BTC_USDC"])));
    running
        .state
        .clone()
        .wait_for(|state| state.ready() && state.counts.publish_failures > 0)
        .await
        .unwrap();
    running.stop().await;
}

#[tokio::test]
async fn without_a_venue_auto_falls_back_to_the_replay_and_says_so() {
    // A port that was just free: nobody answers there.
    let free = std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let away = Redis::open("redis+unix:///nonexistent.sock").unwrap();
    let feed = Feed::Auto {
        url: format!("ws://{free}"),
        playback: Playback::default(),
    };
    let running = Running::start(Config::new(away, feed, symbols(&["BTC_USDC"])));
    let state = running
        .state
        .clone()
        .wait_for(|state| state.ready())
        .await
        .unwrap()
        .clone();
    assert_eq!(
        (state.mode, state.origin.as_str()),
        (Mode::Replay, "the built-in sample")
    );
    assert!(state.counts.connect_failures > 0);
    running.stop().await;
}

#[tokio::test]
async fn with_a_venue_auto_stays_live() {
    let venue = ReplayServer::bind(LOOPBACK, Playback::default()).await.unwrap();
    let (url, shutdown) = (venue.url(), CancellationToken::new());
    let serving = tokio::spawn(venue.serve(shutdown.clone()));
    let away = Redis::open("redis+unix:///nonexistent.sock").unwrap();
    let feed = Feed::Auto {
        url: url.clone(),
        playback: Playback::default(),
    };
    let running = Running::start(Config::new(away, feed, symbols(&["BTC_USDC"])));
    let state = running
        .state
        .clone()
        .wait_for(|state| state.ready())
        .await
        .unwrap()
        .clone();
    assert_eq!((state.mode, state.origin), (Mode::Live, url));
    running.stop().await;
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_with_tls_whose_server_has_none_is_tried_again_and_does_not_panic() {
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    let away = Redis::open("redis+unix:///nonexistent.sock").unwrap();
    let running = Running::start(Config::new(away, Feed::Live { url }, symbols(&["BTC_USDC"])));
    for _ in 0..2 {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("it tries").unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    }
    running
        .state
        .clone()
        .wait_for(|state| state.counts.connect_failures > 0)
        .await
        .unwrap();
    assert!(!running.state.borrow().connected);
    running.stop().await;
}
