//! Envoy's transcoder in front of our gRPC port, beside our own REST door: the same request gets the same status and the same JSON.
//!
//! Envoy reads the same bindings by code of its own, so it is a second opinion on what they mean. Where the two differ on odd input the
//! table says how and why; a difference that it does not name fails the test, and so does one that is gone.

#![allow(clippy::print_stdout, reason = "the table is worth reading")]

mod binary;
mod doors;
mod mesh;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Once;

use binary::root;
use bytes::Bytes;
use doors::{Client, Door};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mesh::{Mesh, until, within};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use uuid::Uuid;

const SOL: (&str, &str) = ("199.98", "200.02");

/// Once for all tests of this program: two that install at once are in each other's way.
static INSTALLED: Once = Once::new();

fn install(client: &Path) {
    let made = std::process::Command::new("make")
        .args(["--no-print-directory", "--silent", "setup", "build", "--directory"])
        .arg(client)
        .status();
    assert!(made.expect("make runs").success(), "Envoy cannot be installed");
}

/// An Envoy of our own.
struct Envoy {
    socket: PathBuf,
    _process: Child,
    _directory: tempfile::TempDir,
}

impl Envoy {
    async fn start(gateway: std::net::SocketAddr) -> Self {
        let client = root().join("services/testkit/clients/envoy");
        INSTALLED.call_once(|| install(&client));
        let directory = tempfile::tempdir().expect("a directory");
        let (socket, set) = (directory.path().join("door"), directory.path().join("set"));
        std::fs::write(&set, contracts::DESCRIPTOR_SET).expect("our own directory");
        let config = directory.path().join("config.json");
        std::fs::write(&config, settings(&socket, &set, gateway).to_string()).expect("our own directory");
        let process = Command::new(client.join(".venv/bin/envoy"))
            .arg("--config-path")
            .arg(&config)
            .args(["--log-level", "error", "--concurrency", "1", "--disable-hot-restart"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy starts");
        let mut envoy = Self {
            socket,
            _process: process,
            _directory: directory,
        };
        until("Envoy", async || {
            assert!(envoy._process.try_wait().expect("a child").is_none(), "Envoy ended");
            UnixStream::connect(&envoy.socket).await.ok()
        })
        .await;
        envoy
    }

    async fn ask(&self, asked: &Asked) -> Got {
        send(UnixStream::connect(&self.socket).await.expect("Envoy listens"), asked).await
    }
}

/// As strict as Envoy can be made, and printing as we print.
fn settings(socket: &Path, set: &Path, gateway: std::net::SocketAddr) -> Value {
    let package = "type.googleapis.com/envoy.extensions";
    let pool = prost_reflect::DescriptorPool::decode(contracts::DESCRIPTOR_SET).expect("our own build made it");
    let services: Vec<String> = pool
        .services()
        .filter(|it| it.package_name() == "fulcrum.v1")
        .map(|it| it.full_name().to_owned())
        .collect();
    let transcoder = json!({
        "@type": format!("{package}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"),
        "proto_descriptor": set,
        "services": services,
        "print_options": {"always_print_primitive_fields": true},
        "convert_grpc_status": true,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_RESERVED",
        "query_param_unescape_plus": true,
        "request_validation_options": {
            "reject_unknown_method": true,
            "reject_unknown_query_parameters": true,
            "reject_binding_body_field_collisions": true,
        },
    });
    let manager = json!({
        "@type": format!("{package}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "door",
        "generate_request_id": false,
        "preserve_external_request_id": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "gateway", "timeout": "0s"}}],
        }]},
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{package}.filters.http.router.v3.Router")}},
        ],
    });
    json!({"static_resources": {
        "listeners": [{
            "name": "door",
            "address": {"pipe": {"path": socket}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "gateway", "type": "STATIC", "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{package}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "gateway", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                "socket_address": {"address": gateway.ip().to_string(), "port_value": gateway.port()},
            }}}]}]},
        }],
    }})
}

