//! Clients under whose eyes engines and stores come and go: each deposits one unit after the other into an account of its own, and sends
//! again what was not answered, under the same `request_id`, until it is. So every answer can be foretold to the unit.
#![allow(clippy::print_stderr, reason = "what was counted is for people")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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

use crate::SHARDS;
use crate::stores::PATIENCE;

const CALLERS: usize = 24;
/// Pause of a caller that was turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(20);

/// What became of calls.
#[derive(Debug)]
struct Tally {
    /// By caller.
    answered: [AtomicU64; CALLERS],
    turned_away: AtomicU64,
    /// Ended without an answer, and were sent again.
    unknown: AtomicU64,
    gaps: Mutex<Gaps>,
}

/// How long nothing happened, since it was told last.
#[derive(Debug)]
struct Gaps {
    answered: Instant,
    /// Nobody at all was answered for so long.
    of_all: Duration,
    /// Some caller waited so long for an answer, repeats included.
    of_one: Duration,
}

/// Sums at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    answered: u64,
    turned_away: u64,
    unknown: u64,
}

impl Tally {
    fn new() -> Self {
        Self {
            answered: std::array::from_fn(|_| AtomicU64::new(0)),
            turned_away: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            gaps: Mutex::new(Gaps {
                answered: Instant::now(),
                of_all: Duration::ZERO,
                of_one: Duration::ZERO,
            }),
        }
    }

    fn answered(&self, number: usize, waited: Duration) {
        self.answered[number].fetch_add(1, Ordering::Relaxed);
        let mut gaps = self.gaps.lock().unwrap();
        gaps.of_all = gaps.of_all.max(gaps.answered.elapsed());
        gaps.of_one = gaps.of_one.max(waited);
        gaps.answered = Instant::now();
    }

    fn each(&self) -> [u64; CALLERS] {
        std::array::from_fn(|number| self.answered[number].load(Ordering::Relaxed))
    }

    fn sums(&self) -> Sums {
        Sums {
            answered: self.each().iter().sum(),
            turned_away: self.turned_away.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }
}

/// The clients, while they run.
pub struct Load {
    redis: Redis,
    tally: Arc<Tally>,
    over: CancellationToken,
    connection: CancellationToken,
    callers: JoinSet<Told>,
    told: Sums,
}

/// What an account was told last.
struct Told {
    account: String,
    free: Decimal,
}

impl Load {
    /// Begins, over this Redis. A call without an answer is given up after `deadline`, and sent again.
    pub fn start(redis: &str, deadline: Duration) -> Self {
        let redis = Redis::open(redis).unwrap();
        let (tally, mut callers) = (Arc::new(Tally::new()), JoinSet::new());
        let (over, connection) = (CancellationToken::new(), CancellationToken::new());
        let caller = Caller::start(&redis, CallerOptions::default(), connection.clone());
        for number in 0..CALLERS {
            let client = Client {
                caller: caller.clone(),
                number,
                account: format!("a{number}"),
                deadline,
                tally: Arc::clone(&tally),
            };
            callers.spawn(client.deposit(over.clone()));
        }
        Self {
            redis,
            tally,
            over,
            connection,
            callers,
            told: Sums::default(),
        }
    }

    /// So many more answers.
    pub async fn goes_on(&self, answers: u64) {
        let wanted = self.tally.sums().answered + answers;
        until("calls are answered", || self.tally.sums().answered >= wanted).await;
    }

    /// So many more answers for everybody.
    pub async fn serves_everybody(&self, answers: u64) {
        self.serves(answers, |_| true).await;
    }

    /// So many more answers for everybody whose account is on one of these shards. Returns how many all got.
    pub async fn serves(&self, answers: u64, of: impl Fn(u32) -> bool) -> u64 {
        let before = self.tally.each();
        let wanted = |number: usize| of(contracts::shard::of_account(&format!("a{number}"), SHARDS));
        until("those are served", || {
            let pairs = self.tally.each().into_iter().zip(before);
            let mut wanted = pairs.enumerate().filter(|(number, _)| wanted(*number));
            wanted.all(|(_, (now, before))| now >= before + answers)
        })
        .await;
        self.tally.sums().answered - before.iter().sum::<u64>()
    }

    /// How many calls ended without an answer so far.
    pub fn unknown(&self) -> u64 {
        self.tally.sums().unknown
    }

