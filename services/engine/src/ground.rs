//! What an engine stands on: a journal, a bus, prices and a wall clock. Real ones here; a simulation brings its own, so that it runs
//! the same code.

use bus::connect::Commands;
use bus::prices::{PriceStream, RedisPrices};
use bus::{BusError, Presence, Redis, RedisPresence, RedisShardBus, ShardBus};
use uuid::Uuid;

use crate::inbox;
use crate::journal::{Journal, PgJournal};
use crate::run::EngineError;

/// What an engine stands on.
pub trait Ground: Clone + Send + Sync + 'static {
    /// The journal.
    type Journal: Journal;
    /// The bus of one shard.
    type Bus: ShardBus + Send + Sync + std::fmt::Debug + 'static;
    /// Where leaders show themselves.
    type Presence: Presence + 'static;
    /// The price stream.
    type Prices: PriceStream;

    /// The journal.
    fn journal(&self) -> &Self::Journal;
    /// Connects to the bus of a shard, to lead it.
    fn bus(&self, shard: u32) -> Self::Bus;
    /// Where leaders show themselves.
    fn presence(&self) -> Self::Presence;
    /// The price stream.
    fn prices(&self) -> &Self::Prices;
    /// The wall clock, microseconds since the epoch. May jump.
    fn wall_us(&self) -> i64;
    /// What the clocks of the journal, the bus and this machine say, microseconds since the epoch.
    fn clocks(&self) -> impl Future<Output = Result<[i64; 3], EngineError>> + Send;
    /// An id that nobody had before.
    fn fresh_id(&self) -> Uuid;
}

/// Postgres, Redis and this machine's clock.
#[derive(Clone, Debug)]
pub struct RealGround {
    journal: PgJournal,
    redis: Redis,
    prices: RedisPrices,
    connection: Commands,
}

impl RealGround {
    /// Connects to Redis; the journal is connected already.
    ///
    /// # Errors
    /// When Redis cannot be reached now.
    pub async fn connect(journal: PgJournal, redis: Redis) -> Result<Self, BusError> {
        let connection = redis.commands().await?;
        Ok(Self {
            journal,
            prices: RedisPrices::new(redis.clone()),
            redis,
            connection,
        })
    }
}

impl Ground for RealGround {
    type Journal = PgJournal;
    type Bus = RedisShardBus;
    type Presence = RedisPresence;
    type Prices = RedisPrices;

    fn journal(&self) -> &PgJournal {
        &self.journal
    }

    fn bus(&self, shard: u32) -> RedisShardBus {
        RedisShardBus::new(self.redis.clone(), self.connection.clone(), shard)
    }

    fn presence(&self) -> RedisPresence {
        RedisPresence::new(self.connection.clone())
    }

    fn prices(&self) -> &RedisPrices {
        &self.prices
    }

    fn wall_us(&self) -> i64 {
        inbox::wall_us()
    }

    async fn clocks(&self) -> Result<[i64; 3], EngineError> {
        Ok([
            self.journal.time_us().await?,
            self.redis.time_us().await?,
            self.wall_us(),
        ])
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}
