//! The dead letters of a running engine, dealt with as a person does: by the real program.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contracts::bus::{JournalBatch, Request, request};
use contracts::v1;
use prost::Message as _;
use redis::AsyncCommands as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod stores;

use stores::{PATIENCE, Stores};

impl Stores {
    async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis.url()).expect("an address");
        client.get_multiplexed_async_connection().await.expect("it runs")
    }

    /// Puts a request away, as an engine does when its handling has panicked twice.
    async fn put_away(&self, request: &Request) -> i64 {
        let (body, digest) = (request.encode_to_vec(), engine::poison::digest(request));
        for epoch in 1_i64..=2 {
            sqlx::query("INSERT INTO panics (shard, digest, epoch, said) VALUES (0, $1, $2, 'it was odd')")
                .bind(digest.as_slice())
                .bind(epoch)
                .execute(&self.pool)
                .await
                .unwrap();
        }
        sqlx::query_scalar(
            "INSERT INTO dead_letters (shard, digest, body, bytes, reason) VALUES (0, $1, $2, length($2), 'its handling panics') RETURNING id",
        )
        .bind(digest.as_slice())
        .bind(body)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    async fn is_journaled(&self, id: Uuid) -> bool {
        let bodies: Vec<Vec<u8>> = sqlx::query_scalar("SELECT body FROM journal")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        bodies.iter().any(|body| {
            let batch = JournalBatch::decode(body.as_slice()).expect("a batch");
            let mut operations = batch.entries.iter().filter_map(|entry| entry.operation.as_ref());
            operations.any(|operation| operation.request_id == id.as_bytes().as_slice())
        })
    }
}

