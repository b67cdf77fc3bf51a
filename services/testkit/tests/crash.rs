//! The engine is killed with signal 9 in the middle of the day, in a process of its own as in production, and nothing that was
//! acknowledged is lost.
//!
//! A caller counts an operation as acknowledged only after it wrote the answer to its own disk. So what is compared afterwards is what
//! the callers can prove, and not what some buffer held.

mod binary;
mod doors;
mod mesh;
mod venue;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use binary::Up;
use doors::{Client, Door};
use mesh::until;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;
use venue::{Row, Venue};

/// Callers that trade at once, each on an account of its own.
const CALLERS: usize = 8;
/// Acknowledged opens before the engine is killed, at least.
const BEFORE: usize = 200;
/// And in all.
const ALTOGETHER: usize = 300;

/// What one caller has on disk: requests and the first answers to them.
struct Caller {
    client: Client,
    account: String,
    file: File,
    path: PathBuf,
}

impl Caller {
    fn request(&self, request_id: &str) -> Value {
        json!({
            "account_id": self.account, "request_id": request_id, "symbol": "SOL_USDC", "side": "SIDE_LONG",
            "margin": "1", "leverage": "10",
        })
    }

    /// Opens trades until told to stop, each with its own id, which is sent again until there is an answer.
    async fn trade(mut self, acknowledged: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::SeqCst) {
            let id = Uuid::now_v7().to_string();
            let request = self.request(&id);
            let answer = loop {
                let client = self.client.with_timeout(Duration::from_secs(2));
                let answer = client.call("OpenTrade", request.clone()).await;
                match (answer.code, answer.reason()) {
                    (Code::Ok, _) => break answer.body,
                    // Nothing happened, or nobody knows: the same id again, after a while.
                    (Code::Unavailable, "NOT_ACCEPTED" | "STALE_PRICE") | (Code::DeadlineExceeded, _) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    _ => panic!("{}", answer.all()),
                }
            };
            writeln!(self.file, "{}", json!({"id": id, "answer": answer})).expect("a disk");
            self.file.sync_data().expect("a disk");
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        self
    }

    fn on_disk(&self) -> Vec<(String, Value)> {
        let text = std::fs::read_to_string(&self.path).expect("a disk");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines
            .map(|line| (line["id"].as_str().expect("an id").to_owned(), line["answer"].clone()))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_05_an_engine_process_killed_in_the_middle_of_the_day_loses_no_acknowledged_operation() {
    let row = Row {
        at_us: 1_514_866_800_000_000,
        bid: "199.98".parse().expect("a price"),
        ask: "200.02".parse().expect("a price"),
    };
    let venue = Venue::calm("SOL_USDC", &row).await;
    let up = Up::start(&[
        "--feed",
        &venue.url,
        "--symbols",
        "SOL_USDC",
        "--separate-processes",
        "--shards",
        "4",
    ])
    .await;
    let room = tempfile::tempdir().expect("a directory");
    let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut trading = Vec::new();
    for number in 0..CALLERS {
        let account = format!("caller-{number}");
        let client = Client::new(Door::ALL[number % Door::ALL.len()], up.address, &up.token(&account));
        client
            .call("InitializeWallet", json!({"account_id": account}))
            .await
            .good();
        let path = room.path().join(&account);
        let caller = Caller {
            client,
            account,
            file: File::create(&path).expect("a disk"),
            path,
        };
        trading.push(tokio::spawn(caller.trade(Arc::clone(&acknowledged), Arc::clone(&stop))));
    }

    until("enough acknowledged", async || {
        (acknowledged.load(Ordering::SeqCst) >= BEFORE).then_some(())
    })
    .await;
    let killed = up.process("engine-0").expect("an engine");
    kill_process(killed, Signal::KILL).expect("it runs");
    until("another engine", async || {
        up.process("engine-0").filter(|process| *process != killed)
    })
    .await;
    let at_the_restart = acknowledged.load(Ordering::SeqCst);
    let enough = ALTOGETHER.max(at_the_restart + CALLERS);
    until("business as usual", async || {
        (acknowledged.load(Ordering::SeqCst) >= enough).then_some(())
    })
    .await;
    stop.store(true, Ordering::SeqCst);

    let mut compared = 0;
    for caller in trading {
        let caller = caller.await.expect("no panic");
        let on_disk = caller.on_disk();
        compared += on_disk.len();
        let mut expected = BTreeMap::new();
        for (id, answer) in &on_disk {
            let again = caller.client.call("OpenTrade", caller.request(id)).await.good();
            assert_eq!(again, *answer, "{id} gets its first answer again");
            let trade = answer["trade"]["tradeId"].as_str().expect("an id").to_owned();
            assert!(
                expected.insert(trade, answer["trade"]["entryPrice"].clone()).is_none(),
                "one trade, one operation"
            );
        }
        let listed = caller
            .client
            .call("ListTrades", json!({"account_id": caller.account, "page_size": 1000}))
            .await
            .good();
        let trades = listed["trades"].as_array().expect("trades").iter();
        let open: BTreeMap<String, Value> = trades
            .map(|trade| {
                (
                    trade["tradeId"].as_str().expect("an id").to_owned(),
                    trade["entryPrice"].clone(),
                )
            })
            .collect();
        assert_eq!(open, expected, "each acknowledged trade is there, and no other");
        let balance = caller
            .client
            .call(
                "GetBalance",
                json!({"account_id": caller.account, "currency_code": "USDC"}),
            )
            .await
            .good();
        let cash = |locked: usize| (format!("{}.00", 5_000 - locked), format!("{locked}.00"));
        let (free, locked) = cash(on_disk.len());
        assert_eq!(
            (&balance["balance"]["free"], &balance["balance"]["locked"]),
            (&json!(free), &json!(locked))
        );
    }
    assert!(compared >= ALTOGETHER, "{compared}");
    up.stop().await;
}
