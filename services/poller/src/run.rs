//! The process: feed, order, batch, publish, until told to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Feed, LIVE_PATIENCE};
use crate::error::PollerError;
use crate::feed::{Client, Network};
use crate::intake::{Desk, Intake};
use crate::playback::Playback;
use crate::publish::{self, RedisOutlet};
use crate::replay::ReplayServer;
use crate::state::{Counters, FeedState, Mode, Status};

/// How often watchers are brought up to date when nothing else happens.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// A poller that is configured but not yet started.
#[derive(Debug)]
pub struct Poller {
    config: Config,
    status: Arc<Status>,
    desk: Arc<Desk>,
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
        let status = Arc::new(Status::default());
        let desk = Arc::new(Desk::new(config.batch.is_zero(), Arc::clone(status.counters())));
        Ok(Self { config, status, desk })
    }

    /// The feed as it is, told on every change of the connection and about once a second.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<FeedState> {
        self.status.watch()
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.status.counters())
    }

    /// Runs until `shutdown`. A venue or a Redis that is away is waited for, not reported as an error.
    ///
    /// # Errors
    /// A tape that cannot be played.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), PollerError> {
        let stop = shutdown.child_token();
        let mut outlet = RedisOutlet::new(self.config.redis.clone());
        let feeding = async {
            let fed = self.feed(&stop).await;
            stop.cancel();
            fed
        };
        let publishing = publish::run(&self.desk, &mut outlet, self.config.batch, &self.status, &stop);
        let refreshing = async {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(REFRESH_EVERY) => {}
                }
                self.status.refresh();
            }
        };
        let (fed, (), ()) = tokio::join!(feeding, publishing, refreshing);
        fed
    }

    async fn feed(&self, stop: &CancellationToken) -> Result<(), PollerError> {
        match &self.config.feed {
            Feed::Live { url } => {
                self.status.set_origin(Mode::Live, url);
                tracing::info!(url, "prices: LIVE");
                self.client(url).run(&mut self.intake(), stop).await;
                Ok(())
            }
            Feed::Replay(playback) => self.replay(playback, stop).await,
            Feed::Auto { url, playback } => {
                if self.live_if_it_answers(url, stop).await {
                    return Ok(());
                }
                tracing::warn!(url, tape = %playback.tape, patience = ?LIVE_PATIENCE, "no live data: falling back to a REPLAY; start again to try live again");
                self.desk.clear();
                self.replay(playback, stop).await
            }
        }
    }

    /// Stays with the venue when data comes in time, until told to stop; comes back with `false` when none does.
    async fn live_if_it_answers(&self, url: &str, stop: &CancellationToken) -> bool {
        self.status.set_origin(Mode::Live, url);
        tracing::info!(url, "prices: trying LIVE");
        let trial = stop.child_token();
        let (client, mut intake, mut state) = (self.client(url), self.intake(), self.status.watch());
        let live = client.run(&mut intake, &trial);
        // The sender lives in `self`, so this ends only with data.
        let data = async { drop(state.wait_for(|state| state.last_frame_at.is_some()).await) };
        tokio::pin!(live);
        tokio::select! {
            () = &mut live => return true,
            () = data => {
                tracing::info!(url, "prices: LIVE");
                live.await;
                return true;
            }
            () = sleep(LIVE_PATIENCE) => {}
        }
        trial.cancel();
        live.await;
        stop.is_cancelled()
    }

    /// Plays a tape through a server on a loopback port, so that the ordinary client is what reads it.
    async fn replay(&self, playback: &Playback, stop: &CancellationToken) -> Result<(), PollerError> {
        let server = ReplayServer::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), playback.clone()).await?;
        let url = server.url();
        self.status.set_origin(Mode::Replay, &playback.tape.to_string());
        tracing::warn!(tape = %playback.tape, speed = %playback.speed, repeat = playback.repeat, "prices: REPLAY, not live");
        let stop = stop.child_token();
        let serving = async {
            let served = server.serve(stop.clone()).await;
            stop.cancel();
            served
        };
        let (client, mut intake) = (self.client(&url), self.intake());
        let (served, ()) = tokio::join!(serving, client.run(&mut intake, &stop));
        served
    }

    fn client(&self, url: &str) -> Client<Network> {
        Client {
            dial: Network { url: url.to_owned() },
            symbols: self.config.symbols.clone(),
            silence: self.config.silence,
            status: Arc::clone(&self.status),
        }
    }

    fn intake(&self) -> Intake {
        Intake::new(
            &self.config.symbols,
            Arc::clone(&self.desk),
            Arc::clone(self.status.counters()),
        )
    }
}
