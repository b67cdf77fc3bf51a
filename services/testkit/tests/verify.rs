//! `fulcrum verify` as an auditor runs it, beside a mesh that worked: what is as it was written is said so, and whatever was changed
//! behind everybody's back is found and named.

mod binary;
mod doors;
mod mesh;

use std::process::Command;

use binary::program;
use doors::{Client, Door};
use engine::journal::{Journal as _, PgJournal};
use engine::recover::Replica;
use engine::window::Limits;
use mesh::{Mesh, until};
use serde_json::json;
use uuid::Uuid;

/// Runs it; its exit code, its lines, and what it complained about.
fn verify(mesh: &Mesh, arguments: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FULCRUM_")) {
        command.env_remove(name);
    }
    let ended = command
        .arg("verify")
        .args(arguments)
        .env("FULCRUM_DATABASE_URL", mesh.postgres.url())
        .env("FULCRUM_LOG", "error")
        .output()
        .expect("the program runs");
    let [said, complained] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    (
        ended.status.code(),
        said.lines().map(str::to_owned).collect(),
        complained,
    )
}

async fn run(mesh: &Mesh, sql: &str) -> u64 {
    let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mesh.pool)
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
}

/// A day with everything in it that is recorded: deposits, trades that open, change and close, and a refusal.
async fn trade(mesh: &Mesh) {
    let client = Client::new(Door::Grpc, mesh.address, &mesh.token("demo"));
    let with_id = |mut body: serde_json::Value| {
        body["account_id"] = json!("demo");
        body["request_id"] = json!(Uuid::now_v7().to_string());
        body
    };
    client.call("InitializeWallet", with_id(json!({}))).await.good();
    mesh.market.quote("SOL_USDC", "199.98", "200.02");
    let open = json!({"symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100", "leverage": "10"});
    let mut trades = Vec::new();
    for _ in 0..3 {
        let opened = until("a trade", async || {
            let answer = client.call("OpenTrade", with_id(open.clone())).await;
            (answer.reason() != "STALE_PRICE").then(|| answer.good())
        })
        .await;
        trades.push(opened["trade"]["tradeId"].as_str().expect("an id").to_owned());
    }
    let modify = json!({"trade_id": trades[0], "stop_loss_price": "190"});
    client.call("ModifyTrade", with_id(modify)).await.good();
    snapshot(mesh).await;
    client
        .call("CloseTrade", with_id(json!({"trade_id": trades[1]})))
        .await
        .good();
    let deposit = json!({"amount": {"currency_code": "USDC", "amount": "12.34"}});
    client.call("Deposit", with_id(deposit)).await.good();
    let too_much = json!({"symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "90000", "leverage": "10"});
    assert_eq!(
        client.call("OpenTrade", with_id(too_much)).await.reason(),
        "INSUFFICIENT_MARGIN"
    );
}

/// Writes a snapshot as a follower does, of what there is now.
async fn snapshot(mesh: &Mesh) {
    let journal = PgJournal::connect(&mesh.postgres.url(), 1).await.expect("it runs");
    let mut replica = Replica::genesis(0, Limits::default());
    replica.catch_up(&journal).await.expect("a journal that replays");
    let (head, chunks) = replica.snapshot();
    journal.write_snapshot(0, &head, &chunks).await.expect("it runs");
}

async fn until_recorded(mesh: &Mesh) {
    let behind = "SELECT count(*) FROM shard_head h JOIN recorder_cursor c USING (shard) WHERE c.seq < h.seq";
    until("recording", async || (mesh.count(behind).await == 0).then_some(())).await;
}

/// What is done to the database, what undoes it, and what must be said about it.
const FORGERIES: &[(&str, &str, &[&str])] = &[
    (
        "UPDATE journal SET body = set_byte(body, 30, get_byte(body, 30) # 1) WHERE shard = 0 AND first_seq = {row}",
        "UPDATE journal SET body = set_byte(body, 30, get_byte(body, 30) # 1) WHERE shard = 0 AND first_seq = {row}",
        &["journal row of shard 0, first_seq {row}, last_seq", "body differs"],
    ),
    (
        "UPDATE journal SET state_hash = set_byte(state_hash, 3, get_byte(state_hash, 3) # 1) WHERE shard = 0 AND first_seq = {row}",
        "UPDATE journal SET state_hash = set_byte(state_hash, 3, get_byte(state_hash, 3) # 1) WHERE shard = 0 AND first_seq = {row}",
        &[
            "journal row of shard 0, first_seq {row}, last_seq",
            "state_hash differs: stored",
        ],
    ),
    (
        "UPDATE journal SET chain = set_byte(chain, 31, get_byte(chain, 31) # 1) WHERE shard = 0 AND first_seq = {row}",
        "UPDATE journal SET chain = set_byte(chain, 31, get_byte(chain, 31) # 1) WHERE shard = 0 AND first_seq = {row}",
        &[
            "journal row of shard 0, first_seq {row}, last_seq",
            "chain differs: stored",
        ],
    ),
    (
        "UPDATE journal SET first_seq = 0 WHERE shard = 0 AND first_seq = {row}",
        "UPDATE journal SET first_seq = {row} WHERE shard = 0 AND first_seq = 0",
        &["journal row of shard 0, first_seq 0", "first_seq differs"],
    ),
    (
        "UPDATE shard_head SET chain = set_byte(chain, 0, get_byte(chain, 0) # 1) WHERE shard = 0",
        "UPDATE shard_head SET chain = set_byte(chain, 0, get_byte(chain, 0) # 1) WHERE shard = 0",
        &["shard_head of shard 0: chain differs"],
    ),
    (
        "UPDATE snapshot_chunk SET body = set_byte(body, 9, get_byte(body, 9) # 1) WHERE shard = 0 AND n = 0 AND seq = {snapshot}",
        "UPDATE snapshot_chunk SET body = set_byte(body, 9, get_byte(body, 9) # 1) WHERE shard = 0 AND n = 0 AND seq = {snapshot}",
        &["snapshot_head and its chunks: shard 0, sequence {snapshot}: chunk 0 does not match its digest"],
    ),
    (
        "UPDATE snapshot_head SET chain = set_byte(chain, 9, get_byte(chain, 9) # 1) WHERE shard = 0 AND seq = {snapshot}",
        "UPDATE snapshot_head SET chain = set_byte(chain, 9, get_byte(chain, 9) # 1) WHERE shard = 0 AND seq = {snapshot}",
        &["snapshot_head of shard 0, seq {snapshot}: chain differs"],
    ),
    (
        "UPDATE ledger_entries SET amount = amount + 1000 WHERE shard = 0 AND seq = {deposit} AND line = 1",
        "UPDATE ledger_entries SET amount = amount - 1000 WHERE shard = 0 AND seq = {deposit} AND line = 1",
        &["ledger_entries of shard 0, seq {deposit}, line 1: amount is 1012.34, the journal says 12.34"],
    ),
    (
        "UPDATE operations SET refusal = NULL WHERE shard = 0 AND refusal = 'INSUFFICIENT_MARGIN'",
        "UPDATE operations SET refusal = 'INSUFFICIENT_MARGIN' WHERE shard = 0 AND kind = 4 AND seq = (SELECT max(seq) FROM operations)",
        &[
            "operations of shard 0, principal demo, request_id",
            "refusal is NULL, the journal says INSUFFICIENT_MARGIN",
        ],
    ),
    (
        "INSERT INTO operations SELECT principal, gen_random_uuid(), account_id, shard, seq, kind, done_at, record FROM operations \
         WHERE shard = 0 AND kind = 2",
        "DELETE FROM operations WHERE epoch IS NULL",
        &["operations of shard 0:", "rows, the journal makes"],
    ),
    (
        "UPDATE trades SET commission = commission + 1 WHERE shard = 0 AND number = 2",
        "UPDATE trades SET commission = commission - 1 WHERE shard = 0 AND number = 2",
        &["trades of shard 0, number 2: commission is"],
    ),
    (
        "UPDATE trades SET seq = seq + 1 WHERE shard = 0 AND number = 1",
        "UPDATE trades SET seq = seq - 1 WHERE shard = 0 AND number = 1",
        &["trades of shard 0, number 1: seq is past its last change"],
    ),
    (
        "UPDATE prices_used SET venue_bid = venue_bid - 1 WHERE shard = 0 AND trade_number = 1 AND kind = 'TRADE_OPENED'",
        "UPDATE prices_used SET venue_bid = venue_bid + 1 WHERE shard = 0 AND trade_number = 1 AND kind = 'TRADE_OPENED'",
        &[
            "prices_used of shard 0, seq",
            "venue_bid is 198.98, the journal says 199.98",
        ],
    ),
    (
        "INSERT INTO prices_used SELECT * FROM prices_used WHERE shard = 0 AND trade_number = 1 AND kind = 'TRADE_OPENED'",
        "DELETE FROM prices_used WHERE ctid = (SELECT max(ctid) FROM prices_used WHERE shard = 0 AND trade_number = 1 AND kind = 'TRADE_OPENED')",
        &["prices_used of shard 0, seq", "stands there twice"],
    ),
    (
        "INSERT INTO ledger_entries SELECT shard, seq, line, event, kind, 'mallory', ledger_account, currency_code, amount, booked_at \
         FROM ledger_entries WHERE shard = 0 AND seq = {deposit} AND line = 1",
        "DELETE FROM ledger_entries WHERE account_id = 'mallory'",
        &["ledger_entries of shard 0, seq {deposit}, line 1 stands there twice"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_changed_afterwards_is_found_and_named() {
    let mut mesh = Mesh::start(1).await;
    trade(&mesh).await;
    until_recorded(&mesh).await;
    let arguments: [&[&str]; 3] = [&[], &["--from-genesis"], &["--from-genesis", "--shard", "0"]];
    for arguments in arguments {
        let (code, lines, complained) = verify(&mesh, arguments);
        assert_eq!((code, complained.as_str()), (Some(0), ""), "beside a mesh that runs");
        let words: Vec<&str> = lines[0].split(' ').collect();
        let head = "SELECT seq FROM shard_head";
        assert!(words[1].parse::<i64>().expect("a sequence") <= mesh.count(head).await);
        assert_eq!((lines.len(), words[0], words[2].len()), (1, "0", 32), "{lines:?}");
    }
    // Nothing is written any more.
    mesh.stop_engine().await;
    until_recorded(&mesh).await;
    mesh.stop_recorder();
    let (code, before, _) = verify(&mesh, &["--from-genesis"]);
    assert_eq!(code, Some(0));
    let newest: String = sqlx::query_scalar(
        "SELECT '0 ' || last_seq || ' ' || encode(state_hash, 'hex') FROM journal ORDER BY last_seq DESC LIMIT 1",
    )
    .fetch_one(&mesh.pool)
    .await
    .unwrap();
    assert_eq!(before, [newest]);

    let row = mesh
        .count(
            "SELECT first_seq FROM journal JOIN operations o ON o.seq BETWEEN first_seq AND last_seq WHERE o.kind = 5",
        )
        .await;
    let deposit = mesh.count("SELECT seq FROM operations WHERE kind = 2").await;
    let snapshot = mesh.count("SELECT max(seq) FROM snapshot_head").await;
    let fill = |text: &str| {
        text.replace("{row}", &row.to_string())
            .replace("{deposit}", &deposit.to_string())
            .replace("{snapshot}", &snapshot.to_string())
    };
    for (forge, undo, named) in FORGERIES {
        assert_eq!(run(&mesh, &fill(forge)).await, 1, "{forge}");
        let (code, lines, complained) = verify(&mesh, &["--from-genesis"]);
        assert_eq!((code, lines.len()), (Some(4), 0), "{forge}: {complained}");
        for part in *named {
            assert!(
                complained.contains(&fill(part)),
                "{forge}: no {:?} in {complained}",
                fill(part)
            );
        }
        assert_eq!(run(&mesh, &fill(undo)).await, 1, "{undo}");
        let (code, lines, complained) = verify(&mesh, &["--from-genesis"]);
        assert_eq!((code, &lines), (Some(0), &before), "{undo}: {complained}");
    }

    // The first entries are gone, as after pruning: said, and the rest is verified from the oldest snapshot; money is still compared.
    run(&mesh, &format!("DELETE FROM journal WHERE last_seq <= {snapshot}")).await;
    run(&mesh, &format!("DELETE FROM snapshot_head WHERE seq < {snapshot}")).await;
    let (code, lines, complained) = verify(&mesh, &["--from-genesis"]);
    assert_eq!((code, &lines), (Some(0), &before), "{complained}");
    assert!(
        complained.contains(&format!(
            "its first entries were pruned; verified from the snapshot at sequence {snapshot} on"
        )),
        "{complained}"
    );
    let oldest =
        "UPDATE ledger_entries SET amount = amount + 1 WHERE line = 1 AND seq = (SELECT min(seq) FROM ledger_entries)";
    assert_eq!(run(&mesh, oldest).await, 1);
    let (code, _, complained) = verify(&mesh, &[]);
    assert_eq!(code, Some(4));
    assert!(complained.contains("adds up to"), "{complained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_does_not_exist_is_refused() {
    let mesh = Mesh::start(2).await;
    let (code, _, complained) = verify(&mesh, &["--shard", "2"]);
    assert_eq!(code, Some(1));
    assert!(complained.contains("numbered 0 to 1"), "{complained}");
    let (code, lines, _) = verify(&mesh, &[]);
    assert_eq!((code, lines.len()), (Some(0), 2));
}
