//! Every method with good input from a table and with bad input for every field of its request, made from the contract, through every door.
//!
//! Status, text, details and body are compared, and after a mutation the accounts' money and trades. Each door has an account of its own;
//! a case goes through all doors before the next one begins. How much was compared stands in [`COMPARED`], so that a generator that
//! generates nothing is noticed.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde_json::{Value, json};
use tonic::Code;

use crate::caller::Caller;
use crate::doors::{self, Answer, Client, Door};
use crate::inputs::{self, Place};
use crate::life::SOL;
use crate::mesh::{Mesh, until};

/// What was compared of each method, in the order in which they are called: good requests, bad ones, those that only REST can say, tokens.
const COMPARED: [(&str, [usize; 4]); 20] = [
    ("InitializeWallet", [2, 14, 1, 7]),
    ("Deposit", [2, 40, 2, 7]),
    ("Withdraw", [2, 40, 2, 7]),
    ("OpenTrade", [2, 132, 7, 7]),
    ("ModifyTrade", [2, 78, 3, 7]),
    ("CloseTrade", [3, 55, 1, 7]),
    ("GetTrade", [1, 18, 4, 7]),
    ("ListTrades", [6, 38, 9, 7]),
    ("ListTransactions", [2, 44, 10, 7]),
    ("ListBalances", [2, 11, 4, 7]),
    ("GetBalance", [1, 18, 4, 7]),
    ("GetAccountSummary", [2, 11, 4, 7]),
    ("ListInstruments", [1, 0, 1, 7]),
    ("GetInstrument", [1, 7, 1, 7]),
    ("GetQuote", [1, 7, 1, 7]),
    ("ListCandles", [2, 27, 10, 7]),
    ("GetOperation", [1, 14, 1, 7]),
    ("GetUsage", [2, 5, 1, 7]),
    ("StreamAccountEvents", [1, 15, 6, 7]),
    ("StreamQuotes", [2, 12, 3, 7]),
];
/// Read by operators alone, and with nothing to get wrong.
const OF_OPERATORS: [(&str, [usize; 4]); 2] = [("GetConservation", [1, 0, 0, 1]), ("GetExposure", [1, 0, 0, 1])];

/// What cannot be the same at two moments is left out of what is compared: counts of calls, and a candle that is not over.
fn lasting(name: &str, answer: &mut Value) {
    let fields = |value: &Value| -> Value {
        value
            .as_object()
            .map(|it| it.keys().cloned().collect())
            .unwrap_or_default()
    };
    match name {
        "GetUsage" if answer["code"] == "Ok" => answer["body"]["usage"] = fields(&answer["body"]["usage"]),
        "ListCandles" if answer["code"] == "Ok" => answer["body"]["candles"] = fields(&answer["body"]["candles"][0]),
        _ => {}
    }
}

/// The mesh, its accounts, and what was found.
struct Room {
    callers: Vec<Caller>,
    /// What each account was before the next call.
    looks: Vec<Value>,
    second: (String, String),
    counts: BTreeMap<String, [usize; 4]>,
    /// Fields of which a value was refused.
    refused: BTreeSet<(String, String)>,
    differences: Vec<String>,
}

#[derive(Clone, Copy)]
enum What {
    Good = 0,
    Bad = 1,
    RestAlone = 2,
    Token = 3,
}

impl Room {
    fn count(&mut self, name: &str, what: What) {
        self.counts.entry(name.to_owned()).or_default()[what as usize] += 1;
    }

