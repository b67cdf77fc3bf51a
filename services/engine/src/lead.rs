//! Leading: one loop over all shards that this process leads. Peek, decide, commit, reply, publish, trim.
//!
//! A round takes what stands in the queues of all shards and commits it in one transaction: the more calls there are, the more of them
//! share what a round trip to Redis and to Postgres costs, and nobody waits for a timer. While a round commits the next one is peeked
//! and decided; it is handed over only when the one before is done, so the journal's order is the order of deciding. A reply leaves only
//! after the commit of everything that was decided before it.
//!
//! One shard of the loop is in `led`, what it knows of the market in `market`, the way of a round into the journal in `pipeline`.

mod led;
mod market;
mod pipeline;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use bus::PriceEntry;
use futures::future::{join_all, select_all};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

pub use self::led::Led;
use self::pipeline::InFlight;
use crate::follow::Replicas;
use crate::ground::Ground;
use crate::inbox::EngineClock;
use crate::journal::JournalError;

/// Most requests decided in one round.
const ROUND_MAX: usize = 1_024;
/// Requests that every shard of a round may decide, however many shards there are.
const SHARE_MIN: usize = 32;

/// Why a leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Somebody else leads the shard.
    #[error("shard {shard}: another engine leads it now")]
    Fenced {
        /// Which.
        shard: u32,
    },
    /// The journal could not be read.
    #[error("shard {shard}: {error}")]
    Journal {
        /// Which.
        shard: u32,
        /// Why.
        error: JournalError,
    },
    /// The handling of a command or a quote panicked, so the state is not to be trusted any more.
    #[error("shard {shard}: handling panicked: {said}")]
    Panicked {
        /// Which.
        shard: u32,
        /// What the panic said.
        said: String,
    },
}

/// What the process tells its loop.
#[derive(Debug)]
pub enum Order<G: Ground> {
    /// Lead this shard too.
    Lead(Box<Led<G>>),
    /// Finish what was decided of this shard and leave it.
    Leave(u32),
}

/// What the loop tells its process: a shard that it leads no longer, and why when it was not told to leave it.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub shard: u32,
    /// Why.
    pub why: Option<LeadError>,
}

/// The loop. See the module.
pub struct Leader<G: Ground> {
    ground: G,
    shards: u32,
    clock: EngineClock,
    orders: mpsc::UnboundedReceiver<Order<G>>,
    ended: mpsc::UnboundedSender<Ended>,
    /// Rings when there are quotes; every shard takes them from a receiver of its own.
    prices: broadcast::Receiver<Arc<[PriceEntry]>>,
    led: BTreeMap<u32, Led<G>>,
    in_flight: Option<InFlight>,
    /// What is committed goes to the replicas too.
    replicas: Replicas,
}

impl<G: Ground> Leader<G> {
    /// One that leads nothing yet, in a deployment of so many shards.
    #[must_use]
    pub fn new(
        ground: G,
        shards: u32,
        clock: EngineClock,
        prices: broadcast::Receiver<Arc<[PriceEntry]>>,
        orders: mpsc::UnboundedReceiver<Order<G>>,
        ended: mpsc::UnboundedSender<Ended>,
        replicas: Replicas,
    ) -> Self {
        Self {
            ground,
            shards,
            clock,
            orders,
            ended,
            prices,
            led: BTreeMap::new(),
            in_flight: None,
            replicas,
        }
    }

    /// Leads until told to stop or fenced. On a stop everything decided is committed and answered first.
    ///
    /// # Errors
    /// [`LeadError::Fenced`] when another engine leads a shard; what was committed of the others is answered.
    pub async fn lead(mut self, stop: CancellationToken) -> Result<(), LeadError> {
        loop {
            if stop.is_cancelled() {
                return self.finish().await;
            }
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order).await?;
            }
            if self.round().await? {
                continue;
            }
            let order = {
                let stirred = stirred(&mut self.led);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => None,
                    order = self.orders.recv() => match order {
                        Some(order) => Some(order),
                        // The process is gone, and with it everything that told whether this may go on.
                        None => return Ok(()),
                    },
                    _ = self.prices.recv() => None,
                    () = stirred => None,
                }
            };
            if let Some(order) = order {
                self.obey(order).await?;
            }
        }
    }

    async fn obey(&mut self, order: Order<G>) -> Result<(), LeadError> {
        match order {
            Order::Lead(led) => {
                self.led.insert(led.number(), *led);
                Ok(())
            }
            Order::Leave(shard) => self.give_up(shard, None).await,
        }
    }

    /// Leads a shard no longer, once what was committed of it is answered.
    async fn give_up(&mut self, shard: u32, why: Option<LeadError>) -> Result<(), LeadError> {
        self.finish().await?;
        self.led.remove(&shard);
        // Nobody hears it when the process is ending.
        let _unheard = self.ended.send(Ended { shard, why });
        Ok(())
    }

    /// One round; false when there was nothing to do.
    async fn round(&mut self) -> Result<bool, LeadError> {
        // What rang is taken below, by every shard for itself.
        while !matches!(
            self.prices.try_recv(),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
        ) {}
        let now = self.clock.now(self.ground.wall_us());
        let mut broken = Vec::new();
        for led in self.led.values_mut() {
            if let Err(why) = led.take_prices(now).await {
                broken.push((led.number(), why));
            }
        }
        for (shard, why) in std::mem::take(&mut broken) {
            self.give_up(shard, Some(why)).await?;
        }
        self.peek().await;
        // The same moment for all of a round; the wait for Redis is over by now.
        let wall_us = self.ground.wall_us();
        let now = self.clock.now(wall_us);
        for led in self.led.values_mut() {
            if let Err(why) = led.decide(now, wall_us, self.shards).await {
                broken.push((led.number(), why));
            }
        }
        for (shard, why) in broken {
            self.give_up(shard, Some(why)).await?;
        }
        if self.led.values().all(Led::is_idle) {
            let had_work = self.in_flight.is_some();
            self.finish().await?;
            return Ok(had_work);
        }
        self.submit().await?;
        Ok(true)
    }

    /// Looks into the queues in which something may stand.
    async fn peek(&mut self) {
        let mut stirred: Vec<&mut Led<G>> = self.led.values_mut().filter_map(Led::if_stirred).collect();
        // A call that comes alone waits for no other look; where there are more, a look that finds several saves a round.
        if let ([only], None) = (&mut stirred[..], &self.in_flight)
            && only.take_head()
        {
            return;
        }
        let share = (ROUND_MAX / stirred.len().max(1)).max(SHARE_MIN);
        join_all(stirred.into_iter().map(|led| led.peek(share))).await;
    }
}

/// Waits until something may stand in one of the queues.
async fn stirred<G: Ground>(led: &mut BTreeMap<u32, Led<G>>) {
    if led.is_empty() {
        return std::future::pending().await;
    }
    let bells = led.values_mut().map(|led| Box::pin(led.stirs()));
    pin!(select_all(bells)).await;
}
