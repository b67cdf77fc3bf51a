//! Several engines sharing the shards, under load, as an operator sees it: the real program, started, asked and stopped.
#![allow(clippy::print_stderr, reason = "what was counted is for people")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::{CallError, Caller, CallerOptions, Calls as _, Redis};
use contracts::bus::request::Command;
use contracts::bus::{Request, reply};
use contracts::v1;
use prost::Message as _;
use rust_decimal::Decimal;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod stores;

use stores::{PATIENCE, Process, Stores};

const SHARDS: u32 = 16;
const CALLERS: usize = 24;
const DEADLINE: Duration = Duration::from_secs(20);

/// What became of calls.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    turned_away: AtomicU64,
    unknown: AtomicU64,
}

/// Clients that deposit one unit after the other, each into an account of its own, and never send anything twice.
struct Load {
    tally: Arc<Tally>,
    over: CancellationToken,
    connection: CancellationToken,
    callers: JoinSet<Told>,
}

impl Load {
    fn start(stores: &Stores) -> Self {
        let (tally, mut callers) = (Arc::<Tally>::default(), JoinSet::new());
        let (over, connection) = (CancellationToken::new(), CancellationToken::new());
        let redis = Redis::open(&stores.redis.url()).unwrap();
        let caller = Caller::start(&redis, CallerOptions::default(), connection.clone());
        for number in 0..CALLERS {
            callers.spawn(deposit(
                caller.clone(),
                format!("a{number}"),
                Arc::clone(&tally),
                over.clone(),
            ));
        }
        Self {
            tally,
            over,
            connection,
            callers,
        }
    }