    /// Says what happened since it was said last.
    pub fn tell(&mut self, what: &str) {
        let (now, before) = (self.tally.sums(), self.told);
        let mut gaps = self.tally.gaps.lock().unwrap();
        let (answered, turned_away, unknown) = (
            now.answered - before.answered,
            now.turned_away - before.turned_away,
            now.unknown - before.unknown,
        );
        eprintln!(
            "{what}: {} calls, {answered} answered, {turned_away} turned away, {unknown} sent again after no answer; \
             longest without any answer {:.2?}, of one caller {:.2?}",
            answered + turned_away + unknown,
            gaps.of_all,
            gaps.of_one,
        );
        (gaps.of_all, gaps.of_one) = (Duration::ZERO, Duration::ZERO);
        self.told = now;
    }

    /// Ends it, and asks of each account whether it has what it was told.
    pub async fn end(mut self) {
        self.over.cancel();
        let mut told = Vec::new();
        while let Some(one) = self.callers.join_next().await {
            told.push(one.expect("no caller panics"));
        }
        let caller = Caller::start(&self.redis, CallerOptions::default(), self.connection.clone());
        for Told { account, free } in told {
            let command = Command::ListBalances(v1::ListBalancesRequest::default());
            let read = call(&caller, &account, None, command, PATIENCE).await;
            assert_eq!(usdc(read.expect("somebody leads")), free, "{account}");
        }
        self.connection.cancel();
        let Sums {
            answered,
            turned_away,
            unknown,
        } = self.tally.sums();
        eprintln!("in all: {answered} answered, each as foretold; {turned_away} turned away, {unknown} sent again");
    }
}

async fn until(what: &str, there: impl Fn() -> bool) {
    let waiting = async {
        while !there() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

struct Client {
    caller: Caller,
    number: usize,
    account: String,
    deadline: Duration,
    tally: Arc<Tally>,
}

impl Client {
    async fn deposit(self, over: CancellationToken) -> Told {
        let open = Command::InitializeWallet(v1::InitializeWalletRequest::default());
        self.until_answered(Some(Uuid::now_v7()), open).await;
        let read = Command::ListBalances(v1::ListBalancesRequest::default());
        let mut free = usdc(self.until_answered(None, read).await);
        while !over.is_cancelled() {
            let deposit = Command::Deposit(v1::DepositRequest {
                amount: Some(v1::Money {
                    currency_code: "USDC".to_owned(),
                    amount: "1".to_owned(),
                }),
                ..v1::DepositRequest::default()
            });
            let reply::Outcome::Response(bytes) = self.until_answered(Some(Uuid::now_v7()), deposit).await else {
                unreachable!("a failure was looked at");
            };
            let answer = v1::DepositResponse::decode(bytes).expect("the method's response");
            let now: Decimal = answer
                .free_balance
                .expect("a balance")
                .amount
                .parse()
                .expect("a number");
            free += Decimal::ONE;
            assert_eq!(now, free, "{}: once, and not twice", self.account);
        }
        let Self { account, .. } = self;
        Told { account, free }
    }

    /// The answer, however often it takes to ask for it.
    async fn until_answered(&self, id: Option<Uuid>, command: Command) -> reply::Outcome {
        let begun = Instant::now();
        loop {
            match call(&self.caller, &self.account, id, command.clone(), self.deadline).await {
                Ok(reply::Outcome::Failure(failure)) => panic!("{}: {failure:?}", self.account),
                Ok(response) => {
                    self.tally.answered(self.number, begun.elapsed());
                    return response;
                }
                Err(CallError::NotAccepted(_)) => {
                    self.tally.turned_away.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(TURNED_AWAY_PAUSE).await;
                }
                Err(CallError::UnknownOutcome) => {
                    self.tally.unknown.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn call(
    caller: &Caller,
    account: &str,
    id: Option<Uuid>,
    command: Command,
    deadline: Duration,
) -> Result<reply::Outcome, CallError> {
    let within = u64::try_from(deadline.as_micros()).unwrap();
    let request = Request {
        principal: account.to_owned(),
        account_id: account.to_owned(),
        shard: contracts::shard::of_account(account, SHARDS),
        request_id: id.map(|id| id.as_bytes().to_vec()).unwrap_or_default().into(),
        expires_at_us: u64::try_from(engine::inbox::wall_us()).unwrap() + within,
        command: Some(command),
        ..Request::default()
    };
    let reply = caller.call(request, Instant::now() + deadline).await?;
    Ok(reply.outcome.expect("an outcome"))
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
