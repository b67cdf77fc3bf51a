//! The same call gets the same answer through every door: status, text, typed details, body, and what it leaves behind.
//!
//! A life is one account's calls, good and bad, one after another. It is lived once through each door, on an account of its own, and the
//! transcripts are compared whole. What each answer must be is said once, where the call is made, so that four doors cannot agree on
//! something wrong. After every refusal the account is looked at: a refusal changes nothing.

mod books;
mod doors;
mod mesh;
mod transcript;

use std::collections::BTreeSet;
use std::time::Duration;

use doors::{Answer, Client, Door, Messages, next};
use futures::StreamExt as _;
use http::Method;
use mesh::{Issuer, Mesh, until, within};
use serde_json::{Value, json};
use tonic::Code;
use transcript::Names;
use uuid::Uuid;

/// One account's calls through one door.
struct Life {
    client: Client,
    account: String,
    names: Names,
    steps: Vec<(String, Value)>,
    called: BTreeSet<String>,
}

impl Life {
    fn new(mesh: &Mesh, door: Door) -> Self {
        let account = format!("life-{}", door.word());
        Self {
            client: Client::new(door, mesh.address, &mesh.token(&account)),
            names: Names::of(&account),
            account,
            steps: Vec::new(),
            called: BTreeSet::new(),
        }
    }

    /// The request with this life's account.
    fn of_account(&self, mut request: Value) -> Value {
        request["account_id"] = self.account.as_str().into();
        request
    }

    /// A call that must succeed.
    async fn good(&mut self, step: &str, name: &str, request: Value) -> Value {
        let answer = self.client.call(name, request.clone()).await;
        assert_eq!(
            answer.code,
            Code::Ok,
            "{step} {:?}: {name} {request}: {}",
            self.client.door,
            answer.all()
        );
        self.note(step, name, &request, &answer);
        answer.good()
    }

    /// The same for the account.
    async fn mine(&mut self, step: &str, name: &str, request: Value) -> Value {
        let request = self.of_account(request);
        self.good(step, name, request).await
    }

    /// A call that must be refused so, and must leave everything as it is.
    async fn bad(&mut self, name: &str, request: Value, code: Code, reason: &str, fields: &[&str]) -> Answer {
        let client = self.client.clone();
        self.bad_by(&client, name, request, code, reason, fields).await
    }

    async fn bad_by(
        &mut self,
        client: &Client,
        name: &str,
        request: Value,
        code: Code,
        reason: &str,
        fields: &[&str],
    ) -> Answer {
        let before = self.look().await;
        let answer = client.call(name, request.clone()).await;
        let what = format!("{:?}: {name} {request}: {}", client.door, answer.all());
        assert_eq!((answer.code, answer.reason()), (code, reason), "{what}");
        assert_eq!(answer.fields(), fields, "{what}");
        assert!(!answer.message.is_empty(), "{what}");
        let request_info = answer.detail("RequestInfo").map(|it| &it["requestId"]);
        assert!(
            request_info.is_some_and(|it| *it != ""),
            "an error names its request: {what}"
        );
        assert_eq!(self.look().await, before, "a refusal changes nothing: {what}");
        self.note("refused", name, &request, &answer);
        answer
    }

    /// Money and open trades; nothing before there is a wallet.
    async fn look(&self) -> Value {
        let ask = async |name| {
            let answer = self.client.call(name, self.of_account(json!({}))).await.all();
            Names::of(&self.account).anonymous(&answer)
        };
        json!([ask("ListBalances").await, ask("ListTrades").await])
    }

    fn note(&mut self, step: &str, name: &str, request: &Value, answer: &Answer) {
        self.called.insert(name.to_owned());
        let request = self.names.anonymous(request);
        let answer = self.names.anonymous(&answer.all());
        self.steps.push((format!("{step} {name} {request}"), answer));
    }

    /// Opens a stream for the account.
    async fn stream(&mut self, name: &str, request: Value) -> Messages {
        self.called.insert(name.to_owned());
        self.client.stream(name, request).await
    }
}

/// What is the same for all lives.
struct World {
    /// A trade of somebody else on the same shard.
    foreign: String,
    /// A second that is over and has a candle, in RFC 3339.
    second: (String, String),
}

const SOL: (&str, &str) = ("199.98", "200.02");

async fn world(mesh: &Mesh) -> World {
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    // Past the age at which something may be opened, and not past that at which nothing may happen at all. BTC has no price.
    mesh.market
        .aged("ETH_USDC", "2000.00", "2000.50", Duration::from_secs(10));
    let other = Client::new(Door::Grpc, mesh.address, &mesh.token("other"));
    other
        .call("InitializeWallet", json!({"account_id": "other"}))
        .await
        .good();
    until("a price for SOL and a stale one for ETH", async || {
        let state =
            async |symbol| other.call("GetQuote", json!({"symbol": symbol})).await.body["quote"]["state"].clone();
        (state("SOL_USDC").await == "QUOTE_STATE_FRESH" && state("ETH_USDC").await == "QUOTE_STATE_STALE").then_some(())
    })
    .await;
    let opened = other.call("OpenTrade", long("other", json!({}))).await.good();
    let foreign = opened["trade"]["tradeId"].as_str().expect("an id").to_owned();
    let all = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1S"});
    // One that is followed by another is over.
    let second = until("two candles", async || {
        let candles = other.call("ListCandles", all.clone()).await.good()["candles"].clone();
        let at = |index: usize| Some(candles.get(index)?["openTime"].as_str()?.to_owned());
        Some((at(1)?, at(2)?))
    })
    .await;
    World { foreign, second }
}

fn long(account: &str, change: Value) -> Value {
    let mut request = json!({
        "account_id": account, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100", "leverage": "10",
        "request_id": Uuid::now_v7().to_string(),
    });
    for (name, value) in change.as_object().expect("fields") {
        match value {
            Value::Null => drop(request.as_object_mut().expect("fields").remove(name)),
            value => request[name] = value.clone(),
        }
    }
    request
}

