//! A played engine, tokens, and clients that speak each door's protocol by hand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bus::{CallError, Calls, NotAccepted};
use bytes::{BufMut as _, Bytes, BytesMut};
use contracts::bus::request::Command;
use contracts::bus::{
    Fact, Failure, OperationFound, OperationRecord, Reply, Request, WindowEntry, operation_record, reply,
};
use contracts::v1::{self, ErrorReason};
use gateway::token::{self, Claims};
use gateway::{Config, Gateway, TokenConfig, TokenKey};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SHARDS: u32 = 4;
pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "fulcrum";
pub const ORIGIN: &str = "https://trade.test";
// Keys of tests alone.
pub const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIH9NoQP0JC8PBwCPruZtMqnGEPfFLKPY3pMlRbM7woyU
-----END PRIVATE KEY-----
";
pub const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAdAfSPLFHdjLkNBO9x/4y+1aDkNy9q0fMhgD34LzuV1I=
-----END PUBLIC KEY-----
";
pub const STRANGER: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIFEiDvmx3EJ0ihvsHMu60Cg6QZMsZWcQ2tMfasuGakSW
-----END PRIVATE KEY-----
";

/// An engine that answers at once, as the account's name says: `stuck` never, `away` has no leader, `poor` is refused,
/// `panics` does.
#[derive(Clone, Default)]
pub struct Played {
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Played {
    /// The requests that came for an account.
    pub fn of(&self, account_id: &str) -> Vec<Request> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|it| it.account_id == account_id)
            .cloned()
            .collect()
    }
}

impl Calls for Played {
    async fn call(&self, request: Request, deadline: tokio::time::Instant) -> Result<Reply, CallError> {
        self.seen.lock().unwrap().push(request.clone());
        match request.account_id.as_str() {
            "stuck" => {
                tokio::time::sleep_until(deadline).await;
                Err(CallError::UnknownOutcome)
            }
            "away" => Err(CallError::NotAccepted(NotAccepted::NoLeader)),
            "panics" => panic!("the engine is played by a test that panics"),
            "poor" => Ok(refusal(
                ErrorReason::InsufficientMargin,
                "needs 100.00 USDC, 50.00 is free",
                "50.00",
            )),
            _ => Ok(played(request)),
        }
    }
}

pub fn refusal(reason: ErrorReason, message: &str, free: &str) -> Reply {
    let facts = vec![Fact {
        name: "free".into(),
        value: free.into(),
    }];
    let failure = Failure {
        reason: reason.into(),
        message: message.into(),
        facts,
        ..Default::default()
    };
    Reply {
        sequence: 7,
        account_sequence: 7,
        outcome: Some(reply::Outcome::Failure(failure)),
        ..Default::default()
    }
}

fn usdc(amount: &str) -> Option<v1::Money> {
    Some(v1::Money {
        currency_code: "USDC".into(),
        amount: amount.into(),
    })
}

/// A trade of `demo`, whose shard is 0 of 4.
pub fn trade(number: u64) -> v1::Trade {
    v1::Trade {
        trade_id: format!("{}-{number}", shard("demo")),
        account_id: "demo".into(),
        symbol: "SOL_USDC".into(),
        side: v1::Side::Long.into(),
        status: v1::TradeStatus::Open.into(),
        quantity: "5.000".into(),
        margin: usdc("100.00"),
        open_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        unrealised_profit: usdc("1.50"),
        sequence: 7,
        ..Default::default()
    }
}

pub fn shard(account_id: &str) -> u32 {
    contracts::shard::of_account(account_id, SHARDS)
}

pub fn instrument() -> v1::Instrument {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    v1::Instrument {
        symbol: "SOL_USDC".into(),
        tick_size: "0.01".into(),
        stale_soft_age: seconds(5),
        stale_hard_age: seconds(30),
        ..Default::default()
    }
}

