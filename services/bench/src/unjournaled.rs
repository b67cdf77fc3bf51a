//! An engine whose journal is its memory: the real code over the real Redis, for the difference that a durable journal makes.
//!
//! It acknowledges what no disk has, so it is a part of the bench and not an option of the engine.

use bus::connect::Commands;
use bus::prices::RedisPrices;
use bus::{Redis, RedisPresence, RedisShardBus};
use clap::Args;
use engine::ground::Ground;
use engine::window::Limits;
use engine::{EngineError, Snapshots};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::inside::journal::MemoryJournal;
use crate::say;

/// What it says once it leads every shard.
pub const LEADS: &str = "leads every shard, and remembers nothing after its end";

/// Where it runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct UnjournaledOptions {
    /// Where Redis is.
    #[arg(long, env = "FULCRUM_BENCH_REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: String,
    /// Number of shards of the deployment.
    #[arg(long, env = "FULCRUM_BENCH_SHARDS", default_value_t = 16, value_name = "COUNT")]
    shards: u32,
}

/// Leads until it is told to stop.
pub(crate) async fn run(options: UnjournaledOptions) -> anyhow::Result<()> {
    let redis = Redis::open(&options.redis_url)?;
    let ground = MemoryGround {
        journal: MemoryJournal::new(options.shards),
        prices: RedisPrices::new(redis.clone()),
        connection: redis.commands().await?,
        redis,
    };
    let its = engine::Options {
        name: "bench".to_owned(),
        shards: options.shards,
        instruments: engine::default_instruments(),
        snapshots: Snapshots::default(),
        window: Limits::default(),
    };
    let (status, mut watched) = engine::health::status();
    let leading = async {
        let all = |status: &engine::Status| status.leads.len() == options.shards as usize;
        if watched.wait_for(all).await.is_ok() {
            say::line(LEADS);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = engine::serve(ground, its, status, CancellationToken::new()) => Ok(served?),
        () = leading => Ok(()),
    }
}

/// Memory, Redis and this machine's clock.
#[derive(Clone, Debug)]
struct MemoryGround {
    journal: MemoryJournal,
    redis: Redis,
    prices: RedisPrices,
    connection: Commands,
}

impl Ground for MemoryGround {
    type Journal = MemoryJournal;
    type Bus = RedisShardBus;
    type Presence = RedisPresence;
    type Prices = RedisPrices;

    fn journal(&self) -> &MemoryJournal {
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
        engine::inbox::wall_us()
    }

    async fn clocks(&self) -> Result<[i64; 3], EngineError> {
        let here = self.wall_us();
        Ok([here, self.redis.time_us().await?, here])
    }

    fn fresh_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}