fn id() -> String {
    Uuid::now_v7().to_string()
}

use Code::{
    AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, PermissionDenied, Unauthenticated,
    Unavailable,
};

/// One account's life.
async fn live(mesh: &Mesh, world: &World, door: Door) -> Life {
    let mut life = Life::new(mesh, door);
    wallet(&mut life).await;
    market(&mut life, world).await;
    refused_opens(&mut life).await;
    let closed = trades(&mut life, world).await;
    operations(&mut life, &closed).await;
    tokens(mesh, &mut life).await;
    conservation(mesh, &mut life).await;
    usage(mesh, &mut life).await;
    exposure(mesh, &mut life).await;
    streams(&mut life).await;
    life
}

async fn wallet(life: &mut Life) {
    let me = life.account.clone();
    let account = json!({"account_id": me});
    for read in ["ListBalances", "GetAccountSummary", "ListTransactions", "ListTrades"] {
        life.bad(read, account.clone(), NotFound, "ACCOUNT_NOT_FOUND", &[])
            .await;
    }
    life.bad("OpenTrade", long(&me, json!({})), NotFound, "ACCOUNT_NOT_FOUND", &[])
        .await;
    let money = |amount: &str| json!({"account_id": me, "amount": {"currency_code": "USDC", "amount": amount}, "request_id": id()});
    life.bad("Deposit", money("1"), NotFound, "ACCOUNT_NOT_FOUND", &[])
        .await;

    let first = json!({"request_id": id()});
    let made = life.mine("first", "InitializeWallet", first.clone()).await;
    assert_eq!(made["created"], true);
    assert_eq!(made["balances"].as_array().expect("balances").len(), 4);
    assert_eq!(
        life.mine("again, same id", "InitializeWallet", first).await,
        made,
        "a repeat gets the first answer"
    );
    let again = life
        .mine("again, other id", "InitializeWallet", json!({"request_id": id()}))
        .await;
    assert_eq!(
        (&again["created"], &again["balances"]),
        (&json!(false), &made["balances"])
    );

    let deposited = life.good("", "Deposit", money("250.25")).await;
    assert_eq!(
        deposited["freeBalance"],
        json!({"currencyCode": "USDC", "amount": "5250.25"})
    );
    let withdrawn = life.good("", "Withdraw", money("50.25")).await;
    assert_eq!(withdrawn["freeBalance"]["amount"], "5200.00");
    life.bad(
        "Withdraw",
        money("5200.01"),
        FailedPrecondition,
        "INSUFFICIENT_FUNDS",
        &[],
    )
    .await;
    for amount in [
        "0",
        "-1",
        "1e2",
        "+1",
        "01",
        "1,000",
        "",
        "NaN",
        "1.",
        ".5",
        "1234567890123456789",
        " 1",
    ] {
        for name in ["Deposit", "Withdraw"] {
            life.bad(
                name,
                money(amount),
                InvalidArgument,
                "INVALID_FIELD",
                &["amount.amount"],
            )
            .await;
        }
    }
    life.bad(
        "Deposit",
        money("1.005"),
        InvalidArgument,
        "INVALID_FIELD",
        &["amount.amount"],
    )
    .await;
    let doge = json!({"account_id": me, "amount": {"currency_code": "DOGE", "amount": "1"}, "request_id": id()});
    life.bad("Deposit", doge, NotFound, "CURRENCY_UNKNOWN", &[]).await;
    life.bad(
        "Deposit",
        json!({"account_id": me, "request_id": id()}),
        InvalidArgument,
        "INVALID_FIELD",
        &["amount"],
    )
    .await;
    for wrong in [
        "no-uuid",
        "c7b1ee1c-5ad1-4f3c-8d0e-3d1dd1a4d2a1",
        "01890a5d-ac96-774b-bcce-b302099a80",
    ] {
        let mut request = money("1");
        request["request_id"] = wrong.into();
        life.bad("Deposit", request, InvalidArgument, "INVALID_FIELD", &["request_id"])
            .await;
    }
    let mut old = money("1");
    old["request_id"] = "01890a5d-ac96-774b-bcce-b302099a8057".into();
    life.bad("Deposit", old, FailedPrecondition, "REQUEST_ID_EXPIRED", &[])
        .await;

    let balances = life.mine("", "ListBalances", json!({})).await;
    assert_eq!(balances["balances"].as_array().expect("balances").len(), 4);
    let usdc = life.mine("", "GetBalance", json!({"currency_code": "USDC"})).await;
    assert_eq!(
        usdc["balance"],
        json!({"currencyCode": "USDC", "free": "5200.00", "locked": "0.00", "total": "5200.00"})
    );
    life.mine("as me", "GetBalance", json!({"currency_code": "SOL"})).await;
    let me_word = json!({"account_id": "me", "currency_code": "USDC"});
    assert_eq!(
        life.good("as me", "GetBalance", me_word).await["balance"],
        usdc["balance"]
    );
    life.bad(
        "GetBalance",
        json!({"account_id": me, "currency_code": "DOGE"}),
        NotFound,
        "CURRENCY_UNKNOWN",
        &[],
    )
    .await;
    life.bad(
        "GetBalance",
        json!({"account_id": me, "currency_code": "usdc"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["currency_code"],
    )
    .await;
    let summary = life.mine("", "GetAccountSummary", json!({})).await;
    assert_eq!(
        (&summary["equity"]["amount"], &summary["marginLevel"]),
        (&json!("5200.00"), &json!(""))
    );
}

async fn market(life: &mut Life, world: &World) {
    let listed = life.good("", "ListInstruments", json!({})).await;
    let symbols: Vec<&str> = listed["instruments"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["symbol"].as_str())
        .collect();
    assert_eq!(symbols, ["BTC_USDC", "ETH_USDC", "SOL_USDC"]);
    let one = life.good("", "GetInstrument", json!({"symbol": "SOL_USDC"})).await;
    assert_eq!(one["instrument"], listed["instruments"][2]);
    let quote = life.good("", "GetQuote", json!({"symbol": "SOL_USDC"})).await;
    assert_eq!(
        (&quote["quote"]["bid"], &quote["quote"]["ask"]),
        (&json!(SOL.0), &json!(SOL.1))
    );
    let stale = life.good("", "GetQuote", json!({"symbol": "ETH_USDC"})).await;
    assert_eq!(stale["quote"]["state"], "QUOTE_STATE_STALE");
    life.bad(
        "GetQuote",
        json!({"symbol": "BTC_USDC"}),
        Unavailable,
        "STALE_PRICE",
        &[],
    )
    .await;
    for name in ["GetInstrument", "GetQuote"] {
        life.bad(name, json!({"symbol": "DOGE_USDC"}), NotFound, "SYMBOL_UNKNOWN", &[])
            .await;
        life.bad(
            name,
            json!({"symbol": "sol"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["symbol"],
        )
        .await;
    }
    let (start, end) = &world.second;
    let second = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1S", "start_time": start, "end_time": end});
    let candles = life.good("", "ListCandles", second).await;
    let candle = &candles["candles"][0];
    let prices = ["open", "high", "low", "close"].map(|price| decimal(&candle[price]));
    assert_eq!(prices, [decimal(&json!("200")); 4], "the mid price: {candle}");
    let no_interval = json!({"symbol": "SOL_USDC"});
    life.bad(
        "ListCandles",
        no_interval,
        InvalidArgument,
        "INVALID_FIELD",
        &["interval"],
    )
    .await;
    let backwards =
        json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1M", "start_time": end, "end_time": start});
    life.bad(
        "ListCandles",
        backwards,
        InvalidArgument,
        "INVALID_FIELD",
        &["end_time"],
    )
    .await;
    let unknown = json!({"symbol": "DOGE_USDC", "interval": "CANDLE_INTERVAL_1M"});
    life.bad("ListCandles", unknown, NotFound, "SYMBOL_UNKNOWN", &[]).await;
    let many = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1M", "page_size": 1001});
    life.bad("ListCandles", many, InvalidArgument, "INVALID_FIELD", &["page_size"])
        .await;
}

async fn refused_opens(life: &mut Life) {
    let me = life.account.clone();
    let mut refused: Vec<(Value, Code, &str, Vec<&str>)> = vec![
        (json!({"symbol": "DOGE_USDC"}), NotFound, "SYMBOL_UNKNOWN", vec![]),
        (
            json!({"symbol": "SOL-USDC"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["symbol"],
        ),
        (
            json!({"symbol": null}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["symbol"],
        ),
        (json!({"side": null}), InvalidArgument, "INVALID_FIELD", vec!["side"]),
        (
            json!({"side": "SIDE_UNSPECIFIED"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["side"],
        ),
        (json!({"side": 7}), InvalidArgument, "INVALID_FIELD", vec!["side"]),
        (json!({"margin": null}), InvalidArgument, "INVALID_FIELD", vec!["size"]),
        (
            json!({"leverage": null}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "0"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "0.5"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "101"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "1e1"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "2.5"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"margin": "5200.01"}),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            vec![],
        ),
        (
            json!({"margin": "0.50"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["margin"],
        ),
        (
            json!({"margin": null, "quantity": "0.0001"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["quantity"],
        ),
        (
            json!({"margin": null, "quantity": "1e-3"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["quantity"],
        ),
        (
            json!({"margin": null, "quantity": "100000", "leverage": "100"}),
            FailedPrecondition,
            "MAX_EXPOSURE_REACHED",
            vec![],
        ),
        (
            json!({"stop_loss_price": "200.02"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["stop_loss_price"],
        ),
        (
            json!({"stop_loss_price": "190.001"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["stop_loss_price"],
        ),
        (
            json!({"take_profit_price": "150"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["take_profit_price"],
        ),
        (
            json!({"slippage": {"expected_price": "190", "deviation_max_bps": 10}}),
            Code::Aborted,
            "PRICE_MOVED",
            vec![],
        ),
        (
            json!({"slippage": {"expected_price": "190", "deviation_max_bps": 10001}}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["slippage.deviation_max_bps"],
        ),
        (
            json!({"slippage": {"deviation_max_bps": 10}}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["slippage.expected_price"],
        ),
        (json!({"symbol": "ETH_USDC"}), Unavailable, "STALE_PRICE", vec![]),
        (json!({"symbol": "BTC_USDC"}), Unavailable, "STALE_PRICE", vec![]),
        // Everything that is wrong is said at once.
        (
            json!({"side": null, "margin": "x", "leverage": null}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["side", "margin", "leverage"],
        ),
        (
            json!({"account_id": "Not An Account"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["account_id"],
        ),
        (json!({"account_id": "other"}), PermissionDenied, "NOT_ALLOWED", vec![]),
    ];
    for margin in [
        "0", "-100", "0.00", "100.001", "1e2", "1E2", "+100", "0x64", "100 ", "١٠٠", "Infinity",
    ] {
        refused.push((
            json!({"margin": margin}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["margin"],
        ));
    }
    for (change, code, reason, fields) in refused {
        let answer = life.bad("OpenTrade", long(&me, change), code, reason, &fields).await;
        let retry = answer.detail("RetryInfo").is_some();
        assert_eq!(
            retry,
            code == Unavailable,
            "come back later, and only then: {}",
            answer.all()
        );
    }
    // Too much to look at. The doors read it by different libraries, so only the words may differ.
    let large = long(&me, json!({"symbol": "A".repeat(100_000)}));
    let before = life.look().await;
    let answer = life.client.call("OpenTrade", large).await;
    assert_eq!(
        (answer.code, answer.reason()),
        (Code::ResourceExhausted, "BODY_TOO_LARGE"),
        "{:?}: {}",
        life.client.door,
        answer.all()
    );
    // What is no request at all.
    match life.client.door {
        Door::Rest => {
            let path = format!("/v1/accounts/{me}/trades");
            for body in [
                &b"{"[..],
                b"[]",
                b"\xff",
                b"{\"margin\": {}}",
                b"{\"nonsense\": 1}",
                b"{\"side\": \"SIDE_UP\"}",
            ] {
                let (status, _, _) = life.client.http(Method::POST, &path, body.to_vec()).await;
                assert_eq!(status.as_u16(), 400, "{}", String::from_utf8_lossy(body));
            }
        }
        _ => {
            for bytes in [&b"\xff\xff\xff\xff"[..], b"\x0a\x7f", b"\x0a\x02\xc3\x28"] {
                let answer = life.client.raw("OpenTrade", bytes.to_vec()).await;
                assert_eq!(
                    (answer.code, answer.reason()),
                    (InvalidArgument, "INVALID_FIELD"),
                    "{}",
                    answer.all()
                );
            }
        }
    }
    assert_eq!(life.look().await, before);
}

/// Opens, changes, closes and reads. Gives the id of a closed trade and the request that closed it.
async fn trades(life: &mut Life, world: &World) -> Closed {
    let me = life.account.clone();
    let protect = json!({"stop_loss_price": "190", "take_profit_price": "250", "slippage": {"expected_price": SOL.1, "deviation_max_bps": 0}});
    let first = long(&me, protect);
    let opened = life.good("long", "OpenTrade", first.clone()).await;
    let trade = &opened["trade"];
    assert_eq!(
        (&trade["entryPrice"], &trade["quantity"]),
        (&json!(SOL.1), &json!("4.999"))
    );
    assert_eq!(
        trade["liquidationPrice"], "180.01",
        "the first price on the grid at which 100 is lost: 200.02 - 100 / 4.999"
    );
    assert_eq!(opened["freeBalance"]["amount"], "5100.00");
    let long_id = trade["tradeId"].clone();
    assert_eq!(
        life.good("long, again", "OpenTrade", first.clone()).await,
        opened,
        "a repeat gets the first answer"
    );
    let mut other = first;
    other["margin"] = "101".into();
    life.bad("OpenTrade", other, AlreadyExists, "REQUEST_ID_REUSED", &[])
        .await;

    let short = long(
        &me,
        json!({"side": "SIDE_SHORT", "margin": null, "quantity": "2.5", "leverage": "5"}),
    );
    let opened = life.good("short", "OpenTrade", short).await;
    assert_eq!(opened["trade"]["entryPrice"], SOL.0);
    assert_eq!(opened["trade"]["margin"]["amount"], "99.99");
    let short_id = opened["trade"]["tradeId"].clone();

    let of = |trade: &Value, more: Value| {
        let mut request = json!({"account_id": me, "trade_id": trade, "request_id": id()});
        for (name, value) in more.as_object().expect("fields") {
            request[name] = value.clone();
        }
        request
    };
    let read = |trade: &Value| json!({"account_id": me, "trade_id": trade});
    life.good("open", "GetTrade", read(&long_id)).await;
    let summary = life.mine("two open", "GetAccountSummary", json!({})).await;
    assert_eq!(
        (&summary["openTrades"], &summary["usedMargin"]["amount"]),
        (&json!(2), &json!("199.99"))
    );
    assert_eq!(
        summary["unrealisedProfit"]["amount"], "-0.30",
        "the spread: 0.04 x 4.999 + 0.04 x 2.5"
    );

    let changes = [
        json!({"stop_loss_price": "185.50", "add_margin": "10"}),
        json!({"clear_stop_loss": true, "take_profit_price": "300"}),
        json!({"clear_take_profit": true}),
    ];
    for change in changes {
        life.good("", "ModifyTrade", of(&long_id, change)).await;
    }
    let refused: [(Value, Code, &str, &[&str]); 9] = [
        (json!({}), InvalidArgument, "INVALID_FIELD", &["request"]),
        (
            json!({"stop_loss_price": "1e2"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["stop_loss_price"],
        ),
        (
            json!({"stop_loss_price": "210"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["stop_loss_price"],
        ),
        (
            json!({"stop_loss_price": "199.999"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["stop_loss_price"],
        ),
        (
            json!({"take_profit_price": "100"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["take_profit_price"],
        ),
        (
            json!({"clear_stop_loss": false}),
            InvalidArgument,
            "INVALID_FIELD",
            &["clear_stop_loss"],
        ),
        (
            json!({"add_margin": "0"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["add_margin"],
        ),
        (
            json!({"add_margin": "0.001"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["add_margin"],
        ),
        (
            json!({"add_margin": "100000"}),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            &[],
        ),
    ];
    for (change, code, reason, fields) in refused {
        life.bad("ModifyTrade", of(&long_id, change), code, reason, fields)
            .await;
    }
    let refused: [(Value, &[&str]); 8] = [
        (json!({"quantity": "0"}), &["quantity"]),
        (json!({"quantity": "5"}), &["quantity"]),
        (json!({"quantity": "0.0001"}), &["quantity"]),
        (json!({"percent": "0"}), &["percent"]),
        (json!({"percent": "101"}), &["percent"]),
        (json!({"percent": "5e1"}), &["percent"]),
        (json!({"percent": "0.001"}), &["percent"]),
        (json!({"trade_id": "first"}), &["trade_id"]),
    ];
    for (change, fields) in refused {
        life.bad(
            "CloseTrade",
            of(&long_id, change),
            InvalidArgument,
            "INVALID_FIELD",
            fields,
        )
        .await;
    }
    let nowhere = json!("0-999999");
    for trade in [json!(world.foreign), nowhere] {
        life.bad("CloseTrade", of(&trade, json!({})), NotFound, "TRADE_NOT_FOUND", &[])
            .await;
        life.bad(
            "ModifyTrade",
            of(&trade, json!({"add_margin": "1"})),
            NotFound,
            "TRADE_NOT_FOUND",
            &[],
        )
        .await;
        life.bad("GetTrade", read(&trade), NotFound, "TRADE_NOT_FOUND", &[])
            .await;
    }

    let half = of(&short_id, json!({"percent": "50"}));
    let closed = life.good("half", "CloseTrade", half.clone()).await;
    assert_eq!(
        (&closed["closedQuantity"], &closed["realisedProfit"]["amount"]),
        (&json!("1.250"), &json!("-0.05"))
    );
    assert_eq!(
        life.good("half, again", "CloseTrade", half).await,
        closed,
        "a repeat gets the first answer"
    );
    life.good("a part", "CloseTrade", of(&short_id, json!({"quantity": "0.25"})))
        .await;
    let whole = of(&short_id, json!({}));
    let closed = life.good("the rest", "CloseTrade", whole.clone()).await;
    assert_eq!(
        (&closed["trade"]["status"], &closed["trade"]["quantity"]),
        (&json!("TRADE_STATUS_CLOSED"), &json!("0"))
    );
    life.bad(
        "CloseTrade",
        of(&short_id, json!({})),
        FailedPrecondition,
        "TRADE_CLOSED",
        &[],
    )
    .await;
    life.bad(
        "ModifyTrade",
        of(&short_id, json!({"add_margin": "1"})),
        FailedPrecondition,
        "TRADE_CLOSED",
        &[],
    )
    .await;

    life.good("closed", "GetTrade", read(&short_id)).await;
    for status in ["TRADE_STATUS_OPEN", "TRADE_STATUS_CLOSED"] {
        let listed = life.mine(status, "ListTrades", json!({"status": status})).await;
        assert_eq!(listed["trades"].as_array().expect("trades").len(), 1, "{status}");
    }
    let page = life
        .mine("a page", "ListTrades", json!({"page_size": 1, "symbol": "SOL_USDC"}))
        .await;
    assert_eq!(page["trades"][0]["tradeId"], short_id, "newest first");
    let token = page["nextPageToken"].clone();
    let rest = life
        .mine(
            "the next",
            "ListTrades",
            json!({"page_size": 1, "symbol": "SOL_USDC", "page_token": token}),
        )
        .await;
    assert_eq!(
        (&rest["trades"][0]["tradeId"], &rest["nextPageToken"]),
        (&long_id, &json!(""))
    );
    let foreign_page = json!({"account_id": me, "page_token": token});
    life.bad(
        "ListTrades",
        foreign_page,
        InvalidArgument,
        "INVALID_FIELD",
        &["page_token"],
    )
    .await;
    life.bad(
        "ListTrades",
        json!({"account_id": me, "page_token": "x"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["page_token"],
    )
    .await;
    life.bad(
        "ListTrades",
        json!({"account_id": me, "page_size": -1}),
        InvalidArgument,
        "INVALID_FIELD",
        &["page_size"],
    )
    .await;
    life.bad(
        "ListTrades",
        json!({"account_id": me, "status": 9}),
        InvalidArgument,
        "INVALID_FIELD",
        &["status"],
    )
    .await;

    let lines = life.mine("all", "ListTransactions", json!({})).await;
    let lines = lines["transactions"].as_array().expect("lines");
    let mine = |account: &str| -> rust_decimal::Decimal {
        let of = lines.iter().filter(|line| {
            line["entry"]["ledgerAccount"] == account && line["entry"]["amount"]["currencyCode"] == "USDC"
        });
        of.map(|line| decimal(&line["entry"]["amount"]["amount"])).sum()
    };
    let balance = life
        .mine("at the end", "GetBalance", json!({"currency_code": "USDC"}))
        .await["balance"]
        .clone();
    assert_eq!(
        (mine("client"), mine("margin")),
        (decimal(&balance["free"]), decimal(&balance["locked"])),
        "balances are the ledger"
    );
    life.mine(
        "of one trade",
        "ListTransactions",
        json!({"trade_id": short_id, "currency_code": "USDC", "page_size": 3}),
    )
    .await;
    life.bad(
        "ListTransactions",
        json!({"account_id": me, "trade_id": "x"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["trade_id"],
    )
    .await;
    Closed {
        request_id: whole["request_id"].clone(),
        answer: closed,
    }
}

struct Closed {
    request_id: Value,
    answer: Value,
}

async fn operations(life: &mut Life, closed: &Closed) {
    let me = life.account.clone();
    let found = life
        .mine("done", "GetOperation", json!({"request_id": closed.request_id}))
        .await;
    let mut response = found["operation"]["response"].clone();
    response.as_object_mut().expect("an answer").remove("@type");
    assert_eq!(
        (&found["operation"]["method"], &response),
        (&json!("CloseTrade"), &closed.answer)
    );

    let poor = long(&me, json!({"margin": "100000"}));
    let refused = life
        .bad(
            "OpenTrade",
            poor.clone(),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            &[],
        )
        .await;
    let found = life
        .mine("refused", "GetOperation", json!({"request_id": poor["request_id"]}))
        .await;
    assert_eq!(found["operation"]["error"]["message"], refused.message.as_str());

    let never = json!({"account_id": me, "request_id": id()});
    life.bad("GetOperation", never, NotFound, "OPERATION_NOT_FOUND", &[])
        .await;
    life.bad(
        "GetOperation",
        json!({"account_id": me, "request_id": "x"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["request_id"],
    )
    .await;
}

async fn tokens(mesh: &Mesh, life: &mut Life) {
    let me = life.account.clone();
    let claims = mesh.issuer.claims(&me);
    let now = mesh::now_us() / 1_000_000;
    let signed = |change: fn(&mut gateway::token::Claims, u64)| {
        let mut claims = claims.clone();
        change(&mut claims, now);
        mesh.issuer.sign(&claims)
    };
    let good = mesh.issuer.sign(&claims);
    let mut altered = good.clone().into_bytes();
    *altered.last_mut().expect("a signature") = if altered.ends_with(b"A") { b"Q" } else { b"A" }[0];
    let unsigned = format!(
        "{}.{}.",
        "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0",
        good.split('.').nth(1).expect("claims")
    );
    let refused = [
        ("expired", signed(|it, now| it.exp = now - 3_600)),
        ("not yet valid", signed(|it, now| it.nbf = now + 3_600)),
        ("for another audience", signed(|it, _| it.aud = "elsewhere".to_owned())),
        ("by another issuer", signed(|it, _| it.iss = "elsewhere".to_owned())),
        ("of another key", Issuer::new([8; 32]).sign(&claims)),
        ("altered", String::from_utf8(altered).expect("text")),
        ("unsigned", unsigned),
        ("nonsense", "nonsense".to_owned()),
    ];
    for (what, token) in refused {
        let client = life.client.with_token(&token);
        let answer = life
            .bad_by(
                &client,
                "OpenTrade",
                long(&me, json!({})),
                Unauthenticated,
                "TOKEN_INVALID",
                &[],
            )
            .await;
        assert!(!answer.message.contains(&token), "{what}: a token is not repeated");
    }
    let client = life.client.without_token();
    life.bad_by(
        &client,
        "OpenTrade",
        long(&me, json!({})),
        Unauthenticated,
        "TOKEN_INVALID",
        &[],
    )
    .await;

    let viewer = life.client.with_token(&signed(|it, _| it.scope = "view".to_owned()));
    life.bad_by(
        &viewer,
        "OpenTrade",
        long(&me, json!({})),
        PermissionDenied,
        "NOT_ALLOWED",
        &[],
    )
    .await;
    let money = json!({"account_id": me, "amount": {"currency_code": "USDC", "amount": "1"}, "request_id": id()});
    life.bad_by(&viewer, "Deposit", money, PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let trader = life.client.with_token(&signed(|it, _| it.scope = "trade".to_owned()));
    life.bad_by(
        &trader,
        "ListBalances",
        json!({"account_id": me}),
        PermissionDenied,
        "NOT_ALLOWED",
        &[],
    )
    .await;
    for read in ["ListBalances", "ListTrades", "ListTransactions", "GetAccountSummary"] {
        life.bad(
            read,
            json!({"account_id": "other"}),
            PermissionDenied,
            "NOT_ALLOWED",
            &[],
        )
        .await;
    }
}

/// One's own limits may be read by anybody, another's by operators. Counts depend on when one asks; the rest does not.
async fn usage(mesh: &Mesh, life: &mut Life) {
    let me = life.account.clone();
    let other = json!({"principal": "other"});
    life.bad("GetUsage", other.clone(), PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let mut claims = mesh.issuer.claims(&format!("operator-{}", life.client.door.word()));
    claims.scope = "operator".to_owned();
    let operator = life.client.with_token(&mesh.issuer.sign(&claims));
    let long = json!({"principal": "a".repeat(129)});
    life.bad_by(
        &operator,
        "GetUsage",
        long,
        InvalidArgument,
        "INVALID_FIELD",
        &["principal"],
    )
    .await;
    let never = operator.call("GetUsage", json!({"principal": "never seen"})).await;
    life.note(
        "of one who never called",
        "GetUsage",
        &json!({"principal": "never seen"}),
        &never,
    );
    let never = never.good();
    assert_eq!(
        (&never["usage"]["callsAdmitted"], &never["usage"]["resetAfter"]),
        (&json!("0"), &json!("0s"))
    );

    let own = life.client.call("GetUsage", json!({})).await.good();
    let seen = operator.call("GetUsage", json!({"principal": me})).await.good();
    let mut fields = Vec::new();
    for usage in [&own["usage"], &seen["usage"]] {
        assert_eq!(usage["principal"], me.as_str());
        let count = |field: &str| {
            usage[field]
                .as_str()
                .and_then(|it| it.parse::<u64>().ok())
                .expect("a count")
        };
        assert!(count("callsAdmitted") > 0 && count("callsRefused") == 0, "{usage}");
        assert!(usage["remaining"].as_u64() <= usage["burst"].as_u64(), "{usage}");
        fields.push(usage.as_object().expect("fields").keys().cloned().collect::<Vec<_>>());
    }
    assert_eq!(fields[0], fields[1]);
    life.steps.push(("the fields of usage".to_owned(), json!(fields[0])));
}

/// The house's books are for operators, and they balance; whichever door they are read through, they are the same.
async fn conservation(mesh: &Mesh, life: &mut Life) {
    life.bad("GetConservation", json!({}), PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let mut claims = mesh.issuer.claims("operator");
    claims.scope = "operator".to_owned();
    let token = mesh.issuer.sign(&claims);
    let [here, there] = [life.client.door, Door::Grpc].map(|door| Client::new(door, mesh.address, &token));
    let proof = here.call("GetConservation", json!({})).await.good();
    assert_eq!(proof, there.call("GetConservation", json!({})).await.good());
    let [shard] = proof["shards"].as_array().expect("shards").as_slice() else {
        panic!("one shard: {proof}")
    };
    let hash = shard["stateHash"].as_str().expect("a hash");
    assert!(hash.len() == 32 && hash != "0".repeat(32), "{proof}");
    assert_eq!(shard["currencies"], proof["totals"], "of one shard");
    let totals = proof["totals"].as_array().expect("totals");
    assert!(totals.iter().any(|one| one["currencyCode"] == "USDC"), "{proof}");
    for one in totals {
        let sum: rust_decimal::Decimal = ["clientBalances", "lockedMargin", "house", "fees"]
            .iter()
            .map(|part| decimal(&one[part]))
            .sum();
        assert_eq!(sum, decimal(&one["netDeposits"]), "{proof}");
        assert!(decimal(&one["difference"]).is_zero(), "{proof}");
        assert_eq!(one["currencyCode"] == "USDC", !sum.is_zero(), "{proof}");
    }
}

/// What the house stands against is for operators, and it is what trades and ledger say; whichever door it is read through.
async fn exposure(mesh: &Mesh, life: &mut Life) {
    life.bad("GetExposure", json!({}), PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let mut claims = mesh.issuer.claims("operator");
    claims.scope = "operator".to_owned();
    let token = mesh.issuer.sign(&claims);
    let [here, there] = [life.client.door, Door::Grpc].map(|door| Client::new(door, mesh.address, &token));
    let written = mesh.count("SELECT sum(seq)::bigint FROM shard_head").await;
    let told = until("the recorder is there", async || {
        let told = here.call("GetExposure", json!({})).await.good();
        let shards = told["shards"].as_array().expect("shards").iter();
        let recorded: rust_decimal::Decimal = shards.map(|shard| decimal(&shard["sequence"])).sum();
        // Between two looks a candle may come, and a price with it.
        let same = told == there.call("GetExposure", json!({})).await.good();
        (same && recorded == written.into()).then_some(told)
    })
    .await;
    books::compare(mesh, &told).await;
}

async fn streams(life: &mut Life) {
    let me = life.account.clone();
    let mut events = life.stream("StreamAccountEvents", json!({"account_id": me})).await;
    let snapshot = next(&mut events).await;
    assert!(
        snapshot["snapshot"]["openTrades"]
            .as_array()
            .is_some_and(|open| open.len() == 1),
        "{snapshot}"
    );
    life.steps
        .push(("snapshot".to_owned(), life.names.anonymous(&snapshot)));

    // What happens while somebody watches.
    let opened = life
        .good("watched", "OpenTrade", long(&me, json!({"margin": "50"})))
        .await;
    let event = next(&mut events).await;
    let mut trade = event["tradeOpened"]["trade"].clone();
    trade["unrealisedProfit"] = opened["trade"]["unrealisedProfit"].clone();
    assert_eq!(
        (&event["sequence"], &trade["tradeId"]),
        (&opened["sequence"], &opened["trade"]["tradeId"])
    );
    life.steps.push(("event".to_owned(), life.names.anonymous(&event)));
    let poor = life
        .bad(
            "OpenTrade",
            long(&me, json!({"margin": "100000"})),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            &[],
        )
        .await;
    let event = next(&mut events).await;
    assert_eq!(event["operationRefused"]["message"], poor.message.as_str());
    life.steps.push(("event".to_owned(), life.names.anonymous(&event)));

    // The whole life again, from its beginning: the sequence before the wallet was made.
    let lines = life
        .client
        .call("ListTransactions", json!({"account_id": me, "page_size": 1}))
        .await
        .good();
    let first: u64 = lines["transactions"][0]["sequence"]
        .as_str()
        .and_then(|it| it.parse().ok())
        .expect("a sequence");
    let last = opened["sequence"].clone();
    let mut again = life
        .stream(
            "StreamAccountEvents",
            json!({"account_id": me, "resume_after_sequence": (first - 1).to_string()}),
        )
        .await;
    loop {
        let event = next(&mut again).await;
        life.steps.push(("replayed".to_owned(), life.names.anonymous(&event)));
        if event["sequence"] == last {
            break;
        }
    }
    let ahead = json!({"account_id": me, "resume_after_sequence": "1000000"});
    refused(
        life,
        "StreamAccountEvents",
        ahead,
        OutOfRange,
        "RESUME_POINT_EXPIRED",
        &[],
    )
    .await;
    let rare = json!({"account_id": me, "heartbeat_interval": "61s"});
    refused(
        life,
        "StreamAccountEvents",
        rare,
        InvalidArgument,
        "INVALID_FIELD",
        &["heartbeat_interval"],
    )
    .await;
    refused(
        life,
        "StreamAccountEvents",
        json!({"account_id": "other"}),
        PermissionDenied,
        "NOT_ALLOWED",
        &[],
    )
    .await;

    let mut quotes = life
        .stream(
            "StreamQuotes",
            json!({"symbols": ["SOL_USDC"], "conflation_interval": "0.100s"}),
        )
        .await;
    let mut before = 0;
    for _ in 0..3 {
        let quote = next(&mut quotes).await["quote"].clone();
        assert_eq!(
            (&quote["symbol"], &quote["bid"], &quote["ask"]),
            (&json!("SOL_USDC"), &json!(SOL.0), &json!(SOL.1))
        );
        let update: u64 = quote["updateId"]
            .as_str()
            .and_then(|it| it.parse().ok())
            .expect("a number");
        assert!(update > before, "each is newer than the one before");
        before = update;
        life.steps.push(("quote".to_owned(), life.names.anonymous(&quote)));
    }
    refused(
        life,
        "StreamQuotes",
        json!({"symbols": ["SOL_USDC", "DOGE_USDC"]}),
        NotFound,
        "SYMBOL_UNKNOWN",
        &[],
    )
    .await;
    refused(
        life,
        "StreamQuotes",
        json!({"symbols": ["SOL_USDC", "x"]}),
        InvalidArgument,
        "INVALID_FIELD",
        &["symbols[1]"],
    )
    .await;
    refused(
        life,
        "StreamQuotes",
        json!({"conflation_interval": "-1s"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["conflation_interval"],
    )
    .await;
}

/// A stream that is refused before it begins.
async fn refused(life: &mut Life, name: &str, request: Value, code: Code, reason: &str, fields: &[&str]) {
    let mut messages = life.stream(name, request.clone()).await;
    let answer = within("a refusal", messages.next()).await.expect("a refusal");
    assert_eq!(
        (answer.code, answer.reason()),
        (code, reason),
        "{:?}: {name} {request}: {}",
        life.client.door,
        answer.all()
    );
    assert_eq!(answer.fields(), fields);
    life.note("refused", name, &request, &answer);
    assert!(messages.next().await.is_none(), "nothing follows a refusal");
}

fn decimal(text: &Value) -> rust_decimal::Decimal {
    text.as_str()
        .and_then(|it| it.parse().ok())
        .unwrap_or_else(|| panic!("{text} is no decimal"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_gives_the_same_answers_to_the_same_calls() {
    let mesh = Mesh::start(1).await;
    let world = world(&mesh).await;
    let reference = live(&mesh, &world, Door::Grpc).await;
    let all: BTreeSet<String> = doors::methods().into_iter().collect();
    assert_eq!(reference.called, all, "every method of the contract was called");
    for door in [Door::GrpcWeb, Door::GrpcWebText, Door::Rest] {
        let life = live(&mesh, &world, door).await;
        for (there, here) in reference.steps.iter().zip(&life.steps) {
            assert_eq!(here.0, there.0, "{door:?}");
            assert_eq!(here.1, there.1, "{door:?} and gRPC differ at: {}", here.0);
        }
        assert_eq!(life.steps.len(), reference.steps.len(), "{door:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_engine_every_door_says_that_nothing_was_accepted() {
    let mut mesh = Mesh::start(1).await;
    let world = world(&mesh).await;
    let mut asked = Vec::new();
    for door in Door::ALL {
        let account = format!("poor-{}", door.word());
        let client = Client::new(door, mesh.address, &mesh.token(&account));
        client
            .call("InitializeWallet", json!({"account_id": account}))
            .await
            .good();
        asked.push((client, long(&account, json!({}))));
    }
    mesh.stop_engine().await;
    let mut answers = Vec::new();
    for (client, request) in &asked {
        // It would wait for half a minute if it waited: what says that it did not is the reason.
        let client = client.with_timeout(Duration::from_secs(30));
        let mutation = client.call("OpenTrade", request.clone()).await;
        let read = client
            .call("ListBalances", json!({"account_id": request["account_id"]}))
            .await;
        for answer in [&mutation, &read] {
            assert_eq!(
                (answer.code, answer.reason()),
                (Unavailable, "NOT_ACCEPTED"),
                "{}",
                answer.all()
            );
            assert!(answer.detail("RetryInfo").is_some(), "{}", answer.all());
        }
        let mut names = Names::of(request["account_id"].as_str().expect("an account"));
        answers.push(json!([names.anonymous(&mutation.all()), names.anonymous(&read.all())]));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");

    mesh.start_engine(1).await;
    until("a price", async || {
        let quote = asked[0].0.call("GetQuote", json!({"symbol": "SOL_USDC"})).await;
        (quote.body["quote"]["state"] == "QUOTE_STATE_FRESH").then_some(())
    })
    .await;
    for (client, request) in &asked {
        let listed = client
            .call("ListTrades", json!({"account_id": request["account_id"]}))
            .await
            .good();
        assert_eq!(
            listed["trades"],
            json!([]),
            "what was not accepted did not happen later"
        );
        let opened = client.call("OpenTrade", request.clone()).await.good();
        assert_ne!(opened["trade"]["tradeId"], world.foreign.as_str());
        assert_eq!(client.call("OpenTrade", request.clone()).await.good(), opened);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_does_not_come_in_time_is_an_unknown_outcome_and_the_same_request_id_gets_the_true_one() {
    let mesh = Mesh::start(1).await;
    let _world = world(&mesh).await;
    let mut answers = Vec::new();
    for door in Door::ALL {
        let account = format!("late-{}", door.word());
        let client = Client::new(door, mesh.address, &mesh.token(&account));
        client
            .call("InitializeWallet", json!({"account_id": account}))
            .await
            .good();
        let request = long(&account, json!({}));

        // Nothing can be written to the journal, so the engine decides and cannot answer.
        let mut held = mesh.pool.begin().await.expect("a transaction");
        sqlx::query("LOCK TABLE journal IN SHARE MODE")
            .execute(&mut *held)
            .await
            .expect("a lock");
        let answer = client
            .with_timeout(Duration::from_millis(500))
            .call("OpenTrade", request.clone())
            .await;
        held.rollback().await.expect("released");

        assert_eq!(
            (answer.code, answer.reason()),
            (Code::DeadlineExceeded, "UNKNOWN_OUTCOME"),
            "{door:?}: {}",
            answer.all()
        );
        let named = &answer.detail("ErrorInfo").expect("a reason")["metadata"]["request_id"];
        assert_eq!(*named, request["request_id"], "it says what to ask for");
        let opened = client.call("OpenTrade", request.clone()).await.good();
        assert_eq!(client.call("OpenTrade", request.clone()).await.good(), opened);
        let look = json!({"account_id": account, "request_id": request["request_id"]});
        let operation = client.call("GetOperation", look).await.good();
        assert_eq!(operation["operation"]["response"]["sequence"], opened["sequence"]);
        let listed = client.call("ListTrades", json!({"account_id": account})).await.good();
        assert_eq!(listed["trades"].as_array().expect("trades").len(), 1, "once");
        assert_eq!(listed["trades"][0]["tradeId"], opened["trade"]["tradeId"]);
        let mut names = Names::of(&account);
        answers.push(json!([names.anonymous(&answer.all()), names.anonymous(&opened)]));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}
