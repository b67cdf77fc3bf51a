//! The port: accepts connections, bounds what each may do, and lets them go in good order.
//!
//! One port speaks HTTP/1.1 and HTTP/2, over TLS if it has a certificate. Every limit is set here by hand, because the
//! libraries' defaults are "none" in several places.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::config::Connections;
use crate::inner::Inner;
use crate::limits::Peer;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::server::Socket;
use crate::tls::Tls;

const STREAMS_MAX: u32 = 100;
const HEADER_LIST_BYTES_MAX: u32 = 8 * 1024;
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 64;
/// Of one head. The library's own limit of 100 headers stands beside it: setting that costs an allocation a request.
const HTTP1_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// What a client may send before anybody has read it: a little more than the largest message, and some of those.
const STREAM_WINDOW_BYTES: u32 = 80 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// What is kept for a client that does not read, a stream.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long after its streams were ended a connection has to bring that to its client before it is cut.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// After accepting failed, for example because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What there is to serve, and within which limits.
#[derive(Debug)]
pub(crate) struct Port {
    pub listener: TcpListener,
    pub tls: Option<Tls>,
    pub doors: Inner,
    pub limits: Connections,
    pub metrics: Arc<Metrics>,
}

/// Accepts until `shutdown`; then tells `leaving`, and waits `drain` for what is running.
pub(crate) async fn serve(port: Port, drain: Duration, shutdown: CancellationToken, leaving: CancellationToken) {
    let Port {
        listener,
        tls,
        doors,
        limits,
        metrics,
    } = port;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(limits.ping_every)
        .keep_alive_timeout(limits.ping_timeout);
    let builder = Arc::new(builder);
    let places = Places::new(limits.count_max, limits.address_max);
    let mut connections = JoinSet::new();

    let accepting = async {
        loop {
            let place = places.one().await;
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Ok(place) = places.seat(place, Peer::of(peer, &HeaderMap::new(), 0)) else {
                        metrics.connection_refused();
                        continue;
                    };
                    let (open, metrics) = (metrics.connection_opened(), Arc::clone(&metrics));
                    // Answers are small and somebody waits for them.
                    let _best_effort = stream.set_nodelay(true);
                    let unread_ms = u32::try_from(limits.unread.as_millis()).unwrap_or(u32::MAX);
                    // Who stops reading would keep the connection, and what is written into it, for as long as it likes.
                    let _best_effort = set_tcp_user_timeout(&stream, unread_ms);
                    let (builder, tls, doors, leaving) =
                        (Arc::clone(&builder), tls.clone(), doors.clone(), leaving.clone());
                    let served = Served {
                        builder,
                        doors,
                        limits,
                        leaving,
                        metrics,
                    };
                    connections.spawn(async move {
                        match tls {
                            None => served.connection(stream, peer).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => served.connection(stream, peer).await,
                                Err(error) => tracing::debug!(%error, %peer, "TLS: no agreement"),
                            },
                        }
                        drop((place, open));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    // From here on new clients are refused by the system and go elsewhere.
    drop(listener);
    leaving.cancel();
    let drained = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(left = connections.len(), "drain: connections are cut");
        connections.shutdown().await;
    }
}

/// What a connection is served with.
struct Served {
    builder: Arc<Builder<TokioExecutor>>,
    doors: Inner,
    limits: Connections,
    leaving: CancellationToken,
    metrics: Arc<Metrics>,
}

/// How far a connection has come towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// Nobody has asked for anything.
    Young,
    /// It was asked to take no more calls.
    Asked,
    /// Its streams were ended.
    Over,
}

impl Served {
    async fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        let Self {
            builder,
            doors,
            limits,
            leaving,
            metrics,
        } = self;
        let used = Arc::new(AtomicBool::new(false));
        let socket = Socket {
            peer,
            over: CancellationToken::new(),
        };
        let over = socket.over.clone();
        let service = hyper::service::service_fn({
            let used = Arc::clone(&used);
            move |request: Request<Incoming>| {
                used.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(socket.clone());
                let answer = doors.pass(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut first_request = pin!(tokio::time::sleep(limits.first_request));
        let mut step = pin!(tokio::time::sleep(limits.age_max));
        let (mut waiting, mut staying, mut age) = (true, true, Age::Young);
        loop {
            tokio::select! {
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, %peer, "connection ended");
                    }
                    return;
                }
                () = first_request.as_mut(), if waiting => {
                    // Nothing came: somebody holds connections, or half of a preface, open.
                    if !used.load(Ordering::Relaxed) {
                        return;
                    }
                    waiting = false;
                }
                () = leaving.cancelled(), if staying => {
                    serving.as_mut().graceful_shutdown();
                    staying = false;
                }
                // While the server leaves too: its drain may be longer.
                () = step.as_mut() => {
                    let patience = match age {
                        Age::Young => {
                            serving.as_mut().graceful_shutdown();
                            age = Age::Asked;
                            limits.age_grace
                        }
                        Age::Asked => {
                            metrics.connection_cut();
                            over.cancel();
                            age = Age::Over;
                            LAST_WORDS
                        }
                        Age::Over => {
                            tracing::debug!(%peer, "a connection past its age did not end, and is cut");
                            return;
                        }
                    };
                    step.as_mut().reset(tokio::time::Instant::now() + patience);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
