//! Traces of prices: each frame with a quote begins one, which goes with the batch that the frame closes to whatever the price sets off.
//!
//! A frame's span lasts until its quote was published, or replaced by a newer one. The batch is a child of the frame that closed it and is
//! linked to the others in it.

use opentelemetry::propagation::Injector;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The span of one frame. Says nothing about the quote, so two quotes are equal whatever theirs are.
#[derive(Clone, Debug)]
pub struct FrameSpan(Span);

impl FrameSpan {
    /// Begins one; what it is part of at the venue is unknown.
    #[must_use]
    pub fn begin(symbol: &str) -> Self {
        Self(tracing::info_span!(parent: None, "receive frame", otel.kind = "consumer", fulcrum.symbol = symbol))
    }
}

impl PartialEq for FrameSpan {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for FrameSpan {}

/// The span of publishing a batch of these frames, in the order they came; none when the last is not sampled.
#[must_use]
pub fn batch_span<'a>(mut frames: impl DoubleEndedIterator<Item = &'a FrameSpan>, quotes: usize) -> Span {
    let Some(last) = frames.next_back().filter(|last| is_sampled(&last.0)) else {
        return Span::none();
    };
    let span = tracing::info_span!(
        parent: &last.0,
        "send prices",
        otel.kind = "producer",
        messaging.system = "redis",
        messaging.operation.type = "send",
        messaging.destination.name = "prices",
        messaging.batch.message_count = quotes,
    );
    for other in frames.filter(|frame| is_sampled(&frame.0)) {
        span.add_link(other.0.context().span().span_context().clone());
    }
    span
}

fn is_sampled(span: &Span) -> bool {
    span.context().span().span_context().is_sampled()
}

/// The context of a span as it is passed on; empty when it is not sampled.
#[must_use]
pub fn traceparent(span: &Span) -> String {
    let mut carrier = Carrier::default();
    if is_sampled(span) {
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&span.context(), &mut carrier);
        });
    }
    carrier.0
}

/// Keeps the one header that is passed on.
#[derive(Default)]
struct Carrier(String);

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        if key == "traceparent" {
            self.0 = value;
        }
    }
}
