//! Traces through the engine: the caller's context comes in the envelope, the poller's with the prices. Each call, and each batch of prices
//! that fires something, gets a span from deciding to replying, and each commit one that links to those it carries.

use std::collections::HashMap;

use contracts::bus::Request;
use opentelemetry::TraceId;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::commit::Work;

/// The span of one call, or of what prices fired, open until its reply was sent. Costs nothing when its cause is not traced.
#[derive(Debug)]
pub struct CallSpan(Span);

impl CallSpan {
    /// Runs work inside it.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.in_scope(work)
    }

    /// The reply is on its way; ends the span.
    pub fn replied(self) {
        self.0.in_scope(|| tracing::trace!("replied"));
    }
}

/// The trace of one of these calls that is recorded, if any is.
#[must_use]
pub fn one_of(calls: &[CallSpan]) -> Option<TraceId> {
    let traced = calls.iter().filter(|call| !call.0.is_none());
    let mut contexts = traced.map(|call| call.0.context().span().span_context().clone());
    let recorded = contexts.find(opentelemetry::trace::SpanContext::is_sampled);
    recorded.map(|context| context.trace_id())
}

/// Opens the span of a call under its caller's; none when the caller sent no sampled context.
#[must_use]
pub fn call_span(request: &Request, shard: u32) -> CallSpan {
    CallSpan(under(&request.traceparent, || {
        tracing::info_span!(
            "process requests",
            otel.kind = "consumer",
            messaging.system = "redis",
            messaging.operation.type = "process",
            messaging.destination.name = "requests",
            messaging.destination.partition.id = shard,
        )
    }))
}

/// Opens the span of what a batch of prices fired, under the poller's; none when the poller sent no sampled context.
#[must_use]
pub fn prices_span(traceparent: &str, shard: u32, entries: usize) -> CallSpan {
    CallSpan(under(traceparent, || {
        tracing::info_span!(
            "process prices",
            otel.kind = "consumer",
            messaging.system = "redis",
            messaging.operation.type = "process",
            messaging.destination.name = "prices",
            fulcrum.shard = shard,
            fulcrum.entries = entries,
        )
    }))
}

/// A span under a context that came from elsewhere, if that is sampled.
fn under(traceparent: &str, open: impl FnOnce() -> Span) -> Span {
    // "00-<trace>-<span>-<flags>": the lowest bit of the flags says that the caller records.
    let sampled = traceparent.as_bytes().last().is_some_and(|flags| flags & 1 == 1);
    if !sampled {
        return Span::none();
    }
    let span = open();
    let carried = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carried));
    if let Err(error) = span.set_parent(parent) {
        tracing::debug!(%error, "trace context not taken over");
    }
    span
}

/// Opens the span of a commit: a child of the first call in the round, linked to the others.
#[must_use]
pub fn commit_span<'a>(calls: impl Iterator<Item = &'a CallSpan>, work: &Work) -> Span {
    let mut traced = calls.filter(|call| !call.0.is_none());
    let Some(first) = traced.next() else {
        return Span::none();
    };
    let entries: u64 = work
        .batches
        .iter()
        .map(|batch| batch.sequence - batch.sequence_before)
        .sum();
    let span = tracing::info_span!(
        parent: &first.0,
        "commit journal",
        otel.kind = "client",
        db.system.name = "postgresql",
        fulcrum.shards = work.batches.len(),
        fulcrum.entries = entries,
    );
    for other in traced {
        span.add_link(other.0.context().span().span_context().clone());
    }
    span
}
