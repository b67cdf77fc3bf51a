//! The way into the room. The doors may be open before there is a room, and the room may be full: then it says so.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bus::NotAccepted;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

use crate::failure::{self, Failure};
use crate::gates::Came;
use crate::methods::Method;
use crate::metrics::Metrics;

/// Where the gates end and the room begins. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Entrance(Arc<OnceLock<Open>>);

struct Open {
    desks: Desks,
    is_full: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Entrance {
    /// Lets calls into the room from now on, while it is not full.
    pub fn open(&self, desks: Desks, is_full: impl Fn() -> bool + Send + Sync + 'static) {
        let is_full = Box::new(is_full);
        if self.0.set(Open { desks, is_full }).is_err() {
            tracing::error!("the room was there already");
        }
    }

    /// Passes a call on to the room.
    pub fn enter(&self, method: &Method, request: Request<Body>) -> Answering {
        match self.0.get() {
            Some(open) => open.desks.answer(method, request),
            None => refusing(Failure::Opening),
        }
    }

    /// Whether what waits for an engine would only join too many.
    pub fn is_full(&self) -> bool {
        self.0.get().is_some_and(|open| (open.is_full)())
    }
}

/// An answer on its way, as generated services make it.
pub(crate) type Answering = BoxFuture<Response<Body>, Infallible>;

fn refusing(failure: Failure) -> Answering {
    Box::pin(std::future::ready(Ok(Status::from(failure).into_http())))
}

type Desk = Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>;

/// Our services, by name: they answer in one future each, without a router's between.
#[derive(Default)]
pub(crate) struct Desks(Vec<(&'static str, Desk)>);

impl Desks {
    /// With one more.
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answering>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        // Generated services are always ready.
        self.0
            .push((S::NAME, Box::new(move |request| service.clone().call(request))));
        self
    }

    fn answer(&self, method: &Method, request: Request<Body>) -> Answering {
        match self.0.iter().find(|(name, _)| *name == method.service) {
            Some((_, desk)) => desk(request),
            None => refusing(Failure::MethodUnknown(format!("nobody answers for {}", method.service))),
        }
    }
}

/// What a call is told that would only join too many.
pub(crate) fn turn_away(metrics: &Metrics, method: &'static Method, came: &Came) -> Response<Body> {
    static FULL: LazyLock<Status> = LazyLock::new(|| Failure::NotAccepted(NotAccepted::InFlightFull).into());
    metrics.call_ended(Some(method), came.door, FULL.code(), Duration::ZERO, None);
    failure::named(&FULL, came.id.to_str().unwrap_or_default(), "").into_http()
}
