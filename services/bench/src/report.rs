//! What a run came to: a table for people, JSON for programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::marks::Mark;
use crate::mesh::PATH;
use crate::sample::{Ratios, Sample, Spread};
use crate::say;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// The lines of the table.
    pub samples: Vec<Sample>,
    /// What was measured and is no call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// What was compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

/// A number with a name.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it says.
    pub what: String,
    /// In what it is counted.
    pub unit: &'static str,
    /// What was seen.
    pub seen: Spread,
}

/// A machine, as far as it matters.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Its processor.
    pub processor: String,
    /// How many of them.
    pub cores: usize,
    /// Its memory. GiB.
    pub memory_gib: u64,
    /// Its system.
    pub kernel: String,
    /// How many wanted to run when it was asked, over the last minute.
    pub load: String,
}

impl Default for Machine {
    fn default() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: crate::cpu::cores(),
            memory_gib: field(&meminfo, "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
                .map_or(0, |kib| kib >> 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// The value after `name:` in a file of `/proc`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

impl Report {
    /// One more line.
    pub fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// One more figure, if there is one.
    pub fn figure(&mut self, what: &str, unit: &'static str, seen: Option<Spread>) {
        if let Some(seen) = seen {
            self.figures.push(Figure {
                what: what.to_owned(),
                unit,
                seen,
            });
        }
    }

    /// What another has, too.
    pub fn take(&mut self, other: Report) {
        self.samples.extend(other.samples);
        self.figures.extend(other.figures);
        self.marks.extend(other.marks);
    }

    /// One more mark; told at once, because a comparison takes minutes.
    pub fn judged(&mut self, mark: Mark) {
        say::aside(mark.line());
        self.marks.push(mark);
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("JSON")?;
        std::fs::write(file, text + "\n").with_context(|| file.display().to_string())
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = self.machine.line();
        if !self.samples.is_empty() {
            out.push_str(&self.calls());
        }
        if !self.figures.is_empty() {
            let head = ["what", "median", "least", "most", "n", ""].map(str::to_owned).into();
            let rows: Vec<_> = std::iter::once(head)
                .chain(self.figures.iter().map(Figure::row))
                .collect();
            out.push('\n');
            out.push_str(&aligned(&rows));
        }
        out
    }

    fn calls(&self) -> String {
        let processes: BTreeSet<&str> = self
            .samples
            .iter()
            .flat_map(|sample| sample.cpu_us.keys().map(String::as_str))
            .collect();
        let mut rows = vec![head(&processes)];
        rows.extend(self.samples.iter().map(|sample| row(sample, &processes)));
        let mut out = String::from(
            "Figures of a shared machine drift: read the CPU columns (µs a call) and ratios of one run, not the rates.\n\n",
        );
        out.push_str(&aligned(&rows));
        let failed = self.samples.iter().filter(|it| !it.failed.is_empty());
        for sample in failed {
            let _written = writeln!(out, "{}: failed {:?}", sample.what, sample.failed);
        }
        out
    }
}

impl Machine {
    fn line(&self) -> String {
        let Self {
            processor,
            cores,
            memory_gib,
            kernel,
            load,
        } = self;
        format!("{cores} × {processor}, {memory_gib} GiB, Linux {kernel}, load {load} at the start\n")
    }
}

impl Figure {
    fn row(&self) -> Vec<String> {
        let Spread {
            median,
            min,
            max,
            count,
        } = self.seen;
        let shown = |value: f64| match value.abs() {
            1_000.0.. => format!("{value:.0}"),
            10.0.. => format!("{value:.1}"),
            _ => format!("{value:.3}"),
        };
        vec![
            self.what.clone(),
            shown(median),
            shown(min),
            shown(max),
            count.to_string(),
            self.unit.to_owned(),
        ]
    }
}

fn head(processes: &BTreeSet<&str>) -> Vec<String> {
    let fixed = ["what", "at once", "calls/s", "p50 µs", "p99 µs", "p99.9 µs"];
    let mut cells: Vec<String> = fixed.map(str::to_owned).into();
    cells.push("path".to_owned());
    cells.extend(processes.iter().map(|name| (*name).to_owned()));
    cells.extend(["cpu÷echo", "rate÷echo", "refused", "lost", "others %"].map(str::to_owned));
    cells
}

fn row(sample: &Sample, processes: &BTreeSet<&str>) -> Vec<String> {
    let at_once = match (sample.concurrency, sample.rate) {
        (Some(count), _) => count.to_string(),
        (None, Some(rate)) => format!("{rate:.0}/s"),
        (None, None) => "1".to_owned(),
    };
    let path = sample.cpu_of(&PATH);
    let mut cells = vec![
        sample.what.clone(),
        at_once,
        format!("{:.0}", sample.per_second),
        sample.p50_us.to_string(),
        sample.p99_us.to_string(),
        sample.p999_us.to_string(),
        if path > 0.0 {
            format!("{path:.1}")
        } else {
            String::new()
        },
    ];
    cells.extend(processes.iter().map(|name| {
        sample
            .cpu_us
            .get(*name)
            .map_or_else(String::new, |micros| format!("{micros:.1}"))
    }));
    let ratio = |of: fn(Ratios) -> f64| sample.to_echo.map_or_else(String::new, |it| format!("{:.2}", of(it)));
    cells.extend([ratio(|it| it.cpu), ratio(|it| it.rate)]);
    cells.push(sample.refused.to_string());
    cells.push((sample.lost + sample.failed.values().sum::<u64>()).to_string());
    cells.push(format!("{:.0}", sample.others * 100.0));
    cells
}

/// Columns under each other: the first to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _written = match column {
                0 => write!(out, "{cell:<width$}"),
                _ => write!(out, "  {cell:>width$}"),
            };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Used;
    use crate::sample::Tally;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn sample(what: &str, process: &str) -> Sample {
        let mut tally = Tally::default();
        tally.latencies.record(Duration::from_micros(100));
        tally.in_time = 1;
        let used = Used {
            by_name: BTreeMap::from([(process.to_owned(), Duration::from_micros(30))]),
            wall: Duration::from_secs(1),
            others: 0.1,
        };
        Sample::of(what, &tally, &used)
    }

    #[test]
    fn every_process_has_its_column() {
        let mut report = Report::default();
        report.add(sample("mesh", "gateway"));
        report.add(sample("echo", "echo"));
        let table = report.table();
        let lines: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[0].contains("echo  gateway"), "{table}");
        assert!(lines[1].starts_with("mesh") && lines[1].contains("30.0"), "{table}");
    }

    #[test]
    fn json_has_what_the_table_has() {
        let mut report = Report::default();
        report.add(sample("echo", "echo"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out.json");
        report.write_json(&file).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(json["samples"][0]["calls"], 1);
        assert_eq!(json["samples"][0]["cpu_us"]["echo"], 30.0);
        assert!(json["machine"]["cores"].as_u64().unwrap() >= 1);
    }

    #[test]
    fn a_field_of_proc_is_found() {
        assert_eq!(field("a : b\nmodel name\t: EPYC 7\n", "model name"), Some("EPYC 7"));
        assert_eq!(field("", "model name"), None);
    }
}
