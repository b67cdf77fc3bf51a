//! The engine is killed with signal 9 in the middle of the day, in a process of its own as in production, and nothing that was
//! acknowledged is lost.

mod binary;
mod callers;
mod doors;
mod mesh;
mod venue;

use binary::Up;
use callers::Callers;
use mesh::until;
use rustix::process::{Signal, kill_process};
use venue::{Row, Venue};

/// Callers that trade at once, each on an account of its own.
const CALLERS: usize = 8;
/// Acknowledged opens before the engine is killed, at least.
const BEFORE: usize = 200;
/// And in all.
const ALTOGETHER: usize = 300;

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
    let callers = Callers::start(CALLERS, up.address, |account| up.token(account)).await;
    until("enough acknowledged", async || {
        (callers.acknowledged() >= BEFORE).then_some(())
    })
    .await;
    let killed = up.process("engine-0").expect("an engine");
    kill_process(killed, Signal::KILL).expect("it runs");
    until("another engine", async || {
        up.process("engine-0").filter(|process| *process != killed)
    })
    .await;
    let enough = ALTOGETHER.max(callers.acknowledged() + CALLERS);
    until("business as usual", async || {
        (callers.acknowledged() >= enough).then_some(())
    })
    .await;
    let compared = callers.judge().await;
    assert!(compared >= ALTOGETHER, "{compared}");
    up.stop().await;
}
