//! A client that does nothing wrong: another address, another principal.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{bearer, claims, framed, signed};

/// From where it calls. Attackers call from 127.0.0.1.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Past this a call hangs; on a machine with nothing else to do it takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Calls that must be answered after an attack has begun, and again after it is over.
const CALLS_MIN: u64 = 10;

/// One that calls without pause, by gRPC on a connection that stays and by REST on a new one each time.
pub struct Neighbour {
    answered: Arc<AtomicU64>,
    leave: CancellationToken,
    calling: JoinHandle<()>,
}

impl Neighbour {
    /// Moves in; its first calls are answered.
    pub async fn of(gateway: SocketAddr) -> Self {
        let (answered, leave) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let calling = tokio::spawn(call(gateway, Arc::clone(&answered), leave.clone()));
        let neighbour = Self {
            answered,
            leave,
            calling,
        };
        neighbour.goes_on().await;
        neighbour
    }

    /// Waits until more of its calls were answered, from the first to the last of them.
    pub async fn goes_on(&self) {
        let until = self.answered.load(Ordering::Relaxed) + CALLS_MIN;
        let more = async {
            while self.answered.load(Ordering::Relaxed) < until && !self.calling.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, more)
            .await
            .expect("the neighbour's calls are answered");
    }

    /// Moves out: none of its calls has failed. Says how many there were.
    pub async fn leaves(self) -> u64 {
        self.goes_on().await;
        self.leave.cancel();
        self.calling.await.expect("none of the neighbour's calls failed");
        self.answered.load(Ordering::Relaxed)
    }
}

async fn call(gateway: SocketAddr, answered: Arc<AtomicU64>, leave: CancellationToken) {
    let mut kept = None;
    while !leave.is_cancelled() {
        let (status, code) = within(grpc(gateway, &mut kept)).await;
        assert_eq!((status, code.as_str()), (200, "0"), "by gRPC");
        answered.fetch_add(1, Ordering::Relaxed);
        let status = within(rest(gateway, "/v1/accounts/calm/balances")).await;
        assert_eq!(status, 200, "by REST");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn within<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.expect("an answer")
}

/// The token of the neighbour.
pub fn authorization() -> String {
    let mut claims = claims(&["calm"], "view trade fund");
    claims.sub = "neighbour".into();
    bearer(&signed(&claims))
}

/// A connection from the neighbour's address.
pub async fn connect(gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ADDRESS, 0).into()).unwrap();
    socket.connect(gateway).await.expect("a connection is accepted")
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn grpc(gateway: SocketAddr, kept: &mut Option<Sender>) -> (u16, String) {
    if kept.is_none() {
        let stream = TokioIo::new(connect(gateway).await);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        *kept = Some(sender);
    }
    let name = "BalanceService/ListBalances";
    let response = ask(kept.as_mut().unwrap(), gateway, name, &json!({"accountId": "calm"})).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("an answer to its end");
    let trailers = body.trailers().cloned().unwrap_or(parts.headers);
    (
        parts.status.as_u16(),
        trailers["grpc-status"].to_str().unwrap().to_owned(),
    )
}

/// A gRPC call of the neighbour's on a connection.
pub async fn ask(
    sender: &mut Sender,
    gateway: SocketAddr,
    method: &'static str,
    message: &serde_json::Value,
) -> Response<Incoming> {
    let request = Request::post(format!("http://{gateway}/fulcrum.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", authorization());
    let request = request.body(Full::new(framed(method, message))).unwrap();
    sender.send_request(request).await.expect("the connection stays")
}

/// A REST call of the neighbour's on a connection of its own.
pub async fn rest(gateway: SocketAddr, path: &str) -> u16 {
    let stream = TokioIo::new(connect(gateway).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "x")
        .header("authorization", authorization());
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("an answer to its end");
    status
}
