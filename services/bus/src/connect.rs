//! Connections to Redis: a shared one for commands, one of its own for each blocking reader.
//!
//! A blocking read on a shared connection would stall every other command behind it, and the client's default response timeout would
//! cut the read short; both are decided here and nowhere else.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client};

/// A connection for commands, shared by clones.
pub type Commands = ConnectionManager;

/// How long a command may take before Redis counts as away.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What went wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Redis refused, dropped or timed out.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The address cannot be used.
    #[error("redis address {url:?} cannot be used: {cause}")]
    Address {
        /// As configured, without credentials.
        url: String,
        /// Why.
        cause: redis::RedisError,
    },
}

/// Where Redis is. Cheap to clone; connects when asked to.
#[derive(Clone, Debug)]
pub struct Redis {
    client: Client,
}

impl Redis {
    /// Reads an address: `redis://host:port`, `rediss://…` or `redis+unix:///path/to/socket`.
    ///
    /// # Errors
    /// [`BusError::Address`] when it cannot be read.
    pub fn open(url: &str) -> Result<Self, BusError> {
        let client = Client::open(url).map_err(|cause| {
            let shown = url.rsplit_once('@').map_or(url, |(_, host)| host);
            BusError::Address {
                url: shown.to_owned(),
                cause,
            }
        })?;
        Ok(Self { client })
    }

    /// A connection for commands, shared by clones, that comes back by itself.
    ///
    /// # Errors
    /// When Redis cannot be reached now.
    pub async fn commands(&self) -> Result<ConnectionManager, BusError> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(COMMAND_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // A command is never sent twice behind our back: pushes are not idempotent. Callers decide about retries.
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        Ok(self.client.get_connection_manager_with_config(config).await?)
    }

    /// A connection of its own for one blocking reader, which waits as long as the command says.
    ///
    /// # Errors
    /// When Redis cannot be reached now.
    pub async fn blocking(&self) -> Result<MultiplexedConnection, BusError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        Ok(self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }

    /// Redis's own clock, for the check that clocks agree. Microseconds since the epoch.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn time_us(&self) -> Result<i64, BusError> {
        let mut connection = self.blocking().await?;
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
        Ok(seconds * 1_000_000 + micros)
    }
}
