//! Known faults of a published system of the same shape, looked for in the whole mesh: those that need an engine, a recorder and a gateway
//! at once to show, and what happens when Redis or Postgres is started again under all of them. The numbers are those of its list of
//! faults; each is tested beside the code it is about as well.

mod doors;
mod mesh;

use std::collections::BTreeSet;
use std::time::Duration;

use doors::{Answer, Client, Door, next};
use futures::future::join_all;
use mesh::{Mesh, until};
use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;

const SOL: (&str, &str) = ("199.98", "200.02");

fn id() -> String {
    Uuid::now_v7().to_string()
}

fn long(account: &str) -> Value {
    json!({"account_id": account, "request_id": id(), "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "10", "leverage": "10"})
}

/// A trader with a wallet.
async fn trader(mesh: &Mesh, door: Door, account: &str) -> Client {
    let client = Client::new(door, mesh.address, &mesh.token(account));
    client
        .call("InitializeWallet", json!({"account_id": account}))
        .await
        .good();
    client
}

async fn until_quoted(client: &Client, state: &str) {
    until(state, async || {
        let quote = client.call("GetQuote", json!({"symbol": "SOL_USDC"})).await;
        (quote.body["quote"]["state"] == state).then_some(())
    })
    .await;
}

async fn trades(client: &Client, account: &str, status: &str) -> BTreeSet<String> {
    let listed = client
        .call(
            "ListTrades",
            json!({"account_id": account, "status": status, "page_size": 1000}),
        )
        .await
        .good();
    let trades = listed["trades"].as_array().expect("trades").iter();
    trades
        .map(|trade| trade["tradeId"].as_str().expect("an id").to_owned())
        .collect()
}

fn trade(opened: &Value) -> String {
    opened["trade"]["tradeId"].as_str().expect("an id").to_owned()
}

/// Sends until it is carried out: a store was away, and the mesh finds it again by itself.
async fn insist(client: &Client, name: &str, request: &Value) -> Value {
    until(name, async || {
        let answer = client
            .with_timeout(Duration::from_secs(2))
            .call(name, request.clone())
            .await;
        match (answer.code, answer.reason()) {
            (Code::Ok, _) => Some(answer.body),
            (Code::Unavailable | Code::DeadlineExceeded, _) => None,
            _ => panic!("{}", answer.all()),
        }
    })
    .await
}

/// Without a feed its trades were answered with errors after many seconds, and opened all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_01_without_a_feed_opens_are_refused_and_none_happens_later() {
    let mesh = Mesh::start(2).await;
    let client = trader(&mesh, Door::Rest, "alice").await;
    mesh.market.once("SOL_USDC", SOL.0, SOL.1).await;
    until_quoted(&client, "QUOTE_STATE_STALE").await;
    let journaled = "SELECT sum(seq)::bigint FROM shard_head";
    let before = mesh.count(journaled).await;
    let requests: Vec<Value> = (0..8).map(|_| long("alice")).collect();
    let answers = join_all(requests.iter().map(|request| client.call("OpenTrade", request.clone()))).await;
    for answer in &answers {
        // An answer of the engine: nobody waited for a deadline.
        assert_eq!(
            (answer.code, answer.reason()),
            (Code::Unavailable, "STALE_PRICE"),
            "{}",
            answer.all()
        );
    }
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    until_quoted(&client, "QUOTE_STATE_FRESH").await;
    assert_eq!(trades(&client, "alice", "TRADE_STATUS_OPEN").await, BTreeSet::new());
    assert_eq!(mesh.count(journaled).await, before, "and none is in the journal");
    // It was no answer to remember, so the same id opens it now, once.
    let opened = client.call("OpenTrade", requests[0].clone()).await.good();
    assert_eq!(client.call("OpenTrade", requests[0].clone()).await.good(), opened);
    assert_eq!(
        trades(&client, "alice", "TRADE_STATUS_OPEN").await,
        BTreeSet::from([trade(&opened)])
    );
}

/// One call that waited delayed everybody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_02_calls_that_wait_delay_nobody_else() {
    let mut mesh = Mesh::start(2).await;
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    let (alice, bob) = (
        trader(&mesh, Door::Grpc, "alice").await,
        trader(&mesh, Door::Grpc, "bob").await,
    );
    until_quoted(&alice, "QUOTE_STATE_FRESH").await;
    mesh.stop_recorder();
    alice.call("OpenTrade", long("alice")).await.good();
    // History that reflects the trade is not there, and these wait for it.
    let patient = alice.with_timeout(Duration::from_secs(30));
    let asked = json!({"account_id": "alice"});
    let mut waiting = Box::pin(join_all(
        (0..64).map(|_| patient.call("ListTransactions", asked.clone())),
    ));
    for _ in 0..50 {
        assert!(futures::poll!(&mut waiting).is_pending());
        bob.call("ListBalances", json!({"account_id": "bob"})).await.good();
        bob.call("OpenTrade", long("bob")).await.good();
        alice.call("ListBalances", asked.clone()).await.good();
    }
    assert!(
        futures::poll!(&mut waiting).is_pending(),
        "they still wait, and nobody noticed"
    );
    mesh.start_recorder();
    for answer in waiting.await {
        assert!(!answer.good()["transactions"].as_array().expect("lines").is_empty());
    }
}

