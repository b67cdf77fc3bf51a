//! One account's calls, and the world that all accounts live in.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;

use crate::doors::{Answer, Client, Door, Messages};
use crate::mesh::{Mesh, until, within};
use crate::transcript::Names;
use futures::StreamExt as _;

/// One account's calls through one door.
pub struct Life {
    pub client: Client,
    pub account: String,
    pub names: Names,
    pub steps: Vec<(String, Value)>,
    pub called: BTreeSet<String>,
}

impl Life {
    pub fn new(mesh: &Mesh, door: Door) -> Self {
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
    pub fn of_account(&self, mut request: Value) -> Value {
        request["account_id"] = self.account.as_str().into();
        request
    }

    /// A call that must succeed.
    pub async fn good(&mut self, step: &str, name: &str, request: Value) -> Value {
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
    pub async fn mine(&mut self, step: &str, name: &str, request: Value) -> Value {
        let request = self.of_account(request);
        self.good(step, name, request).await
    }

    /// A call that must be refused so, and must leave everything as it is.
    pub async fn bad(&mut self, name: &str, request: Value, code: Code, reason: &str, fields: &[&str]) -> Answer {
        let client = self.client.clone();
        self.bad_by(&client, name, request, code, reason, fields).await
    }

    pub async fn bad_by(
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
    pub async fn look(&self) -> Value {
        let ask = async |name| {
            let answer = self.client.call(name, self.of_account(json!({}))).await.all();
            Names::of(&self.account).anonymous(&answer)
        };
        json!([ask("ListBalances").await, ask("ListTrades").await])
    }

    pub fn note(&mut self, step: &str, name: &str, request: &Value, answer: &Answer) {
        self.called.insert(name.to_owned());
        let request = self.names.anonymous(request);
        let answer = self.names.anonymous(&answer.all());
        self.steps.push((format!("{step} {name} {request}"), answer));
    }

    /// Opens a stream for the account.
    pub async fn stream(&mut self, name: &str, request: Value) -> Messages {
        self.called.insert(name.to_owned());
        self.client.stream(name, request).await
    }
}

/// A stream that is refused before it begins.
pub async fn refused(life: &mut Life, name: &str, request: Value, code: Code, reason: &str, fields: &[&str]) {
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

/// What is the same for all lives.
pub struct World {
    /// A trade of somebody else on the same shard.
    pub foreign: String,
    /// A second that is over and has a candle, in RFC 3339.
    pub second: (String, String),
}

pub const SOL: (&str, &str) = ("199.98", "200.02");

pub async fn world(mesh: &Mesh) -> World {
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

pub fn long(account: &str, change: Value) -> Value {
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

pub fn id() -> String {
    Uuid::now_v7().to_string()
}

pub fn decimal(text: &Value) -> rust_decimal::Decimal {
    text.as_str()
        .and_then(|it| it.parse().ok())
        .unwrap_or_else(|| panic!("{text} is no decimal"))
}
