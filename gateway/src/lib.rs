//! The gateway: three doors into one room.
//!
//! gRPC, grpc-web and REST come in through one port and pass the same gates into the same tonic services, so that tracing,
//! deadlines, authentication, limits and validation happen once, for all of them alike. What passes is put into an
//! envelope and queued for the engine that leads the account's shard; history is read from the recorder's tables.
//! The gateway keeps no state that matters: any number of them may run, and each may die at any time.
//!
//! Reading order: `server` (the doors), `gates`, `trade` (a thin service), `room` and `wire` (the envelope),
//! `failure` (every error), then `stream`.

mod auth;
mod balance;
mod config;
mod deadline;
mod entrance;
mod failure;
mod gates;
mod health;
mod history;
mod house;
mod inner;
mod inside;
mod limits;
mod listen;
mod market;
mod methods;
mod metrics;
mod operation;
mod order;
mod page;
mod pages;
mod places;
mod rest;
mod room;
mod server;
mod stream;
mod tls;
pub mod token;
mod trace;
mod trade;
mod usage;
mod validate;
mod wallet;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::backoff::Backoff;
use bus::{Caller, Calls, EventReader};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic_health::server::HealthReporter;

pub use auth::principal;
pub use config::{Config, Connections, Deadlines, Limits, Rate, Streams, TokenConfig, TokenKey};
pub use inside::Inside;
pub use tls::TlsConfig;

use crate::history::History;
use crate::listen::Port;
use crate::market::Instruments;
use crate::places::Places;
use crate::room::Room;
use crate::server::Front;
use crate::stream::events::{self, EventHub};
use crate::stream::quote_hub::{self, QuoteHub};
use crate::tls::Tls;

/// Why a gateway could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The port cannot be used.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The database cannot be read, or was never migrated.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

/// A gateway whose port is bound; it answers once [`serve`](Self::serve) runs.
#[derive(Debug)]
pub struct Gateway {
    port: Port,
    address: SocketAddr,
    drain: Duration,
    ready: watch::Receiver<bool>,
    /// Told when shutdown begins: streams end, health says so.
    leaving: CancellationToken,
    /// Told when all is over: background tasks end. On dropping the gateway too.
    _stopped: DropGuard,
}

/// How long a start waits for the database before the port is there without it.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// What it takes to open the room.
struct Opening {
    config: Config,
    front: Front,
    reporter: HealthReporter,
    told: watch::Sender<bool>,
    leaving: CancellationToken,
    stopped: CancellationToken,
}

impl Opening {
    /// Builds the room, lets calls in, and starts what follows the stores.
    fn open<C: Calls>(self, shards: u32, calls: C) {
        let (config, front, stopped) = (self.config, self.front, self.stopped);
        let room = room(&config, &front, shards, calls, &stopped);
        let redis = config.redis.clone();
        let reader = move || EventReader::new(redis.clone(), shards);
        let following = events::follow(Arc::clone(&room.events), reader, room.history.clone());
        tokio::spawn(stopped.clone().run_until_cancelled_owned(following));
        let following = quote_hub::follow(Arc::clone(&room.quotes), config.redis);
        tokio::spawn(stopped.clone().run_until_cancelled_owned(following));
        let calls = room.calls.clone();
        front.entrance.open(server::desks(&room), move || calls.is_full());
        let watching = health::watch(room, self.reporter, self.told, self.leaving);
        tokio::spawn(stopped.run_until_cancelled_owned(watching));
    }
}

/// The room, with nothing that follows the stores.
fn room<C: Calls>(config: &Config, front: &Front, shards: u32, calls: C, stopped: &CancellationToken) -> Arc<Room<C>> {
    Arc::new(Room {
        calls,
        shards,
        history: History::new(config.database.clone(), shards, stopped.clone()),
        events: Arc::new(EventHub::new(shards, config.streams.queue_max)),
        quotes: Arc::new(QuoteHub::new()),
        instruments: Instruments::default(),
        places: Places::new(config.streams.count_max, config.streams.principal_max),
        streams: config.streams,
        principals: Arc::clone(&front.principals),
        metrics: Arc::clone(&front.metrics),
    })
}

/// The number of shards of this deployment.
async fn shards(database: &PgPool) -> Result<u32, sqlx::Error> {
    let shards: i32 = sqlx::query_scalar("SELECT shards FROM cluster")
        .fetch_one(database)
        .await?;
    u32::try_from(shards).map_err(|cause| sqlx::Error::Decode(cause.into()))
}