/// Each ten seconds it wrote all that had ever happened, and read all of it on every price.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_03_what_a_trade_writes_does_not_grow_with_history() {
    let mesh = Mesh::start(1).await;
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    let client = trader(&mesh, Door::Grpc, "alice").await;
    until_quoted(&client, "QUOTE_STATE_FRESH").await;
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let before = mesh
            .count("SELECT coalesce(sum(length(body)), 0)::bigint FROM journal")
            .await;
        for _ in 0..60 {
            let opened = client.call("OpenTrade", long("alice")).await.good();
            let closing = json!({"account_id": "alice", "trade_id": opened["trade"]["tradeId"], "request_id": id()});
            client.call("CloseTrade", closing).await.good();
        }
        sizes.push(mesh.count("SELECT sum(length(body))::bigint FROM journal").await - before);
    }
    let (first, last) = (sizes[1], sizes[4]);
    // Numbers get longer by a digit now and then; a list of all trades would have doubled it more than once.
    assert!(last * 10 <= first * 11, "{sizes:?} bytes for 60 trades each");
    let queue = redis_lengths(&mesh).await;
    assert!(
        queue.iter().all(|(_, kind, length)| kind != "list" || *length == 0),
        "nothing waits for ever: {queue:?}"
    );
}

/// Keys of the bus with their kinds and lengths.
async fn redis_lengths(mesh: &Mesh) -> Vec<(String, String, u64)> {
    let client = redis::Client::open(mesh.redis.url()).expect("an address");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("a Redis that runs");
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    let mut lengths = Vec::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .expect("a kind");
        let command = match kind.as_str() {
            "list" => "LLEN",
            "stream" => "XLEN",
            _ => continue,
        };
        let length: u64 = redis::cmd(command)
            .arg(&key)
            .query_async(&mut connection)
            .await
            .expect("a length");
        lengths.push((key, kind, length));
    }
    lengths
}

/// Its recovery point came out of the same queue as its history, and got older the more there was to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_04_a_recorder_that_is_behind_makes_no_recovery_point_older() {
    let mut mesh = Mesh::start(1).await;
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    let client = trader(&mesh, Door::Grpc, "alice").await;
    until_quoted(&client, "QUOTE_STATE_FRESH").await;
    mesh.stop_recorder();
    let mut opened = BTreeSet::new();
    for _ in 0..100 {
        opened.insert(trade(&client.call("OpenTrade", long("alice")).await.good()));
    }
    mesh.kill_engine().await;
    mesh.start_engine(1).await;
    let behind = mesh
        .count("SELECT max(h.seq) - max(c.seq) FROM shard_head h, recorder_cursor c")
        .await;
    assert!(behind >= 100, "nothing of it is in the history: {behind}");
    until("an engine to ask", async || {
        let answer = client.call("ListBalances", json!({"account_id": "alice"})).await;
        (answer.code == Code::Ok).then_some(())
    })
    .await;
    assert_eq!(
        trades(&client, "alice", "TRADE_STATUS_OPEN").await,
        opened,
        "all of it is in the engine"
    );
    mesh.start_recorder();
    assert_eq!(
        trades(&client, "alice", "TRADE_STATUS_UNSPECIFIED").await,
        opened,
        "and then in the history too"
    );
}

