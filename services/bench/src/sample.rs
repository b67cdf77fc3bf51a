//! Numbers of one measurement, and what several of them come to: percentiles, medians, ratios.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cpu::Used;

/// Longest latency that is told apart. Longer ones count as this one. Nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latencies, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("sound bounds"))
    }
}

impl Latencies {
    /// One more.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.0.saturating_record(nanos.max(1));
    }

    /// Those of another as well.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    /// The latency that this part of the calls did not exceed, 0 to 1. Microseconds.
    #[must_use]
    pub fn at(&self, part: f64) -> u64 {
        self.0.value_at_quantile(part) / 1_000
    }

    /// The same in nanoseconds.
    #[must_use]
    pub fn at_ns(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a run of calls went.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Latencies of the calls that succeeded.
    pub latencies: Latencies,
    /// How many of them ended while the clock ran.
    pub in_time: u64,
    /// Latencies of the calls that were refused.
    pub refusals: Latencies,
    /// Calls that ended otherwise, by how.
    pub failed: BTreeMap<String, u64>,
    /// Calls that never got an answer.
    pub lost: u64,
}

impl Tally {
    /// That of another as well.
    pub fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        self.in_time += other.in_time;
        self.refusals.merge(&other.refusals);
        for (how, count) in &other.failed {
            *self.failed.entry(how.clone()).or_default() += count;
        }
        self.lost += other.lost;
    }
}

/// One measurement: a line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What was measured.
    pub what: String,
    /// Calls at once; nothing in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// Calls begun a second in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Calls that succeeded.
    pub calls: u64,
    /// Those that ended while the clock ran, a second.
    pub per_second: f64,
    /// Half took at most this. Microseconds, as the following.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1000.
    pub p999_us: u64,
    /// Calls refused because there was no room, and how long that took at most for 99 of 100 of them.
    pub refused: u64,
    /// See above.
    pub refused_p99_us: u64,
    /// Calls that failed, by how.
    pub failed: BTreeMap<String, u64>,
    /// Calls without an answer.
    pub lost: u64,
    /// Processor time a successful call, by process. Microseconds.
    pub cpu_us: BTreeMap<String, f64>,
    /// Part of the machine that others used meanwhile.
    pub others: f64,
    /// This one divided by the yardstick that was measured just before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_echo: Option<Ratios>,
}

/// One sample divided by another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratios {
    /// Processor time a call.
    pub cpu: f64,
    /// Calls a second.
    pub rate: f64,
    /// Median latency.
    pub p50: f64,
    /// Of 99 of 100.
    pub p99: f64,
}

impl Ratios {
    /// `ours` divided by `theirs`, each with the processes that count.
    #[must_use]
    pub fn of(ours: &Sample, our_processes: &[&str], theirs: &Sample, their_processes: &[&str]) -> Self {
        Self {
            cpu: ours.cpu_of(our_processes) / theirs.cpu_of(their_processes),
            rate: ours.per_second / theirs.per_second,
            p50: ours.p50_us as f64 / theirs.p50_us as f64,
            p99: ours.p99_us as f64 / theirs.p99_us as f64,
        }
    }
}

impl Sample {
    /// Puts together what the load saw and what the scheduler counted.
    #[must_use]
    pub fn of(what: &str, tally: &Tally, used: &Used) -> Self {
        let calls = tally.latencies.len();
        let each = |time: &Duration| time.as_secs_f64() * 1e6 / tally.in_time.max(1) as f64;
        Self {
            what: what.to_owned(),
            concurrency: None,
            rate: None,
            calls,
            per_second: tally.in_time as f64 / used.wall.as_secs_f64().max(f64::EPSILON),
            p50_us: tally.latencies.at(0.50),
            p99_us: tally.latencies.at(0.99),
            p999_us: tally.latencies.at(0.999),
            refused: tally.refusals.len(),
            refused_p99_us: tally.refusals.at(0.99),
            failed: tally.failed.clone(),
            lost: tally.lost,
            cpu_us: used
                .by_name
                .iter()
                .map(|(name, time)| (name.clone(), each(time)))
                .collect(),
            others: used.others,
            to_echo: None,
        }
    }

    /// Processor time a call of these processes together. Microseconds.
    #[must_use]
    pub fn cpu_of(&self, names: &[&str]) -> f64 {
        names.iter().filter_map(|name| self.cpu_us.get(*name)).sum()
    }
}

/// The middle one; the mean of the two in the middle when they are even. Nothing of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(&upper), 0) => Some((sorted[middle - 1] + upper) / 2.0),
        (upper, _) => upper.copied(),
    }
}

/// A ratio that was seen several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one: what is reported.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there were.
    pub count: usize,
}

impl Spread {
    /// Nothing when no value is a number.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        Some(Self {
            median: median(values)?,
            min: finite().fold(f64::INFINITY, f64::min),
            max: finite().fold(f64::NEG_INFINITY, f64::max),
            count: finite().count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn percentiles_of_a_hundred_latencies() {
        let mut latencies = Latencies::default();
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        // To three digits.
        for (part, millis) in [(0.5, 50), (0.99, 99), (1.0, 100)] {
            let seen = latencies.at(part);
            assert!(seen.abs_diff(millis * 1_000) <= millis, "{part}: {seen}");
        }
        let mut both = latencies.clone();
        both.merge(&latencies);
        assert_eq!(both.len(), 200);
        assert!(Latencies::default().is_empty());
    }

    #[test]
    fn what_takes_for_ever_counts_as_long_not_as_nothing() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(100_000));
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.len(), 2);
        assert!(latencies.at(1.0) >= LATENCY_NS_MAX / 1_000);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert!(close(median(&[3.0, 1.0, 2.0]).unwrap(), 2.0));
        assert!(close(median(&[4.0, 1.0, 2.0, 3.0]).unwrap(), 2.5));
        assert!(close(median(&[f64::NAN, 7.0, f64::INFINITY]).unwrap(), 7.0));
    }

    #[test]
    fn a_spread_tells_the_outliers() {
        let spread = Spread::of(&[2.0, 9.0, 1.0]).unwrap();
        assert!(close(spread.median, 2.0) && close(spread.min, 1.0) && close(spread.max, 9.0));
        assert_eq!(spread.count, 3);
        assert_eq!(Spread::of(&[f64::NAN]), None);
    }

    #[test]
    fn cpu_is_divided_by_the_calls_that_succeeded() {
        let mut tally = Tally::default();
        for _ in 0..4 {
            tally.latencies.record(Duration::from_micros(500));
        }
        tally.in_time = 4;
        tally.refusals.record(Duration::from_micros(10));
        let used = Used {
            by_name: BTreeMap::from([
                ("gateway".to_owned(), Duration::from_micros(80)),
                ("engine".to_owned(), Duration::from_micros(20)),
            ]),
            wall: Duration::from_secs(2),
            others: 0.25,
        };
        let sample = Sample::of("open", &tally, &used);
        assert!(close(sample.per_second, 2.0));
        assert!(close(sample.cpu_of(&["gateway", "engine", "nobody"]), 25.0));
        assert_eq!((sample.calls, sample.refused, sample.p50_us), (4, 1, 500));
    }
}
