//! The replay server: the venue's protocol on a websocket, from a tape.
//!
//! Subscriptions are not acknowledged, a fault is answered with an error frame, a ping comes every minute and wants a pong. The tape
//! starts when the first client has subscribed, so that nothing of it is played to an empty room, and then goes on like a market.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ReplayConfig;
use crate::error::PollerError;
use crate::playback::Playback;
use crate::player::{self, Sent};
use crate::protocol::Subscriptions;

/// How often a connection is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(60);
/// When it is pinged first.
pub const PING_FIRST: Duration = Duration::from_secs(20);
/// How long a pong may take before the connection is closed.
pub const PONG_WITHIN: Duration = Duration::from_secs(120);
/// Most clients at once.
const CONNECTIONS_MAX: usize = 64;
/// Frames a client may be behind before it misses some.
const BEHIND_MAX: usize = 8_192;
/// Longest message taken from a client, bytes.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// How long an upgrade, or one message to a client that does not read, may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A replay server that listens but does not serve yet.
#[derive(Debug)]
pub struct ReplayServer {
    listener: TcpListener,
    address: SocketAddr,
    playback: Playback,
}

/// Serves a tape until `shutdown`.
///
/// # Errors
/// When the tape cannot be played or the address is taken.
pub async fn replay(config: ReplayConfig, shutdown: CancellationToken) -> Result<(), PollerError> {
    let server = ReplayServer::bind(config.listen, config.playback).await?;
    tracing::info!(url = server.url(), tape = %server.playback.tape, speed = %server.playback.speed, "replaying");
    server.serve(shutdown).await
}

impl ReplayServer {
    /// Opens the tape and the port.
    ///
    /// # Errors
    /// When the tape cannot be played or the address is taken.
    pub async fn bind(listen: SocketAddr, playback: Playback) -> Result<Self, PollerError> {
        player::check(&playback)?;
        let failed = |cause| PollerError::Listen { address: listen, cause };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            playback,
        })
    }

    /// Where clients connect: `ws://ADDRESS`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Serves until `shutdown`. At the end of a tape that is not repeated it stays, silent, as a market does that has closed.
    ///
    /// # Errors
    /// When the tape turns out to be unreadable.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), PollerError> {
        let hall = Hall::default();
        let connections = TaskTracker::new();
        let mut ended = false;
        let playing = hall.play(&self.playback);
        tokio::pin!(playing);
        let result = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                played = &mut playing, if !ended => match played {
                    Ok(events) => {
                        ended = true;
                        tracing::warn!(tape = %self.playback.tape, events, "the tape is at its end");
                    }
                    Err(error) => break Err(error),
                },
                accepted = self.listener.accept() => match accepted {
                    Ok(_) if connections.len() >= CONNECTIONS_MAX => {
                        tracing::warn!(limit = CONNECTIONS_MAX, "too many replay clients: one is turned away");
                    }
                    Ok((stream, peer)) => {
                        tracing::debug!(%peer, "a replay client");
                        let _ = stream.set_nodelay(true);
                        connections.spawn(hall.clone().serve(stream, shutdown.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a replay client could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        };
        connections.close();
        if result.is_ok() {
            let _ = timeout(GOODBYE, connections.wait()).await;
        }
        result
    }
}

/// What the player and all connections share.
#[derive(Clone, Debug)]
pub struct Hall {
    audience: broadcast::Sender<Sent>,
    subscribed: CancellationToken,
}

impl Default for Hall {
    fn default() -> Self {
        Self {
            audience: broadcast::Sender::new(BEHIND_MAX),
            subscribed: CancellationToken::new(),
        }
    }
}

impl Hall {
    /// Waits for the first subscription, then plays.
    ///
    /// # Errors
    /// When the tape cannot be read.
    pub async fn play(&self, playback: &Playback) -> Result<u64, PollerError> {
        self.subscribed.cancelled().await;
        player::play(playback, &self.audience).await
    }

    /// Serves one client until it leaves or `shutdown`.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, shutdown: CancellationToken) {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(REQUEST_BYTES_MAX))
            .max_frame_size(Some(REQUEST_BYTES_MAX));
        let opened = tokio::select! {
            () = shutdown.cancelled() => return,
            opened = timeout(CLIENT_TIMEOUT, accept_async_with_config(stream, Some(limits))) => opened,
        };
        let Ok(Ok(mut socket)) = opened else { return };
        let goodbye = self.talk(&mut socket, &shutdown).await;
        if let Some((code, reason)) = goodbye {
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            let _ = timeout(GOODBYE, socket.close(Some(frame))).await;
        }
    }

    /// Talks with one client; gives the words to part with, or none when it left by itself.
    async fn talk<S>(
        &self,
        socket: &mut WebSocketStream<S>,
        shutdown: &CancellationToken,
    ) -> Option<(CloseCode, &'static str)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut subscriptions = Subscriptions::default();
        let mut frames = self.audience.subscribe();
        let mut ping = interval_at(Instant::now() + PING_FIRST, PING_EVERY);
        let mut pinged: Option<Instant> = None;
        loop {
            let overdue = pinged.unwrap_or_else(Instant::now) + PONG_WITHIN;
            tokio::select! {
                () = shutdown.cancelled() => return Some((CloseCode::Away, "the server is shutting down")),
                () = sleep_until(overdue), if pinged.is_some() => return Some((CloseCode::Policy, "no pong")),
                _ = ping.tick() => {
                    pinged.get_or_insert_with(Instant::now);
                    send(socket, Message::Ping(Bytes::new())).await?;
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        for answer in subscriptions.hear(text.as_str()) {
                            send(socket, Message::text(answer)).await?;
                        }
                        if !subscriptions.is_empty() {
                            self.subscribed.cancel();
                        }
                    }
                    Some(Ok(Message::Pong(_))) => pinged = None,
                    Some(Ok(Message::Close(_))) => {
                        // The library has queued the answer to the close.
                        let _ = timeout(GOODBYE, socket.flush()).await;
                        return None;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                },
                frame = frames.recv() => match frame {
                    Ok(frame) if subscriptions.contains(&frame.stream) => send(socket, Message::Text(frame.text)).await?,
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "a replay client is too slow and misses frames"),
                    // The sender lives as long as `self`.
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

/// Sends, or gives up on a client that does not read.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, message: Message) -> Option<()> {
    timeout(CLIENT_TIMEOUT, socket.send(message)).await.ok()?.ok()
}
