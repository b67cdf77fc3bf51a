//! The engine with real stores: what it promises when it, Redis or a rival ends at a bad moment.

mod mesh;

use std::collections::BTreeSet;
use std::time::Duration;

use contracts::bus::request::Command;
use contracts::v1::{self, ErrorReason};
use engine::EngineError;
use mesh::{Mesh, long};
use redis::AsyncCommands as _;
use sqlx::Connection as _;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_trade_is_opened_watched_and_closed() {
    let mut mesh = Mesh::start(4).await;
    let engine = mesh.engine("e1").leads_all(4).await;
    let made = mesh.initialize("demo").await;
    assert!(made.created);
    assert!(made.balances.contains(&v1::Money {
        currency_code: "USDC".to_owned(),
        amount: "5000.00".to_owned()
    }));
    mesh.priced("SOL_USDC", "200.00", "200.02").await;

    let opened = mesh.open("demo", Uuid::now_v7(), "100", "10").await.expect("opens");
    let trade = opened.trade.expect("a trade");
    assert_eq!((trade.entry_price.as_str(), trade.side()), ("200.02", v1::Side::Long));
    assert_eq!(mesh.free("demo").await, "4900.00");

    mesh.priced("SOL_USDC", "210.00", "210.02").await;
    let close = Command::CloseTrade(v1::CloseTradeRequest {
        trade_id: trade.trade_id.clone(),
        ..Default::default()
    });
    let closed: v1::CloseTradeResponse = mesh.call("demo", Some(Uuid::now_v7()), close).await.expect("closes");
    // 1000 / 200.02 = 4.999 (floored to 0.001); (210.00 - 200.02) * 4.999 = 49.89.
    assert_eq!(closed.realised_profit.expect("a profit").amount, "49.89");
    assert_eq!(mesh.free("demo").await, "5049.89");
    engine.stop().await.expect("stops in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_and_a_reuse_is_refused() {
    let mut mesh = Mesh::start(2).await;
    let engine = mesh.engine("e1").leads_all(2).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let id = Uuid::now_v7();
    let first = mesh.open("demo", id, "100", "10").await.expect("opens");
    mesh.priced("SOL_USDC", "190.00", "190.02").await;
    let again = mesh.open("demo", id, "100", "10").await.expect("the first answer");
    assert_eq!(first, again);
    let other = mesh.open("demo", id, "101", "10").await.expect_err("another command");
    assert_eq!(other.reason(), ErrorReason::RequestIdReused);
    assert_eq!(mesh.free("demo").await, "4900.00");
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_remembered_a_passing_one_is_not() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    let early = Uuid::now_v7();
    let missing = mesh.open("demo", early, "100", "10").await.expect_err("no price yet");
    assert_eq!(missing.reason(), ErrorReason::StalePrice);
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    mesh.open("demo", early, "100", "10")
        .await
        .expect("the same request may be sent again");
    let poor = Uuid::now_v7();
    assert_eq!(
        mesh.open("demo", poor, "5000", "10")
            .await
            .expect_err("too much")
            .reason(),
        ErrorReason::InsufficientMargin
    );
    let deposit = Command::Deposit(v1::DepositRequest {
        amount: Some(v1::Money {
            currency_code: "USDC".to_owned(),
            amount: "9000".to_owned(),
        }),
        ..Default::default()
    });
    let _more: v1::DepositResponse = mesh
        .call("demo", Some(Uuid::now_v7()), deposit)
        .await
        .expect("deposits");
    assert_eq!(
        mesh.open("demo", poor, "5000", "10")
            .await
            .expect_err("the first answer")
            .reason(),
        ErrorReason::InsufficientMargin
    );
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_05_a_killed_engine_loses_no_acknowledged_trade() {
    let mut mesh = Mesh::start(2).await;
    let mut engine = mesh.engine("e1").leads_all(2).await;
    mesh.initialize("demo").await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        mesh.priced("SOL_USDC", "200.00", "200.02").await;
        for _ in 0..15 {
            let id = Uuid::now_v7();
            let answer = mesh.open("demo", id, "10", "10").await.expect("opens");
            acknowledged.push((id, answer));
        }
        engine.kill().await;
        engine = mesh.engine(&format!("e{}", round + 2)).leads_all(2).await;
    }
    for (id, first) in &acknowledged {
        assert_eq!(
            &mesh.open("demo", *id, "10", "10").await.expect("the first answer"),
            first
        );
    }
    assert_eq!(mesh.free("demo").await, "4400.00");
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_emptied_loses_no_acknowledged_trade() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let id = Uuid::now_v7();
    let first = mesh.open("demo", id, "10", "10").await.expect("opens");
    let mut redis = redis::Client::open(mesh.redis.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let () = redis.flushall().await.unwrap();
    mesh.priced("SOL_USDC", "201.00", "201.02").await;
    assert_eq!(
        mesh.open("demo", id, "10", "10").await.expect("the first answer"),
        first
    );
    assert_eq!(mesh.free("demo").await, "4990.00");
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_06_a_call_that_timed_out_is_executed_once_at_most() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    engine.kill().await;
    // The dead leader's sign of life still stands for a moment: the request is queued, and its deadline passes.
    let id = Uuid::now_v7();
    let shard = contracts::shard::of_account("demo", 1);
    let request = contracts::bus::Request {
        principal: "demo".to_owned(),
        account_id: "demo".to_owned(),
        shard,
        request_id: id.as_bytes().to_vec().into(),
        expires_at_us: u64::try_from(engine::inbox::wall_us()).unwrap() + 100_000,
        command: Some(Command::OpenTrade(long("10", "10"))),
        ..Default::default()
    };
    let deadline = tokio::time::Instant::now() + Duration::from_millis(100);
    let lost = bus::Calls::call(&mesh.caller, request, deadline).await;
    assert!(lost.is_err(), "{lost:?}");
    let engine = mesh.engine("e2").leads_all(1).await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    assert_eq!(
        mesh.free("demo").await,
        "5000.00",
        "an order whose deadline passed is not executed later"
    );
    let first = mesh.open("demo", id, "10", "10").await.expect("executed now");
    assert_eq!(
        mesh.open("demo", id, "10", "10").await.expect("the first answer"),
        first
    );
    assert_eq!(mesh.free("demo").await, "4990.00");
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_stands_by_and_takes_over() {
    let mut mesh = Mesh::start(3).await;
    let first = mesh.engine("e1").leads_all(3).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let id = Uuid::now_v7();
    let answer = mesh.open("demo", id, "10", "10").await.expect("opens");
    let second = mesh.engine("e2");
    first.stop().await.expect("stops in order");
    let second = second.leads_all(3).await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    assert_eq!(
        mesh.open("demo", id, "10", "10").await.expect("the first answer"),
        answer
    );
    second.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_shard_was_taken_is_fenced_and_changes_nothing() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    sqlx::query("UPDATE shard_head SET epoch = epoch + 1, lease_owner = gen_random_uuid(), lease_until = clock_timestamp() + interval '60 s'")
        .execute(&mesh.pool)
        .await
        .unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM journal")
        .fetch_one(&mesh.pool)
        .await
        .unwrap();
    let _lost = mesh
        .send("demo", Some(Uuid::now_v7()), Command::OpenTrade(long("10", "10")))
        .await;
    let ended = engine.ended().await;
    assert!(
        matches!(&ended, Err(error @ EngineError::Fenced(_)) if error.exit_code() == 3),
        "{ended:?}"
    );
    let after: i64 = sqlx::query_scalar("SELECT count(*) FROM journal")
        .fetch_one(&mesh.pool)
        .await
        .unwrap();
    assert_eq!(rows, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_a_wrong_clock_wrote_blocks_nobody() {
    let mesh = Mesh::start(2).await;
    sqlx::query("UPDATE shard_head SET epoch = 1, lease_owner = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour'")
        .execute(&mesh.pool)
        .await
        .unwrap();
    assert_eq!(engine::journal::unled(&mesh.pool).await.unwrap(), 2);
    let engine = mesh.engine("e1").leads_all(2).await;
    assert_eq!(engine::journal::unled(&mesh.pool).await.unwrap(), 0);
    engine.stop().await.expect("stops in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_while_its_shard_is_being_recovered() {
    let mesh = Mesh::start(1).await;
    let mut held = sqlx::PgConnection::connect(&mesh.postgres.url()).await.unwrap();
    let mut holding = held.begin().await.unwrap();
    sqlx::query("LOCK TABLE journal IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holding)
        .await
        .unwrap();
    let engine = mesh.engine("e1");
    let mut ends = BTreeSet::new();
    let renewed = async {
        while ends.len() < 5 {
            let lease = "SELECT epoch, lease_until::text FROM shard_head WHERE epoch > 0";
            let lease: Option<(i64, String)> = sqlx::query_as(lease).fetch_optional(&mesh.pool).await.unwrap();
            if let Some((epoch, end)) = lease {
                assert_eq!(epoch, 1, "nobody had to take it again");
                ends.insert(end);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed)
        .await
        .expect("the lease is renewed");
    assert!(engine.status.borrow().leads.is_empty(), "it cannot be recovered yet");
    holding.rollback().await.unwrap();
    engine.leads_all(1).await.stop().await.expect("stops in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_journal_stops_the_engine() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    mesh.open("demo", Uuid::now_v7(), "10", "10").await.expect("opens");
    engine.stop().await.expect("stops");
    for table in ["snapshot_head", "snapshot_chunk"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table}")))
            .execute(&mesh.pool)
            .await
            .unwrap();
    }
    sqlx::query("UPDATE journal SET body = set_byte(body, 20, get_byte(body, 20) # 1) WHERE last_seq = (SELECT max(last_seq) FROM journal)")
        .execute(&mesh.pool)
        .await
        .unwrap();
    let ended = mesh.engine("e2").ended().await;
    assert!(
        matches!(&ended, Err(error @ EngineError::Corrupt(_)) if error.exit_code() == 4),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_passed_over() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let id = Uuid::now_v7();
    let first = mesh.open("demo", id, "10", "10").await.expect("opens");
    // The follower writes one within its interval.
    let snapshots = "SELECT count(*) FROM snapshot_head";
    while sqlx::query_scalar::<_, i64>(snapshots)
        .fetch_one(&mesh.pool)
        .await
        .unwrap()
        == 0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine.stop().await.expect("stops");
    sqlx::query("UPDATE snapshot_chunk SET body = set_byte(body, 10, get_byte(body, 10) # 1)")
        .execute(&mesh.pool)
        .await
        .unwrap();
    let engine = mesh.engine("e2").leads_all(1).await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    assert_eq!(
        mesh.open("demo", id, "10", "10").await.expect("the first answer"),
        first
    );
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_foreign_messages_become_dead_letters_and_stop_nobody() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    let mut redis = redis::Client::open(mesh.redis.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let garbage = b"\xff\xffgarbage".to_vec();
    let () = redis.rpush("{s0}:requests", &[garbage.clone(), garbage]).await.unwrap();
    let () = redis.rpush("{s0}:requests", vec![0_u8; 100_000]).await.unwrap();
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    mesh.open("demo", Uuid::now_v7(), "10", "10").await.expect("opens");
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
        .fetch_one(&mesh.pool)
        .await
        .unwrap();
    assert_eq!(letters, 2);
    let left: i64 = redis.llen("{s0}:requests").await.unwrap();
    assert_eq!(left, 0);
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_database_settings_are_refused() {
    let mesh = Mesh::start_with(1, &[("fsync", "off"), ("full_page_writes", "on")]).await;
    let ended = mesh.engine("e1").ended().await;
    assert!(
        matches!(&ended, Err(error @ EngineError::UnsafeSetting(_)) if error.exit_code() == 5),
        "{ended:?}"
    );
}
