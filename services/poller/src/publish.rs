//! From the pile of quotes to the bus: a batch when something changed, no more often than the interval, never twice.
//!
//! A quote goes out at once when nothing went out lately, so a lone change is not late; during a burst the interval spaces the batches.

use std::future::Future;
use std::time::Duration;

use bus::backoff::Backoff;
use bus::{BusError, PricePublisher, Redis};
use contracts::bus::{PriceBatch, VenueQuote};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::batch::Waiting;
use crate::clock;
use crate::intake::Desk;
use crate::state::{Mode, Status, add, count};
use crate::trace;

/// Takes batches.
pub trait Outlet {
    /// Publishes one batch. After an error it may or may not have been taken; quotes carry update ids, so a repeat is recognised.
    fn publish(&mut self, batch: &PriceBatch) -> impl Future<Output = Result<(), BusError>> + Send;
}

/// The price stream in Redis, connected when it is first needed.
#[derive(Debug)]
pub struct RedisOutlet {
    redis: Redis,
    publisher: Option<PricePublisher>,
}

impl RedisOutlet {
    /// Connects later.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, publisher: None }
    }
}

impl Outlet for RedisOutlet {
    async fn publish(&mut self, batch: &PriceBatch) -> Result<(), BusError> {
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => none.insert(PricePublisher::connect(&self.redis).await?),
        };
        publisher.publish(batch).await
    }
}

