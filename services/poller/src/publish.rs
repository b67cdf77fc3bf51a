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

use crate::batch::Waiting;
use crate::clock;
use crate::intake::Desk;
use crate::state::{Mode, Status, add, count};

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
            let batch = batch_of(&taken, status.mode(), clock::now_us());
            match outlet.publish(&batch).await {
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

/// The batch on the wire. Its trace context is empty: a price belongs to no request.
fn batch_of(taken: &[Waiting], mode: Mode, now_us: u64) -> PriceBatch {
    PriceBatch {
        quotes: taken
            .iter()
            .map(|waiting| VenueQuote::from(waiting.quote.clone()))
            .collect(),
        source: mode.source().to_owned(),
        traceparent: String::new(),
        published_at_us: now_us,
    }
}