/// One request.
#[derive(Clone, Debug)]
struct Asked {
    verb: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// One answer: text where it is no JSON.
#[derive(Clone, Debug, PartialEq)]
struct Got {
    status: u16,
    json: Value,
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, asked: &Asked) -> Got {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(&asked.verb)
        .uri(&asked.path)
        .header("host", "x");
    for (name, value) in &asked.headers {
        request = request.header(*name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(asked.body.clone())))
        .expect("a request");
    let response = within("an answer", sender.send_request(request))
        .await
        .expect("an answer");
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = Vec::new();
    // A stream without end is read up to its first message.
    while let Some(frame) = within("its body", body.frame()).await {
        all.extend_from_slice(frame.expect("its body").data_ref().map_or(&[][..], |data| data));
        if asked.path.contains(":stream") && status == 200 && first(&all).is_some() {
            break;
        }
    }
    connection.abort();
    let text = || Value::String(String::from_utf8_lossy(&all).into_owned());
    let json = first(&all).unwrap_or_else(|| serde_json::from_slice(&all).unwrap_or_else(|_| text()));
    // Envoy writes empty fields of errors too, we do not: both mean the same message.
    let is_error = status != 200 && json.get("code").is_some();
    let json = if is_error { doors::canonical_error(&json) } else { json };
    Got { status, json }
}

/// The first message of an array that goes on.
fn first(body: &[u8]) -> Option<Value> {
    let rest = body.strip_prefix(b"[")?;
    serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()
}

/// What both say, at a moment when ours says the same before and after.
async fn both(mesh: &Mesh, envoy: &Envoy, asked: &Asked) -> (Got, Got) {
    let ours = async || {
        let stream = TcpStream::connect(mesh.address).await.expect("it listens");
        let mut got = send(stream, asked).await;
        still(&mut got.json);
        got
    };
    until("a still moment", async || {
        let before = ours().await;
        let mut theirs = envoy.ask(asked).await;
        still(&mut theirs.json);
        (before == ours().await).then_some((before, theirs))
    })
    .await
}

/// Without what is another at each call: how much of a limit is left, and when a stream said something.
fn still(json: &mut Value) {
    match json {
        Value::Object(members) => {
            for name in ["callsAdmitted", "remaining", "resetAfter", "eventTime"] {
                if let Some(value) = members.get_mut(name) {
                    *value = json!("another each time");
                }
            }
            members.values_mut().for_each(still);
        }
        Value::Array(items) => items.iter_mut().for_each(still),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_gives_the_same_answer_to_every_call() {
    let mesh = Mesh::start(1).await;
    let envoy = Envoy::start(mesh.address).await;
    let world = World::of(&mesh).await;
    let mut called = BTreeSet::new();
    for (name, request, token) in world.calls() {
        let (verb, path, body) = doors::by_rest(name, &request);
        let asked = world.asked(verb, &path, body, token);
        let (ours, theirs) = both(&mesh, &envoy, &asked).await;
        assert_eq!(ours.status, 200, "{name}: {ours:?}");
        assert_eq!(theirs, ours, "{name} {path}");
        called.insert(name.to_owned());
    }
    assert_eq!(
        called,
        doors::methods().into_iter().collect(),
        "every binding was called"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_gives_the_same_answer_to_odd_input_but_for_what_is_explained() {
    let mesh = Mesh::start(1).await;
    let envoy = Envoy::start(mesh.address).await;
    let world = World::of(&mesh).await;
    let mut wrong = Vec::new();
    for odd in odd() {
        let mut asked = world.asked(odd.verb, odd.path, odd.body.to_vec(), &world.token);
        asked
            .headers
            .extend(odd.header.map(|(name, value)| (name, value.to_owned())));
        if odd.header.is_some_and(|(name, _)| name == "content-type") {
            asked
                .headers
                .retain(|(name, value)| *name != "content-type" || value != "application/json");
        }
        let (ours, theirs) = both(&mesh, &envoy, &asked).await;
        let found = match (ours == theirs, ours.status == theirs.status) {
            (true, _) => Same,
            (false, true) => Words(ours.status, ""),
            (false, false) => Status(ours.status, theirs.status, ""),
        };
        let said = match odd.says {
            Same => Same,
            Words(status, _) => Words(status, ""),
            Status(ours, theirs, _) => Status(ours, theirs, ""),
        };
        println!(
            "{} {} {}: {:?}",
            asked.verb,
            asked.path,
            String::from_utf8_lossy(&asked.body),
            odd.says
        );
        if found != said {
            wrong.push(format!(
                "{asked:?}\n  is {found:?}, not {said:?}\n  ours   {ours:?}\n  theirs {theirs:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are not as the table says:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// An account with one open and one closed trade, and a market that stands still.
struct World {
    token: String,
    operator: String,
    request_id: String,
    open: String,
    closed: String,
    opening: Value,
}

impl World {
    async fn of(mesh: &Mesh) -> Self {
        mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
        let token = mesh.token("demo");
        let client = Client::new(Door::Grpc, mesh.address, &token);
        client
            .call("InitializeWallet", json!({"account_id": "demo"}))
            .await
            .good();
        until("a price", async || {
            let quote = client.call("GetQuote", json!({"symbol": "SOL_USDC"})).await;
            (quote.body["quote"]["state"] == "QUOTE_STATE_FRESH").then_some(())
        })
        .await;
        let request_id = Uuid::now_v7().to_string();
        let opening = json!({
            "account_id": "demo", "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100", "leverage": "10",
            "request_id": request_id,
        });
        let opened = client.call("OpenTrade", opening.clone()).await.good();
        let mut second = opening.clone();
        second["request_id"] = Uuid::now_v7().to_string().into();
        let closed = client.call("OpenTrade", second).await.good();
        let id = |opened: &Value| opened["trade"]["tradeId"].as_str().expect("an id").to_owned();
        let mut claims = mesh.issuer.claims("operator");
        claims.scope = "operator".to_owned();
        Self {
            token,
            operator: mesh.issuer.sign(&claims),
            request_id,
            open: id(&opened),
            closed: id(&closed),
            opening,
        }
    }

    fn asked(&self, verb: Method, path: &str, body: Vec<u8>, token: &str) -> Asked {
        let mut headers = vec![
            ("authorization", format!("Bearer {token}")),
            ("x-request-id", "the-same-for-both".to_owned()),
            // The one framing of streams that both have.
            ("accept", "application/json".to_owned()),
        ];
        if !body.is_empty() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        Asked {
            verb,
            path: path.to_owned(),
            headers,
            body,
        }
    }

    /// A good call of every method. Mutations have a `request_id`, so that both doors get the first answer.
    fn calls(&self) -> Vec<(&'static str, Value, &str)> {
        let id = || Uuid::now_v7().to_string();
        let money = |amount: &str| json!({"account_id": "demo", "request_id": id(), "amount": {"currency_code": "USDC", "amount": amount}});
        let trade = |of: &str| json!({"account_id": "demo", "request_id": id(), "trade_id": of});
        let mut modify = trade(&self.open);
        modify["stop_loss_price"] = "190".into();
        let me = || json!({"account_id": "demo"});
        let symbol = || json!({"symbol": "SOL_USDC"});
        let all = [
            ("InitializeWallet", json!({"account_id": "demo", "request_id": id()})),
            ("Deposit", money("10.50")),
            ("Withdraw", money("0.50")),
            ("OpenTrade", self.opening.clone()),
            ("ModifyTrade", modify),
            ("CloseTrade", trade(&self.closed)),
            ("GetTrade", json!({"account_id": "demo", "trade_id": self.open})),
            ("GetTrade", json!({"account_id": "demo", "trade_id": self.closed})),
            ("ListTrades", me()),
            (
                "ListTrades",
                json!({"account_id": "demo", "status": "TRADE_STATUS_CLOSED", "page_size": 1, "symbol": "SOL_USDC"}),
            ),
            ("ListTransactions", json!({"account_id": "demo", "page_size": 5})),
            ("ListBalances", json!({"account_id": "me"})),
            ("GetBalance", json!({"account_id": "demo", "currency_code": "USDC"})),
            ("GetAccountSummary", me()),
            (
                "GetOperation",
                json!({"account_id": "demo", "request_id": self.request_id}),
            ),
            ("ListInstruments", json!({})),
            ("GetInstrument", symbol()),
            ("GetQuote", symbol()),
            (
                "ListCandles",
                json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1D"}),
            ),
            (
                "StreamQuotes",
                json!({"symbols": ["SOL_USDC"], "conflation_interval": "60s"}),
            ),
            (
                "StreamAccountEvents",
                json!({"account_id": "demo", "heartbeat_interval": "60s"}),
            ),
            ("GetUsage", json!({})),
        ];
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(name, request)| (name, request, self.token.as_str()))
            .collect();
        all.push(("GetConservation", json!({}), self.operator.as_str()));
        all.push(("GetExposure", json!({}), self.operator.as_str()));
        all
    }
}

/// How the two answers compare.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    /// In status and JSON.
    Same,
    /// In the status, which is this; not in the words, and why.
    Words(u16, &'static str),
    /// In neither: our status and Envoy's, and why.
    Status(u16, u16, &'static str),
}
use Says::{Same, Status, Words};

const TEXT: &str = "Envoy refuses it by itself in plain text; here every error is a google.rpc.Status with details";
const METHODS: &str =
    "Envoy knows no 405: whatever does not match is not there; here the answer lists the methods in Allow";
const EMPTY_SEGMENTS: &str =
    "Envoy drops a slash at the end and takes an empty segment for a value; here neither is a path of a binding";
const VERBS: &str = "to Envoy a verb of any method ends the path of all; here it does for the methods that have it, and this is an id with a colon";
const PERCENT: &str =
    "Envoy passes on what is no percent-encoding of UTF-8, and the room finds fault with it; here the path is refused";
const CONFLICT: &str = "Envoy lets one value win silently; here two values for one field are refused";
const TWICE: &str = "Envoy takes the last of several values for a field that has one; here that is refused by name";
const NO_NAME: &str = "Envoy passes over a parameter without a name; here it is one that there is not";
const UNKNOWN: &str = "Envoy passes over body fields that there are not, so a misspelt stop loss would open without one; here it is refused by name, \
                       and what the room says of the rest comes later";
const LENIENT: &str =
    "Envoy reads what is not quite JSON, so the room finds fault with the rest; here it is refused for what it is";
const MEDIA: &str =
    "Envoy does not look at the type of a body and fails to read it as JSON; here the type is what is refused";
const HEADER: &str = "the timeout is refused by the room behind Envoy, and here by the transcoder, which reads it first: the same reason, other words";
const STREAMS: &str =
    "Envoy has sent a 200 before the stream fails; here a stream that fails before its first message has its status";
const SHORT_NAMES: &str = "here a query may name an enum value without its prefix, too";

struct Odd {
    verb: Method,
    path: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: &'static [u8],
    says: Says,
}

fn get(path: &'static str, says: Says) -> Odd {
    Odd {
        verb: Method::GET,
        path,
        header: None,
        body: b"",
        says,
    }
}

fn post(path: &'static str, body: &'static [u8], says: Says) -> Odd {
    Odd {
        verb: Method::POST,
        body,
        ..get(path, says)
    }
}

const TRADES: &str = "/v1/accounts/demo/trades";

/// Requests that no careful client makes, with what is different and why.
fn odd() -> Vec<Odd> {
    let with = |odd: Odd, name, value| Odd {
        header: Some((name, value)),
        ..odd
    };
    vec![
        // What gets through both transcoders is refused by the same room, in the same words.
        get("/v1/accounts/other/balances", Same),
        get("/v1/accounts/demo/balances/DOGE", Same),
        get("/v1/accounts/demo/balances/usdc", Same),
        get("/v1/accounts/demo/trades/x", Same),
        get("/v1/accounts/demo/trades/0-999999", Same),
        get("/v1/quotes/NO_SUCH", Same),
        get("/v1/instruments/%20", Same),
        get("/v1/conservation", Same),
        get("/v1/accounts/demo/trades?status=CLOSED", Status(200, 400, SHORT_NAMES)),
        get("/v1/accounts/demo/trades?page_size=1", Same),
        get("/v1/accounts/demo/trades?pageSize=1", Same),
        get("/v1/accounts/demo/trades?pageSize=-1", Same),
        get("/v1/accounts/demo/trades?pageToken=nonsense", Same),
        get("/v1/accounts/demo/trades?", Same),
        get("/v1/accounts/demo/trades?symbol=", Same),
        get("/v1/accounts/demo/trades?symbol=SOL%5FUSDC", Same),
        get("/v1/accounts/demo/trades?symbol=SOL+USDC", Same),
        get("/v1/accounts/d%65mo/balances", Same),
        get(
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1D&startTime=2026-01-01T00:00:00Z",
            Same,
        ),
        get(
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1D&start_time=2026-01-01T00%3A00%3A00.5%2B01%3A00",
            Same,
        ),
        get("/v1/quotes:stream?symbols=NO_SUCH", Status(404, 200, STREAMS)),
        get("/v1/quotes:stream?conflationInterval=-1s", Same),
        get("/v1/accounts/demo/operations/x", Same),
        post(
            TRADES,
            br#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":"1e2","leverage":"10"}"#,
            Same,
        ),
        post(
            TRADES,
            br#"{"symbol":"SOL_USDC","side":1,"margin":"-1","leverage":"10"}"#,
            Same,
        ),
        post(
            TRADES,
            br#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":null,"leverage":"10"}"#,
            Same,
        ),
        post(TRADES, br#"{}"#, Same),
        post(
            "/v1/accounts/demo/wallet:deposit",
            br#"{"amount":{"currencyCode":"USDC","amount":"0"}}"#,
            Same,
        ),
        post(
            "/v1/accounts/demo/wallet:deposit",
            br#"{"amount":{"currency_code":"USDC","amount":"-1"}}"#,
            Same,
        ),
        post(
            "/v1/accounts/other/wallet:deposit",
            br#"{"amount":{"currencyCode":"USDC","amount":"1"}}"#,
            Same,
        ),
        with(
            get("/v1/accounts/demo/balances", Words(400, HEADER)),
            "grpc-timeout",
            "nonsense",
        ),
        // What is refused before there is a call.
        get("/", Words(404, TEXT)),
        get("/v1", Words(404, TEXT)),
        get("/v1/nothing", Words(404, TEXT)),
        get("/v1/accounts/demo/balances/", Status(404, 200, EMPTY_SEGMENTS)),
        get("/v1/accounts//balances", Status(404, 400, EMPTY_SEGMENTS)),
        get("//v1/instruments", Words(404, TEXT)),
        get("/v1/instruments/", Status(404, 200, EMPTY_SEGMENTS)),
        get("/v1/accounts/demo/wallet:deposit", Status(405, 404, METHODS)),
        get("/v1/accounts/demo/trades/1-1:close", Status(400, 404, VERBS)),
        get("/v1/accounts/demo/trades:nothing", Words(404, TEXT)),
        get("/v1/quotes/SOL_USDC:nothing", Same),
        get("/v1/accounts/demo/balances%2FUSDC", Words(404, TEXT)),
        get("/v1/accounts/de%2Fmo/balances", Same),
        get("/v1/accounts/%zz/balances", Words(400, PERCENT)),
        get("/v1/accounts/%ff/balances", Words(400, PERCENT)),
        get("/v1/accounts/demo/trades?nothing=1", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?account_id=demo", Same),
        get("/v1/accounts/demo/trades?account_id=other", Status(400, 403, CONFLICT)),
        get("/v1/accounts/demo/trades?page_size=x", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?page_size=1.5", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?page_size=99999999999", Words(400, TEXT)),
        get(
            "/v1/accounts/demo/trades?page_size=1&page_size=2",
            Status(400, 200, TWICE),
        ),
        get("/v1/accounts/demo/trades?status=NOTHING", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?status=1", Same),
        get("/v1/accounts/demo/trades?status=%ff", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?symbol.nothing=1", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?=1", Status(400, 200, NO_NAME)),
        get("/v1/accounts/demo/trades?&&", Same),
        get(
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1D&startTime=yesterday",
            Words(400, TEXT),
        ),
        get("/v1/quotes:stream?conflationInterval=1", Words(400, TEXT)),
        post("/v1/instruments", b"{}", Status(405, 404, METHODS)),
        post(TRADES, b"", Same),
        post(TRADES, b"{", Words(400, TEXT)),
        post(TRADES, b"[]", Words(400, TEXT)),
        post(TRADES, b"null", Words(400, TEXT)),
        post(TRADES, b"1", Words(400, TEXT)),
        post(TRADES, b"{} {}", Words(400, TEXT)),
        post(TRADES, b"\xff", Words(400, TEXT)),
        post(TRADES, b"\xef\xbb\xbf{}", Words(400, TEXT)),
        post(TRADES, br#"{"nothing":1}"#, Words(400, UNKNOWN)),
        post(TRADES, br#"{"symbol":"A","symbol":"B"}"#, Words(400, TWICE)),
        post(TRADES, br#"{"accountId":"demo"}"#, Same),
        post(TRADES, br#"{"accountId":"other"}"#, Words(400, CONFLICT)),
        post(TRADES, br#"{"symbol":1}"#, Words(400, TEXT)),
        post(TRADES, br#"{"margin":100}"#, Words(400, TEXT)),
        post(TRADES, br#"{"symbol":{}}"#, Words(400, TEXT)),
        post(TRADES, br#"{"side":"SIDE_UP"}"#, Words(400, TEXT)),
        post(TRADES, br#"{"side":7}"#, Same),
        post(TRADES, br#"{"side":"1"}"#, Words(400, LENIENT)),
        post(TRADES, br#"{"margin":"1","quantity":"1"}"#, Words(400, TEXT)),
        post(TRADES, br#"{"symbol":"\ud800"}"#, Words(400, TEXT)),
        post(TRADES, br#"{"symbol":"\u0000"}"#, Same),
        post(TRADES, br#"{'symbol':'SOL_USDC'}"#, Words(400, LENIENT)),
        post(TRADES, br#"{"symbol":"SOL_USDC",}"#, Words(400, LENIENT)),
        post(TRADES, br#"{symbol:"SOL_USDC"}"#, Words(400, LENIENT)),
        post(TRADES, br#"{"symbol":"SOL_USDC"} // opened"#, Words(400, TEXT)),
        with(
            post(TRADES, b"x", Status(415, 400, MEDIA)),
            "content-type",
            "text/plain",
        ),
        with(
            post(TRADES, b"{}", Same),
            "content-type",
            "application/json; charset=utf-8",
        ),
        with(
            post(TRADES, b"a=b", Status(415, 400, MEDIA)),
            "content-type",
            "application/x-www-form-urlencoded",
        ),
        Odd {
            verb: Method::PUT,
            ..post(TRADES, b"{}", Status(405, 404, METHODS))
        },
        Odd {
            verb: Method::DELETE,
            ..get("/v1/instruments", Status(405, 404, METHODS))
        },
        Odd {
            body: b"{}",
            ..get("/v1/instruments", Same)
        },
    ]
}
