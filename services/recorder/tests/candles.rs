//! The price stream becomes candles: each quote once, whatever dies.

#[allow(dead_code, reason = "the journal's tests use the rest")]
mod support;

use bus::PricePublisher;
use contracts::bus::{PriceBatch, VenueQuote};
use support::World;
use testkit::PrivateRedis;

/// A midnight, and with it the opening of a candle of every interval.
const DAY_US: u64 = 1_700_006_400_000_000;

/// Publishes quotes given as seconds after midnight, bid and ask.
async fn publish(redis: &bus::Redis, quotes: &[(u64, &str, &str)]) {
    let quotes: Vec<_> = quotes
        .iter()
        .map(|&(second, bid, ask)| quote(DAY_US + second * 1_000_000, bid, ask))
        .collect();
    let published_at_us = quotes.iter().map(|quote| quote.venue_time_us).max().unwrap();
    let batch = PriceBatch {
        quotes,
        source: "live".into(),
        published_at_us,
        ..PriceBatch::default()
    };
    PricePublisher::connect(redis)
        .await
        .unwrap()
        .publish(&batch)
        .await
        .unwrap();
}

fn quote(venue_time_us: u64, bid: &str, ask: &str) -> VenueQuote {
    let (symbol, bid, ask) = ("SOL_USDC".into(), bid.into(), ask.into());
    VenueQuote {
        symbol,
        bid,
        ask,
        venue_time_us,
        ..VenueQuote::default()
    }
}

const MINUTES: &str = "SELECT coalesce(string_agg(concat_ws(' ', extract(epoch FROM open_at)::bigint - 1700006400, open, high, low, close,
                       quotes), ', ' ORDER BY open_at), '') FROM candles WHERE interval = 2";

/// Whether that many quotes have been folded.
const QUOTES: [&str; 4] = [
    "SELECT count(*) = 0 FROM candles",
    "SELECT sum(quotes) = 1 FROM candles WHERE interval = 7",
    "SELECT sum(quotes) = 2 FROM candles WHERE interval = 7",
    "SELECT sum(quotes) = 3 FROM candles WHERE interval = 7",
];

#[tokio::test]
async fn prices_become_candles_of_every_interval() {
    let redis = PrivateRedis::start().await;
    let world = World::with_redis(&redis.url()).await;
    publish(
        &world.redis,
        &[(0, "199.99", "200.02"), (30, "210", "212"), (59, "189", "191")],
    )
    .await;
    let recorder = world.recorder();
    // What the stream held before the first recorder came is folded too.
    world.until("SELECT count(*) > 0 FROM candles").await;
    publish(
        &world.redis,
        &[
            (60, "220", "222"),
            (61, "0", "222"),
            (62, "223", "222"),
            (61, "", "222"),
            (45, "100", "102"),
        ],
    )
    .await;
    world
        .until("SELECT sum(quotes) = 5 FROM candles WHERE interval = 7")
        .await;
    assert_eq!(
        world.text(MINUTES).await,
        "0 200.005 211 101 190 4, 60 221 221 221 221 1"
    );
    let counts = "SELECT string_agg(interval || ':' || n, ' ' ORDER BY interval) FROM
                  (SELECT interval, count(*) AS n FROM candles GROUP BY interval) AS counts";
    assert_eq!(world.text(counts).await, "1:5 2:2 3:1 4:1 5:1 6:1 7:1");
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_late_quote_after_a_restart_does_not_close_a_candle() {
    let redis = PrivateRedis::start().await;
    let world = World::with_redis(&redis.url()).await;
    publish(&world.redis, &[(10, "199", "201"), (50, "209", "211")]).await;
    let recorder = world.recorder();
    world
        .until("SELECT sum(quotes) = 2 FROM candles WHERE interval = 2")
        .await;
    recorder.kill().await;
    publish(&world.redis, &[(20, "149", "151")]).await;
    let recorder = world.recorder();
    world
        .until("SELECT sum(quotes) = 3 FROM candles WHERE interval = 2")
        .await;
    assert_eq!(world.text(MINUTES).await, "0 200 210 150 210 3");
    publish(&world.redis, &[(51, "204", "206")]).await;
    world
        .until("SELECT sum(quotes) = 4 FROM candles WHERE interval = 2")
        .await;
    assert_eq!(world.text(MINUTES).await, "0 200 210 150 205 4");
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn recorders_killed_or_at_once_count_each_quote_once() {
    let redis = PrivateRedis::start().await;
    let world = World::with_redis(&redis.url()).await;
    let mut recorders = vec![world.recorder(), world.recorder()];
    for second in 0..200 {
        publish(&world.redis, &[(second, "199", "201"), (second, "209", "211")]).await;
        if second % 25 == 24 {
            recorders.remove(0).kill().await;
            recorders.push(world.recorder());
        }
    }
    world
        .until("SELECT coalesce(sum(quotes), 0) >= 400 FROM candles WHERE interval = 7")
        .await;
    assert_eq!(world.count("SELECT sum(quotes)::bigint FROM candles").await, 400 * 7);
    assert_eq!(
        world
            .text("SELECT min(quotes) || ' ' || max(quotes) FROM candles WHERE interval = 1")
            .await,
        "2 2"
    );
    for recorder in recorders {
        recorder.stop().await.unwrap();
    }
}

#[tokio::test]
async fn redis_may_lose_everything() {
    let mut redis = PrivateRedis::start().await;
    let world = World::with_redis(&redis.url()).await;
    let recorder = world.recorder();
    for (second, folded) in (1..).zip(&QUOTES[1..]) {
        publish(&world.redis, &[(second, "199", "201")]).await;
        world.until(folded).await;
        redis.kill();
        redis.start_again().await;
    }
    assert_eq!(world.text(MINUTES).await, "0 200 200 200 200 3");
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn fault_14_quotes_that_come_while_postgres_is_away_are_kept_for_it() {
    let redis = PrivateRedis::start().await;
    let mut world = World::with_redis(&redis.url()).await;
    let recorder = world.recorder();
    publish(&world.redis, &[(1, "199", "201")]).await;
    world.until(QUOTES[1]).await;
    world.postgres.kill();
    publish(&world.redis, &[(2, "219", "221")]).await;
    world.postgres.start_again().await;
    world.pool = world.postgres.pool();
    publish(&world.redis, &[(3, "209", "211")]).await;
    world.until(QUOTES[3]).await;
    assert_eq!(world.text(MINUTES).await, "0 200 220 200 210 3");
    recorder.stop().await.unwrap();
}
