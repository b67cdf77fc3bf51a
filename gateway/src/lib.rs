//! The gateway: three doors into one room.
//!
//! gRPC, grpc-web and REST come in through one port and end in the same layered tonic service, so that tracing,
//! deadlines, authentication, limits and validation happen once, for all of them alike. What passes is put into an
//! envelope and queued for the engine that leads the account's shard; history is read from the recorder's tables.
//! The gateway keeps no state that matters: any number of them may run, and each may die at any time.
//!
//! Reading order: `server` (the doors and the stack), `trade` (a thin service), `wire` (the envelope), `failure`
//! (every error), then `stream`.

mod config;
pub mod token;

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

pub use config::{Config, Connections, Deadlines, Limits, Rate, Streams, TokenConfig, TokenKey};

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
    address: SocketAddr,
}

impl Gateway {
    /// Checks the configuration, reads the number of shards from the database, and binds the port.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn bind(config: Config) -> Result<Self, GatewayError> {
        Ok(Self { address: config.listen })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Whether calls would be answered now: engines and database are there, and no shutdown was asked for.
    #[must_use]
    pub fn readiness(&self) -> tokio::sync::watch::Receiver<bool> {
        tokio::sync::watch::channel(false).1
    }

    /// Serves until `shutdown`, then lets running calls finish for [`Config::drain`].
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), GatewayError> {
        shutdown.cancelled().await;
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