fn played(request: Request) -> Reply {
    let free_balance = usdc("4900.00");
    let sequence = 7;
    let balance = || v1::Balance {
        currency_code: "USDC".into(),
        free: "4900.00".into(),
        ..Default::default()
    };
    let good = |message: &dyn Fn() -> Vec<u8>| reply::Outcome::Response(message().into());
    let failed = |reason, message: &str| match refusal(reason, message, "").outcome {
        Some(outcome) => outcome,
        None => unreachable!(),
    };
    let outcome = match request.command.unwrap() {
        Command::InitializeWallet(_) => good(&|| {
            let balances = usdc("5000.00").into_iter().collect();
            v1::InitializeWalletResponse {
                balances,
                created: true,
                sequence,
            }
            .encode_to_vec()
        }),
        Command::Deposit(_) => good(&|| {
            v1::DepositResponse {
                free_balance: free_balance.clone(),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::Withdraw(_) => good(&|| {
            v1::WithdrawResponse {
                free_balance: free_balance.clone(),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::OpenTrade(_) => good(&|| {
            v1::OpenTradeResponse {
                trade: Some(trade(2)),
                free_balance: free_balance.clone(),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::CloseTrade(_) => good(&|| {
            v1::CloseTradeResponse {
                trade: Some(trade(2)),
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::ModifyTrade(_) => good(&|| {
            v1::ModifyTradeResponse {
                trade: Some(trade(2)),
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::ListBalances(_) => good(&|| {
            v1::ListBalancesResponse {
                balances: vec![balance()],
                sequence,
            }
            .encode_to_vec()
        }),
        Command::GetBalance(it) if it.currency_code == "DOGE" => failed(ErrorReason::CurrencyUnknown, "not held here"),
        Command::GetBalance(_) => good(&|| {
            v1::GetBalanceResponse {
                balance: Some(balance()),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::GetAccountSummary(_) => good(&|| {
            v1::GetAccountSummaryResponse {
                equity: usdc("5001.50"),
                open_trades: 1,
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::GetTrade(it) if it.trade_id == trade(2).trade_id => good(&|| {
            v1::GetTradeResponse {
                trade: Some(trade(2)),
                sequence,
            }
            .encode_to_vec()
        }),
        Command::GetTrade(it) if it.trade_id == trade(1).trade_id => failed(ErrorReason::TradeClosed, "closed already"),
        Command::GetTrade(_) => failed(ErrorReason::TradeNotFound, "this account has no such trade"),
        Command::ListOpenTrades(_) => good(&|| {
            v1::ListTradesResponse {
                trades: vec![trade(2)],
                sequence,
                ..Default::default()
            }
            .encode_to_vec()
        }),
        Command::ListInstruments(_) => good(&|| {
            v1::ListInstrumentsResponse {
                instruments: vec![instrument()],
            }
            .encode_to_vec()
        }),
        Command::GetQuote(it) if it.symbol == "SOL_USDC" => good(&|| {
            let quote = v1::Quote {
                symbol: "SOL_USDC".into(),
                bid: "200.00".into(),
                ask: "200.02".into(),
                ..Default::default()
            };
            v1::GetQuoteResponse { quote: Some(quote) }.encode_to_vec()
        }),
        Command::GetQuote(_) => failed(ErrorReason::SymbolUnknown, "not an instrument here"),
        Command::GetOperation(it) if it.request_id.starts_with("01900000") => good(&|| {
            let response = v1::DepositResponse {
                free_balance: free_balance.clone(),
                sequence: 5,
            }
            .encode_to_vec();
            let id = uuid::Uuid::try_parse(&it.request_id).unwrap();
            let operation = OperationRecord {
                request_id: id.as_bytes().to_vec().into(),
                kind: contracts::bus::OperationKind::Deposit.into(),
                outcome: Some(operation_record::Outcome::Response(response.into())),
                ..Default::default()
            };
            let entry = WindowEntry {
                sequence: 5,
                at_us: 1_700_000_000_000_000,
                operation: Some(operation),
            };
            OperationFound {
                entry: Some(entry),
                window_start_ms: 1_600_000_000_000,
            }
            .encode_to_vec()
        }),
        Command::GetOperation(_) => failed(ErrorReason::OperationNotFound, "never executed"),
        Command::AccountSnapshot(_) => good(&|| {
            v1::AccountSnapshot {
                as_of_sequence: 7,
                balances: vec![balance()],
                open_trades: vec![trade(2)],
            }
            .encode_to_vec()
        }),
    };
    Reply {
        sequence,
        account_sequence: sequence,
        outcome: Some(outcome),
        ..Default::default()
    }
}

/// A gateway that runs.
pub struct Running {
    pub address: SocketAddr,
    pub engine: Played,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<Result<(), gateway::GatewayError>>,
}

/// Starts one without stores: history cannot be read, and no quotes come.
pub async fn start() -> Running {
    start_with(nowhere(), |_| {}).await
}

/// A database that is not there.
pub fn nowhere() -> sqlx::PgPool {
    let options = PgPoolOptions::new().acquire_timeout(Duration::from_millis(200));
    options.connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap()
}

/// Starts one with this database and changed settings.
pub async fn start_with(database: sqlx::PgPool, change: impl FnOnce(&mut Config)) -> Running {
    let keys = vec![TokenKey {
        id: Some("k1".into()),
        public_pem: PUBLIC.into(),
    }];
    let tokens = TokenConfig {
        keys,
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
    };
    let redis = bus::Redis::open("redis://127.0.0.1:1").unwrap();
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), redis, database, tokens);
    config.cors_origins = vec![ORIGIN.into()];
    change(&mut config);
    let engine = Played::default();
    let gateway = Gateway::bind_with(config, SHARDS, engine.clone()).await.unwrap();
    let (address, shutdown) = (gateway.local_addr(), CancellationToken::new());
    let served = tokio::spawn(gateway.serve(shutdown.clone()));
    Running {
        address,
        engine,
        shutdown,
        served,
    }
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a good token.
pub fn claims(accounts: &[&str], scope: &str) -> Claims {
    Claims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: "alice".into(),
        exp: now_s() + 300,
        nbf: now_s() - 1,
        accounts: accounts.iter().map(|&it| it.into()).collect(),
        scope: scope.into(),
    }
}

pub fn signed(claims: &Claims) -> String {
    token::sign(claims, Some("k1"), PRIVATE.as_bytes()).unwrap()
}

/// A token for everything on these accounts.
pub fn token(accounts: &[&str]) -> String {
    signed(&claims(accounts, "view trade fund"))
}

/// The doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Grpc,
    WebBinary,
    WebText,
    Rest,
}

pub const DOORS: [Door; 4] = [Door::Grpc, Door::WebBinary, Door::WebText, Door::Rest];

/// One call, in the words of both kinds of doors.
#[derive(Clone, Debug)]
pub struct Case {
    pub method: &'static str,
    pub verb: &'static str,
    pub path: String,
    /// REST body; null for none.
    pub body: Value,
    /// The whole request message.
    pub message: Value,
}

/// A GET: the message is what path and query say.
pub fn get(method: &'static str, path: &str, message: Value) -> Case {
    Case {
        method,
        verb: "GET",
        path: path.into(),
        body: Value::Null,
        message,
    }
}

/// A POST: the body is the message, but for what the path says.
pub fn post(method: &'static str, path: &str, in_path: &[&str], message: Value) -> Case {
    let mut body = message.clone();
    for field in in_path {
        body.as_object_mut().unwrap().remove(*field);
    }
    Case {
        method,
        verb: "POST",
        path: path.into(),
        body,
        message,
    }
}

/// What came back: the response as JSON, or the whole status as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub code: i32,
    pub json: Value,
}

impl Outcome {
    /// The `ErrorInfo.reason`.
    pub fn reason(&self) -> &str {
        let info = self.detail("ErrorInfo");
        info.and_then(|it| it["reason"].as_str()).unwrap_or_default()
    }

    pub fn detail(&self, name: &str) -> Option<&Value> {
        let all = self.json["details"].as_array()?;
        all.iter()
            .find(|it| it["@type"].as_str().is_some_and(|it| it.ends_with(name)))
    }
}

/// An answer of the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

pub fn pool() -> DescriptorPool {
    static POOL: std::sync::LazyLock<DescriptorPool> =
        std::sync::LazyLock::new(|| DescriptorPool::decode(contracts::DESCRIPTOR_SET).unwrap());
    POOL.clone()
}

fn method(name: &str) -> prost_reflect::MethodDescriptor {
    let (service, name) = name.split_once('/').unwrap();
    let service = pool().get_service_by_name(&format!("fulcrum.v1.{service}")).unwrap();
    service.methods().find(|it| it.name() == name).unwrap()
}

/// The request message, framed for gRPC.
pub fn framed(name: &str, message: &Value) -> Bytes {
    let dynamic = DynamicMessage::deserialize(method(name).input(), message.clone()).unwrap();
    frame(&dynamic.encode_to_vec())
}

pub fn frame(payload: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(payload.len().try_into().unwrap());
    framed.put_slice(payload);
    framed.freeze()
}

/// As REST writes it: responses with their defaults, errors without.
fn to_json(message: &DynamicMessage, with_defaults: bool) -> Value {
    let options = SerializeOptions::new().skip_default_fields(!with_defaults);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap()
}

/// Sends one request by hand.
pub async fn send(address: SocketAddr, http2: bool, request: http::Request<Bytes>) -> Answer {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let request = request.map(Full::new);
    let response = if http2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
        trailers,
    }
}

/// Makes a call through a door.
pub async fn call(address: SocketAddr, door: Door, case: &Case, headers: &[(&str, &str)]) -> (Answer, Outcome) {
    let (media_type, payload) = match door {
        Door::Grpc => ("application/grpc", framed(case.method, &case.message)),
        Door::WebBinary => ("application/grpc-web+proto", framed(case.method, &case.message)),
        Door::WebText => {
            let text = BASE64_STANDARD.encode(framed(case.method, &case.message));
            ("application/grpc-web-text+proto", Bytes::from(text))
        }
        Door::Rest if case.body.is_null() => ("application/json", Bytes::new()),
        Door::Rest => ("application/json", Bytes::from(case.body.to_string())),
    };
    raw(address, door, case, media_type, payload, headers).await
}

/// The same with a body of one's own.
pub async fn raw(
    address: SocketAddr,
    door: Door,
    case: &Case,
    media_type: &str,
    payload: Bytes,
    headers: &[(&str, &str)],
) -> (Answer, Outcome) {
    let (verb, path) = match door {
        Door::Rest => (case.verb, case.path.clone()),
        _ => ("POST", format!("/fulcrum.v1.{}", case.method)),
    };
    let uri = format!("http://{address}{path}");
    let mut request = http::Request::builder()
        .method(verb)
        .uri(uri)
        .header("content-type", media_type);
    request = request.header("host", address.to_string()).header("te", "trailers");
    if door == Door::WebText {
        request = request.header("accept", "application/grpc-web-text+proto");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = send(address, door == Door::Grpc, request.body(payload).unwrap()).await;
    let outcome = outcome(door, case.method, &answer);
    (answer, outcome)
}

fn outcome(door: Door, name: &str, answer: &Answer) -> Outcome {
    if door == Door::Rest {
        let json: Value = serde_json::from_slice(&answer.body).expect("JSON, whatever happens");
        let code = if answer.status == StatusCode::OK {
            0
        } else {
            json["code"].as_i64().unwrap().try_into().unwrap()
        };
        return Outcome { code, json };
    }
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let (message, mut trailers) = match door {
        Door::Grpc => (
            frames(&answer.body).into_iter().next().map(|(_, data)| data),
            answer.trailers.clone(),
        ),
        Door::WebText => web(&untext(&answer.body)),
        _ => web(&answer.body),
    };
    if trailers.get("grpc-status").is_none() {
        trailers = answer.headers.clone();
    }
    let text = |name: &str| {
        trailers
            .get(name)
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let code = text("grpc-status").parse().expect("a status");
    if code == 0 {
        let descriptor = self::method(name).output();
        return Outcome {
            code,
            json: to_json(&DynamicMessage::decode(descriptor, message.unwrap()).unwrap(), true),
        };
    }
    let details = base64::engine::general_purpose::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let details = details.decode(text("grpc-status-details-bin")).unwrap();
    let descriptor = pool().get_message_by_name("google.rpc.Status").unwrap();
    Outcome {
        code,
        json: to_json(&DynamicMessage::decode(descriptor, details.as_slice()).unwrap(), false),
    }
}

/// Splits length-prefixed frames into flag and payload.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Bytes)> {
    let mut all = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        all.push((bytes[0], Bytes::copy_from_slice(&bytes[5..5 + length])));
        bytes = &bytes[5 + length..];
    }
    all
}

fn web(body: &[u8]) -> (Option<Bytes>, HeaderMap) {
    let (mut message, mut trailers) = (None, HeaderMap::new());
    for (flag, data) in frames(body) {
        if flag & 0x80 == 0 {
            message = Some(data);
            continue;
        }
        for line in std::str::from_utf8(&data).unwrap().lines() {
            let (name, value) = line.split_once(':').unwrap();
            let name: http::HeaderName = name.parse().unwrap();
            trailers.insert(name, value.trim().parse().unwrap());
        }
    }
    (message, trailers)
}

/// Base64 that was written piece by piece: padding may stand anywhere.
fn untext(body: &[u8]) -> Vec<u8> {
    body.chunks(4)
        .flat_map(|group| BASE64_STANDARD.decode(group).unwrap())
        .collect()
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What a stream brought until it ended.
#[derive(Debug)]
pub struct Streamed {
    pub messages: Vec<v1::StreamAccountEventsResponse>,
    pub code: i32,
    pub reason: String,
    /// How long the headers took.
    pub headers_after: Duration,
}

/// Reads a stream of account events over gRPC to its end.
pub async fn call_stream(address: SocketAddr, case: &Case, headers: &[(&str, &str)]) -> Streamed {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{address}/fulcrum.v1.{}", case.method))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let begun = std::time::Instant::now();
    let request = request.body(Full::new(framed(case.method, &case.message))).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let headers_after = begun.elapsed();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or(parts.headers);
    let messages = frames(&body.to_bytes())
        .into_iter()
        .map(|(_, data)| v1::StreamAccountEventsResponse::decode(data).unwrap())
        .collect();
    let status = tonic::Status::from_header_map(&trailers).unwrap();
    let reason = tonic_types::StatusExt::get_details_error_info(&status)
        .map(|it| it.reason)
        .unwrap_or_default();
    Streamed {
        messages,
        code: status.code().into(),
        reason,
        headers_after,
    }
}
