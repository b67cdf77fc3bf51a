//! What users copy from `examples/` works: each is made from the contract, run as a user runs it against the real program, meets an engine
//! that does not answer, and what it prints is what the server has on record.
//!
//! Python, Node and the browser unless `FULCRUM_EXAMPLES` names others; `make test-clients` runs the rest.

mod binary;
mod doors;
mod mesh;
mod venue;

use std::collections::BTreeSet;
use std::process::Stdio;

use binary::{Up, root};
use doors::{Client, Door};
use mesh::{until, within};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tonic::Code;
use venue::{Row, Venue};

const SYMBOL: &str = "SOL_USDC";
/// Where 100 are lost of 4.999 bought at 200.02, down to the tick. The server tells it of open trades only.
const LIQUIDATION: &str = "180.01";
/// What an example prints when nothing was accepted.
const AGAIN: &str = "NOT_ACCEPTED: the same request again in 0.5 s";
/// What it prints before it sends a request again, whatever the reason.
const ANY_AGAIN: &str = ": the same request again in ";

/// An example, running.
struct Example {
    name: String,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Example {
    fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.to_owned(),
            output: BufReader::new(child.stdout.take().expect("piped")).lines(),
            child,
            said: Vec::new(),
        }
    }

    async fn line(&mut self) -> Option<String> {
        let line = within("what an example says", self.output.next_line()).await;
        let line = line.expect("readable");
        self.said.extend(line.clone());
        line
    }

    /// Reads on to this line.
    async fn says(&mut self, wanted: &str) {
        while let Some(line) = self.line().await {
            if line == wanted {
                return;
            }
        }
        panic!("{} ended and did not say {wanted:?}, but {:#?}", self.name, self.said);
    }

    /// Reads to the end.
    async fn ends_well(&mut self) {
        while self.line().await.is_some() {}
        let ended = within("an example's end", self.child.wait()).await.expect("it ends");
        assert!(ended.success(), "{}: {ended}, it said {:#?}", self.name, self.said);
    }

    /// What it said about its trade, without the attempts it needed.
    fn story(&self) -> Vec<&str> {
        let said = self.said.iter().map(String::as_str);
        said.filter(|line| !line.contains(ANY_AGAIN)).collect()
    }
}

/// Which examples are run.
fn named() -> Vec<String> {
    let given = std::env::var("FULCRUM_EXAMPLES").unwrap_or_else(|_| "python node browser".to_owned());
    given.split_whitespace().map(str::to_owned).collect()
}

/// Installs what the examples need and compiles them; nothing when that was done.
fn build(names: &[String]) {
    for name in names {
        let directory = root().join("examples").join(name);
        assert!(directory.join("Makefile").is_file(), "there is no example {name:?}");
        let made = std::process::Command::new("make")
            .args(["--no-print-directory", "--silent", "setup", "build", "--directory"])
            .arg(directory)
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("make runs").success(), "examples/{name} cannot be built");
    }
    if names.iter().any(|name| name == "browser") {
        let driver = root().join("services/testkit/clients/setup");
        assert!(std::process::Command::new(driver).status().expect("a shell").success());
    }
}

