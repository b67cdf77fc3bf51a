//! A trader's day through each door, by clients that share no code with us, against the real program, on prices that really happened.
//!
//! Python's `grpcio`, a page in Chromium and `curl` live the same day at the same time, each on an account of its own: wallet, deposit,
//! mistakes, a long and a short, a change, half a close, then Bitcoin's fall of 2 January 2018 as the poller's replay server plays it, in
//! which the long is liquidated, and the history of it all. What the three learn must be the same, and the numbers must be those that
//! follow from the quotes. What the clients do is in `services/testkit/clients`.

mod binary;
mod doors;
mod mesh;
mod transcript;
mod venue;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use binary::{Up, root};
use doors::{Client, Door};
use mesh::{until, within};
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use transcript::Names;
use venue::{Row, Venue};

const SYMBOL: &str = "BTC_USDC";
/// The fall, microseconds since the epoch: 2018-01-02 from 04:20 to 04:40 UTC.
const FALL_US: std::ops::Range<u64> = 1_514_866_800_000_000..1_514_868_000_000_000;
const FALL_FILE: &str = "bitmex_xbtusd_20180101_20180103_quotes_derived.csv.zst";
/// Twenty minutes in twelve seconds: the longest silence of the recording is then half a second.
const SPEED: &str = "100";

/// The fall: as recorded where the recording is, and otherwise made from the sample that comes with the program.
fn fall() -> Vec<Row> {
    let directory =
        std::env::var_os("FULCRUM_MARKET_DATA").map_or_else(|| root().join("../shared/market-data"), PathBuf::from);
    let file = directory.join(FALL_FILE);
    if file.is_file() {
        let all = venue::rows(&file, "BTC_USDC_PERP");
        return all.into_iter().filter(|row| FALL_US.contains(&row.at_us)).collect();
    }
    let rule = "*".repeat(90);
    let said = format!(
        "{rule}\n* NO RECORDED FALL in {}\n* The day runs on the built-in sample, bent to fall by 4 %: SYNTHETIC PRICES.\n\
         * FULCRUM_MARKET_DATA names the directory of the recordings.\n{rule}\n",
        directory.display()
    );
    // Not by a macro: the test runner would keep it to itself.
    std::io::stderr().write_all(said.as_bytes()).expect("a place to say it");
    bent(&venue::rows(
        &root().join("services/poller/data/sample_quotes.csv.zst"),
        SYMBOL,
    ))
}

/// The tape up to a quote that is nowhere before, so that who sees it knows that all was played.
fn ending_in_news(mut tape: Vec<Row>) -> Vec<Row> {
    let is_news = |tape: &[Row]| {
        let (last, before) = tape.split_last().expect("rows");
        before.iter().all(|row| (row.bid, row.ask) != (last.bid, last.ask))
    };
    while !is_news(&tape) {
        tape.pop();
    }
    tape
}

/// The sample from 13,382 on, a thousandth of it, falling by a further 4 % from its beginning to its end.
fn bent(sample: &[Row]) -> Vec<Row> {
    let rows: Vec<&Row> = sample.iter().step_by(sample.len().div_ceil(1_000)).collect();
    let scale = Decimal::from(13_382) / rows[0].mid();
    let length = Decimal::from(rows.len());
    let tick = Decimal::new(5, 1);
    let bend = |(index, row): (usize, &&Row)| {
        let factor = scale * (Decimal::ONE - Decimal::new(4, 2) * Decimal::from(index) / length);
        let bid = ((row.bid * factor) / tick).floor() * tick;
        Row {
            at_us: row.at_us * 6,
            bid,
            ask: bid + Decimal::from(if index == 0 { 10 } else { 1 }),
        }
    };
    rows.iter().enumerate().map(bend).collect()
}

/// A client's process.
struct Stranger {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    said: Vec<Value>,
}