/// Publishes until `shutdown`. What lies on the desk then is a tenth of a second old and is left there.
pub async fn run(
    desk: &Desk,
    outlet: &mut impl Outlet,
    interval: Duration,
    status: &Status,
    shutdown: &CancellationToken,
) {
    let mut backoff = Backoff::store();
    let mut not_before = Instant::now();
    let work = async {
        loop {
            desk.filled().await;
            sleep_until(not_before).await;
            let taken = desk.take();
            if taken.is_empty() {
                continue;
            }
            not_before = Instant::now() + interval;
            let span = trace::batch_span(taken.iter().map(|waiting| &waiting.frame), taken.len());
            let batch = batch_of(&taken, status.mode(), clock::now_us(), trace::traceparent(&span));
            match outlet.publish(&batch).instrument(span).await {
                Ok(()) => {
                    backoff.reset();
                    count(&status.counters().batches);
                    add(&status.counters().published, taken.len());
                }
                Err(error) => {
                    count(&status.counters().publish_failures);
                    tracing::warn!(%error, quotes = taken.len(), "prices cannot be published");
                    desk.put_back(taken);
                    backoff.wait().await;
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// The batch on the wire.
fn batch_of(taken: &[Waiting], mode: Mode, now_us: u64, traceparent: String) -> PriceBatch {
    PriceBatch {
        quotes: taken
            .iter()
            .map(|waiting| VenueQuote::from(waiting.quote.clone()))
            .collect(),
        source: mode.source().to_owned(),
        traceparent,
        published_at_us: now_us,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rust_decimal::Decimal;
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::batch::WAIT_MAX;
    use crate::frame::Quote;

    const INTERVAL: Duration = Duration::from_millis(100);

    /// Redis as the test wants it: batches arrive here, and it is away while `away` is held.
    struct Bus {
        taken: mpsc::UnboundedSender<PriceBatch>,
        away: Arc<tokio::sync::RwLock<bool>>,
    }

    impl Outlet for Bus {
        async fn publish(&mut self, batch: &PriceBatch) -> Result<(), BusError> {
            // Held for writing, it hangs, as a stalled Redis does.
            if *self.away.read().await {
                return Err(Redis::open("nowhere").expect_err("no address"));
            }
            let _ = self.taken.send(batch.clone());
            Ok(())
        }
    }

    struct Rig {
        desk: Arc<Desk>,
        status: Arc<Status>,
        away: Arc<tokio::sync::RwLock<bool>>,
        taken: mpsc::UnboundedReceiver<PriceBatch>,
        shutdown: CancellationToken,
        publisher: JoinHandle<()>,
    }

    impl Rig {
        fn start(interval: Duration) -> Self {
            let (sender, taken) = mpsc::unbounded_channel();
            let (status, away, shutdown) = (Arc::new(Status::default()), Arc::default(), CancellationToken::new());
            let desk = Arc::new(Desk::new(interval.is_zero(), Arc::clone(status.counters())));
            let mut bus = Bus {
                taken: sender,
                away: Arc::clone(&away),
            };
            let (its_desk, its_status, stop) = (Arc::clone(&desk), Arc::clone(&status), shutdown.clone());
            let publisher = tokio::spawn(async move { run(&its_desk, &mut bus, interval, &its_status, &stop).await });
            Self {
                desk,
                status,
                away,
                taken,
                shutdown,
                publisher,
            }
        }

        fn quote(&self, symbol: &str, update_id: u64) {
            let (one, zero) = (Decimal::ONE, Decimal::ZERO);
            let symbol = symbol.to_owned();
            self.desk.push(Quote {
                symbol,
                bid: one,
                ask: one + one,
                bid_quantity: zero,
                ask_quantity: zero,
                venue_time_us: 7,
                update_id,
            });
        }

        async fn batch(&mut self) -> Vec<String> {
            let batch = timeout(Duration::from_secs(60), self.taken.recv())
                .await
                .expect("a batch")
                .expect("a publisher");
            assert!(batch.published_at_us > 0);
            assert_eq!((batch.source.as_str(), batch.traceparent.as_str()), ("live", ""));
            batch
                .quotes
                .iter()
                .map(|quote| format!("{} {}", quote.symbol, quote.update_id))
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_change_leaves_at_once_and_a_burst_is_spaced_and_conflated() {
        let mut rig = Rig::start(INTERVAL);
        let began = Instant::now();
        rig.quote("SOL", 1);
        assert_eq!(rig.batch().await, ["SOL 1"]);
        assert!(began.elapsed() < INTERVAL / 10);
        for update_id in 2..=50 {
            rig.quote("SOL", update_id);
            rig.quote("BTC", update_id);
        }
        assert_eq!(rig.batch().await, ["SOL 50", "BTC 50"]);
        assert!(began.elapsed() >= INTERVAL);
        let counts = rig.status.counters().counts();
        assert_eq!((counts.batches, counts.published, counts.conflated), (2, 3, 96));
    }

    #[tokio::test(start_paused = true)]
    async fn fault_13_nothing_is_published_while_nothing_changes() {
        let mut rig = Rig::start(INTERVAL);
        rig.quote("SOL", 1);
        assert_eq!(rig.batch().await, ["SOL 1"]);
        sleep(Duration::from_secs(3_600)).await;
        assert!(rig.taken.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_interval_each_quote_is_forwarded() {
        let mut rig = Rig::start(Duration::ZERO);
        let mut forwarded = Vec::new();
        for update_id in 1..=20 {
            rig.quote("SOL", update_id);
            if update_id % 3 == 0 {
                forwarded.extend(rig.batch().await);
            }
        }
        while forwarded.len() < 20 {
            forwarded.extend(rig.batch().await);
        }
        assert_eq!(
            forwarded,
            (1..=20).map(|update_id| format!("SOL {update_id}")).collect::<Vec<_>>()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn while_redis_is_away_the_newest_wins_and_comes_out_when_it_is_back() {
        for interval in [INTERVAL, Duration::ZERO] {
            let mut rig = Rig::start(interval);
            *rig.away.write().await = true;
            for update_id in 1..=9 {
                rig.quote("SOL", update_id);
                sleep(Duration::from_millis(300)).await;
            }
            rig.quote("BTC", 1);
            sleep(Duration::from_millis(300)).await;
            assert!(rig.status.counters().counts().publish_failures > 1);
            *rig.away.write().await = false;
            assert_eq!(rig.batch().await, ["SOL 9", "BTC 1"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fault_13_a_price_that_waited_out_an_outage_is_not_published_late() {
        let mut rig = Rig::start(INTERVAL);
        *rig.away.write().await = true;
        rig.quote("SOL", 1);
        sleep(WAIT_MAX + Duration::from_secs(5)).await;
        *rig.away.write().await = false;
        rig.quote("BTC", 1);
        assert_eq!(rig.batch().await, ["BTC 1"]);
        assert_eq!(rig.status.counters().counts().expired, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_hangs_stops_neither_the_reader_nor_the_shutdown() {
        let mut rig = Rig::start(INTERVAL);
        let away = Arc::clone(&rig.away);
        let hang = away.write().await;
        rig.quote("SOL", 1);
        sleep(Duration::from_secs(1)).await;
        for update_id in 2..=100_000 {
            rig.quote("SOL", update_id);
        }
        drop(hang);
        assert_eq!(rig.batch().await, ["SOL 1"]);
        assert_eq!(rig.batch().await, ["SOL 100000"]);
        let _hang = away.write().await;
        rig.quote("SOL", 100_001);
        sleep(Duration::from_secs(1)).await;
        rig.shutdown.cancel();
        timeout(Duration::from_secs(1), rig.publisher)
            .await
            .expect("it stops")
            .unwrap();
    }
}
