//! One span, one measurement and one id a call: the outermost layer of the room.
//!
//! The span joins the caller's trace (W3C `traceparent`) if the process has a tracer installed; without one the
//! caller's own context is passed on as it came, so that a trace never breaks here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use opentelemetry::TraceId;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::around::Inner;
use crate::failure;
use crate::methods::{self, Method};
use crate::metrics::Metrics;

/// The header that names a request, in and out.
pub(crate) const REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";

/// Through which door a call came. An extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// gRPC.
    Grpc,
    /// grpc-web.
    GrpcWeb,
    /// REST.
    Rest,
}

impl Door {
    /// As a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Rest => "rest",
        }
    }
}

/// When a call came in. An extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived(pub Instant);

/// The trace context to pass on, as `traceparent` text; may be empty. An extension of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceContext(pub String);

impl TraceContext {
    /// That of the current span, or else the caller's.
    fn of(span: &Span, headers: &HeaderMap) -> Self {
        let mut carrier = Carrier::default();
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&span.context(), &mut carrier);
        });
        let came = || {
            headers
                .get(TRACEPARENT)
                .and_then(|it| it.to_str().ok())
                .filter(|it| is_traceparent(it))
        };
        Self(carrier.0.or_else(|| came().map(ToOwned::to_owned)).unwrap_or_default())
    }

    /// The trace id in it.
    fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

/// Version, trace id, span id and flags, in lower-case hex.
fn is_traceparent(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    parts.len() == 4 && parts.iter().map(|part| part.len()).eq(lengths) && parts.iter().all(hex)
}

/// Keeps the one header that is passed on.
#[derive(Default)]
struct Carrier(Option<String>);

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The layer.
pub(crate) async fn observe(metrics: Arc<Metrics>, mut request: Request<Body>, inner: Inner) -> Response<Body> {
    let method = methods::find(request.uri().path());
    let door = request.extensions().get().copied().unwrap_or(Door::Grpc);
    let request_id: Arc<str> = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default()
        .into();
    let (service, name) = method.map_or(("", "other"), |it| (it.service.as_str(), it.name.as_str()));
    let span = tracing::info_span!(
        "call",
        otel.name = name,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = name,
        rpc.grpc.status_code = tracing::field::Empty,
        enduser.id = tracing::field::Empty,
        door = door.name(),
        request_id = &*request_id,
    );
    let parent = opentelemetry::global::get_text_map_propagator(|it| it.extract(&Headers(request.headers())));
    if parent.span().span_context().is_valid() {
        // Fails only without a tracer, and then there is nothing to join.
        let _no_tracer = span.set_parent(parent);
    }
    let context = TraceContext::of(&span, request.headers());
    let trace_id: Arc<str> = context.trace_id().into();
    let recorded = latency::recorded(&context.0);
    request.extensions_mut().insert(context);
    let started = Instant::now();
    request.extensions_mut().insert(Arrived(started));
    let watch = Watch {
        metrics,
        method,
        door,
        started,
        request_id,
        trace_id,
        recorded,
        span: span.clone(),
        code: None,
    };

    let mut response = inner.pass(request).instrument(span).await;
    let mut watch = watch;
    watch.look(response.headers_mut());
    response.map(|body| Body::new(Watched { body, watch }))
}

/// What is written down when a call is over.
struct Watch {
    metrics: Arc<Metrics>,
    method: Option<&'static Method>,
    door: Door,
    started: Instant,
    request_id: Arc<str>,
    trace_id: Arc<str>,
    /// The same, if the trace is recorded.
    recorded: Option<TraceId>,
    span: Span,
    /// What it ended with, as far as is known.
    code: Option<Code>,
}

impl Watch {
    /// Completes and notes the status in headers or trailers.
    fn look(&mut self, headers: &mut HeaderMap) {
        failure::complete(headers, &self.request_id, &self.trace_id);
        if let Some(status) = Status::from_header_map(headers) {
            self.code = Some(status.code());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without a status the client went away before the end.
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.record("rpc.grpc.status_code", i32::from(code));
        let took = self.started.elapsed();
        self.metrics
            .call_ended(self.method, self.door, code, took, self.recorded);
    }
}

/// A body that is watched to its end.
struct Watched {
    body: Body,
    watch: Watch,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    self.watch.look(trailers);
                }
                frame
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_passed_on_only_in_its_exact_form() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        assert_eq!(
            TraceContext(good.to_owned()).trace_id(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        for bad in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-1-2-3",
            &format!("{good}-x"),
            "a\nb",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        assert_eq!(TraceContext::default().trace_id(), "");
    }
}
