//! Clocks that lie, by a library that stands between the real engine and the system's clock.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaos::mesh::{Mesh, Role};
use chaos::order::{Answer, Door, Order, Try};

use crate::binary::program;
use crate::callers::{Callers, deposit, open};
use crate::figure;

/// Exit code of an engine whose clock is apart from those of its stores.
const CLOCKS_APART: i32 = 6;
const DEADLINE: Duration = Duration::from_secs(12);

/// The library that lies.
fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").expect("libraries").flatten();
    let mut found = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    found
        .find(|path| path.exists())
        .expect("libfaketime; scripts/setup test installs it")
}

/// What makes a process believe that it is so much later, or that a file says how much.
fn lies(name: &str, value: impl Into<OsString>) -> Vec<(OsString, OsString)> {
    let library = library().into_os_string();
    [
        ("LD_PRELOAD", library),
        (name, value.into()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // Only the wall clock: no machine's time since boot jumps.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ]
    .map(|(name, value)| (name.into(), value))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_whose_clock_is_apart_from_its_stores_does_not_start() {
    let mut mesh = Mesh::prepare(program(), 1).await.expect("a mesh");
    for lie in ["+5s", "-5s", "+86400s"] {
        let engine = mesh.role(Role::EngineA);
        let honest = engine.recipe.environment.clone();
        engine.recipe.environment.extend(lies("FAKETIME", lie));
        engine.start().expect("it starts");
        let ended = engine.end().await.expect("it ends");
        assert_eq!(
            ended.code(),
            Some(CLOCKS_APART),
            "{lie}: {ended}\n{}",
            engine.log_tail()
        );
        engine.recipe.environment = honest;
    }
    assert_eq!(mesh.epochs().await[&0], 0, "none of them led anything");
    // Half a second is nothing.
    mesh.role(Role::EngineA)
        .recipe
        .environment
        .extend(lies("FAKETIME", "+0.5"));
    mesh.role(Role::EngineA).start().expect("it starts");
    mesh.until_ready(Role::EngineA).await.expect("an engine that leads");
    assert_eq!(mesh.led_by(Role::EngineA).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_by_days_moves_neither_keys_nor_orders() {
    let mut mesh = Mesh::prepare(program(), 2).await.expect("a mesh");
    let says = mesh.path("clock");
    std::fs::write(&says, "+0").expect("a disk");
    for engine in Role::ENGINES {
        let environment = &mut mesh.role(engine).recipe.environment;
        environment.extend(lies("FAKETIME_TIMESTAMP_FILE", &says));
    }
    mesh.start_all().await.expect("a mesh");
    let callers = Callers::start(&mesh, 4, DEADLINE, Duration::from_millis(20)).await;
    let token = mesh.token("caller-0").await.expect("a token");
    let door = Door::new(mesh.gateways[0], &token).expect("a door");
    let insist = async |order: &Order| loop {
        match door.send(order, DEADLINE).await {
            Try::Answered(answer) => return answer,
            Try::Again { reason, .. } => assert_eq!(reason, "STALE_PRICE", "before the first price"),
            Try::Wrong(what) => panic!("{what}"),
        }
    };
    let old = [deposit("caller-0"), open("caller-0")];
    let mut answers: Vec<Answer> = Vec::new();
    for order in &old {
        answers.push(insist(order).await);
    }

    for jump in ["+86400", "-172800", "+864000", "+0"] {
        std::fs::write(&says, jump).expect("a disk");
        let answered = callers.answered();
        callers
            .until("orders after the jump", |count| count > answered + 100)
            .await;
        for (order, answer) in old.iter().zip(&answers) {
            assert_eq!(
                insist(order).await,
                *answer,
                "{jump}: an old key is known, neither expired nor new"
            );
        }
        assert!(
            matches!(insist(&open("caller-0")).await, Answer::Done(_)),
            "{jump}: prices are not stale"
        );
        assert!(mesh.mind().expect("a mesh").is_empty(), "{jump}: nobody ended");
    }
    let all = callers.stop().await;
    assert!(
        all.iter().all(|called| called.is_answered()),
        "no order passed its deadline early"
    );
    figure(format!(
        "{} orders while the clock jumped by days, every one answered",
        all.len()
    ));
    // The jumps were real for the engines, and the journal knows nothing of them.
    mesh.until_recorded().await.expect("a recorder");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    let apart =
        sqlx::query_scalar::<_, f64>("SELECT max(abs(extract(epoch FROM done_at) - $1))::float8 FROM operations");
    let apart = apart.bind(now).fetch_one(&mesh.pool).await.expect("operations");
    assert!(apart < 3_600.0, "an operation is dated {apart} s away");
    let log = mesh.role(Role::EngineA).log() + &mesh.role(Role::EngineB).log();
    assert!(log.contains("the wall clock jumped"), "the library lied to nobody");
}
