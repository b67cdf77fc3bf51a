//! One run: a world from a seed, faults for a while, then peace, in which everything must work again; then the judgement.

use std::time::Duration;

use bus::CallerOptions;
use bus::mutants::Mutant;
use contracts::bus::request::Command;
use contracts::shard::of_account;
use contracts::v1;
use contracts::v1::ErrorReason;
use engine::Snapshots;
use engine::window::Limits;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clients::{Client, PRINCIPALS, accounts_of};
use crate::coverage::Coverage;
use crate::engines::{ENGINES, Engines, Terms};
use crate::faults::Faults;
use crate::feed::{self, SYMBOLS};
use crate::gateways::Gateways;
use crate::history::{Told, is};
use crate::journal::wait;
use crate::options::Options;
use crate::world::World;
use crate::{audit, tokens, trace};

/// How long everything may take to work again once nothing is wrong any more. Milliseconds.
const RECOVERY_MS: u64 = 25_000;
/// Until engine time that ran ahead with a clock is true time again. Milliseconds.
const SETTLING_MS: u64 = 6_000;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Hash over everything that happened, in order.
    pub trace_hash: u64,
    /// How much happened.
    pub notes: u64,
    /// How long it took, virtual time. Milliseconds.
    pub virtual_ms: u64,
    /// Which corners it went through.
    pub coverage: Coverage,
    /// What is wrong; nothing, if the system keeps its promises.
    pub violations: Vec<String>,
    /// What happened, for people; empty unless asked for.
    pub lines: Vec<String>,
}

/// Runs one seed, on this thread, in virtual time.
///
/// # Panics
/// When the runtime cannot be made, or the simulation itself is at fault.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    choose(options.mutant);
    bus::backoff::seed_this_thread(seed);
    if options.readable {
        trace::keep_lines();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let world = runtime.block_on(live(seed, options.clone()));
    drop(runtime);
    choose(None);
    let journal = audit::digest(&world);
    let virtual_ms = world.with(|inner| inner.history_ms);
    world.with(|inner| Outcome {
        seed,
        trace_hash: inner.trace.hash() ^ journal,
        notes: inner.trace.notes(),
        virtual_ms,
        coverage: inner.coverage.clone(),
        violations: std::mem::take(&mut inner.violations),
        lines: if options.readable {
            trace::take_lines()
        } else {
            Vec::new()
        },
    })
}

#[cfg(feature = "mutants")]
fn choose(mutant: Option<Mutant>) {
    bus::mutants::choose(mutant);
}

#[cfg(not(feature = "mutants"))]
fn choose(mutant: Option<Mutant>) {
    assert!(mutant.is_none(), "a mutant needs the feature `mutants`");
}

async fn live(seed: u64, options: Options) -> World {
    let faults_ms = options.faults_ms;
    let world = World::new(seed, options);
    let (terms, caller) = terms(&world);
    let window = terms.window;
    let (faults_over, clients_over, over) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let (engines, mut machines) = Engines::start(&world, &terms, &over);
    let gateways = Gateways::start(&world, caller).await;
    let feed = tokio::spawn(feed::run(world.clone(), over.clone()));
    let client = Client {
        world: world.clone(),
        gateways: gateways.clone(),
        window,
    };
    let mut clients = JoinSet::new();
    for principal in PRINCIPALS {
        clients.spawn(client.clone().live(principal, clients_over.clone()));
    }
    let tester = client.clone();
    let tester_over = clients_over.clone();
    clients.spawn(async move { tester.test_new_leaders(tester_over).await });
    let faults = tokio::spawn(Faults::new(world.clone(), engines.clone(), gateways.clone()).run(faults_over.clone()));

    wait(faults_ms).await;
    faults_over.cancel();
    faults.await.expect("the faults themselves do not fail");
    clients_over.cancel();
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not fail");
    }
    wait(SETTLING_MS).await;
    works_again(&world, &client).await;

    over.cancel();
    for slot in 0..ENGINES {
        engines.stop(slot);
    }
    while let Some(ended) = machines.join_next().await {
        ended.expect("a machine does not fail");
    }
    gateways.end();
    feed.await.expect("the feed does not fail");
    world.with(|inner| inner.history_ms = inner.now_us / 1_000);
    audit::judge(&world, window).await;
    world
}

/// What differs from run to run besides the faults: small windows, small queues, frequent snapshots.
fn terms(world: &World) -> (Terms, CallerOptions) {
    world.with(|inner| {
        let dice = &mut inner.dice;
        let mut instruments = engine::default_instruments();
        for instrument in &mut instruments {
            instrument.stale_soft_us = 1_500_000;
            instrument.stale_hard_us = 4_000_000;
        }
        let window = Limits {
            window_ms: dice.between(3_000, 12_000),
            operations_max: usize::try_from(dice.between(40, 600)).expect("small"),
            bucket_ms: 500,
        };
        let snapshots = Snapshots {
            every: Duration::from_millis(dice.between(1_000, 6_000)),
            every_entries: dice.between(5, 60),
            journal_kept: None,
        };
        let caller = CallerOptions {
            in_flight_max: 64,
            queue_length_max: *dice.pick(&[2, 8, 1_000]),
        };
        let terms = Terms {
            instruments,
            snapshots,
            window,
        };
        (terms, caller)
    })
}

/// Nothing is wrong any more: every account is served, every old answer stands, every market trades.
async fn works_again(world: &World, client: &Client) {
    let shards = world.with(|inner| inner.options.shards);
    let deadline_us = world.now_us() + RECOVERY_MS * 1_000;
    let want = |account: &str, command: Command| {
        world.with(|inner| {
            let id = inner.fresh_request_id();
            let key = (of_account(account, shards), tokens::OPERATOR.to_owned(), id);
            inner.history.want(key, account, command)
        })
    };
    for account in PRINCIPALS.iter().flat_map(|principal| accounts_of(principal)) {
        let deposit = || {
            Command::Deposit(v1::DepositRequest {
                amount: Some(v1::Money {
                    currency_code: "USDC".to_owned(),
                    amount: "500".to_owned(),
                }),
                ..Default::default()
            })
        };
        // A new id for each try: the old one may be too old for the small window by then.
        while client.attempt_within(want(&account, deposit()), 3_000).await != Told::Answer {
            if world.now_us() > deadline_us {
                world
                    .with(|inner| inner.violation(format!("{account} is not served though nothing is wrong any more")));
                return;
            }
            wait(200).await;
        }
    }
    let account = format!("{}-0", PRINCIPALS[0]);
    for (symbol, _, _) in SYMBOLS {
        loop {
            let open = Command::OpenTrade(v1::OpenTradeRequest {
                symbol: symbol.to_owned(),
                side: v1::Side::Long.into(),
                size: Some(v1::open_trade_request::Size::Margin("5".to_owned())),
                leverage: "1".to_owned(),
                ..Default::default()
            });
            let wanted = want(&account, open);
            if client.attempt_within(wanted, 3_000).await == Told::Answer {
                let is_stale = world.with(|inner| {
                    let answer = &inner.history.operations[wanted].answer;
                    answer
                        .as_ref()
                        .is_some_and(|answer| is(answer, ErrorReason::StalePrice))
                });
                assert!(!is_stale, "a stale price is no answer for ever");
                break;
            }
            if world.now_us() > deadline_us {
                world.with(|inner| inner.violation(format!("{symbol} does not trade though the feed is well again")));
                return;
            }
            wait(200).await;
        }
    }
    for shard in 0..shards {
        client.send_old_again(40, Some(shard)).await;
    }
}