    /// One case through all doors. `by` makes each door's client, `made` its request; nothing for a door that has no way to say it.
    async fn case(
        &mut self,
        name: &str,
        what: What,
        by: impl Fn(&Caller) -> Client,
        made: impl Fn(&Caller) -> Value,
    ) -> Answer {
        self.count(name, what);
        let requests: Vec<Value> = self.callers.iter().map(made).collect();
        let asked = self.callers.iter().zip(&requests).map(async |(caller, request)| {
            if caller.client.door == Door::Rest && !has_address(name, request) {
                return no_such_address(caller, name, request).await;
            }
            Some(caller.ask(&by(caller), name, request.clone()).await)
        });
        let answers = join_all(asked).await;
        let first = answers[0].clone().expect("gRPC says everything");
        let mut shown: Option<Value> = None;
        for ((caller, answer), request) in self.callers.iter_mut().zip(&answers).zip(&requests) {
            let Some(answer) = answer else { continue };
            let mut all = caller.names.anonymous(&answer.all());
            lasting(name, &mut all);
            let first = shown.get_or_insert_with(|| all.clone());
            if *first != all {
                let door = caller.client.door;
                self.differences
                    .push(format!("{name} {request}\n  gRPC: {first}\n  {door:?}: {all}"));
            }
        }
        if doors::mutates(name) {
            if first.code == Code::Ok && name == "CloseTrade" {
                join_all(self.callers.iter_mut().map(Caller::open)).await;
            }
            let looks = join_all(self.callers.iter().map(Caller::look)).await;
            for (index, look) in looks.iter().enumerate() {
                let (door, request) = (self.callers[index].client.door, &requests[index]);
                if *look != looks[0] {
                    self.differences.push(format!(
                        "{name} {request} left, by gRPC: {}\n  {door:?}: {look}",
                        looks[0]
                    ));
                }
                if first.code != Code::Ok && *look != self.looks[index] {
                    self.differences.push(format!(
                        "{name} {request} was refused and changed something by {door:?}: {look}"
                    ));
                }
            }
            self.looks = looks;
        }
        first
    }

    /// Bad input for one field: through every door, and what only JSON can say by REST.
    async fn field(&mut self, name: &str, place: &Place) {
        let second = self.second.clone();
        for value in inputs::values(place) {
            let made = |caller: &Caller| place.set(&caller.good(name, &second)[0], value.as_ref());
            let answer = self.case(name, What::Bad, |caller| caller.client.clone(), made).await;
            if answer.code != Code::Ok {
                self.refused.insert((name.to_owned(), place.name()));
            }
        }
        for value in inputs::of_json_alone(place) {
            self.rest_alone(name, &place.name(), |request| place.set(request, Some(&value)))
                .await;
        }
    }

    /// What only REST can say, and must refuse without a change.
    async fn rest_alone(&mut self, name: &str, what: &str, change: impl Fn(&Value) -> Value) {
        self.count(name, What::RestAlone);
        let caller = self.callers.last().expect("REST comes last");
        let request = change(&caller.good(name, &self.second)[0]);
        let (verb, path, body) = doors::by_rest(name, &request);
        let (status, _, said) = caller.client.http(verb, &path, body).await;
        let said: Value = serde_json::from_slice(&said).expect("JSON, whatever happens");
        let named = said["details"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["fieldViolations"][0]["field"] != Value::Null));
        if status.as_u16() != 400 || said["code"] != 3 || !named {
            self.differences
                .push(format!("{name} {request} ({what}) by REST: {status} {said}"));
        }
        if doors::mutates(name) && caller.look().await != self.looks[self.callers.len() - 1] {
            self.differences
                .push(format!("{name} {request} ({what}) was refused and changed something"));
        }
    }
}

/// Whether REST has an address for a request: what stands in the address can neither be missing nor empty.
fn has_address(name: &str, request: &Value) -> bool {
    doors::in_path(name)
        .iter()
        .all(|field| request[field].as_str().is_some_and(|text| !text.is_empty()))
}

/// What REST says of an address with a hole in it: that there is nothing, or nothing for this verb where what is left of a verb's colon is
/// an id.
async fn no_such_address(caller: &Caller, name: &str, request: &Value) -> Option<Answer> {
    let mut with_hole = request.clone();
    for field in doors::in_path(name) {
        if with_hole[&field].is_null() {
            with_hole[&field] = "".into();
        }
    }
    let (verb, path, body) = doors::by_rest(name, &with_hole);
    let (status, _, said) = caller.client.http(verb, &path, body).await;
    let said: Value = serde_json::from_slice(&said).expect("JSON, whatever happens");
    assert!(
        matches!(status.as_u16(), 404 | 405) && said["code"] == 12,
        "{path}: {status} {said}"
    );
    None
}