/// Its history came from a cache that nobody emptied until midnight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_12_history_never_misses_what_the_client_was_told() {
    let mesh = Mesh::start(4).await;
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    let writer = trader(&mesh, Door::Grpc, "alice").await;
    let reader = Client::new(Door::Rest, mesh.address, &mesh.token("alice"));
    until("a price on the account's shard", async || {
        let answer = writer.call("OpenTrade", long("alice")).await;
        (answer.code == Code::Ok).then_some(())
    })
    .await;
    let mut closed = BTreeSet::new();
    for _ in 0..25 {
        let opened = writer.call("OpenTrade", long("alice")).await.good();
        let closing = json!({"account_id": "alice", "trade_id": opened["trade"]["tradeId"], "request_id": id()});
        let answer = writer.call("CloseTrade", closing).await.good();
        closed.insert(trade(&opened));
        // At once, by somebody else's connection, without a sequence to ask for and without a second try.
        assert_eq!(trades(&reader, "alice", "TRADE_STATUS_CLOSED").await, closed);
        let last = json!({"account_id": "alice", "trade_id": opened["trade"]["tradeId"]});
        let lines = reader.call("ListTransactions", last.clone()).await.good();
        let lines = lines["transactions"].as_array().expect("lines").clone();
        assert_eq!(lines.last().expect("lines")["sequence"], answer["sequence"]);
        assert_eq!(
            reader.call("GetTrade", last).await.good()["trade"]["status"],
            "TRADE_STATUS_CLOSED"
        );
    }
}

/// Its tables were empty after an installation, and nothing filled them, so nothing could be traded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_15_a_mesh_on_empty_stores_can_trade_everything_it_lists() {
    let mesh = Mesh::start(1).await;
    let client = trader(&mesh, Door::GrpcWeb, "alice").await;
    let listed = client.call("ListInstruments", json!({})).await.good();
    let symbols: Vec<String> = listed["instruments"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["symbol"].as_str().expect("a symbol").to_owned())
        .collect();
    assert!(!symbols.is_empty());
    for symbol in &symbols {
        mesh.market.quote(symbol, SOL.0, SOL.1);
        let mut request = long("alice");
        request["symbol"] = symbol.as_str().into();
        let opened = insist(&client, "OpenTrade", &request).await;
        assert_eq!(
            (&opened["trade"]["symbol"], &opened["trade"]["entryPrice"]),
            (&json!(symbol), &json!(price_of(&listed, symbol)))
        );
    }
    assert_eq!(trades(&client, "alice", "TRADE_STATUS_OPEN").await.len(), symbols.len());
}

/// 200.02 on the tick of the instrument, against the client.
fn price_of(listed: &Value, symbol: &str) -> String {
    let of = listed["instruments"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["symbol"] == symbol)
        .expect("listed");
    let coarse = of["tickSize"] == "0.1";
    if coarse { "200.1".to_owned() } else { SOL.1.to_owned() }
}

/// Everything that a client can see, before and after a store was away.
struct Before {
    open: BTreeSet<String>,
    free: Value,
    last: Value,
}

async fn some_trading(mesh: &Mesh, client: &Client) -> Before {
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    until_quoted(client, "QUOTE_STATE_FRESH").await;
    let mut open = BTreeSet::new();
    let mut last = Value::Null;
    for _ in 0..5 {
        last = insist(client, "OpenTrade", &long("alice")).await;
        open.insert(trade(&last));
    }
    let balance = client
        .call("GetBalance", json!({"account_id": "alice", "currency_code": "USDC"}))
        .await
        .good();
    Before {
        open,
        free: balance["balance"]["free"].clone(),
        last,
    }
}

