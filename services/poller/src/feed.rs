//! The websocket client: connects, subscribes, reads, and replaces the socket when it closes, breaks or falls silent.
//!
//! A dead socket is never kept and never spoken for: nothing is repeated on its behalf. Pings are answered by the websocket library
//! while we read; they do not count as life, because they keep a socket open whose symbols are dead.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bus::backoff::Backoff;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::state::{Status, count};
use crate::stream;

/// How long connecting, including TLS and the upgrade, may take; also how long subscribing may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message taken from a venue, bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// First and longest wait between tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a frame was to its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A data frame of the venue's: the feed lives.
    Data,
    /// Anything else; it proves nothing about prices.
    Nothing,
}

/// Takes text frames. Must not block: the socket is not read meanwhile.
pub trait Listener {
    /// One text frame and when it came, microseconds since the epoch.
    fn frame(&mut self, at_us: u64, text: &str) -> Heard;
}

/// Opens sockets.
pub trait Dial {
    /// What the websocket runs over.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Opens one.
    fn dial(&self) -> impl Future<Output = Result<WebSocketStream<Self::Stream>, WebSocketError>> + Send;
}

/// Opens sockets over TCP, with TLS for `wss://`. The process must have installed a rustls provider for that.
#[derive(Clone, Debug)]
pub struct Network {
    /// `wss://…` or `ws://…`.
    pub url: String,
}

impl Dial for Network {
    type Stream = MaybeTlsStream<TcpStream>;

    async fn dial(&self) -> Result<WebSocketStream<Self::Stream>, WebSocketError> {
        let (socket, _) = connect_async_with_config(self.url.as_str(), Some(limits()), true).await?;
        Ok(socket)
    }
}

/// Limits of a client's socket.
#[must_use]
pub fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// A client of the venue's public streams.
#[derive(Debug)]
pub struct Client<D> {
    /// Opens its sockets.
    pub dial: D,
    /// What it subscribes to.
    pub symbols: Vec<String>,
    /// How long no data may come before the socket is replaced.
    pub silence: Duration,
    /// Where it says how it is.
    pub status: Arc<Status>,
}

/// Why a socket was given up.
#[derive(Debug)]
enum Ended {
    Shutdown,
    Closed(String),
    Broken(String),
    Silent,
}

impl<D: Dial> Client<D> {
    /// Reads frames into `listener` until `shutdown`, over as many sockets as it takes.
    pub async fn run(&self, listener: &mut impl Listener, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let counters = self.status.counters();
        while !shutdown.is_cancelled() {
            let opened = tokio::select! {
                () = shutdown.cancelled() => return,
                opened = self.open() => opened,
            };
            match opened {
                Ok(socket) => {
                    count(&counters.connects);
                    self.status.connected();
                    let ended = self.session(socket, listener, &mut backoff, shutdown).await;
                    self.status.disconnected();
                    match ended {
                        Ended::Shutdown => return,
                        Ended::Closed(reason) => {
                            count(&counters.disconnects);
                            tracing::warn!(reason, "the venue closed the feed");
                        }
                        Ended::Broken(error) => {
                            count(&counters.disconnects);
                            tracing::warn!(error, "the feed broke");
                        }
                        Ended::Silent => {
                            count(&counters.silences);
                            tracing::warn!(silence = ?self.silence, "the feed fell silent");
                        }
                    }
                }
                Err(error) => {
                    count(&counters.connect_failures);
                    tracing::warn!(error, "the feed cannot be opened");
                }
            }
            let delay = backoff.next_delay();
            tracing::info!(?delay, "connecting again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// A socket that is open and subscribed. The server remembers nothing of an earlier one, so this is all done every time.
    async fn open(&self) -> Result<WebSocketStream<D::Stream>, String> {
        let late = |_| "timed out".to_owned();
        let mut socket = timeout(CONNECT_TIMEOUT, self.dial.dial())
            .await
            .map_err(late)?
            .map_err(|error| error.to_string())?;
        let subscribe = Message::text(subscribe_frame(&self.symbols));
        timeout(CONNECT_TIMEOUT, socket.send(subscribe))
            .await
            .map_err(late)?
            .map_err(|error| error.to_string())?;
        Ok(socket)
    }

    async fn session(
        &self,
        mut socket: WebSocketStream<D::Stream>,
        listener: &mut impl Listener,
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) -> Ended {
        let silent = sleep_until(Instant::now() + self.silence);
        tokio::pin!(silent);
        let mut first = true;
        loop {
            let message = tokio::select! {
                // In this order, so that a flood of frames that say nothing cannot hide the watchdog or the order to stop.
                biased;
                () = shutdown.cancelled() => {
                    // The venue may be gone already; a goodbye that fails changes nothing.
                    let _ = timeout(GOODBYE, socket.close(None)).await;
                    return Ended::Shutdown;
                }
                () = &mut silent => return Ended::Silent,
                message = socket.next() => message,
            };
            match message {
                Some(Ok(Message::Text(text))) => {
                    let at_us = clock::now_us();
                    count(&self.status.counters().frames);
                    if listener.frame(at_us, text.as_str()) == Heard::Data {
                        self.status.data_came(at_us);
                        silent.as_mut().reset(Instant::now() + self.silence);
                        if first {
                            first = false;
                            // Only data proves a venue well: one that accepts and closes must not be asked in a tight loop.
                            backoff.reset();
                            self.status.refresh();
                        }
                    }
                }
                Some(Ok(Message::Binary(_))) => count(&self.status.counters().garbage),
                // The answer to a ping is queued by the library and leaves with the next read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(reason))) => {
                    let reason = reason.map_or_else(|| "without a reason".to_owned(), |frame| frame.to_string());
                    // The library has queued the answer to the close.
                    let _ = timeout(GOODBYE, socket.flush()).await;
                    return Ended::Closed(reason);
                }
                Some(Err(error)) => return Ended::Broken(error.to_string()),
                None => return Ended::Broken("end of stream".to_owned()),
            }
        }
    }
}

/// One frame that subscribes to best bid and ask of all symbols.
#[must_use]
pub fn subscribe_frame(symbols: &[String]) -> String {
    let streams: Vec<String> = symbols.iter().map(|symbol| stream::book_ticker(symbol)).collect();
    serde_json::json!({"method": "SUBSCRIBE", "params": streams}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_symbols_go_into_one_frame_as_the_venue_documents_it() {
        let symbols = ["BTC_USDC", "ETH_USDC", "SOL_USDC"].map(str::to_owned);
        let documented =
            r#"{"method":"SUBSCRIBE","params":["bookTicker.BTC_USDC","bookTicker.ETH_USDC","bookTicker.SOL_USDC"]}"#;
        assert_eq!(subscribe_frame(&symbols), documented);
    }
}
