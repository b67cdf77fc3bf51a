//! What is counted: calls by method, door and outcome, how long they took, and streams that lost their place.
//!
//! Through the OpenTelemetry API: the process decides whether and where anything is written. Labels have few values.

use std::sync::{Arc, Weak};
use std::time::Duration;

use latency::Latency;
use opentelemetry::metrics::{Counter, UpDownCounter};
use opentelemetry::{KeyValue, TraceId, global};
use tonic::Code;

use crate::methods::Method;
use crate::stream::now_us;
use crate::stream::quote_hub::QuoteHub;
use crate::trace::Door;

/// The instruments. Made after the process has installed its meter provider.
#[derive(Debug)]
pub(crate) struct Metrics {
    duration: Latency,
    admit: Latency,
    connections: UpDownCounter<i64>,
    connections_refused: Counter<u64>,
    connections_cut: Counter<u64>,
    streams: UpDownCounter<i64>,
    gaps: Counter<u64>,
    quotes_missed: Counter<u64>,
}

impl Metrics {
    /// Registers the instruments.
    pub fn new() -> Self {
        let meter = global::meter("fulcrum.gateway");
        let metrics = Self {
            duration: Latency::new(
                &meter,
                "rpc.server.duration",
                "How long calls took, streams to their end.",
            ),
            admit: Latency::new(
                &meter,
                "fulcrum.gateway.admit",
                "From the arrival of a mutation to its handing-over to the queue.",
            ),
            connections: meter
                .i64_up_down_counter("fulcrum.gateway.connections")
                .with_description("Connections open now.")
                .build(),
            connections_refused: meter
                .u64_counter("fulcrum.gateway.connections.refused")
                .with_description("Connections closed because their address had as many as one may have.")
                .build(),
            connections_cut: meter
                .u64_counter("fulcrum.gateway.connections.cut")
                .with_description("Connections that were asked to end for their age, did not, and were ended.")
                .build(),
            streams: meter
                .i64_up_down_counter("fulcrum.gateway.streams")
                .with_description("Streams open now.")
                .build(),
            gaps: meter
                .u64_counter("fulcrum.gateway.stream.gaps")
                .with_description("Streams ended with GAP: a reader too slow, or a tail that was lost.")
                .build(),
            quotes_missed: meter
                .u64_counter("fulcrum.gateway.stream.quotes_missed")
                .with_description("Quotes that readers of every tick were too slow for, and were told so.")
                .build(),
        };
        // There from the start, so that the first one shows as a rise.
        metrics.gaps.add(0, &[]);
        metrics.connections_refused.add(0, &[]);
        metrics.connections_cut.add(0, &[]);
        metrics.quotes_missed.add(0, &[]);
        metrics
    }

    /// Shows how old the newest quote of each symbol is, as long as the hub lives.
    pub fn watch_quotes(hub: &Arc<QuoteHub>) {
        let hub: Weak<QuoteHub> = Arc::downgrade(hub);
        global::meter("fulcrum.gateway")
            .f64_observable_gauge("fulcrum.gateway.quote_age")
            .with_unit("s")
            .with_description("Since the venue made the newest quote, by symbol.")
            .with_callback(move |observer| {
                for (symbol, age) in hub.upgrade().iter().flat_map(|hub| hub.ages(now_us())) {
                    observer.observe(age.as_secs_f64(), &[KeyValue::new("symbol", symbol)]);
                }
            })
            .build();
    }

    /// A mutation was handed over to the queue so long after it came; its trace, if that is recorded.
    pub fn admitted(&self, took: Duration, trace: Option<TraceId>) {
        self.admit.record(took, &[], trace);
    }

    /// A call is over; its trace, if that is recorded.
    pub fn call_ended(
        &self,
        method: Option<&'static Method>,
        door: Door,
        code: Code,
        took: Duration,
        trace: Option<TraceId>,
    ) {
        let (service, name) = method.map_or(("other", "other"), |it| (it.service.as_str(), it.name.as_str()));
        let labels = [
            KeyValue::new("rpc.service", service),
            KeyValue::new("rpc.method", name),
            KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))),
            KeyValue::new("door", door.name()),
        ];
        self.duration.record(took, &labels, trace);
    }

    /// A connection was accepted; it counts as open until what is returned is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> Open {
        self.connections.add(1, &[]);
        Open(Arc::clone(self))
    }

    /// A connection was closed because its address has too many.
    pub fn connection_refused(&self) {
        self.connections_refused.add(1, &[]);
    }

    /// A connection did not end by itself when it was asked to for its age.
    pub fn connection_cut(&self) {
        self.connections_cut.add(1, &[]);
    }

    /// A stream began (1) or ended (-1).
    pub fn streams_changed(&self, by: i64, method: &'static str) {
        self.streams.add(by, &[KeyValue::new("rpc.method", method)]);
    }

    /// A reader of every tick was too slow for so many.
    pub fn quotes_missed(&self, missed: u64) {
        self.quotes_missed.add(missed, &[]);
    }

    /// A stream lost its place.
    pub fn gap(&self) {
        self.gaps.add(1, &[]);
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.add(-1, &[]);
    }
}
