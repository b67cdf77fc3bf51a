//! The room behind its gates, without a port: for whoever calls from the same process, as the simulation does.
//!
//! A call goes through everything that one through the gRPC door goes through past the connection: deadline, limits, token, validation,
//! the handler, the caller, and the way back to a status. What follows the stores (events, quotes, health) is not started.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bus::Calls;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use crate::config::Config;
use crate::gates::Gates;
use crate::server::Front;
use crate::{GatewayError, server};

/// See the module. Cheap to clone; generated clients take it in place of a connection.
#[derive(Clone)]
pub struct Inside(Gates);

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inside")
    }
}

impl Inside {
    /// Puts the gates around a room that reaches the engines through `calls`. Its tasks end with `stopped`.
    ///
    /// # Errors
    /// [`GatewayError::Config`] when the configuration contradicts itself.
    pub fn new<C: Calls>(
        config: &Config,
        shards: u32,
        calls: C,
        stopped: &CancellationToken,
    ) -> Result<Self, GatewayError> {
        let front = Front::new(config);
        let room = crate::room(config, &front, shards, calls.clone(), stopped);
        front.entrance.open(server::desks(&room), move || calls.is_full());
        let (_, health) = tonic_health::server::health_reporter();
        server::gates(config, &front, health, stopped).map(Self)
    }
}

impl Service<Request<Body>> for Inside {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.clone().pass(request).map(Ok).boxed()
    }
}
