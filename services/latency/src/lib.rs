//! Times that are counted, and for each bucket of them the trace of one call that fell into it.
//!
//! A histogram says how many calls were slow, a trace says why one of them was. Prometheus calls the link between them an exemplar. The
//! library that counts knows none yet, so they are kept here, for whoever writes the page that is scraped: [`Latency`] is what the
//! others record with, [`examples`] what the page is made with. Only calls whose trace is recorded leave one, so the others cost nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use opentelemetry::metrics::{Histogram, Meter};
use opentelemetry::{KeyValue, TraceId};

/// Upper ends of the buckets, seconds. One more takes what is longer.
pub const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// Most series that keep examples; those that come later have none.
const SERIES_MAX: usize = 4_096;

static KEPT: Mutex<Kept> = Mutex::new(Kept(BTreeMap::new()));

/// A histogram of times.
#[derive(Debug)]
pub struct Latency {
    /// As it is exported.
    name: String,
    histogram: Histogram<f64>,
}

impl Latency {
    /// One of this name, to which the exporter adds the unit: `fulcrum.gateway.admit` is `fulcrum_gateway_admit_seconds`.
    #[must_use]
    pub fn new(meter: &Meter, name: &'static str, description: &'static str) -> Self {
        let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
        Self {
            name: format!("{}_seconds", exported(name)),
            histogram: histogram.with_boundaries(SECONDS.to_vec()).build(),
        }
    }

    /// Counts something that took so long; `example` is the trace of it, if that is recorded.
    pub fn record(&self, took: Duration, labels: &[KeyValue], example: Option<TraceId>) {
        let seconds = took.as_secs_f64();
        self.histogram.record(seconds, labels);
        if let Some(trace) = example {
            let series = Series {
                name: self.name.clone(),
                labels: labels
                    .iter()
                    .map(|label| (exported(label.key.as_str()), label.value.as_str().into_owned()))
                    .collect(),
            };
            let at = SystemTime::now();
            kept().keep(series, Example { trace, seconds, at });
        }
    }
}

/// A histogram with certain labels, as they are exported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The histogram.
    pub name: String,
    /// Its labels, without those that an exporter adds.
    pub labels: BTreeMap<String, String>,
}

/// One call that was counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Example {
    /// Its trace.
    pub trace: TraceId,
    /// How long it took, seconds.
    pub seconds: f64,
    /// When it was counted.
    pub at: SystemTime,
}

/// The newest call of each bucket of a series, the shortest times first.
pub type Examples = [Option<Example>; SECONDS.len() + 1];

/// What is kept of all histograms now.
#[must_use]
pub fn examples() -> BTreeMap<Series, Examples> {
    kept().0.clone()
}

/// The trace that a W3C `traceparent` names, if its sender records it.
#[must_use]
pub fn recorded(traceparent: &str) -> Option<TraceId> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, flags) = (parts.next()?, parts.nth(1)?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    if flags & 1 == 0 {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok()?;
    (trace != TraceId::INVALID).then_some(trace)
}

#[derive(Debug)]
struct Kept(BTreeMap<Series, Examples>);

impl Kept {
    fn keep(&mut self, series: Series, example: Example) {
        if self.0.len() >= SERIES_MAX && !self.0.contains_key(&series) {
            return;
        }
        let bucket = SECONDS.partition_point(|end| *end < example.seconds);
        self.0.entry(series).or_default()[bucket] = Some(example);
    }
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().expect("nothing panics while it holds this lock")
}

/// A name or label as Prometheus knows it.
fn exported(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn example(seconds: f64) -> Example {
        Example {
            trace: TraceId::from_hex(TRACE).unwrap(),
            seconds,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn series(name: &str) -> Series {
        Series {
            name: name.to_owned(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn only_a_trace_that_is_recorded_is_an_example() {
        let recorded_one = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(recorded(&recorded_one), TraceId::from_hex(TRACE).ok());
        for none in [
            "",
            "00",
            &format!("00-{TRACE}-00f067aa0ba902b7-00"),
            &format!("00-{TRACE}"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-xyz-00f067aa0ba902b7-01",
        ] {
            assert_eq!(recorded(none), None, "{none}");
        }
    }

    #[test]
    fn each_bucket_keeps_its_newest_call_and_its_upper_end_belongs_to_it() {
        let mut kept = Kept(BTreeMap::new());
        for seconds in [0.0004, 0.0005, 0.0006, 11.0] {
            kept.keep(series("a"), example(seconds));
        }
        let found: Vec<(usize, f64)> = kept.0[&series("a")]
            .iter()
            .enumerate()
            .filter_map(|(bucket, one)| Some((bucket, (*one)?.seconds)))
            .collect();
        assert_eq!(found, [(0, 0.0005), (1, 0.0006), (16, 11.0)]);
    }

    #[test]
    fn there_is_room_for_so_many_series_and_no_more() {
        let mut kept = Kept(BTreeMap::new());
        for number in 0..SERIES_MAX + 2 {
            kept.keep(series(&number.to_string()), example(1.0));
        }
        kept.keep(series("0"), example(0.1));
        assert_eq!(kept.0.len(), SERIES_MAX);
        assert!(kept.0[&series("0")][10].is_some(), "what is known is kept up to date");
    }

    #[test]
    fn a_call_without_a_recorded_trace_leaves_nothing() {
        let latency = Latency::new(&opentelemetry::global::meter("test"), "a.quiet.stage", "For a test.");
        let labels = [KeyValue::new("rpc.method", "OpenTrade")];
        latency.record(Duration::from_millis(1), &labels, None);
        assert!(examples().is_empty());
        latency.record(Duration::from_millis(1), &labels, TraceId::from_hex(TRACE).ok());
        let (series, kept) = examples().pop_first().unwrap();
        assert_eq!(series.name, "a_quiet_stage_seconds");
        assert_eq!(series.labels["rpc_method"], "OpenTrade");
        assert_eq!(kept.iter().flatten().count(), 1);
    }
}
