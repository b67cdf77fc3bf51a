//! The way into the room. The doors may be open before there is a room, and the room may be full: then it says so.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bus::NotAccepted;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;

use crate::around::Inner;
use crate::failure::{self, Failure};
use crate::methods;
use crate::metrics::Metrics;
use crate::trace::{Door, REQUEST_ID};

/// Where the stack ends and the room begins. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Entrance(Arc<OnceLock<Open>>);

struct Open {
    room: Inner,
    is_full: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Entrance {
    /// Lets calls into the room from now on, while it is not full.
    pub fn open(&self, room: Inner, is_full: impl Fn() -> bool + Send + Sync + 'static) {
        let is_full = Box::new(is_full);
        if self.0.set(Open { room, is_full }).is_err() {
            tracing::error!("the room was there already");
        }
    }

    /// Passes a call on to the room.
    pub async fn enter(&self, request: Request<Body>) -> Response<Body> {
        match self.0.get() {
            Some(open) => open.room.pass(request).await,
            None => Status::from(Failure::Opening).into_http(),
        }
    }

    fn is_full(&self) -> bool {
        self.0.get().is_some_and(|open| (open.is_full)())
    }
}

/// The outermost layer: while more calls wait than can be answered soon, what would only join them is turned away before anything is
/// done for it. The work that a refusal costs is taken from those who are served.
pub(crate) async fn turn_away(
    entrance: Entrance,
    metrics: Arc<Metrics>,
    request: Request<Body>,
    inner: Inner,
) -> Response<Body> {
    let method = methods::find(request.uri().path()).filter(|method| method.waits);
    if method.is_none() || !entrance.is_full() {
        return inner.pass(request).await;
    }
    let full = Status::from(Failure::NotAccepted(NotAccepted::InFlightFull));
    let door = request.extensions().get().copied().unwrap_or(Door::Grpc);
    metrics.call_ended(method, door, full.code(), Duration::ZERO, None);
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    failure::named(&full, id.unwrap_or_default(), "").into_http()
}
