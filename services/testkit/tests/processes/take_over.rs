//! The standby leads when the leader is stopped, killed or hangs, and callers who never send anything twice always know where they are.

use std::time::{Duration, Instant};

use chaos::mesh::{Mesh, Role};
use sqlx::PgPool;

use crate::binary::program;
use crate::callers::{Callers, tally};
use crate::figure;

/// What a caller allows for one answer.
const DEADLINE: Duration = Duration::from_secs(12);
/// An engine's lease.
const LEASE: Duration = Duration::from_secs(2);
/// Leases that a take-over may take on a machine that is busy with other things; more is a standby that does not lead by itself.
const LEASES_MAX: u32 = 10;
/// Exit code of an engine that finds another leading.
const FENCED: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Stopped,
    Killed,
    Hung,
}

/// Rows that each leadership wrote.
async fn rows(pool: &PgPool, led: &[(u32, u64)]) -> Vec<i64> {
    let mut counts = Vec::new();
    for (shard, epoch) in led {
        let count = sqlx::query_scalar("SELECT count(*) FROM journal WHERE shard = $1 AND epoch = $2")
            .bind(shard.cast_signed())
            .bind(epoch.cast_signed());
        counts.push(count.fetch_one(pool).await.expect("a count"));
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standby_leads_after_a_stop_a_kill_and_a_hang_and_every_call_gets_a_definitive_answer() {
    let mut mesh = Mesh::start(program(), 4).await.expect("a mesh");
    let callers = Callers::start(&mesh, 6, DEADLINE, Duration::from_millis(20)).await;
    for loss in [
        Loss::Stopped,
        Loss::Killed,
        Loss::Hung,
        Loss::Killed,
        Loss::Stopped,
        Loss::Hung,
    ] {
        for engine in Role::ENGINES {
            mesh.until_ready(engine).await.expect("an engine");
        }
        let leader = mesh.leader().await.expect("a leader");
        let led = mesh.led_by(leader).await;
        let begun = Instant::now();
        let paused = match loss {
            Loss::Stopped => {
                mesh.role(leader).terminate().expect("it runs");
                None
            }
            Loss::Killed => {
                mesh.role(leader).kill().await.expect("it runs");
                None
            }
            Loss::Hung => Some(mesh.role(leader).pause().expect("it runs")),
        };
        mesh.until_taken(&led).await.expect("a take-over");
        let taken = begun.elapsed();
        callers.until_each_answers(&led).await;
        figure(format!(
            "leader {loss:?}: led after {taken:.2?}, every shard answers after {:.2?}",
            begun.elapsed()
        ));
        assert!(taken < LEASE * LEASES_MAX, "{loss:?}: {taken:?}");
        if loss != Loss::Killed {
            // Whatever it still does: from now on nothing is written under its epochs.
            let written = rows(&mesh.pool, &led).await;
            drop(paused);
            let ended = mesh.role(leader).end().await.expect("it ends");
            let expected = if loss == Loss::Hung { FENCED } else { 0 };
            assert_eq!(ended.code(), Some(expected), "{loss:?}: {ended}");
            callers.until_each_answers(&led).await;
            assert_eq!(rows(&mesh.pool, &led).await, written, "it came back and wrote");
        }
        mesh.role(leader).start().expect("it starts");
    }
    let all = callers.stop().await;
    let reasons = tally(&all);
    let slowest = all.iter().map(|called| called.took).max().unwrap_or_default();
    figure(format!(
        "{} calls sent once each: {reasons:?}; the slowest took {slowest:.2?}",
        all.len()
    ));
    // Answered, or told that nothing was accepted while nobody led: nobody is left without knowing.
    assert!(
        all.iter().all(|called| called.is_answered() || called.is_turned_away()),
        "an engine's end cost a caller its answer: {reasons:?}"
    );
}
