//! Quotes: a venue of the bench's own sends frames as the real one does, the real poller reads them, the real engine decides on them.
//!
//! The price falls by a cent again and again, and each fall reaches the stop-loss of one trade. When the engine closed it is in the
//! history, so the age of a quote is known from the frame to the decision, with no clock but this machine's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bus::prices::{PriceStream as _, RedisPrices};
use contracts::v1;
use futures::{SinkExt as _, StreamExt as _};
use sqlx::{Connection as _, PgConnection};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::client::Client;
use crate::load::{account, on_a_thread};
use crate::mesh::{Mesh, MeshSettings, PATH};
use crate::report::Report;
use crate::sample::{Latencies, Spread};
use crate::{Timing, pile, say};

/// The markets, each with a bid in cents; the first is the one that falls.
const MARKETS: [(&str, u64); 3] = [("SOL_USDC", 20_000), ("ETH_USDC", 300_000), ("BTC_USDC", 9_000_000)];
/// Between two falls: more than the poller keeps quotes together.
const FALL_EVERY: Duration = Duration::from_millis(150);
/// How often frames are sent, as many at once as the rate asks for.
const SEND_EVERY: Duration = Duration::from_millis(2);
/// Frames a second while nothing is measured.
const IDLE_RATE: u64 = 100;
/// How long the history may take to know of all falls.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// What the venue is told, and what it did.
#[derive(Debug, Default)]
struct Desk {
    rate: AtomicU64,
    /// How far the price has fallen. Cents.
    fallen: AtomicU64,
    sent: AtomicU64,
    /// When the first frame with each fall was sent. Microseconds.
    falls: Mutex<HashMap<u64, i64>>,
}

/// Starts a mesh on a venue of our own, piles trades up, and measures at each rate.
///
/// # Errors
/// When the venue is not asked for quotes, or a fall fires nothing.
pub async fn run(
    settings: &MeshSettings,
    rates: &[u32],
    trades: u64,
    timing: Timing,
    report: &mut Report,
) -> anyhow::Result<()> {
    let desk = Arc::new(Desk::default());
    desk.rate.store(IDLE_RATE, Ordering::Relaxed);
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
    let address = listener.local_addr().context("a port")?;
    let its = Arc::clone(&desk);
    let _venue = AbortOnDropHandle::new(tokio::spawn(on_a_thread::<(), _>("bench-venue", async move || {
        loop {
            let (socket, _) = listener.accept().await.context("the venue")?;
            if let Err(error) = serve(socket, &its).await {
                say::aside(format!("the venue lost its reader: {error:#}"));
            }
        }
    })));
    let mesh = Mesh::fed(settings, &format!("ws://{address}")).await?;
    let falls = (timing.measure.as_secs_f64() / FALL_EVERY.as_secs_f64())
        .ceil()
        .max(1.0) as u64;
    pile::open(&mesh, trades, timing).await?;
    stand(&mesh, falls * rates.len() as u64).await?;

    let redis = bus::Redis::open(mesh.redis.as_deref().context("where its Redis is")?)?;
    let published = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&published);
    let _counting = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut prices = RedisPrices::new(redis).follow("bench");
        loop {
            let quotes: usize = prices.next().await.iter().map(|entry| entry.batch.quotes.len()).sum();
            count.fetch_add(quotes as u64, Ordering::Relaxed);
        }
    }));
    for &rate in rates {
        say::aside(format!("ticks: {rate} quotes a second"));
        desk.rate.store(u64::from(rate), Ordering::Relaxed);
        tokio::time::sleep(timing.warm_up).await;
        let first = desk.fallen.load(Ordering::Relaxed);
        let (sent, passed) = (desk.sent.load(Ordering::Relaxed), published.load(Ordering::Relaxed));
        let (before, begun) = (mesh.target.watch.read(), Instant::now());
        for _ in 0..falls {
            desk.fallen.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(FALL_EVERY).await;
        }
        let used = mesh.target.watch.read().since(&before);
        let seconds = begun.elapsed().as_secs_f64();
        let sent = desk.sent.load(Ordering::Relaxed) - sent;
        let passed = published.load(Ordering::Relaxed) - passed;
        let ages = ages(&mesh, &desk, first, falls).await?;
        let named = |what: &str| format!("ticks, {} open, {rate} frames/s: {what}", trades);
        let mut one =
            |what: &str, unit: &'static str, value: f64| report.figure(&named(what), unit, Spread::of(&[value]));
        one("frames the poller took a second", "", sent as f64 / seconds);
        one(
            "quotes published a second, the newest of each market",
            "",
            passed as f64 / seconds,
        );
        one("age at the decision, half within", "ms", ages.at(0.5) as f64 / 1e3);
        one(
            "age at the decision, 99 of 100 within",
            "ms",
            ages.at(0.99) as f64 / 1e3,
        );
        one("falls that fired", "", ages.len() as f64);
        let micros = |name: &str| used.by_name.get(name).map_or(0.0, |it| it.as_secs_f64() * 1e6);
        one(
            "poller's processor time a frame",
            "µs",
            micros("poller") / sent.max(1) as f64,
        );
        one(
            "engine's a published quote",
            "µs",
            micros(PATH[1]) / passed.max(1) as f64,
        );
    }
    Ok(())
}

