//! The recorder: turns the journal into tables that people ask (operations, trades, the ledger) and the price stream into candles.
//!
//! It runs at its own pace behind the engine and nothing waits for it. The rows of a stretch of journal and the cursor behind it are one
//! transaction, so each entry is expanded exactly once however often the recorder, Postgres or Redis dies, and however many recorders
//! run: the second one to commit finds the cursor moved and starts over from there.
//!
//! It decides nothing and forgives nothing. An operation that was executed twice, a hole in the journal, lines that do not sum to zero:
//! each stops it with its own [`RecorderError`], because a read model that papers over one of them is worse than a late one. A store that
//! is away stops nothing; it is tried again.
//!
//! Everything but the candles can be made again: [`rebuild`]; and held against the journal: [`verify`].
//!
//! Reading order: `rows` (what the tables hold), `expand` (journal to rows, pure), `store` and
//! `copy` (rows to tables), `run` (the loop), then `candles` and `totals`.

mod candles;
mod copy;
mod error;
mod expand;
mod metrics;
mod rows;
mod run;
mod store;
mod totals;
pub mod verify;

use std::time::Duration;

pub use error::RecorderError;
pub use run::rebuild;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What a recorder needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the price stream is.
    pub redis: bus::Redis,
    /// Where the journal is and the read models go. Three connections are used at a time.
    pub pool: sqlx::PgPool,
    /// Longest wait between two looks at an idle journal; after work it looks sooner. See [`Config::POLL`].
    pub poll: Duration,
}

impl Config {
    /// What [`Config::poll`] usually is.
    pub const POLL: Duration = Duration::from_millis(100);
}

/// Records until told to stop, which may be at any point: what had not been committed is done again by the next recorder.
///
/// # Errors
/// Whatever no waiting will mend; see [`RecorderError`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RecorderError> {
    let metrics = Metrics::new();
    tokio::try_join!(
        run::follow(&config.pool, config.poll, &metrics, &shutdown),
        candles::follow(&config.redis, &config.pool, &metrics, &shutdown),
        totals::follow(&config.pool, &metrics, &shutdown),
    )?;
    Ok(())
}
