//! What the engine tells about itself: metrics, and which shards it leads.

use std::collections::BTreeSet;
use std::time::Duration;

use contracts::bus::{JournalEntry, journal_event::Kind, reply};
use contracts::v1::CloseReason;
use engine_core::Observation;
use latency::Latency;
use opentelemetry::metrics::Counter;
use opentelemetry::{KeyValue, TraceId, global};
use tokio::sync::watch;

use crate::shard::Handled;
use crate::wire::answer::method_name;

/// Which shards this process leads. Ready means: leads at least one, or stands by.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Shards led now.
    pub leads: BTreeSet<u32>,
}

/// A sender and receiver of [`Status`].
#[must_use]
pub fn status() -> (watch::Sender<Status>, watch::Receiver<Status>) {
    watch::channel(Status::default())
}

/// The counters of one shard. Names are stable; units are in them.
#[derive(Debug)]
pub struct ShardMetrics {
    shard: KeyValue,
    operations: Counter<u64>,
    reads: Counter<u64>,
    quotes: Counter<u64>,
    closed: Counter<u64>,
    dead_letters: Counter<u64>,
    panics: Counter<u64>,
    trims_refused: Counter<u64>,
    entries: Counter<u64>,
    leaderships: Counter<u64>,
    queue: Latency,
    decide: Latency,
    commit: Latency,
    reply: Latency,
}

impl ShardMetrics {
    /// Counters labelled with a shard, for a leadership that begins.
    #[must_use]
    pub fn new(shard: u32) -> Self {
        let meter = global::meter("fulcrum.engine");
        let stage = |name, description| Latency::new(&meter, name, description);
        let metrics = Self {
            shard: KeyValue::new("shard", i64::from(shard)),
            operations: meter
                .u64_counter("fulcrum_engine_operations")
                .with_description("Mutations executed or refused")
                .build(),
            reads: meter
                .u64_counter("fulcrum_engine_reads")
                .with_description("Answers from memory, repeats included")
                .build(),
            quotes: meter
                .u64_counter("fulcrum_engine_quotes")
                .with_description("Quotes by what became of them")
                .build(),
            closed: meter
                .u64_counter("fulcrum_engine_trades_closed")
                .with_description("Trades closed by the market, by reason")
                .build(),
            dead_letters: meter
                .u64_counter("fulcrum_engine_dead_letters")
                .with_description("Messages not understood, or put away because their handling panics")
                .build(),
            panics: meter
                .u64_counter("fulcrum_engine_panics")
                .with_description("Commands whose handling panicked")
                .build(),
            trims_refused: meter
                .u64_counter("fulcrum_engine_trims_refused")
                .with_description("Times that a queue had changed under its leader")
                .build(),
            entries: meter
                .u64_counter("fulcrum_engine_journal_entries")
                .with_description("Journal entries committed")
                .build(),
            leaderships: meter
                .u64_counter("fulcrum_engine_leaderships")
                .with_description("Times that this process began to lead a shard")
                .build(),
            queue: stage(
                "fulcrum_engine_queue",
                "From handed over by the gateway to taken up, by two clocks",
            ),
            decide: stage("fulcrum_engine_decide", "Deciding one batch of requests"),
            commit: stage("fulcrum_engine_commit", "From decided to committed"),
            reply: stage("fulcrum_engine_reply", "From committed to replies sent, a batch"),
        };
        metrics.leaderships.add(1, std::slice::from_ref(&metrics.shard));
        metrics.begin_at_zero();
        metrics
    }

    /// What is rare is there from the start, so that the first one shows as a rise.
    fn begin_at_zero(&self) {
        let shard = std::slice::from_ref(&self.shard);
        self.dead_letters.add(0, shard);
        self.trims_refused.add(0, shard);
        self.panics.add(0, shard);
        for reason in [CloseReason::StopLoss, CloseReason::TakeProfit, CloseReason::Liquidation] {
            let reason = KeyValue::new("reason", reason.as_str_name());
            self.closed.add(0, &[self.shard.clone(), reason]);
        }
    }

    /// A request was taken up at `wall_us`, by our clock, that was handed over at `sent_at_us` by the gateway's; 0 when not told. Like all
    /// below: with a trace to look at, if one is recorded.
    pub fn taken_up(&self, wall_us: i64, sent_at_us: u64, trace: Option<TraceId>) {
        let Ok(sent_at_us @ 1..) = i64::try_from(sent_at_us) else {
            return;
        };
        let waited = Duration::from_micros(u64::try_from(wall_us.saturating_sub(sent_at_us)).unwrap_or(0));
        self.queue.record(waited, std::slice::from_ref(&self.shard), trace);
    }

    /// A batch was decided.
    pub fn decided(&self, took: Duration, trace: Option<TraceId>) {
        self.decide.record(took, std::slice::from_ref(&self.shard), trace);
    }

    /// The replies of a batch are on their way.
    pub fn replied(&self, took: Duration, trace: Option<TraceId>) {
        self.reply.record(took, std::slice::from_ref(&self.shard), trace);
    }

    /// Counts a request.
    pub fn handled(&self, handled: &Handled) {
        let Some(operation) = handled.entry.as_ref().and_then(|entry| entry.operation.as_ref()) else {
            self.reads.add(1, std::slice::from_ref(&self.shard));
            return;
        };
        let outcome = match &handled.reply.outcome {
            Some(reply::Outcome::Failure(failure)) => failure.reason().code(),
            _ => "OK",
        };
        let method = KeyValue::new("method", method_name(operation.kind()));
        self.operations
            .add(1, &[self.shard.clone(), method, KeyValue::new("outcome", outcome)]);
    }

    /// Counts a quote; `None` for one that could not be read.
    pub fn quote(&self, observation: Option<Observation>) {
        let what = observation.map_or_else(|| "Unreadable".to_owned(), |observation| format!("{observation:?}"));
        self.quotes
            .add(1, &[self.shard.clone(), KeyValue::new("observation", what)]);
    }

    /// Counts what a tick closed.
    pub fn fired(&self, entries: &[JournalEntry]) {
        for event in entries.iter().flat_map(|entry| &entry.events) {
            if let Some(Kind::TradeClosed(closed)) = &event.kind {
                self.closed.add(
                    1,
                    &[
                        self.shard.clone(),
                        KeyValue::new("reason", closed.reason().as_str_name()),
                    ],
                );
            }
        }
    }

    /// Counts a commit of so many entries.
    pub fn committed(&self, entries: u64, took: Duration, trace: Option<TraceId>) {
        self.entries.add(entries, std::slice::from_ref(&self.shard));
        self.commit.record(took, std::slice::from_ref(&self.shard), trace);
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self) {
        self.dead_letters.add(1, std::slice::from_ref(&self.shard));
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.panics.add(1, std::slice::from_ref(&self.shard));
    }

    /// Counts a refused trim.
    pub fn trim_refused(&self) {
        self.trims_refused.add(1, std::slice::from_ref(&self.shard));
    }
}
