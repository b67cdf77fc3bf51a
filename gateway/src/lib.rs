//! The gateway: three doors into one room.
//!
//! gRPC, grpc-web and REST come in through one port and end in the same layered tonic service, so that tracing,
//! deadlines, authentication, limits and validation happen once, for all of them alike. What passes is put into an
//! envelope and queued for the engine that leads the account's shard; history is read from the recorder's tables.
//! The gateway keeps no state that matters: any number of them may run, and each may die at any time.
//!
//! Reading order: `server` (the doors and the stack), `trade` (a thin service), `room` and `wire` (the envelope),
//! `failure` (every error), then `stream`.

mod around;
mod auth;
mod balance;
mod config;
mod deadline;
mod failure;
mod health;
mod history;
mod house;
mod limits;
mod listen;
mod market;
mod methods;
mod metrics;
mod operation;
mod page;
mod pages;
mod room;
mod server;
mod stream;
mod tls;
pub mod token;
mod trace;
mod trade;
mod validate;
mod wallet;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::{Caller, Calls, EventReader};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use auth::principal;
pub use config::{Config, Connections, Deadlines, Limits, Rate, Streams, TokenConfig, TokenKey};
pub use tls::TlsConfig;

use crate::around::Inner;
use crate::history::History;
use crate::market::Instruments;
use crate::metrics::Metrics;
use crate::room::Room;
use crate::stream::events::{self, EventHub};
use crate::stream::quotes::{self, QuoteHub};
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
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    doors: Doors,
    connections: Connections,
    drain: Duration,
    ready: watch::Receiver<bool>,
    /// Told when shutdown begins: streams end, health says so.
    leaving: CancellationToken,
    /// Told when all is over: background tasks end. On dropping the gateway too.
    _stopped: DropGuard,
}

struct Doors(Inner);

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doors")
    }
}

impl Gateway {
    /// Checks the configuration, reads the number of shards from the database, and binds the port.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        let shards: i32 = sqlx::query_scalar("SELECT shards FROM cluster")
            .fetch_one(&config.database)
            .await?;
        let shards = u32::try_from(shards).map_err(|_| GatewayError::Config(format!("{shards} shards")))?;
        let stopped = CancellationToken::new();
        let calls = Caller::start(&config.redis, config.calls, stopped.clone());
        Self::assemble(config, shards, calls, stopped).await
    }

    /// The same with another way to the engines: for simulations and tests.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn bind_with<C: Calls>(config: Config, shards: u32, calls: C) -> Result<Self, GatewayError> {
        Self::assemble(config, shards, calls, CancellationToken::new()).await
    }

    async fn assemble<C: Calls>(
        config: Config,
        shards: u32,
        calls: C,
        stopped: CancellationToken,
    ) -> Result<Self, GatewayError> {
        if shards == 0 || config.deadlines.default.is_zero() || config.deadlines.max < config.deadlines.default {
            return Err(GatewayError::Config(
                "shards and deadlines must be above zero, the longest last".to_owned(),
            ));
        }
        let leaving = CancellationToken::new();
        let guard = stopped.clone().drop_guard();
        let room = Arc::new(Room {
            calls,
            shards,
            history: History::new(config.database.clone(), shards, stopped.clone()),
            events: Arc::new(EventHub::new(shards, config.streams.queue_max)),
            quotes: Arc::new(QuoteHub::new()),
            instruments: Instruments::default(),
            places: Arc::new(Semaphore::new(config.streams.count_max)),
            streams: config.streams,
            metrics: Arc::new(Metrics::new()),
        });
        let (reporter, health) = tonic_health::server::health_reporter();
        let doors = server::doors(&config, &room, health, &leaving)?;

        let tls = match config.tls {
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

        let reader = EventReader::new(config.redis.clone(), shards);
        let following = events::follow(Arc::clone(&room.events), reader, room.history.clone());
        tokio::spawn(stopped.clone().run_until_cancelled_owned(following));
        let following = quotes::follow(Arc::clone(&room.quotes), config.redis.clone());
        tokio::spawn(stopped.clone().run_until_cancelled_owned(following));
        let (told, ready) = watch::channel(false);
        let watching = health::watch(room, reporter, told, leaving.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(watching));
        Ok(Self {
            listener,
            address,
            tls,
            doors: Doors(doors),
            connections: config.connections,
            drain: config.drain,
            ready,
            leaving,
            _stopped: guard,
        })
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
        listen::serve(
            self.listener,
            self.tls,
            self.doors.0,
            self.connections,
            self.drain,
            shutdown,
            self.leaving,
        )
        .await;
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