impl Stranger {
    fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self {
            name,
            input: child.stdin.take().expect("piped"),
            child,
            output,
            said: Vec::new(),
        }
    }

    async fn tell(&mut self, line: &Value) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .expect("it listens");
    }

    /// Keeps what it says until it says something under this name.
    async fn until(&mut self, name: &str) -> Value {
        let reading = async {
            while let Some(line) = self.output.next_line().await.expect("readable") {
                let line: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name));
                if let Some(found) = line.get(name) {
                    return found.clone();
                }
                self.said.push(line);
            }
            panic!("{} ended before it said {name}; it said {:#?}", self.name, self.said);
        };
        within("what a client says", reading).await
    }

    async fn waits_for(&mut self, what: &str) {
        assert_eq!(self.until("waiting").await, what, "{}: {:#?}", self.name, self.said);
    }

    async fn done(&mut self) {
        assert_eq!(self.until("done").await, true);
        assert!(
            within("a client's end", self.child.wait())
                .await
                .expect("it ends")
                .success(),
            "{}",
            self.name
        );
    }

    /// What it learnt, in one form.
    fn transcript(&self, account: &str) -> Vec<Value> {
        let mut names = Names::of(account);
        let canonical = |line: &Value| {
            let name = line["method"].as_str().or(line["stream"].as_str()).expect("a name");
            let answer = match line.get("error") {
                Some(error) => doors::canonical_error(error),
                None => doors::canonical_answer(name, &line["answer"]),
            };
            json!([name, answer])
        };
        self.said.iter().map(|line| names.anonymous(&canonical(line))).collect()
    }

    /// The answers of a method, or the messages of a stream.
    fn answers(&self, name: &str) -> Vec<&Value> {
        let of = self
            .said
            .iter()
            .filter(|line| line["method"] == name || line["stream"] == name);
        of.filter_map(|line| line.get("answer")).collect()
    }

    /// The reasons of its refusals.
    fn reasons(&self) -> Vec<&str> {
        let errors = self.said.iter().filter_map(|line| line["error"]["details"].as_array());
        errors
            .flatten()
            .filter_map(|detail| detail["reason"].as_str())
            .collect()
    }
}

/// Installs what the clients need; nothing when it is there.
fn install() {
    let installed = std::process::Command::new(root().join("services/testkit/clients/setup")).status();
    assert!(installed.expect("a shell").success(), "services/testkit/clients/setup");
}

