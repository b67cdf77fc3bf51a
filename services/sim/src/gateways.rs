//! The gateways: the real room behind its real layers, over simulated lists.
//!
//! A client calls with a token, a deadline and a request, and gets a response or a status, as it would over the wire; only the
//! connection in front is missing, for it listens on this machine's network. The history tables are away for the whole run: there is no
//! recorder in this world, and what only they know must be told as `HISTORY_BEHIND`, never as "not found".

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bus::{CallError, Caller, CallerOptions, Calls, Redis};
use contracts::bus::{Reply, Request};
use gateway::{Config, Inside, Rate};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call_lists::SimLists;
use crate::process::Process;
use crate::shard_bus::Connection;
use crate::tokens;
use crate::world::World;

/// How many gateways there are.
pub const GATEWAYS: usize = 2;
/// No client of a run is ever throttled: that limit goes by this machine's clock.
const NO_LIMIT: Rate = Rate {
    per_second: 1_000_000,
    burst: 1_000_000,
};

/// The running gateways. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateways {
    world: World,
    config: Arc<Config>,
    running: Arc<Mutex<Vec<Gateway>>>,
}

#[derive(Clone, Debug)]
struct Gateway {
    inside: Inside,
    process: Process,
    gone: CancellationToken,
}

impl Gateways {
    /// Starts all of them.
    pub async fn start(world: &World, options: CallerOptions) -> Self {
        let config = Arc::new(config(options).await);
        let running = (0..GATEWAYS).map(|slot| start(world, &config, slot)).collect();
        Self {
            world: world.clone(),
            config,
            running: Arc::new(Mutex::new(running)),
        }
    }

    /// Kills one and starts it again: who waited there knows nothing any more.
    pub fn kill(&self, slot: usize) {
        let mut running = self.running.lock().expect("nothing panics while it holds this lock");
        running[slot].process.kill();
        running[slot].gone.cancel();
        running[slot] = start(&self.world, &self.config, slot);
    }

    /// Ends all of them.
    pub fn end(&self) {
        let running = self.running.lock().expect("nothing panics while it holds this lock");
        running.iter().for_each(|gateway| gateway.gone.cancel());
    }

    /// Calls one of them; `None` when it dies before it answers.
    pub async fn call<F: Future>(&self, slot: usize, call: impl FnOnce(Inside) -> F) -> Option<F::Output> {
        let gateway = self.running.lock().expect("nothing panics while it holds this lock")[slot].clone();
        tokio::select! {
            biased;
            () = gateway.gone.cancelled() => None,
            answer = call(gateway.inside) => Some(answer),
        }
    }
}

/// What all gateways are told.
async fn config(calls: CallerOptions) -> Config {
    let redis = Redis::open("redis://nowhere.invalid").expect("an address");
    let mut config = Config::new(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        redis,
        no_database().await,
        tokens::config(),
    );
    config.reflection = false;
    config.limits.principal = NO_LIMIT;
    config.limits.address = NO_LIMIT;
    config.calls = calls;
    config
}

/// A database that is away: it refuses without looking for one.
async fn no_database() -> PgPool {
    let pool = PgPoolOptions::new()
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(PgConnectOptions::new_without_pgpass());
    pool.close().await;
    pool
}

fn start(world: &World, config: &Config, slot: usize) -> Gateway {
    let process = Process::new(500 + slot as u64);
    let connection = Connection {
        world: world.clone(),
        process: process.clone(),
    };
    let gone = CancellationToken::new();
    let calls = InVirtualTime {
        caller: Caller::over(SimLists::new(connection), config.calls, gone.clone()),
        world: world.clone(),
    };
    let shards = world.with(|inner| inner.options.shards);
    Gateway {
        inside: Inside::new(config, shards, calls, &gone).expect("a configuration that fits together"),
        process,
        gone,
    }
}

/// The gateway's caller. What the gateway read off this machine's wall clock, it writes anew off the virtual one.
#[derive(Clone, Debug)]
struct InVirtualTime {
    caller: Caller<SimLists>,
    world: World,
}

impl Calls for InVirtualTime {
    async fn call(&self, mut request: Request, deadline: Instant) -> Result<Reply, CallError> {
        let now_us = self.world.true_us().unsigned_abs();
        let left = deadline.saturating_duration_since(Instant::now());
        request.sent_at_us = now_us;
        request.expires_at_us = now_us + u64::try_from(left.as_micros()).expect("a short run");
        self.caller.call(request, deadline).await
    }

    fn is_full(&self) -> bool {
        self.caller.is_full()
    }
}
