//! A metrics page: in the plain form or in OpenMetrics, which has room for examples, and several of them in one.
//!
//! The library writes the plain form. OpenMetrics is made of it line by line, so that both say the same to the digit, and a series is
//! the same series whichever of them a Prometheus asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use axum::http::{HeaderMap, header};
use latency::{Examples, SECONDS, Series};

/// The last line of an OpenMetrics page.
const END: &str = "# EOF";
/// The label that tells buckets apart.
const BUCKET: &str = "le";
/// What a counter's samples end in, and in OpenMetrics its name does not.
const COUNTED: &str = "_total";

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The text format of Prometheus.
    Plain,
    /// OpenMetrics.
    Open,
}

impl Form {
    /// The one that is asked for.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).into_iter();
        let open = accepted
            .filter_map(|it| it.to_str().ok())
            .any(|it| it.contains("application/openmetrics-text"));
        if open { Self::Open } else { Self::Plain }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// A plain page in this form.
    pub(super) fn of(self, plain: String, examples: &BTreeMap<Series, Examples>) -> String {
        match self {
            Self::Plain => plain,
            Self::Open => opened(&plain, examples),
        }
    }

    /// One page of several in this form.
    pub(super) fn merged(self, own: &str, children: &[(String, String)]) -> String {
        let page = merged(own, children);
        match self {
            Self::Plain => page,
            Self::Open => page + END + "\n",
        }
    }
}

/// A plain page as OpenMetrics, without its end.
fn opened(plain: &str, examples: &BTreeMap<Series, Examples>) -> String {
    let counters: BTreeSet<&str> = plain
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut page = String::with_capacity(plain.len());
    for line in plain.lines() {
        let described = line.strip_prefix("# ").and_then(|it| it.split(' ').nth(1));
        match described.filter(|name| counters.contains(name)) {
            Some(name) => page += &line.replacen(name, name.trim_end_matches(COUNTED), 1),
            None => page += line,
        }
        if let Some(example) = example_of(line, examples) {
            page += &example;
        }
        page.push('\n');
    }
    page
}

/// What an example adds to a line that counts the times of its bucket.
fn example_of(line: &str, examples: &BTreeMap<Series, Examples>) -> Option<String> {
    let (name, rest) = line.split_once("_bucket{")?;
    let (labels, _) = rest.rsplit_once('}')?;
    let mut labels: BTreeMap<String, String> = labels
        .split(',')
        .filter_map(|label| label.split_once('='))
        .filter(|(name, _)| !name.starts_with("otel_scope_"))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    let end: f64 = labels.remove(BUCKET)?.parse().ok()?;
    let name = name.to_owned();
    let bucket = SECONDS.partition_point(|known| *known < end);
    let example = examples.get(&Series { name, labels })?.get(bucket)?.as_ref()?;
    let at = example.at.duration_since(UNIX_EPOCH).ok()?;
    Some(format!(
        " # {{trace_id=\"{}\"}} {} {}.{:03}",
        example.trace,
        example.seconds,
        at.as_secs(),
        at.subsec_millis()
    ))
}

/// One metrics page of several: each metric once, the lines of a child labelled with its name.
fn merged(own: &str, children: &[(String, String)]) -> String {
    #[derive(Default)]
    struct Family<'a> {
        comments: Vec<&'a str>,
        samples: String,
    }
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    let pages = children.iter().map(|(name, page)| (Some(name.as_str()), page.as_str()));
    for (process, page) in std::iter::once((None, own)).chain(pages) {
        let mut family = "";
        for line in page.lines().filter(|line| !line.is_empty() && *line != END) {
            if let Some(comment) = line.strip_prefix("# ") {
                family = comment.split(' ').nth(1).unwrap_or_default();
                let comments = &mut families.entry(family).or_default().comments;
                if comments.len() < 2 && !comments.contains(&line) {
                    comments.push(line);
                }
                continue;
            }
            let samples = &mut families.entry(family).or_default().samples;
            samples.push_str(&process.map_or_else(|| line.to_owned(), |process| labelled(line, process)));
            samples.push('\n');
        }
    }
    let page = families
        .into_values()
        .map(|family| family.comments.join("\n") + "\n" + &family.samples);
    page.collect()
}

