//! What a real run exports is what `docs/METRICS.md` says, and alerts and dashboards ask for nothing else; a real Prometheus gets data for
//! every expression of every dashboard, and for latencies the trace of a call that it counted.

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use running::{Up, http, until};
use serde_json::Value;
use testkit::free_address;

/// A trace that the client says it records.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What the exporter adds to every line, and what only some lines have by their nature.
const EVERYWHERE: [&str; 3] = ["otel_scope_name", "le", "process"];
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// A kind and labels, by name.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The name without what makes it a part of a histogram.
fn family<'a>(families: &Families, name: &'a str) -> &'a str {
    let whole = PARTS.iter().find_map(|part| name.strip_suffix(part));
    whole.filter(|whole| families.contains_key(*whole)).unwrap_or(name)
}

/// A metrics page.
fn exported(page: &str) -> Families {
    let mut families = Families::new();
    for line in page.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').expect("a name and a kind");
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let (labels, _) = rest.rsplit_once('}').expect("labels end");
        let names = labels.split(',').filter_map(|label| label.split_once('='));
        let names = names.map(|(name, _)| name.to_owned());
        let name = family(&families, name).to_owned();
        let known = &mut families
            .get_mut(&name)
            .unwrap_or_else(|| panic!("{name} has no type"))
            .1;
        known.extend(names.filter(|name| !EVERYWHERE.contains(&name.as_str())));
    }
    families
}

/// The table of `docs/METRICS.md`.
fn documented() -> Families {
    let mut families = Families::new();
    let page = read("docs/METRICS.md");
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, what] = cells[..] else {
            panic!("{row}")
        };
        assert!(!what.is_empty(), "{row}");
        let labels = labels.split_whitespace().map(|it| it.trim_matches('`').to_owned());
        let twice = families.insert(name.trim_matches('`').to_owned(), (kind.to_owned(), labels.collect()));
        assert!(twice.is_none(), "{name} stands there twice");
    }
    families
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words
        .filter(|word| {
            ["fulcrum_", "rpc_server_", "target_info"]
                .iter()
                .any(|it| word.starts_with(it))
        })
        .collect()
}

/// Every expression of the dashboards, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let all = targets().into_iter();
    all.map(|(place, target)| (place, target["expr"].as_str().expect("an expression").to_owned()))
        .collect()
}

/// Everything that the dashboards ask, with where it stands.
fn targets() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("deploy/observability/dashboards")).expect("dashboards") {
        let board: Value = serde_json::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).expect("JSON");
        for panel in board["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().expect("targets") {
                let place = format!(
                    "{}: {}",
                    board["title"].as_str().unwrap(),
                    panel["title"].as_str().unwrap()
                );
                found.push((place, target.clone()));
            }
        }
    }
    assert!(found.len() > 30, "{} targets", found.len());
    found
}

/// A little of everything that customers do.
fn trade(up: &Up) {
    let body = r#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":"10","leverage":"2"}"#;
    let mut opened = (0, Value::Null);
    // On a machine that stands still for seconds, prices are stale for a moment.
    until("a trade opens", || {
        opened = up.ask("POST", "/v1/accounts/demo/trades", body);
        opened.0 == 200
    });
    let trade = opened.1["trade"]["tradeId"].as_str().expect("an id").to_owned();
    let (status, closed) = up.ask("POST", &format!("/v1/accounts/demo/trades/{trade}:close"), "{}");
    assert_eq!(status, 200, "{closed}");
    up.free();
    let (status, refused) = up.ask("POST", "/v1/accounts/demo/trades/3-999999:close", "{}");
    assert_eq!(status, 404, "{refused}");
}