fn wallet(id: Uuid, expires_at_us: u64) -> Request {
    Request {
        correlation_id: vec![1; 16].into(),
        reply_to: "replies:gone".to_owned(),
        principal: "demo".to_owned(),
        account_id: "demo".to_owned(),
        request_id: id.as_bytes().to_vec().into(),
        expires_at_us,
        command: Some(request::Command::InitializeWallet(
            v1::InitializeWalletRequest::default(),
        )),
        ..Request::default()
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_shown_put_back_and_discarded() {
    let mesh = Stores::start(1).await;
    assert_eq!(
        mesh.told(&["dead-letters", "list"]),
        (Some(0), "no dead letters\n".to_owned())
    );
    let stopping = CancellationToken::new();
    let (tell, mut status) = watch::channel(engine::Status::default());
    let config = engine::Config {
        redis: bus::Redis::open(&mesh.redis.url()).unwrap(),
        database: mesh.postgres.url(),
        name: "e1".to_owned(),
        instruments: engine::default_instruments(),
        snapshots: engine::Snapshots::default(),
    };
    let engine = tokio::spawn(engine::run(config, tell, stopping.clone()));
    let leads = status.wait_for(|status| status.leads.len() == 1);
    tokio::time::timeout(PATIENCE, leads).await.expect("in time").unwrap();

    // What is no request, and what is too large for one, the engine puts away by itself.
    let mut redis = mesh.connection().await;
    let () = redis.rpush("{s0}:requests", b"\xff\xffgarbage".to_vec()).await.unwrap();
    let () = redis.rpush("{s0}:requests", vec![0_u8; 100_000]).await.unwrap();
    mesh.until("SELECT count(*) FROM dead_letters", 2).await;
    let (code, listed) = mesh.told(&["dead-letters", "list"]);
    assert_eq!(code, Some(0));
    assert!(listed.contains("not a request"), "{listed}");
    assert!(
        listed.contains("100000  OPEN       larger than a request may be"),
        "{listed}"
    );
    let (_, shown) = mesh.told(&["dead-letters", "show", "1"]);
    assert!(shown.contains("00000000  ffff67617262616765"), "its bytes: {shown}");
    let (_, shown) = mesh.told(&["dead-letters", "show", "2"]);
    assert!(shown.contains("100000, 65536 of them kept"), "{shown}");
    for (id, why) in [
        ("1", "not a request of its shard"),
        ("2", "larger than a request may be"),
    ] {
        let (code, said) = mesh.told(&["dead-letters", "requeue", id, "--force"]);
        assert_eq!(code, Some(1));
        assert!(said.contains(why), "{said}");
    }

    // One that panicked, whose caller has long gone: executed only when the operator insists.
    let late = Uuid::now_v7();
    let id = mesh.put_away(&wallet(late, now_us() - 3_600_000_000)).await.to_string();
    let (_, shown) = mesh.told(&["dead-letters", "show", &id]);
    for part in [
        "its handling panics",
        "leadership 2: it was odd",
        "principal demo",
        &late.to_string(),
        "passed 1h00m ago",
        "InitializeWallet",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let (code, said) = mesh.told(&["dead-letters", "requeue", &id]);
    assert_eq!(code, Some(1));
    assert!(said.contains("its deadline has passed"), "{said}");
    let panics = mesh.count("SELECT count(*) FROM panics").await;
    assert_eq!(panics, 2, "a refusal changes nothing");
    let (code, said) = mesh.told(&["dead-letters", "requeue", &id, "--force", "--note", "mended in 1.2"]);
    assert_eq!(code, Some(0), "{said}");
    let executed = async {
        while !mesh.is_journaled(late).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, executed).await.expect("it is executed");
    assert_eq!(mesh.count("SELECT count(*) FROM panics").await, 0);
    let trail: (String, String, i32, bool) = sqlx::query_as(
        "SELECT resolution, note, requeues, resolved_by = session_user AND resolved_at IS NOT NULL FROM dead_letters WHERE id = $1",
    )
    .bind(id.parse::<i64>().unwrap())
    .fetch_one(&mesh.pool)
    .await
    .unwrap();
    assert_eq!(trail, ("REQUEUED".to_owned(), "mended in 1.2".to_owned(), 1, true));
    let (code, said) = mesh.told(&["dead-letters", "requeue", &id]);
    assert_eq!(code, Some(1));
    assert!(said.contains("put back before"), "{said}");

    // Within its deadline it goes back as it is, byte by byte; put away anew, it is open anew.
    let foreign = Request {
        reply_to: "somewhere else".to_owned(),
        ..wallet(Uuid::now_v7(), now_us() + 3_600_000_000)
    };
    let () = redis.rpush("{s0}:requests", foreign.encode_to_vec()).await.unwrap();
    mesh.until("SELECT count(*) FROM dead_letters", 4).await;
    let id: i64 = mesh.count("SELECT max(id) FROM dead_letters").await;
    let (code, said) = mesh.told(&["dead-letters", "requeue", &id.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    mesh.until(
        "SELECT count(*) FROM dead_letters WHERE requeues = 1 AND reason LIKE 'a reply address%' AND resolved_at IS NULL",
        1,
    )
    .await;

    // Dealt with, but on record.
    let (code, said) = mesh.told(&["dead-letters", "discard", "1", "2", &id.to_string(), "--note", "a scan"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(mesh.told(&["dead-letters", "list"]).1, "no dead letters\n");
    let (_, all) = mesh.told(&["dead-letters", "list", "--all"]);
    assert_eq!(
        (all.matches("DISCARDED").count(), all.matches("REQUEUED").count()),
        (3, 1),
        "{all}"
    );
    for command in ["discard", "requeue"] {
        assert_eq!(
            mesh.told(&["dead-letters", command, "1"]).0,
            Some(1),
            "{command}: it is discarded"
        );
    }
    assert_eq!(mesh.told(&["dead-letters", "show", "99"]).0, Some(1));

    // Nobody leads: it stays where it is.
    stopping.cancel();
    engine.await.expect("does not panic").expect("stops in order");
    let id = mesh
        .put_away(&wallet(Uuid::now_v7(), now_us() + 3_600_000_000))
        .await
        .to_string();
    let (code, said) = mesh.told(&["dead-letters", "requeue", &id]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no engine leads its shard"), "{said}");
    assert!(mesh.told(&["dead-letters", "list"]).1.contains("OPEN"));
}
