//! What a recorder tells about itself, through whatever meter the process has installed.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

/// The recorder's instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    lag: Gauge<u64>,
    entries: Counter<u64>,
    quotes: Counter<u64>,
    imbalance: Gauge<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = opentelemetry::global::meter("recorder");
        Self {
            lag: meter
                .u64_gauge("fulcrum.recorder.lag")
                .with_description("Journal entries committed and not yet expanded, by shard")
                .build(),
            entries: meter
                .u64_counter("fulcrum.recorder.entries")
                .with_description("Journal entries expanded")
                .build(),
            quotes: meter
                .u64_counter("fulcrum.recorder.quotes")
                .with_description("Quotes folded into candles or refused, by result")
                .build(),
            imbalance: meter
                .f64_gauge("fulcrum.recorder.ledger_imbalance")
                .with_description("Sum of all ledger lines by currency: zero, or money was made up")
                .build(),
        }
    }

    pub(crate) fn lag(&self, shard: i32, entries: i64) {
        self.lag
            .record(entries.unsigned_abs(), &[KeyValue::new("shard", i64::from(shard))]);
    }

    pub(crate) fn expanded(&self, entries: i64) {
        self.entries.add(entries.unsigned_abs(), &[]);
    }

    pub(crate) fn imbalance(&self, currency: &str, sum: Decimal) {
        // A sum that no float holds is far from zero.
        let sum = sum.to_f64().unwrap_or(f64::INFINITY);
        self.imbalance
            .record(sum, &[KeyValue::new("currency", currency.to_owned())]);
    }

    pub(crate) fn quotes(&self, folded: u64, refused: u64) {
        self.quotes.add(folded, &[KeyValue::new("result", "folded")]);
        self.quotes.add(refused, &[KeyValue::new("result", "refused")]);
    }
}