/// The page of the example for browsers, in a headless Chromium, and where it comes from.
async fn page() -> (Example, String) {
    let mut command = Command::new("node");
    command
        .arg(root().join("services/testkit/clients/web/open.mjs"))
        .arg(root().join("examples/browser/build/site"));
    let mut example = Example::start("browser", &mut command);
    let origin: Value = serde_json::from_str(&example.line().await.expect("an origin")).expect("JSON");
    example.said.clear();
    (example, origin["origin"].as_str().expect("an origin").to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_trade_through_an_outage_and_print_what_the_server_has_on_record() {
    let names = named();
    build(&names);
    let page = if names.iter().any(|name| name == "browser") {
        Some(page().await)
    } else {
        None
    };
    let row = Row {
        at_us: 1_514_866_800_000_000,
        bid: "199.98".parse().expect("a price"),
        ask: "200.02".parse().expect("a price"),
    };
    let venue = Venue::calm(SYMBOL, &row).await;
    let mut options = vec![
        "--feed",
        &venue.url,
        "--symbols",
        SYMBOL,
        "--separate-processes",
        "--shards",
        "4",
    ];
    if let Some((_, origin)) = &page {
        options.extend(["--cors-origin", origin]);
    }
    let up = Up::start(&options).await;

    // The engine stands still, so that nobody leads and nothing is accepted.
    let engine = up.process("engine-0").expect("an engine");
    kill_process(engine, Signal::STOP).expect("it runs");
    let watcher = |name: &str| Client::new(Door::Grpc, up.address, &up.token(name));
    until("nothing accepted", async || {
        let answer = watcher("watcher")
            .call("InitializeWallet", json!({"account_id": "watcher"}))
            .await;
        (answer.code == Code::Unavailable && answer.reason() == "NOT_ACCEPTED").then_some(())
    })
    .await;

    let mut examples = Vec::new();
    if let Some((mut page, _)) = page {
        let hash = format!("address=http://{}&token={}\n", up.address, up.token("browser"));
        let mut input = page.child.stdin.take().expect("piped");
        input.write_all(hash.as_bytes()).await.expect("it listens");
        examples.push(page);
    }
    for name in names.iter().filter(|name| *name != "browser") {
        let mut command = Command::new("make");
        command
            .args(["--no-print-directory", "--silent", "run", "--directory"])
            .arg(root().join("examples").join(name))
            .env("FULCRUM_ADDRESS", up.address.to_string())
            .env("FULCRUM_TOKEN", up.token(name));
        examples.push(Example::start(name, &mut command));
    }
    for example in &mut examples {
        example.says(AGAIN).await;
    }
    kill_process(engine, Signal::CONT).expect("it stands still");

    for example in &mut examples {
        example.ends_well().await;
        let client = watcher(&example.name);
        let trades = client
            .call("ListTrades", json!({"account_id": example.name}))
            .await
            .good();
        let [trade] = &trades["trades"].as_array().expect("trades")[..] else {
            panic!("{}: one trade, whatever was sent again: {trades:#}", example.name)
        };
        assert_eq!(trade["status"], "TRADE_STATUS_CLOSED", "{}", example.name);
        assert_eq!(trade["closeReason"], "CLOSE_REASON_CLIENT", "{}", example.name);
        assert_eq!(example.story(), expected(trade), "{}", example.name);
    }
    up.stop().await;
}

/// What an example prints about a trade, from what the server says of it.
fn expected(trade: &Value) -> [String; 5] {
    let text = |name: &str| trade[name].as_str().unwrap_or_else(|| panic!("no {name} in {trade:#}"));
    let id = text("tradeId");
    let profit = &trade["realisedProfit"];
    [
        "wallet: 0.00000000 BTC, 0.00000000 ETH, 0.00000000 SOL, 5000.00 USDC".to_owned(),
        format!(
            "opened {id}: {} {SYMBOL} at {}, liquidation at {LIQUIDATION}",
            text("openedQuantity"),
            text("entryPrice")
        ),
        format!("event: {id} opened"),
        format!(
            "closed {id} at {}: profit {} {}",
            text("closePrice"),
            profit["amount"].as_str().expect("an amount"),
            profit["currencyCode"].as_str().expect("a currency")
        ),
        format!("event: {id} closed"),
    ]
}

/// `docs/api/first-call.md` shows lines of the examples: each block after `From [`examples/…`]` is there, as it is or further in.
#[test]
fn the_first_calls_in_the_docs_are_lines_of_the_examples() {
    let page = std::fs::read_to_string(root().join("docs/api/first-call.md")).expect("readable");
    let (mut source, mut blocks) = (None, Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("## ") {
            source = None;
        } else if let Some(named) = line.strip_prefix("From [`") {
            source = named.split('`').next();
        } else if line.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.extend(source.map(|source| (source, block)));
        }
    }
    for (source, block) in &blocks {
        let text = std::fs::read_to_string(root().join(source)).unwrap_or_else(|error| panic!("{source}: {error}"));
        let text: Vec<&str> = text.lines().collect();
        let is_there = text.windows(block.len()).any(|window| {
            let indent = window[0].len() - window[0].trim_start().len();
            let lines = window.iter().zip(block);
            lines
                .into_iter()
                .all(|(there, shown)| there.get(indent..).unwrap_or_default() == *shown)
        });
        assert!(
            is_there,
            "{source} has no such lines any more: change docs/api/first-call.md\n{}",
            block.join("\n")
        );
    }
    let shown: BTreeSet<&str> = blocks.iter().map(|(source, _)| *source).collect();
    let examples = std::fs::read_dir(root().join("examples")).expect("readable");
    let examples = examples
        .filter(|entry| entry.as_ref().is_ok_and(|it| it.path().is_dir()))
        .count();
    assert_eq!(shown.len(), examples, "a first call for each example: {shown:?}");
}