/// Puts a label into a line of a metrics page.
fn labelled(line: &str, process: &str) -> String {
    let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
    match rest.strip_prefix('{') {
        Some(labels) => format!("{name}{{process=\"{process}\",{labels}"),
        None => format!("{name}{{process=\"{process}\"}}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_children_carry_their_names_and_stand_with_their_kind() {
        let own = "# HELP a_total x\n# TYPE a_total counter\na_total 1\n";
        let child = "# HELP a_total x\n# TYPE a_total counter\na_total{shard=\"1\"} 2\n# TYPE b gauge\nb 3\n";
        let page = merged(own, &[("engine-0".to_owned(), child.to_owned())]);
        let expected = "# HELP a_total x\n# TYPE a_total counter\na_total 1\na_total{process=\"engine-0\",shard=\"1\"} 2\n\
                        # TYPE b gauge\nb{process=\"engine-0\"} 3\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn an_open_page_says_the_same_and_shows_a_call_of_each_bucket_that_has_one() {
        let plain = "# HELP a_total x\n# TYPE a_total counter\na_total{shard=\"1\"} 2\n\
                     # HELP b_seconds y\n# TYPE b_seconds histogram\n\
                     b_seconds_bucket{shard=\"1\",otel_scope_name=\"s\",le=\"0.001\"} 1\n\
                     b_seconds_bucket{shard=\"1\",otel_scope_name=\"s\",le=\"0.002\"} 3\n\
                     b_seconds_bucket{shard=\"1\",otel_scope_name=\"s\",le=\"+Inf\"} 3\n\
                     b_seconds_bucket{shard=\"2\",otel_scope_name=\"s\",le=\"0.002\"} 3\n";
        let series = Series {
            name: "b_seconds".to_owned(),
            labels: BTreeMap::from([("shard".to_owned(), "1".to_owned())]),
        };
        let example = |seconds| {
            Some(latency::Example {
                trace: opentelemetry::TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap(),
                seconds,
                at: UNIX_EPOCH + std::time::Duration::from_millis(12_034),
            })
        };
        let mut kept = Examples::default();
        kept[2] = example(0.0015);
        kept[16] = example(11.0);
        let page = Form::Open.of(plain.to_owned(), &BTreeMap::from([(series, kept)]));
        let page = Form::Open.merged(&page, &[("e".to_owned(), page.clone() + END)]);
        let trace = "# {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"}";
        for line in [
            "# TYPE a counter".to_owned(),
            "a_total{shard=\"1\"} 2".to_owned(),
            "a_total{process=\"e\",shard=\"1\"} 2".to_owned(),
            format!("b_seconds_bucket{{shard=\"1\",otel_scope_name=\"s\",le=\"0.002\"}} 3 {trace} 0.0015 12.034"),
            format!("b_seconds_bucket{{shard=\"1\",otel_scope_name=\"s\",le=\"+Inf\"}} 3 {trace} 11 12.034"),
            "b_seconds_bucket{shard=\"2\",otel_scope_name=\"s\",le=\"0.002\"} 3".to_owned(),
        ] {
            assert!(page.lines().any(|it| it == line), "{line} is not in\n{page}");
        }
        assert_eq!(page.matches(END).count(), 1);
        assert!(page.ends_with("# EOF\n"));
        assert_eq!(page.matches("trace_id").count(), 4, "of two buckets, in two processes");
    }

    #[test]
    fn the_form_is_the_one_that_is_asked_for() {
        let asked = |accept: &'static str| {
            Form::wanted(&HeaderMap::from_iter([(
                header::ACCEPT,
                axum::http::HeaderValue::from_static(accept),
            )]))
        };
        assert_eq!(asked("*/*"), Form::Plain);
        assert_eq!(
            asked("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
            Form::Open
        );
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Plain);
    }
}