/// While a store is away every call is answered, and no answer claims that something was done.
async fn refused_meanwhile(client: &Client, request: &Value) -> Vec<Answer> {
    let patient = client.with_timeout(Duration::from_millis(700));
    let balances = json!({"account_id": "alice"});
    let answers = [
        patient.call("OpenTrade", request.clone()).await,
        patient.call("ListTransactions", balances).await,
    ];
    for answer in &answers {
        let reason = answer.reason().to_owned();
        let expected = ["NOT_ACCEPTED", "UNKNOWN_OUTCOME", "EXPIRED", "HISTORY_BEHIND"];
        assert!(expected.contains(&reason.as_str()), "{}", answer.all());
    }
    answers.into()
}

async fn goes_on(mesh: &Mesh, client: &Client, before: &Before, request: &Value) {
    let opened = insist(client, "OpenTrade", request).await;
    let mut open = before.open.clone();
    assert!(open.insert(trade(&opened)), "a new trade");
    assert_eq!(
        insist(client, "OpenTrade", request).await,
        opened,
        "the one true answer"
    );
    let listed = insist(
        client,
        "ListTrades",
        &json!({"account_id": "alice", "status": "TRADE_STATUS_OPEN"}),
    )
    .await;
    let ids = listed["trades"].as_array().expect("trades").iter();
    assert_eq!(
        ids.map(|it| it["tradeId"].as_str().expect("an id").to_owned())
            .collect::<BTreeSet<_>>(),
        open,
        "nothing lost, nothing twice"
    );
    // History goes on, through tables that were written since.
    let lines = insist(
        client,
        "ListTransactions",
        &json!({"account_id": "alice", "page_size": 1000}),
    )
    .await;
    let sequences = lines["transactions"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["sequence"].clone());
    assert!(sequences.collect::<Vec<_>>().contains(&opened["sequence"]));
    // So do streams, from where a client was.
    let resumed = json!({"account_id": "alice", "resume_after_sequence": before.last["sequence"]});
    let mut events = client.stream("StreamAccountEvents", resumed).await;
    let event = next(&mut events).await;
    assert_eq!(event["tradeOpened"]["trade"]["tradeId"], opened["trade"]["tradeId"]);
    let live = insist(client, "OpenTrade", &long("alice")).await;
    assert_eq!(next(&mut events).await["sequence"], live["sequence"], "and then live");
    let mut quotes = client.stream("StreamQuotes", json!({"symbols": ["SOL_USDC"]})).await;
    let first: u64 = number(&next(&mut quotes).await["quote"]["updateId"]);
    assert!(number(&next(&mut quotes).await["quote"]["updateId"]) > first);
    // And candles of what was quoted since.
    let candles = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1S"});
    let newest = async || {
        let listed = insist(client, "ListCandles", &candles).await;
        listed["candles"]
            .as_array()
            .and_then(|it| it.last()?["openTime"].as_str().map(ToOwned::to_owned))
    };
    let known = newest().await;
    until("a new candle", async || (newest().await > known).then_some(())).await;
    assert!(mesh.engine_runs(), "nobody had to start anything");
    assert!(before.free.is_string());
}

fn number(text: &Value) -> u64 {
    text.as_str().and_then(|it| it.parse().ok()).expect("a number")
}

/// After Redis was killed its engine ended, its writer asked for a group that was gone for ever, and every later trade was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_neighbours_redis_comes_back_empty_and_everything_goes_on() {
    let mut mesh = Mesh::start(2).await;
    let client = trader(&mesh, Door::Grpc, "alice").await;
    let before = some_trading(&mesh, &client).await;
    let request = long("alice");
    mesh.redis.kill();
    refused_meanwhile(&client, &request).await;
    mesh.redis.start_again().await;
    goes_on(&mesh, &client, &before, &request).await;
    mesh.until_ready().await;
}

/// With Postgres away its writer crashed, and closes were acknowledged that nobody wrote down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_neighbours_postgres_comes_back_and_everything_goes_on() {
    let mut mesh = Mesh::start(2).await;
    let client = trader(&mesh, Door::Grpc, "alice").await;
    let before = some_trading(&mesh, &client).await;
    let request = long("alice");
    mesh.postgres.kill();
    refused_meanwhile(&client, &request).await;
    mesh.until_not_ready().await;
    mesh.postgres.start_again().await;
    goes_on(&mesh, &client, &before, &request).await;
    mesh.until_ready().await;
}
