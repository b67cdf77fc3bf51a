//! A command whose handling panics: it ends leaderships, but only a few, and nobody else notices.

mod mesh;

use contracts::bus::request::Command;
use contracts::bus::{JournalBatch, Request};
use contracts::v1::{self, ErrorReason};
use engine::journal::PANICS;
use engine::poison::{ENDED_MAX, tripwire};
use mesh::{Mesh, long};
use prost::Message as _;
use sqlx::Row as _;
use uuid::Uuid;

async fn epoch(mesh: &Mesh) -> i64 {
    let epoch = "SELECT epoch FROM shard_head WHERE shard = 0";
    sqlx::query_scalar(epoch).fetch_one(&mesh.pool).await.unwrap()
}

/// Every operation in the journal.
async fn journaled(mesh: &Mesh) -> Vec<Uuid> {
    let bodies: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM journal ORDER BY last_seq")
        .fetch_all(&mesh.pool)
        .await
        .unwrap();
    let entries = bodies
        .iter()
        .flat_map(|body| JournalBatch::decode(body.as_slice()).unwrap().entries);
    entries
        .filter_map(|entry| entry.operation)
        .map(|operation| Uuid::from_slice(&operation.request_id).unwrap())
        .collect()
}

// One thread: the tripwire lies on the one that it was laid on.
#[tokio::test]
async fn a_command_that_panics_becomes_a_dead_letter_and_the_others_go_on() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    for account in ["demo", "mallory"] {
        mesh.initialize(account).await;
    }
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let (before, poison) = (epoch(&mesh).await, Uuid::now_v7());

    tripwire::lay(Some("mallory"));
    let others = async {
        let mut ids = Vec::new();
        for _ in 0..20 {
            let id = Uuid::now_v7();
            let _opened: v1::OpenTradeResponse = mesh
                .call("demo", Some(id), Command::OpenTrade(long("10", "10")))
                .await
                .expect("others go on");
            ids.push(id);
        }
        ids
    };
    let (told, opened) = tokio::join!(mesh.open("mallory", poison, "10", "10"), others);
    assert_eq!(told.expect_err("it cannot be handled").reason(), ErrorReason::Internal);
    assert_eq!(
        epoch(&mesh).await,
        before + i64::from(ENDED_MAX),
        "each panic ended one leadership, and nothing else did"
    );
    let known = journaled(&mesh).await;
    assert!(
        opened.iter().all(|id| known.contains(id)),
        "what others were told is in the journal"
    );
    assert!(!known.contains(&poison), "nothing of it is in the journal");

    let letters = sqlx::query("SELECT reason, body, bytes FROM dead_letters WHERE resolved_at IS NULL")
        .fetch_all(&mesh.pool)
        .await
        .unwrap();
    let [letter] = letters.as_slice() else {
        panic!("one dead letter, not {}", letters.len())
    };
    assert_eq!(letter.get::<String, _>(0), PANICS);
    let body: Vec<u8> = letter.get(1);
    assert_eq!(letter.get::<i64, _>(2), i64::try_from(body.len()).unwrap());
    assert_eq!(
        Request::decode(body.as_slice()).unwrap().request_id,
        poison.as_bytes().as_slice()
    );
    let said: Vec<String> = sqlx::query_scalar("SELECT DISTINCT said FROM panics")
        .fetch_all(&mesh.pool)
        .await
        .unwrap();
    assert_eq!(said, ["stepped on the tripwire of mallory"]);

    // Its caller does what callers do: the same again. That costs no leadership any more, and makes no second letter.
    let again = mesh.open("mallory", poison, "10", "10").await;
    assert_eq!(again.expect_err("put away").reason(), ErrorReason::Internal);
    assert_eq!(epoch(&mesh).await, before + i64::from(ENDED_MAX));
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
        .fetch_one(&mesh.pool)
        .await
        .unwrap();
    assert_eq!(letters, 1);

    // The fault is mended: other commands of the same caller are carried out, and this one once it is not held any more.
    tripwire::lay(None);
    mesh.open("mallory", Uuid::now_v7(), "10", "10")
        .await
        .expect("another command");
    sqlx::query("DELETE FROM panics").execute(&mesh.pool).await.unwrap();
    mesh.open("mallory", poison, "10", "10")
        .await
        .expect("not held any more");
    assert_eq!(mesh.free("mallory").await, "4980.00");
    engine.stop().await.expect("stops in order");
    let engine = mesh.engine("e2").leads_all(1).await;
    assert_eq!(mesh.free("mallory").await, "4980.00", "the journal replays");
    engine.stop().await.expect("stops in order");
}

#[tokio::test]
async fn a_price_that_cannot_be_looked_at_is_put_away_and_the_market_goes_on() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let before = epoch(&mesh).await;

    tripwire::lay(Some("SOL_USDC"));
    mesh.quote("SOL_USDC", "201.00", "201.02").await;
    let put_away = async {
        let open = "SELECT count(*) FROM dead_letters WHERE reason = $1";
        loop {
            let letters: i64 = sqlx::query_scalar(open)
                .bind(PANICS)
                .fetch_one(&mesh.pool)
                .await
                .unwrap();
            if letters > 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), put_away)
        .await
        .expect("it is put away");
    // Looking at what came before it, to know the market, panics as well: at most two prices ended two leaderships each.
    let ended = epoch(&mesh).await - before;
    assert!((2..=4).contains(&ended), "{ended} leaderships ended");

    // It is mended: the same price is still put away, the next one is taken.
    tripwire::lay(None);
    mesh.priced("SOL_USDC", "202.00", "202.02").await;
    mesh.open("demo", Uuid::now_v7(), "10", "10").await.expect("opens");
    engine
        .stop()
        .await
        .expect("stops in order: the process has lived through all of it");
}