/// Opens a stream of quotes and leaves it.
fn stream(up: &Up) {
    let mut stream = std::net::TcpStream::connect(up.listen).expect("the gateway");
    stream.set_read_timeout(Some(running::SOON)).expect("a socket");
    let token = &up.token;
    write!(
        stream,
        "GET /v1/quotes:stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut some = [0; 16];
    stream.read_exact(&mut some).expect("it begins to answer");
}

fn page(up: &Up) -> String {
    http(up.ops, "GET", "/metrics", "", "").expect("metrics").1
}

#[test]
fn what_is_exported_is_what_is_written_down_and_all_that_is_asked_for() {
    // Nobody collects the traces: what matters is that they are recorded.
    let nobody = free_address();
    let up = Up::start(&["--ephemeral", "--otlp-endpoint", &format!("http://{nobody}")]);
    up.until_ready();
    up.open_wallet();
    trade(&up);
    stream(&up);
    // The recorder comes behind; the audit of the ledger is the last of all to speak.
    until("the ledger was summed", || {
        page(&up).contains("fulcrum_recorder_ledger_imbalance{")
    });

    let (exported, documented) = (exported(&page(&up)), documented());
    assert_eq!(
        exported, documented,
        "docs/METRICS.md is what is exported, and the other way round"
    );

    let mut asked = expressions();
    asked.push(("rules".to_owned(), read("deploy/observability/rules.yaml")));
    asked.push(("rules' tests".to_owned(), read("deploy/observability/rules_test.yaml")));
    asked.push(("OPERATIONS".to_owned(), read("docs/OPERATIONS.md")));
    let keda = "deploy/components/keda/scaledobjects.yaml";
    asked.push((keda.to_owned(), read(keda)));
    for (place, text) in &asked {
        for name in named(text) {
            assert!(
                exported.contains_key(family(&exported, name)),
                "{place}: nothing exports {name}"
            );
        }
    }
    match Prometheus::start(up.ops) {
        Some(prometheus) => {
            every_dashboard_has_data(&up, &prometheus);
            every_latency_leads_to_a_trace(&up, &prometheus);
        }
        None => say("NO PROMETHEUS: THE DASHBOARDS WERE NOT ASKED. deploy/checks/setup installs it"),
    }
    assert_eq!(up.end(rustix::process::Signal::INT).0, Some(0));
}

fn every_dashboard_has_data(up: &Up, prometheus: &Prometheus) {
    let mut answers = String::new();
    for (place, expression) in expressions() {
        let expression = expression.replace("$__rate_interval", "1m");
        let mut last = None;
        until(&format!("{place} has data: {expression}"), || {
            // Rates are of what happens while they are asked.
            trade(up);
            last = prometheus.ask(&expression);
            last.is_some()
        });
        answers += &format!("{place} | {}\n", last.expect("an answer"));
    }
    say(&answers);
}

/// What Grafana asks of Prometheus to draw a dot that leads to a trace.
fn every_latency_leads_to_a_trace(up: &Up, prometheus: &Prometheus) {
    let is_latency = |target: &Value| target["expr"].as_str().is_some_and(|it| it.contains("_bucket"));
    let (others, shown): (Vec<_>, Vec<_>) = targets()
        .into_iter()
        .filter(|(_, target)| is_latency(target))
        .partition(|(_, target)| target["exemplar"] != true);
    for (place, _) in &others {
        assert!(shown.iter().any(|(it, _)| it == place), "{place} leads to no trace");
    }
    assert!(shown.len() > 5, "each stage, and whole calls");
    let traced = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    for (place, target) in shown {
        let expression = target["expr"].as_str().expect("an expression");
        let expression = expression.replace("$__rate_interval", "1m");
        until(&format!("{place} leads to our trace: {expression}"), || {
            let body = r#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":"10","leverage":"2"}"#;
            up.ask_with(&traced, "POST", "/v1/accounts/demo/trades", body);
            prometheus.examples(&expression).iter().any(|trace| trace == TRACE)
        });
    }
}

/// To the person in front, also when the test passes.
fn say(text: &str) {
    let _unheard = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn every_alert_has_a_runbook() {
    let (rules, operations) = (read("deploy/observability/rules.yaml"), read("docs/OPERATIONS.md"));
    let after = |label: &str| -> Vec<String> {
        let lines = rules.lines().filter_map(|line| line.trim().strip_prefix(label));
        lines.map(|it| it.trim().to_owned()).collect()
    };
    let (alerts, links) = (after("- alert:"), after("runbook_url:"));
    assert!(alerts.len() > 10 && alerts.len() == links.len());
    for (alert, link) in alerts.iter().zip(links) {
        assert_eq!(link, format!("docs/OPERATIONS.md#{}", alert.to_lowercase()));
        let heading = format!("\n#### {alert}\n");
        assert!(
            operations.contains(&heading),
            "docs/OPERATIONS.md has no runbook for {alert}"
        );
    }
    for heading in operations.lines().filter_map(|line| line.strip_prefix("#### ")) {
        assert!(
            alerts.iter().any(|alert| alert == heading),
            "a runbook for {heading}, which no rule raises"
        );
    }
}

/// An expression as a part of a URL.
fn encoded(expression: &str) -> String {
    expression.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A Prometheus that scrapes one place each second, and ends with the value.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// None when there is no program.
    fn start(scraped: SocketAddr) -> Option<Self> {
        let unpacked = root().join(".tools/prometheus/usr/bin/prometheus");
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let mut programs = std::env::split_paths(&on_path)
            .map(|it| it.join("prometheus"))
            .chain([unpacked]);
        let program = programs.find(|it| it.is_file())?;
        let directory = tempfile::tempdir().expect("a directory");
        let config = format!(
            "scrape_configs: [{{job_name: fulcrum, scrape_interval: 1s, static_configs: [{{targets: ['{scraped}']}}]}}]"
        );
        fs::write(directory.path().join("prometheus.yml"), config).expect("a file");
        let address = free_address();
        let process = Command::new(program)
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg("--enable-feature=exemplar-storage")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let prometheus = Self {
            process,
            address,
            _directory: directory,
        };
        until("Prometheus has scraped twice", || {
            prometheus.ask("count_over_time(up[1m]) > 1").is_some()
        });
        Some(prometheus)
    }

    /// The traces of calls that an expression is made of.
    fn examples(&self, expression: &str) -> Vec<String> {
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
        let path = format!(
            "/api/v1/query_exemplars?query={}&start={}&end={}",
            encoded(expression),
            now - 600,
            now + 600
        );
        let (_, body) = http(self.address, "GET", &path, "", "").expect("an answer");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let series = answer["data"].as_array().expect("series").iter();
        let examples = series.flat_map(|it| it["exemplars"].as_array().expect("examples"));
        let traces = examples.filter_map(|it| it["labels"]["trace_id"].as_str());
        traces.map(str::to_owned).collect()
    }

    /// The answer as text: the number of series and the first value; none when there is no number in it.
    fn ask(&self, expression: &str) -> Option<String> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let (_, body) = http(self.address, "GET", &path, "", "")?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        assert_ne!(answer["status"], "error", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array()?;
        let number = |it: &Value| {
            it["value"][1]
                .as_str()
                .and_then(|it| it.parse::<f64>().ok())
                .filter(|it| it.is_finite())
        };
        let first = series.iter().find_map(number)?;
        Some(format!("{} series, first {first}", series.len()))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