/// Whether it may come back by itself, and not only when somebody mends the configuration or migrates.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // Connection lost, out of resources, starting up or shutting down.
        sqlx::Error::Database(said) => said
            .code()
            .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class))),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => true,
        _ => false,
    }
}

async fn wait_for_shards(database: &PgPool) -> u32 {
    let mut backoff = Backoff::store();
    loop {
        match shards(database).await {
            Ok(shards) => return shards,
            Err(error) => tracing::warn!(%error, "not open yet: the database cannot be read"),
        }
        backoff.wait().await;
    }
}

impl Gateway {
    /// Checks the configuration and binds the port.
    ///
    /// The number of shards is in the database. While that is away the gateway is there, is not ready, and refuses calls with
    /// `NOT_ACCEPTED`; once it answers they are let in.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        let stopped = CancellationToken::new();
        let calls = Caller::start(&config.redis, config.calls, stopped.clone());
        let database = config.database.clone();
        let (gateway, opening) = Self::assemble(config, stopped.clone()).await?;
        match tokio::time::timeout(FIRST_LOOK, shards(&database)).await {
            Ok(Ok(shards)) => opening.open(shards, calls),
            Ok(Err(error)) if !is_away(&error) => return Err(error.into()),
            Ok(Err(_)) | Err(_) => {
                let waiting = async move {
                    let shards = wait_for_shards(&database).await;
                    opening.open(shards, calls);
                };
                tokio::spawn(stopped.run_until_cancelled_owned(waiting));
            }
        }
        Ok(gateway)
    }

    /// The same with another way to the engines: for simulations and tests.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn bind_with<C: Calls>(config: Config, shards: u32, calls: C) -> Result<Self, GatewayError> {
        if shards == 0 {
            return Err(GatewayError::Config("there must be a shard".to_owned()));
        }
        let (gateway, opening) = Self::assemble(config, CancellationToken::new()).await?;
        opening.open(shards, calls);
        Ok(gateway)
    }

    /// A gateway with its doors, and what it takes to open the room behind them.
    async fn assemble(config: Config, stopped: CancellationToken) -> Result<(Self, Opening), GatewayError> {
        if config.deadlines.default.is_zero() || config.deadlines.max < config.deadlines.default {
            return Err(GatewayError::Config(
                "deadlines must be above zero, the longest last".to_owned(),
            ));
        }
        let leaving = CancellationToken::new();
        let guard = stopped.clone().drop_guard();
        let front = Front::new(&config);
        let (reporter, health) = tonic_health::server::health_reporter();
        health::closed(&reporter).await;
        let doors = server::doors(&config, &front, health, &leaving)?;

        let tls = match config.tls.clone() {
            None => None,
            Some(files) => {
                let (tls, reloading) = Tls::load(files)?;
                tokio::spawn(stopped.clone().run_until_cancelled_owned(reloading));
                Some(tls)
            }
        };
        let listen = |cause| GatewayError::Listen {
            address: config.listen,
            cause,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let mut limits = config.connections;
        if config.limits.forwarded_hops > 0 {
            // All come from our own proxies.
            limits.address_max = limits.count_max;
        }
        let port = Port {
            listener,
            tls,
            doors,
            limits,
            metrics: Arc::clone(&front.metrics),
        };
        let (told, ready) = watch::channel(false);
        let gateway = Self {
            port,
            address,
            drain: config.drain,
            ready,
            leaving: leaving.clone(),
            _stopped: guard,
        };
        let opening = Opening {
            config,
            front,
            reporter,
            told,
            leaving,
            stopped,
        };
        Ok((gateway, opening))
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether calls would be answered now: engines and database are there, and no shutdown was asked for.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Serves until `shutdown`, then lets running calls finish for [`Config::drain`].
    ///
    /// # Errors
    /// None at the moment; see [`GatewayError`].
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), GatewayError> {
        tracing::info!(address = %self.address, "the gateway is open");
        listen::serve(self.port, self.drain, shutdown, self.leaving).await;
        Ok(())
    }
}

/// Binds and serves until `shutdown`.
///
/// # Errors
/// See [`GatewayError`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), GatewayError> {
    Gateway::bind(config).await?.serve(shutdown).await
}
