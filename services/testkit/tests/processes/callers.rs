//! Callers who send each order once and never again, and write down what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chaos::mesh::{LOOK_EVERY, Mesh, PATIENCE, SYMBOL};
use chaos::order::{Answer, Door, Order, Try};
use contracts::shard::of_account;
use contracts::v1;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What became of one call.
#[derive(Clone, Debug)]
pub struct Called {
    pub account: String,
    pub id: Uuid,
    pub sent: Instant,
    /// When the caller gave up, by the wall clock. Microseconds since the epoch.
    pub deadline_us: u64,
    pub took: Duration,
    pub came: Try,
}

impl Called {
    /// The reason why it was not answered, if it was not.
    pub fn reason(&self) -> &str {
        match &self.came {
            Try::Answered(_) => "",
            Try::Again { reason, .. } => reason,
            Try::Wrong(what) => panic!("{what}"),
        }
    }

    pub fn is_answered(&self) -> bool {
        matches!(self.came, Try::Answered(Answer::Done(_)))
    }

    /// Told that nothing was accepted, and when to come again.
    pub fn is_turned_away(&self) -> bool {
        matches!(&self.came, Try::Again { reason, retry_after: Some(_) } if reason == "NOT_ACCEPTED")
    }
}

/// How often calls ended in which way; nothing stands for an answer.
pub fn tally<'a>(all: impl IntoIterator<Item = &'a Called>) -> BTreeMap<&'a str, usize> {
    let mut reasons = BTreeMap::new();
    for called in all {
        *reasons.entry(called.reason()).or_default() += 1;
    }
    reasons
}

/// What all callers of a test share.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    deadline: Duration,
    pause: Duration,
    answered: AtomicU64,
    by_shard: Vec<AtomicU64>,
    called: AtomicU64,
}

/// Callers at work.
pub struct Callers {
    shared: Arc<Shared>,
    at_work: JoinSet<Vec<Called>>,
}

impl Callers {
    /// Each caller has an account, and goes from gateway to gateway.
    pub async fn start(mesh: &Mesh, count: usize, deadline: Duration, pause: Duration) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            deadline,
            pause,
            answered: AtomicU64::new(0),
            by_shard: (0..mesh.shards).map(|_| AtomicU64::new(0)).collect(),
            called: AtomicU64::new(0),
        });
        let token = mesh.token("*").await.expect("a token");
        let mut at_work = JoinSet::new();
        for number in 0..count {
            let account = format!("caller-{number}");
            let doors = mesh.gateways.map(|gateway| Door::new(gateway, &token).expect("a door"));
            let shard = of_account(&account, mesh.shards);
            at_work.spawn(work(account, shard, doors, Arc::clone(&shared)));
        }
        let callers = Self { shared, at_work };
        callers.until("first answers", |answered| answered > count as u64).await;
        callers
    }

    /// How many calls were answered.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// How many calls have ended.
    pub fn called(&self) -> u64 {
        self.shared.called.load(Ordering::SeqCst)
    }

    /// Waits until so many were answered.
    pub async fn until(&self, what: &str, enough: impl Fn(u64) -> bool) {
        until(what, || enough(self.answered())).await;
    }

    /// Waits until one more call was answered on each of the shards that has callers.
    pub async fn until_each_answers(&self, shards: &[(u32, u64)]) {
        let of = |shard: u32| self.shared.by_shard[shard as usize].load(Ordering::SeqCst);
        let busy = shards
            .iter()
            .map(|(shard, _)| (*shard, of(*shard)))
            .filter(|(_, count)| *count > 0);
        let before: Vec<(u32, u64)> = busy.collect();
        until("answers on every shard", || {
            before.iter().all(|(shard, count)| of(*shard) > *count)
        })
        .await;
    }

    /// Stops them, and gives all that was called.
    pub async fn stop(self) -> Vec<Called> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.at_work.join_all().await.into_iter().flatten().collect()
    }
}

async fn work(account: String, shard: u32, doors: [Door; 2], shared: Arc<Shared>) -> Vec<Called> {
    let wallet = Order::Initialize(v1::InitializeWalletRequest {
        account_id: account.clone(),
        request_id: Uuid::now_v7().to_string(),
    });
    while !matches!(doors[0].send(&wallet, shared.deadline).await, Try::Answered(_)) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut all = Vec::new();
    for door in doors.iter().cycle() {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let called = call(door, &account, deposit(&account), shared.deadline).await;
        shared.called.fetch_add(1, Ordering::SeqCst);
        if called.is_answered() {
            shared.answered.fetch_add(1, Ordering::SeqCst);
            shared.by_shard[shard as usize].fetch_add(1, Ordering::SeqCst);
        }
        all.push(called);
        tokio::time::sleep(shared.pause).await;
    }
    all
}

/// Sends an order once.
pub async fn call(door: &Door, account: &str, order: Order, deadline: Duration) -> Called {
    let (sent, id) = (Instant::now(), order.request_id().parse().expect("our own id"));
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + deadline;
    let came = door.send(&order, deadline).await;
    Called {
        account: account.to_owned(),
        id,
        sent,
        deadline_us: u64::try_from(wall.as_micros()).expect("before the year 500,000"),
        took: sent.elapsed(),
        came,
    }
}

/// An order that needs no price.
pub fn deposit(account: &str) -> Order {
    Order::Deposit(v1::DepositRequest {
        account_id: account.to_owned(),
        request_id: Uuid::now_v7().to_string(),
        amount: Some(v1::Money {
            currency_code: "USDC".to_owned(),
            amount: "1.00".to_owned(),
        }),
    })
}

/// An order that needs one.
pub fn open(account: &str) -> Order {
    Order::Open(v1::OpenTradeRequest {
        account_id: account.to_owned(),
        request_id: Uuid::now_v7().to_string(),
        symbol: SYMBOL.to_owned(),
        side: v1::Side::Long.into(),
        size: Some(v1::open_trade_request::Size::Margin("1.00".to_owned())),
        leverage: "2".to_owned(),
        ..Default::default()
    })
}

/// Waits for a state.
pub async fn until(what: &str, there: impl Fn() -> bool) {
    let looking = async {
        while !there() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("{what} did not come"));
}
