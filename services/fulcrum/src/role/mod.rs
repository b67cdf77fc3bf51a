//! One file for each command that runs one role, or does one thing, alone. Each holds its options and how they become the configuration
//! of the crate that does the work.

pub(crate) mod bench;
pub(crate) mod dead_letters;
pub(crate) mod engine;
pub(crate) mod gateway;
pub(crate) mod migrate;
pub(crate) mod poller;
pub(crate) mod recorder;
pub(crate) mod shards;
pub(crate) mod sim;
pub(crate) mod token;
pub(crate) mod verify;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::failure::Failure;

/// A pool that connects when first used, so that a database that is away is waited for. Its sessions bear the name of the role, unless
/// the address names them itself.
pub(crate) fn pool(url: &str, role: &str, connections_max: u32) -> Result<PgPool, Failure> {
    let mut options: PgConnectOptions = url.parse()?;
    if options.get_application_name().is_none() {
        options = options.application_name(&format!("fulcrum-{role}"));
    }
    Ok(PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(std::time::Duration::from_secs(5))
        .connect_lazy_with(options))
}
