//! What a follower does beside a leader: snapshots that the leader does not notice, and pruning of what they make needless.

mod mesh;

use std::time::Duration;

use engine::follow;
use engine::journal::PgJournal;
use engine::window::Limits;
use mesh::Mesh;
use sqlx::Connection as _;
use uuid::Uuid;

async fn number(mesh: &Mesh, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mesh.pool).await.expect("a number")
}

/// Opens trades until the query, which gives one boolean, says true; so that there is always something for a follower to do.
async fn trade_until(mesh: &mut Mesh, sql: &'static str) {
    loop {
        mesh.quote("SOL_USDC", "200.00", "200.02").await;
        mesh.open("demo", Uuid::now_v7(), "1", "1").await.expect("opens");
        let there: bool = sqlx::query_scalar(sql).fetch_one(&mesh.pool).await.expect("a boolean");
        if there {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_goes_on_while_its_snapshot_cannot_be_written() {
    let mut mesh = Mesh::start(1).await;
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let mut held = sqlx::PgConnection::connect(&mesh.postgres.url()).await.unwrap();
    let mut holding = held.begin().await.unwrap();
    sqlx::query("LOCK TABLE snapshot_chunk IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holding)
        .await
        .unwrap();
    let stuck = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'snapshot_chunk'::regclass";
    trade_until(&mut mesh, stuck).await;
    let before = number(&mesh, "SELECT seq FROM shard_head").await;
    for _ in 0..100 {
        mesh.quote("SOL_USDC", "200.00", "200.02").await;
        mesh.open("demo", Uuid::now_v7(), "1", "1").await.expect("goes on");
    }
    assert!(number(&mesh, "SELECT seq FROM shard_head").await >= before + 100);
    holding.rollback().await.unwrap();
    trade_until(&mut mesh, "SELECT count(*) > 0 FROM snapshot_head").await;
    engine.stop().await.expect("stops in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_journal_is_dropped_once_two_snapshots_have_it_and_the_recorder_has_seen_it() {
    let mut mesh = Mesh::start(1).await;
    mesh.journal_kept = Some(Duration::ZERO);
    let engine = mesh.engine("e1").leads_all(1).await;
    mesh.initialize("demo").await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    let id = Uuid::now_v7();
    let first = mesh.open("demo", id, "1", "1").await.expect("opens");
    sqlx::query("INSERT INTO recorder_cursor (shard, seq) VALUES (0, 0)")
        .execute(&mesh.pool)
        .await
        .unwrap();
    // Three are kept, so the oldest of three new ones says that the follower has had two occasions.
    for _ in 0..2 {
        let newest = number(&mesh, "SELECT coalesce(max(seq), 0) FROM snapshot_head").await;
        while number(&mesh, "SELECT coalesce(min(seq), 0) FROM snapshot_head").await <= newest {
            trade_until(&mut mesh, "SELECT true").await;
        }
    }
    assert_eq!(
        number(&mesh, "SELECT min(first_seq) FROM journal").await,
        1,
        "the recorder has seen nothing"
    );

    let cursor = number(&mesh, "SELECT last_seq FROM journal ORDER BY last_seq OFFSET 9 LIMIT 1").await;
    sqlx::query("UPDATE recorder_cursor SET seq = $1")
        .bind(cursor)
        .execute(&mesh.pool)
        .await
        .unwrap();
    trade_until(&mut mesh, "SELECT min(first_seq) > 1 FROM journal").await;
    assert_eq!(
        number(&mesh, "SELECT min(first_seq) FROM journal").await,
        cursor + 1,
        "all that it has seen, and nothing else"
    );

    sqlx::query("UPDATE recorder_cursor SET seq = 1000000000")
        .execute(&mesh.pool)
        .await
        .unwrap();
    trade_until(
        &mut mesh,
        "SELECT min(first_seq) > (SELECT seq FROM recorder_cursor) OR min(first_seq) > 60 FROM journal",
    )
    .await;
    engine.stop().await.expect("stops in order");
    let second = number(
        &mesh,
        "SELECT seq FROM snapshot_head ORDER BY seq DESC OFFSET 1 LIMIT 1",
    )
    .await;
    assert!(
        number(&mesh, "SELECT min(first_seq) FROM journal").await <= second + 1,
        "what follows on the snapshot before the newest stays"
    );

    // A damaged snapshot may be the reason to need the journal: nothing is dropped while there is one.
    let journal = PgJournal::connect(&mesh.postgres.url(), 1).await.unwrap();
    let flip = "UPDATE snapshot_chunk SET body = set_byte(body, 9, get_byte(body, 9) # 1) WHERE n = 0 AND seq = \
                (SELECT max(seq) FROM snapshot_head)";
    let limits = Limits::default();
    let due = number(&mesh, "SELECT count(*) FROM journal WHERE last_seq <= (SELECT seq FROM snapshot_head ORDER BY seq DESC OFFSET 1 LIMIT 1)").await;
    sqlx::query(flip).execute(&mesh.pool).await.unwrap();
    assert_eq!(follow::prune(&journal, 0, limits, Duration::ZERO).await.unwrap(), 0);
    sqlx::query(flip).execute(&mesh.pool).await.unwrap();
    let hour = Duration::from_secs(3_600);
    assert_eq!(follow::prune(&journal, 0, limits, hour).await.unwrap(), 0, "too young");
    let pruned = follow::prune(&journal, 0, limits, Duration::ZERO).await.unwrap();
    assert_eq!(i64::try_from(pruned).unwrap(), due);

    // Everything is still known.
    let engine = mesh.engine("e2").leads_all(1).await;
    mesh.priced("SOL_USDC", "200.00", "200.02").await;
    assert_eq!(mesh.open("demo", id, "1", "1").await.expect("the first answer"), first);
    engine.stop().await.expect("stops in order");
}
