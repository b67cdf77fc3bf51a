//! One span, one measurement and one id a call: a [`Watch`] from before it is looked at until its answer is over.
//!
//! The span joins the caller's trace (W3C `traceparent`) if the process has a tracer installed; without one the
//! caller's own context is passed on as it came, so that a trace never breaks here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Frame, SizeHint};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt as _;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::failure;
use crate::gates::{Came, Mark};
use crate::methods::Method;
use crate::metrics::Metrics;

/// The header that names a request, in and out.
pub(crate) const REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";

/// Through which door a call came.
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

/// The name that a request has in its headers; empty without one.
pub(crate) fn name_of(headers: &HeaderMap) -> HeaderValue {
    let named = headers.get(REQUEST_ID).filter(|id| id.to_str().is_ok());
    named.cloned().unwrap_or_else(|| HeaderValue::from_static(""))
}

/// The trace context to pass on, as `traceparent` text: that of the span, or else the caller's; may be empty.
fn context_of(span: &Span, headers: &HeaderMap) -> Arc<str> {
    let mut carrier = Carrier::default();
    if !span.is_disabled() {
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&span.context(), &mut carrier);
        });
    }
    let came = || {
        let came = headers.get(TRACEPARENT).and_then(|it| it.to_str().ok());
        came.filter(|it| is_traceparent(it)).map(Into::into)
    };
    carrier.0.map(Into::into).or_else(came).unwrap_or_default()
}

/// The trace id in a context.
fn trace_id(traceparent: &str) -> &str {
    traceparent.get(3..35).unwrap_or_default()
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

/// What is written down when a call is over.
pub(crate) struct Watch {
    metrics: Arc<Metrics>,
    method: Option<&'static Method>,
    door: Door,
    id: HeaderValue,
    mark: Mark,
    span: Span,
    /// What it ended with, as far as is known.
    code: Option<Code>,
}

impl Watch {
    /// A call begins.
    pub fn begin(metrics: &Arc<Metrics>, method: Option<&'static Method>, came: &Came, headers: &HeaderMap) -> Self {
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
            door = came.door.name(),
            request_id = came.id.to_str().unwrap_or_default(),
        );
        if !span.is_disabled() {
            let parent = opentelemetry::global::get_text_map_propagator(|it| it.extract(&Headers(headers)));
            if parent.span().span_context().is_valid() {
                // Fails only without a tracer, and then there is nothing to join.
                let _no_tracer = span.set_parent(parent);
            }
        }
        let mark = Mark {
            arrived: Instant::now(),
            traceparent: context_of(&span, headers),
        };
        Self {
            metrics: Arc::clone(metrics),
            method,
            door: came.door,
            id: came.id.clone(),
            mark,
            span,
            code: None,
        }
    }

    /// What the call is recorded under.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Who calls is known now.
    pub fn called_by(&self, principal: &str) {
        self.span.record("enduser.id", principal);
    }

    /// What its handler is told.
    pub fn mark(&self) -> Mark {
        self.mark.clone()
    }

    /// Stays until the answer is over.
    pub fn until_over(mut self, mut response: Response<Body>) -> Response<Body> {
        self.look(response.headers_mut());
        response.map(|body| Body::new(Watched { body, watch: self }))
    }

    /// Completes and notes the status in headers or trailers.
    fn look(&mut self, headers: &mut HeaderMap) {
        match headers.get(Status::GRPC_STATUS) {
            None => {}
            Some(code) if code == "0" => self.code = Some(Code::Ok),
            Some(code) => {
                self.code = Some(Code::from_bytes(code.as_bytes()));
                let id = self.id.to_str().unwrap_or_default();
                failure::complete(headers, id, trace_id(&self.mark.traceparent));
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without a status the client went away before the end.
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.record("rpc.grpc.status_code", i32::from(code));
        let (took, trace) = (self.mark.arrived.elapsed(), latency::recorded(&self.mark.traceparent));
        self.metrics.call_ended(self.method, self.door, code, took, trace);
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
        assert_eq!(trace_id(good), "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-1-2-3",
            &format!("{good}-x"),
            "a\nb",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        assert_eq!(trace_id(""), "");
    }
}
