//! The gates: what a call passes on its way into the room, in their order, and what its answer passes on the way out.
//!
//! ```text
//! full? ─ trace ─ deadline ─ limit by address ─ crowd ─ token ─ limit by principal ─ the room
//! ```
//!
//! One future for all of them, because none waits for anything but the room: a layer each, with a future of its own, cost more memory a
//! call than everything else together, and what many calls hold at once is what a processor's caches do not.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;
use tracing::Instrument as _;

use crate::auth::Verifier;
use crate::config::Deadlines;
use crate::deadline::Time;
use crate::entrance::{self, Answering, Entrance};
use crate::failure::Failure;
use crate::inner::settled;
use crate::limits::{Counted, Crowds, Limiter, Peer, Principals, Shown, Stay};
use crate::methods::{self, Method};
use crate::metrics::Metrics;
use crate::room::Call;
use crate::trace::{self, Door, Watch};

/// How a request came in. An extension of every request behind the port.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    /// Its name: the client's, or ours.
    pub id: HeaderValue,
    /// Through which door.
    pub door: Door,
    /// Who is at the other end; nobody when it came from this process.
    pub peer: Option<Peer>,
    /// What its address was charged already.
    pub counted: Option<Counted>,
    /// Told when the time of its connection is over.
    pub over: Option<CancellationToken>,
}

impl Came {
    /// From this process.
    fn from_inside(request: &Request<Body>) -> Self {
        Self {
            id: trace::name_of(request.headers()),
            door: Door::Grpc,
            peer: None,
            counted: None,
            over: None,
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gates(pub Arc<Gate>);

/// What the gates go by.
pub(crate) struct Gate {
    pub metrics: Arc<Metrics>,
    pub entrance: Entrance,
    pub deadlines: Deadlines,
    /// Told when the server is about to go: its streams end.
    pub leaving: CancellationToken,
    pub addresses: Arc<Limiter<Peer>>,
    pub crowds: Crowds,
    pub verifier: Verifier,
    pub principals: Arc<Principals>,
    /// Health, and what describes our services.
    pub others: Routes,
}

impl Gates {
    /// Lets a request through to the room, or answers it.
    pub async fn pass(self, mut request: Request<Body>) -> Response<Body> {
        let gate = &*self.0;
        let method = methods::find(request.uri().path());
        let came = request.extensions_mut().remove::<Came>();
        let mut came = came.unwrap_or_else(|| Came::from_inside(&request));
        // First, because it is there to spare all that follows: the work that a refusal costs is taken from those who are served.
        if let Some(method) = method.filter(|method| method.waits)
            && gate.entrance.is_full()
        {
            return entrance::turn_away(&gate.metrics, method, &came);
        }
        // Then this, so that even a refused call is traced and counted, and every error names its request.
        let watch = Watch::begin(&gate.metrics, method, &came, request.headers());
        let mut shown = None;
        let mut response = match gate.let_in(method, &came, &watch, request, &mut shown) {
            Err(failure) => Status::from(failure).into_http(),
            Ok(Inside { time, stay, answering }) => {
                // A fault of ours ends one call, not the connection that others share.
                let answering = AssertUnwindSafe(answering).catch_unwind();
                let answering = answering.map(|answer| answer.map_or_else(|cause| panicked(&*cause), settled));
                let answering = answering.instrument(watch.span().clone());
                let response = time.keep(method, &gate.leaving, came.over.take(), answering).await;
                stay.in_body(response)
            }
        };
        if let Some(shown) = shown {
            shown.tell(response.headers_mut());
        }
        watch.until_over(response)
    }
}

/// A call that was let in.
struct Inside {
    time: Time,
    stay: Stay,
    answering: Answering,
}

/// What a call brings from the gates to its handler, besides who makes it.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// When it came in.
    pub arrived: Instant,
    /// The trace context to pass on, as `traceparent` text; may be empty.
    pub traceparent: Arc<str>,
}

impl Gate {
    /// The gates that only look. `shown` is how far the caller is from its limit, as far as that is known.
    fn let_in(
        &self,
        method: Option<&'static Method>,
        came: &Came,
        watch: &Watch,
        mut request: Request<Body>,
        shown: &mut Option<Shown>,
    ) -> Result<Inside, Failure> {
        // Before anything that can wait: whatever waits does so within the deadline.
        let time = Time::of(method, request.headers(), self.deadlines)?;
        let mut stay = Stay::default();
        if let Some(peer) = came.peer {
            // Before the token is looked at: a flood of bad tokens must not buy signature checks.
            self.addresses.charge(&peer, came.counted, shown)?;
            // After that limit, which counts what comes: this one counts what stays, and health and reflection ask for no token.
            stay = self.crowds.join(peer, request.uri().path())?;
        }
        let identity = method.map(|_| self.verifier.identify(request.headers())).transpose()?;
        // Nobody past this line needs it, and what is not there is not logged.
        request.headers_mut().remove(AUTHORIZATION);
        let (Some(method), Some(identity)) = (method, identity) else {
            // Health and reflection are open, and what does not exist may be told to anybody.
            let answering = self.others.clone().call(request).boxed();
            return Ok(Inside { time, stay, answering });
        };
        watch.called_by(&identity.principal);
        // After the token: one principal is one limit, through every door and from every address.
        self.principals.charge(&identity.principal, shown)?;
        request
            .extensions_mut()
            .insert(Call::new(identity, time.deadline(), watch.mark()));
        let answering = self.entrance.enter(method, request);
        Ok(Inside { time, stay, answering })
    }
}

fn panicked(cause: &(dyn std::any::Any + Send)) -> Response<Body> {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied());
    Status::from(Failure::Internal(format!(
        "a handler panicked: {}",
        text.unwrap_or("no text")
    )))
    .into_http()
}