/// Python, with the stubs that the example's build made from the contract.
fn python() -> Command {
    let example = root().join("examples/python");
    let mut command = Command::new(example.join(".venv/bin/python"));
    command
        .arg(root().join("services/testkit/clients/python/day.py"))
        .env("PYTHONPATH", example.join("build"));
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_strangers_live_the_same_day_through_three_doors() {
    install();
    let room = tempfile::tempdir().expect("a directory");
    let descriptors = room.path().join("descriptors");
    std::fs::write(&descriptors, contracts::DESCRIPTOR_SET).expect("written");
    let clients = root().join("services/testkit/clients");
    let mut page = Command::new("node");
    page.arg(clients.join("web/run.mjs"))
        .env("FULCRUM_DESCRIPTORS", &descriptors);
    let mut strangers = [
        Stranger::start("python", &mut python()),
        Stranger::start("web", &mut page),
        Stranger::start("curl", &mut Command::new(clients.join("curl/day.sh"))),
    ];
    let origin = strangers[1].until("origin").await;

    let tape = ending_in_news(fall());
    let (first, last) = (tape.first().expect("rows"), tape.last().expect("rows"));
    let mut venue = Venue::calm(SYMBOL, first).await;
    let origin = origin.as_str().expect("an origin");
    // Each quote is forwarded, so that what the engine sees is the tape and no choice from it.
    let up = Up::start(&[
        "--feed",
        &venue.url,
        "--symbols",
        SYMBOL,
        "--batch",
        "0",
        "--cors-origin",
        origin,
        "--shards",
        "4",
    ])
    .await;
    for stranger in &mut strangers {
        let (account, address) = (stranger.name, up.address.to_string());
        stranger
            .tell(&json!({"address": address, "account": account, "token": up.token(account)}))
            .await;
    }
    for stranger in &mut strangers {
        stranger.waits_for("fall").await;
    }

    let begun = seconds();
    venue.tape(SYMBOL, &tape, SPEED).await;
    for stranger in &mut strangers {
        stranger.waits_for("history").await;
    }
    // The rest of the tape, as each account's own shard sees it; then the market rests.
    let watchers = strangers
        .each_ref()
        .map(|it| Client::new(Door::Grpc, up.address, &up.token(it.name)));
    for (stranger, watcher) in strangers.iter().zip(&watchers) {
        let at_the_end = (price(last.bid), price(last.ask));
        until("the end of the fall", async || {
            let summary = watcher
                .call("GetAccountSummary", json!({"account_id": stranger.name}))
                .await
                .good();
            let quote = &summary["quotes"][0];
            (quote["bid"] == at_the_end.0 && quote["ask"] == at_the_end.1).then_some(())
        })
        .await;
    }
    venue.rest_at(SYMBOL, last).await;
    let ended = seconds() + 1;
    let candles = |start: u64, end: u64| json!({"symbol": SYMBOL, "interval": "CANDLE_INTERVAL_1S", "start_time": rfc3339(start), "end_time": rfc3339(end), "page_size": 1000});
    until("a candle after the fall", async || {
        let later = watchers[0]
            .call("ListCandles", candles(ended, ended + 600))
            .await
            .good();
        (later["candles"].as_array()?.len() > 1).then_some(())
    })
    .await;
    let after = json!({"bid": price(last.bid), "ask": price(last.ask), "start": rfc3339(begun), "end": rfc3339(ended)});
    for stranger in &mut strangers {
        stranger.tell(&after).await;
    }
    for stranger in &mut strangers {
        stranger.done().await;
    }

    let transcripts = strangers.each_ref().map(|it| it.transcript(it.name));
    for (index, here) in transcripts.iter().enumerate().skip(1) {
        for (there, here) in transcripts[0].iter().zip(here) {
            assert_eq!(
                here, there,
                "{} and {} learn different things",
                strangers[index].name, strangers[0].name
            );
        }
        assert_eq!(here.len(), transcripts[0].len());
    }
    the_numbers_are_right(&strangers[0], &tape);
    up.stop().await;
}

/// All of it recomputed from the quotes.
fn the_numbers_are_right(it: &Stranger, tape: &[Row]) {
    let (first, last) = (tape.first().expect("rows"), tape.last().expect("rows"));
    assert_eq!(it.reasons(), ["INVALID_FIELD", "SYMBOL_UNKNOWN", "TRADE_CLOSED"]);
    let [opened_long, opened_short, again] = it.answers("OpenTrade")[..] else {
        panic!("three answers")
    };
    assert_eq!(again, opened_short, "a repeat gets the first answer");
    for opened in [opened_long, opened_short] {
        let quote = &opened["trade"]["quote"];
        assert_eq!(
            (decimal(&quote["bid"]), decimal(&quote["ask"])),
            (first.bid, first.ask),
            "it names its quote"
        );
    }

    // Long: 500 at 50, so 25,000 worth at the ask, down to the step of 0.00001; liquidated where 500 is lost, on the tick of 0.1.
    let long = &opened_long["trade"];
    let quantity = floor(Decimal::from(25_000) / first.ask, 5);
    let liquidation = floor(first.ask - Decimal::from(500) / quantity, 1);
    assert_eq!(
        (decimal(&long["entryPrice"]), decimal(&long["quantity"])),
        (first.ask, quantity)
    );
    assert_eq!(decimal(&long["liquidationPrice"]), liquidation);
    // Short: 0.5 at 10, at the bid.
    let short = &opened_short["trade"];
    let half = decimal(&short["quantity"]) / Decimal::TWO;
    let margin = cents(first.bid * half * Decimal::TWO / Decimal::TEN);
    assert_eq!(
        (decimal(&short["entryPrice"]), money(&short["margin"])),
        (first.bid, margin)
    );
    let [modified] = it.answers("ModifyTrade")[..] else {
        panic!("one answer")
    };
    assert_eq!(money(&modified["trade"]["margin"]), margin + Decimal::new(2_550, 2));

    let [halved, closed] = it.answers("CloseTrade")[..] else {
        panic!("two answers")
    };
    let first_half = cents((first.bid - first.ask) * half);
    assert_eq!(
        (decimal(&halved["closePrice"]), money(&halved["realisedProfit"])),
        (first.ask, first_half)
    );
    let [summary] = it.answers("GetAccountSummary")[..] else {
        panic!("one answer")
    };
    let unrealised = cents((first.bid - first.ask) * quantity) + first_half;
    assert_eq!(money(&summary["unrealisedProfit"]), unrealised);
    assert_eq!(money(&summary["equity"]), money(&summary["balance"]) + unrealised);

    // Liquidated at the first bid of the tape at or below the liquidation price, and not at that price.
    let events = it.answers("StreamAccountEvents");
    let liquidated: Vec<&Value> = events
        .iter()
        .map(|event| &event["tradeClosed"])
        .filter(|it| it["reason"] == "CLOSE_REASON_LIQUIDATION")
        .collect();
    let [liquidated] = liquidated[..] else {
        panic!("one liquidation: {liquidated:?}")
    };
    let fill = tape.iter().find(|row| row.bid <= liquidation).expect("a fall").bid;
    assert_eq!(
        (decimal(&liquidated["closePrice"]), &liquidated["trade"]["tradeId"]),
        (fill, &long["tradeId"])
    );
    let lost = cents((fill - first.ask) * quantity).max(Decimal::from(-500));
    let covered = (cents((first.ask - fill) * quantity) - Decimal::from(500)).max(Decimal::ZERO);
    assert_eq!(
        (money(&liquidated["realisedProfit"]), money(&liquidated["houseCovered"])),
        (lost, covered)
    );

    let second_half = cents((first.bid - last.ask) * half);
    assert_eq!(
        (decimal(&closed["closePrice"]), money(&closed["realisedProfit"])),
        (last.ask, second_half)
    );
    let free = Decimal::from(6_000) + first_half + lost + second_half;
    assert_eq!(money(&closed["freeBalance"]), free);
    let [balances] = it.answers("ListBalances")[..] else {
        panic!("one answer")
    };
    let usdc = balances["balances"]
        .as_array()
        .expect("balances")
        .iter()
        .find(|it| it["currencyCode"] == "USDC")
        .expect("USDC");
    assert_eq!(
        (decimal(&usdc["free"]), decimal(&usdc["locked"])),
        (free, Decimal::ZERO)
    );

    let [history] = it.answers("ListTrades")[..] else {
        panic!("one answer")
    };
    let ids: Vec<&Value> = history["trades"]
        .as_array()
        .expect("trades")
        .iter()
        .map(|trade| &trade["tradeId"])
        .collect();
    assert_eq!(
        ids,
        [&short["tradeId"], &long["tradeId"]],
        "both are closed, the newest first"
    );
    let [ledger] = it.answers("ListTransactions")[..] else {
        panic!("one answer")
    };
    let sum = |account: &str| -> Decimal {
        let lines = ledger["transactions"]
            .as_array()
            .expect("lines")
            .iter()
            .map(|line| &line["entry"]);
        let of = lines.filter(|it| it["ledgerAccount"] == account && it["amount"]["currencyCode"] == "USDC");
        of.map(|it| money(&it["amount"])).sum()
    };
    assert_eq!(
        (sum("client"), sum("margin")),
        (free, Decimal::ZERO),
        "balances are the ledger"
    );
    let [operation] = it.answers("GetOperation")[..] else {
        panic!("one answer")
    };
    assert_eq!(
        operation["operation"]["response"]["realisedProfit"],
        closed["realisedProfit"]
    );

    let [candles] = it.answers("ListCandles")[..] else {
        panic!("one answer")
    };
    let candles = candles["candles"].as_array().expect("candles");
    let mids = || tape.iter().map(Row::mid);
    let of = |name: &'static str| candles.iter().map(move |candle| decimal(&candle[name]));
    assert_eq!(
        (of("low").min(), of("high").max()),
        (mids().min(), mids().max()),
        "the candles hold the whole fall"
    );
    assert_eq!(of("close").next_back(), mids().next_back());
    let kinds: Vec<&str> = events.iter().map(|event| kind(event)).collect();
    assert_eq!(
        kinds,
        [
            "snapshot",
            "deposited",
            "operationRefused",
            "tradeOpened",
            "tradeOpened",
            "tradeModified",
            "tradeClosed",
            "tradeClosed",
            "tradeClosed",
            "operationRefused"
        ]
    );
}

fn kind(event: &Value) -> &str {
    let members = event.as_object().expect("an event").keys();
    let envelope = ["sequence", "eventTime", "ledgerLines", "requestId"];
    members
        .map(String::as_str)
        .find(|name| !envelope.contains(name))
        .expect("a kind")
}

fn decimal(text: &Value) -> Decimal {
    text.as_str()
        .and_then(|it| it.parse().ok())
        .unwrap_or_else(|| panic!("{text} is no decimal"))
}

fn money(money: &Value) -> Decimal {
    assert_eq!(money["currencyCode"], "USDC");
    decimal(&money["amount"])
}

fn floor(value: Decimal, decimals: u32) -> Decimal {
    value.round_dp_with_strategy(decimals, RoundingStrategy::ToNegativeInfinity)
}

/// Half to even, as everything that is booked.
fn cents(value: Decimal) -> Decimal {
    value.round_dp(2)
}

/// With the decimals of the tick.
fn price(value: Decimal) -> String {
    format!("{value:.1}")
}

fn seconds() -> u64 {
    mesh::now_us() / 1_000_000
}

fn rfc3339(seconds: u64) -> String {
    let time = prost_types::Timestamp {
        seconds: seconds.try_into().expect("this century"),
        nanos: 0,
    };
    time.to_string()
}