    /// So many more answers.
    async fn goes_on(&self, answers: u64) {
        let wanted = self.tally.answered.load(Ordering::Relaxed) + answers;
        let waiting = async {
            while self.tally.answered.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("calls are answered");
    }

    /// Ends it. Returns what each account was told.
    async fn end(mut self) -> (Vec<Told>, Arc<Tally>) {
        self.over.cancel();
        let mut told = Vec::new();
        while let Some(one) = self.callers.join_next().await {
            told.push(one.expect("no caller panics"));
        }
        self.connection.cancel();
        (told, self.tally)
    }
}

async fn call(caller: &Caller, account: &str, id: Option<Uuid>, command: Command) -> Result<reply::Outcome, CallError> {
    let request = Request {
        principal: account.to_owned(),
        account_id: account.to_owned(),
        shard: contracts::shard::of_account(account, SHARDS),
        request_id: id.map(|id| id.as_bytes().to_vec()).unwrap_or_default().into(),
        expires_at_us: u64::try_from(engine::inbox::wall_us()).unwrap() + 20_000_000,
        command: Some(command),
        ..Request::default()
    };
    let reply = caller.call(request, Instant::now() + DEADLINE).await?;
    Ok(reply.outcome.expect("an outcome"))
}

/// What an account was told last, and how many calls since then have no answer.
struct Told {
    account: String,
    free: Decimal,
    open: u64,
}

async fn deposit(caller: Caller, account: String, tally: Arc<Tally>, over: CancellationToken) -> Told {
    let mut told = Told {
        account,
        free: Decimal::ZERO,
        open: 0,
    };
    let mut initialized = false;
    while !over.is_cancelled() {
        let command = if initialized {
            Command::Deposit(v1::DepositRequest {
                amount: Some(v1::Money {
                    currency_code: "USDC".to_owned(),
                    amount: "1".to_owned(),
                }),
                ..v1::DepositRequest::default()
            })
        } else {
            Command::InitializeWallet(v1::InitializeWalletRequest::default())
        };
        match call(&caller, &told.account, Some(Uuid::now_v7()), command).await {
            Ok(reply::Outcome::Response(bytes)) => {
                if initialized {
                    let answer = v1::DepositResponse::decode(bytes).expect("the method's response");
                    let free: Decimal = answer
                        .free_balance
                        .expect("a balance")
                        .amount
                        .parse()
                        .expect("a number");
                    told.saw(free, 1);
                } else {
                    let command = Command::ListBalances(v1::ListBalancesRequest::default());
                    let read = call(&caller, &told.account, None, command).await;
                    told.free = usdc(read.expect("somebody leads"));
                    initialized = true;
                }
                tally.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply::Outcome::Failure(failure)) => panic!("{}: {failure:?}", told.account),
            Err(CallError::NotAccepted(_)) => {
                tally.turned_away.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(CallError::UnknownOutcome) => {
                told.open += 1;
                tally.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    told
}

impl Told {
    /// A balance is what it was, `more`, and what became of the calls without an answer.
    fn saw(&mut self, free: Decimal, more: u64) {
        let least = self.free + Decimal::from(more);
        let most = least + Decimal::from(self.open);
        let account = &self.account;
        assert!(
            least <= free && free <= most,
            "{account}: {free} is not {least} to {most}"
        );
        (self.free, self.open) = (free, 0);
    }
}

/// The free balance in the currency that everything here is in.
fn usdc(outcome: reply::Outcome) -> Decimal {
    let reply::Outcome::Response(bytes) = outcome else {
        panic!("{outcome:?}");
    };
    let balances = v1::ListBalancesResponse::decode(bytes).expect("balances").balances;
    let usdc = balances
        .iter()
        .find(|it| it.currency_code == "USDC")
        .expect("its currency");
    usdc.free.parse().expect("a number")
}

/// How many shards each engine leads, most first.
async fn shares(stores: &Stores) -> Vec<i64> {
    let sql =
        "SELECT count(*) FROM shard_head WHERE lease_until > clock_timestamp() GROUP BY lease_owner ORDER BY 1 DESC";
    sqlx::query_scalar(sql).fetch_all(&stores.pool).await.expect("it runs")
}

async fn settle(stores: &Stores, wanted: &[i64]) {
    let waiting = async {
        while shares(stores).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "wanted {wanted:?}, it is {:?}", shares(stores).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_come_and_go_under_load_and_nothing_is_lost_or_doubled() {
    let stores = Stores::start(SHARDS).await;
    let first = stores.engine("e1");
    settle(&stores, &[16]).await;
    let load = Load::start(&stores);
    load.goes_on(200).await;

    let second = stores.engine("e2");
    settle(&stores, &[8, 8]).await;
    load.goes_on(200).await;
    let (third, fourth) = (stores.engine("e3"), stores.engine("e4"));
    settle(&stores, &[4, 4, 4, 4]).await;
    load.goes_on(200).await;
    let shares_of_load: Vec<i64> = sqlx::query_scalar(
        "SELECT sum(last_seq - first_seq + 1)::bigint FROM journal j JOIN shard_head h USING (shard, epoch) GROUP BY h.lease_owner",
    )
    .fetch_all(&stores.pool)
    .await
    .unwrap();
    assert_eq!(shares_of_load.len(), 4, "every engine has worked: {shares_of_load:?}");

    // By hand: one shard goes where an operator wants it and stays there, then an engine is emptied.
    let (code, said) = stores.told(&["shards", "move", "0", "--to", "e3"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, listed) = stores.told(&["shards", "list"]);
    assert!(
        listed
            .lines()
            .any(|line| line.trim_start().starts_with("0  e3") && line.ends_with("e3")),
        "{listed}"
    );
    let (code, said) = stores.told(&["shards", "drain", "e2"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        stores
            .count("SELECT count(*) FROM shard_head WHERE lease_name = 'e2' AND lease_until > clock_timestamp()")
            .await,
        0
    );
    assert_eq!(second.stop(), Some(0));
    load.goes_on(200).await;
    for (arguments, why) in [
        (&["shards", "move", "0", "--to", "e9"][..], "no engine \"e9\" runs"),
        (&["shards", "move", "16", "--to", "e1"], "there is no shard 16"),
        (&["shards", "drain", "e2"], "no engine \"e2\" runs"),
    ] {
        let (code, said) = stores.told(arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(stores.told(&["shards", "move", "0", "--anywhere"]).0, Some(0));

    // In order, and back to one.
    for engine in [third, fourth] {
        assert_eq!(engine.stop(), Some(0));
    }
    settle(&stores, &[16]).await;
    load.goes_on(200).await;
    let planned = load.tally.unknown.load(Ordering::Relaxed);
    assert_eq!(
        planned, 0,
        "a move that was planned leaves nobody without an answer: {:?}",
        load.tally
    );

    // And one that dies: whoever waits is answered by the next.
    let next = stores.engine("e5");
    settle(&stores, &[8, 8]).await;
    next.kill();
    settle(&stores, &[16]).await;
    load.goes_on(200).await;

    let (told, tally) = load.end().await;
    let epochs = stores.count("SELECT max(epoch) FROM shard_head").await;
    eprintln!("{tally:?}; the shard that moved most has had {epochs} leaders");
    audit(&stores, first, told).await;
}

/// What was told is what is there, and the journal replays to it.
async fn audit(stores: &Stores, engine: Process, told: Vec<Told>) {
    let over = CancellationToken::new();
    let redis = Redis::open(&stores.redis.url()).unwrap();
    let caller = Caller::start(&redis, CallerOptions::default(), over.clone());
    for mut one in told {
        let command = Command::ListBalances(v1::ListBalancesRequest::default());
        let read = call(&caller, &one.account, None, command).await;
        one.saw(usdc(read.expect("somebody leads")), 0);
    }
    over.cancel();
    assert_eq!(engine.stop(), Some(0));
    let (code, said) = stores.told(&["verify", "--from-genesis"]);
    assert_eq!(code, Some(0), "{said}");
}