/// Tokens that are not good for a call, by what is wrong with them.
fn tokens(mesh: &Mesh, account: &str) -> Vec<Option<String>> {
    let good = mesh.issuer.claims(account);
    let signed = |change: fn(&mut gateway::token::Claims)| {
        let mut claims = good.clone();
        change(&mut claims);
        Some(mesh.issuer.sign(&claims))
    };
    vec![
        None,
        Some("nonsense".to_owned()),
        signed(|it| it.exp = it.nbf - 3_600),
        signed(|it| it.aud = "elsewhere".to_owned()),
        signed(|it| it.scope = String::new()),
        signed(|it| it.scope = "view".to_owned()),
        signed(|it| it.accounts = vec!["somebody-else".to_owned()]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_method_is_refused_and_answered_alike_through_every_door() {
    let mesh = Mesh::start(1).await;
    mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
    let reader = Client::new(Door::Grpc, mesh.address, &mesh.token("other"));
    until("a price", async || {
        let quote = reader.call("GetQuote", json!({"symbol": "SOL_USDC"})).await;
        (quote.body["quote"]["state"] == "QUOTE_STATE_FRESH").then_some(())
    })
    .await;
    let second = until("a candle that is over", async || {
        let seconds = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1S"});
        let candles = reader.call("ListCandles", seconds).await.good()["candles"].clone();
        let at = |index: usize| Some(candles.get(index)?["openTime"].as_str()?.to_owned());
        Some((at(0)?, at(1)?))
    })
    .await;
    let mut callers = Vec::new();
    for door in Door::ALL {
        callers.push(Caller::new(&mesh, door).await);
    }
    let looks = join_all(callers.iter().map(Caller::look)).await;
    let mut room = Room {
        callers,
        looks,
        second: second.clone(),
        counts: BTreeMap::new(),
        refused: BTreeSet::new(),
        differences: Vec::new(),
    };

    let mut fields = BTreeSet::new();
    for (name, _) in COMPARED {
        for index in 0..room.callers[0].good(name, &second).len() {
            let made = |caller: &Caller| caller.good(name, &second)[index].clone();
            let answer = room.case(name, What::Good, |caller| caller.client.clone(), made).await;
            assert_eq!(answer.code, Code::Ok, "{name}, good request {index}: {}", answer.all());
        }
        for place in inputs::places(&doors::input(name)) {
            fields.insert((name.to_owned(), place.name()));
            room.field(name, &place).await;
        }
        room.rest_alone(name, "an unknown field", |request| {
            let mut request = request.clone();
            request["no_such_field"] = "1".into();
            request
        })
        .await;
        for token in 0..tokens(&mesh, "x").len() {
            let by = |caller: &Caller| match &tokens(&mesh, &caller.account)[token] {
                Some(token) => caller.client.with_token(token),
                None => caller.client.without_token(),
            };
            room.case(name, What::Token, by, |caller| caller.good(name, &second)[0].clone())
                .await;
        }
    }
    let written = mesh.count("SELECT sum(seq)::bigint FROM shard_head").await;
    until("the recorder is there", async || {
        let recorded = mesh.count("SELECT sum(seq)::bigint FROM recorder_cursor").await;
        (recorded >= written).then_some(())
    })
    .await;
    for (name, _) in OF_OPERATORS {
        let operator = |caller: &Caller| {
            let mut claims = mesh.issuer.claims(&caller.account);
            claims.scope = "operator".to_owned();
            caller.client.with_token(&mesh.issuer.sign(&claims))
        };
        let answer = room.case(name, What::Good, operator, |_| json!({})).await;
        assert_eq!(answer.code, Code::Ok, "{name}: {}", answer.all());
        let answer = room
            .case(name, What::Token, |caller| caller.client.clone(), |_| json!({}))
            .await;
        assert_eq!(answer.code, Code::PermissionDenied, "{name}: {}", answer.all());
    }

    let (count, some) = (
        room.differences.len(),
        room.differences.iter().take(20).cloned().collect::<Vec<_>>(),
    );
    assert_eq!(count, 0, "{count} differences, the first of them:\n{}", some.join("\n"));
    let never: BTreeSet<_> = fields.difference(&room.refused).cloned().collect();
    assert_eq!(never, BTreeSet::new(), "fields of which nothing is ever refused");
    let expected: BTreeMap<_, _> = COMPARED
        .iter()
        .chain(&OF_OPERATORS)
        .map(|(name, counts)| ((*name).to_owned(), *counts))
        .collect();
    let methods: BTreeSet<String> = doors::methods().into_iter().collect();
    assert_eq!(
        expected.keys().cloned().collect::<BTreeSet<_>>(),
        methods,
        "every method of the contract"
    );
    assert_eq!(
        room.counts, expected,
        "what was compared: good, bad, by REST alone, tokens"
    );
}
