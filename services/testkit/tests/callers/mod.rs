//! Callers that trade, and can prove what they were told: an operation counts as acknowledged only after its answer is on the caller's
//! own disk. So what is compared afterwards is what the callers can prove, and not what some buffer held.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Code;
use uuid::Uuid;

use crate::doors::{Client, Door};

/// Some callers at once, each on an account of its own and through one of the doors.
pub struct Callers {
    trading: Vec<JoinHandle<Caller>>,
    acknowledged: Vec<Arc<AtomicUsize>>,
    stop: Arc<AtomicBool>,
    _room: TempDir,
}

impl Callers {
    /// So many, who begin at once.
    pub async fn start(count: usize, gateway: SocketAddr, token: impl Fn(&str) -> String) -> Self {
        let room = tempfile::tempdir().expect("a directory");
        let stop = Arc::new(AtomicBool::new(false));
        let (mut trading, mut acknowledged) = (Vec::new(), Vec::new());
        for number in 0..count {
            let account = format!("caller-{number}");
            let client = Client::new(Door::ALL[number % Door::ALL.len()], gateway, &token(&account));
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
            let told = Arc::new(AtomicUsize::new(0));
            trading.push(tokio::spawn(caller.trade(Arc::clone(&told), Arc::clone(&stop))));
            acknowledged.push(told);
        }
        Self {
            trading,
            acknowledged,
            stop,
            _room: room,
        }
    }

    /// How many operations were acknowledged to each.
    pub fn each(&self) -> Vec<usize> {
        self.acknowledged
            .iter()
            .map(|told| told.load(Ordering::SeqCst))
            .collect()
    }

    /// How many in all.
    pub fn acknowledged(&self) -> usize {
        self.each().iter().sum()
    }

    /// Stops them; then every operation gets its first answer again, each made one trade, nothing else did, and the margins are locked
    /// once. How many were compared.
    pub async fn judge(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut compared = 0;
        for caller in self.trading {
            compared += caller.await.expect("no panic").judge().await;
        }
        compared
    }
}

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
                    // Nothing happened, or nobody knows: the same id again, after a while. Cancelled is this end giving up first.
                    (Code::Unavailable, "NOT_ACCEPTED" | "STALE_PRICE")
                    | (Code::DeadlineExceeded | Code::Cancelled, _) => {
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

    async fn judge(self) -> usize {
        let on_disk = self.on_disk();
        let mut expected = BTreeMap::new();
        for (id, answer) in &on_disk {
            let again = self.client.call("OpenTrade", self.request(id)).await.good();
            assert_eq!(again, *answer, "{id} gets its first answer again");
            let trade = answer["trade"]["tradeId"].as_str().expect("an id").to_owned();
            assert!(
                expected.insert(trade, answer["trade"]["entryPrice"].clone()).is_none(),
                "one trade, one operation"
            );
        }
        let listed = self
            .client
            .call("ListTrades", json!({"account_id": self.account, "page_size": 1000}))
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
        let request = json!({"account_id": self.account, "currency_code": "USDC"});
        let balance = self.client.call("GetBalance", request).await.good();
        let cash = |locked: usize| (format!("{}.00", 5_000 - locked), format!("{locked}.00"));
        let (free, locked) = cash(on_disk.len());
        assert_eq!(
            (&balance["balance"]["free"], &balance["balance"]["locked"]),
            (&json!(free), &json!(locked))
        );
        on_disk.len()
    }
}