/// One reader of the venue.
async fn serve(socket: tokio::net::TcpStream, desk: &Desk) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = tokio_tungstenite::accept_async(socket).await?;
    while !matches!(socket.next().await.context("no subscription")??, Message::Text(text) if text.contains("SUBSCRIBE"))
    {
    }
    let (mut out, mut heard) = socket.split();
    let hearing = async { while let Some(Ok(_)) = heard.next().await {} };
    let sending = async {
        let mut turns = tokio::time::interval(SEND_EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        // Update ids rise over restarts of a reader, too: nobody is sent a frame a microsecond.
        let (mut owed, mut number) = (0.0, engine::inbox::wall_us().unsigned_abs());
        loop {
            turns.tick().await;
            owed += desk.rate.load(Ordering::Relaxed) as f64 * SEND_EVERY.as_secs_f64();
            while owed >= 1.0 {
                owed -= 1.0;
                number += 1;
                out.feed(Message::text(frame(desk, number))).await?;
                desk.sent.fetch_add(1, Ordering::Relaxed);
            }
            out.flush().await?;
        }
    };
    tokio::select! {
        () = hearing => Ok(()),
        sent = sending => sent,
    }
}

/// The next frame, of one market after the other.
fn frame(desk: &Desk, number: u64) -> String {
    let which = (number % MARKETS.len() as u64) as usize;
    let (symbol, mut bid) = MARKETS[which];
    let now = engine::inbox::wall_us();
    if which == 0 {
        let fallen = desk.fallen.load(Ordering::Relaxed);
        bid -= fallen;
        if let Ok(mut falls) = desk.falls.lock() {
            falls.entry(fallen).or_insert(now);
        }
    }
    let price = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let (bid, ask) = (price(bid), price(bid + 10));
    format!(
        r#"{{"data":{{"A":"1.00","B":"2.00","E":{now},"T":{now},"a":"{ask}","b":"{bid}","e":"bookTicker","s":"{symbol}","u":{number}}},"stream":"bookTicker.{symbol}"}}"#
    )
}

/// Opens a trade for each fall, with its stop-loss there.
async fn stand(mesh: &Mesh, falls: u64) -> anyhow::Result<()> {
    let mut client = Client::connect(&mesh.target, 0).await?;
    for n in 1..=falls {
        let cents = MARKETS[0].1 - n;
        let request = client.signed(v1::OpenTradeRequest {
            account_id: account(0),
            request_id: Uuid::now_v7().to_string(),
            symbol: MARKETS[0].0.to_owned(),
            side: v1::Side::Long.into(),
            size: Some(v1::open_trade_request::Size::Margin("10".to_owned())),
            leverage: "1".to_owned(),
            stop_loss_price: format!("{}.{:02}", cents / 100, cents % 100),
            ..Default::default()
        });
        client
            .trades
            .open_trade(request)
            .await
            .context("a trade with a stop-loss")?;
    }
    Ok(())
}

/// How long after its frame each of these falls was decided on.
async fn ages(mesh: &Mesh, desk: &Desk, first: u64, falls: u64) -> anyhow::Result<Latencies> {
    let mut connection = PgConnection::connect(mesh.database.as_deref().context("where its database is")?).await?;
    let sql = "SELECT (stop_loss_price * 100)::bigint, (extract(epoch FROM closed_at) * 1000000)::bigint FROM trades \
               WHERE closed_at IS NOT NULL AND stop_loss_price IS NOT NULL";
    let begun = Instant::now();
    loop {
        let closed: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        let closed: HashMap<u64, i64> = closed
            .into_iter()
            .filter_map(|(cents, at)| Some((MARKETS[0].1.checked_sub(u64::try_from(cents).ok()?)?, at)))
            .collect();
        let ours: Vec<u64> = (first + 1..=first + falls).collect();
        if ours.iter().all(|fall| closed.contains_key(fall)) {
            let mut ages = Latencies::default();
            let sent = desk.falls.lock().map(|it| it.clone()).unwrap_or_default();
            for fall in ours {
                // A fall that no frame showed, because the next came first, says nothing about age.
                if let (Some(sent), Some(decided)) = (sent.get(&fall), closed.get(&fall)) {
                    ages.record(Duration::from_micros(u64::try_from(decided - sent).unwrap_or_default()));
                }
            }
            return Ok(ages);
        }
        ensure!(
            begun.elapsed() < KNOWN_WITHIN,
            "not every fall of the price closed its trade"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
