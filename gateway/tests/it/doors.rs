//! gRPC, grpc-web (both encodings) and REST give the same answer to the same call, good or bad.

use std::collections::BTreeSet;

use serde_json::Value;
use testkit::PrivatePostgres;

use crate::support::{Case, DOORS, Door, Running, bearer, call, get, post, start, start_with, token, trade};

const ID: &str = "01900000-0000-7000-8000-000000000001";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Every unary method with requests that are carried out: method, verb, address by REST, the whole message. ID, ONE and TWO stand for an
/// operation, a closed trade and an open one.
const GOOD: &str = r#"
WalletService/InitializeWallet    POST /v1/accounts/demo/wallet:initialize  {"accountId": "demo", "requestId": "ID"}
WalletService/Deposit             POST /v1/accounts/demo/wallet:deposit     {"accountId": "demo", "requestId": "ID", "amount": {"currencyCode": "USDC", "amount": "100.00"}}
WalletService/Withdraw            POST /v1/accounts/demo/wallet:withdraw    {"accountId": "demo", "requestId": "ID", "amount": {"currencyCode": "USDC", "amount": "100.00"}}
WalletService/ListTransactions    GET  /v1/accounts/demo/transactions?pageSize=2  {"accountId": "demo", "pageSize": 2}
WalletService/ListTransactions    GET  /v1/accounts/demo/transactions?orderBy=sequence%20desc  {"accountId": "demo", "orderBy": "sequence desc"}
TradeService/OpenTrade            POST /v1/accounts/demo/trades             {"accountId": "demo", "requestId": "ID", "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100.00", "leverage": "10"}
TradeService/CloseTrade           POST /v1/accounts/demo/trades/TWO:close   {"accountId": "demo", "tradeId": "TWO", "requestId": "ID", "percent": "50"}
TradeService/ModifyTrade          POST /v1/accounts/demo/trades/TWO:modify  {"accountId": "demo", "tradeId": "TWO", "requestId": "ID", "clearStopLoss": true}
TradeService/GetTrade             GET  /v1/accounts/demo/trades/TWO         {"accountId": "demo", "tradeId": "TWO"}
TradeService/GetTrade             GET  /v1/accounts/demo/trades/ONE         {"accountId": "demo", "tradeId": "ONE"}
TradeService/ListTrades           GET  /v1/accounts/demo/trades?status=TRADE_STATUS_OPEN  {"accountId": "demo", "status": 1}
TradeService/ListTrades           GET  /v1/accounts/demo/trades?order_by=close_time+desc  {"accountId": "demo", "orderBy": "close_time desc"}
TradeService/ListTrades           GET  /v1/accounts/demo/trades             {"accountId": "demo"}
BalanceService/ListBalances       GET  /v1/accounts/demo/balances           {"accountId": "demo"}
BalanceService/ListBalances       GET  /v1/accounts/me/balances             {"accountId": "me"}
BalanceService/GetBalance         GET  /v1/accounts/demo/balances/USDC      {"accountId": "demo", "currencyCode": "USDC"}
BalanceService/GetAccountSummary  GET  /v1/accounts/demo/summary            {"accountId": "demo"}
MarketService/ListInstruments     GET  /v1/instruments                      {}
MarketService/GetInstrument       GET  /v1/instruments/SOL_USDC             {"symbol": "SOL_USDC"}
MarketService/GetQuote            GET  /v1/quotes/SOL_USDC                  {"symbol": "SOL_USDC"}
MarketService/ListCandles         GET  /v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1M  {"symbol": "SOL_USDC", "interval": 2}
OperationService/GetOperation     GET  /v1/accounts/demo/operations/ID      {"accountId": "demo", "requestId": "ID"}
"#;

/// Every unary method with requests that are refused: the code and the reason come first. NEVER stands for an operation that was none.
const BAD: &str = r#"
 3 INVALID_FIELD       WalletService/InitializeWallet    POST /v1/accounts/Demo/wallet:initialize  {"accountId": "Demo"}
 3 INVALID_FIELD       WalletService/Deposit             POST /v1/accounts/demo/wallet:deposit     {"accountId": "demo", "amount": {"currencyCode": "USDC", "amount": "1e2"}}
 3 INVALID_FIELD       WalletService/Withdraw            POST /v1/accounts/demo/wallet:withdraw    {"accountId": "demo", "amount": {"currencyCode": "USDC", "amount": "1e2"}}
 3 INVALID_FIELD       WalletService/ListTransactions    GET  /v1/accounts/demo/transactions?pageToken=x  {"accountId": "demo", "pageToken": "x"}
 3 INVALID_FIELD       WalletService/ListTransactions    GET  /v1/accounts/demo/transactions?orderBy=x    {"accountId": "demo", "orderBy": "x"}
 3 INVALID_FIELD       TradeService/OpenTrade            POST /v1/accounts/demo/trades             {"accountId": "demo"}
 7 NOT_ALLOWED         TradeService/OpenTrade            POST /v1/accounts/other/trades            {"accountId": "other", ORDER}
 9 INSUFFICIENT_MARGIN TradeService/OpenTrade            POST /v1/accounts/poor/trades             {"accountId": "poor", ORDER}
14 NOT_ACCEPTED        TradeService/OpenTrade            POST /v1/accounts/away/trades             {"accountId": "away", ORDER}
 4 UNKNOWN_OUTCOME     TradeService/OpenTrade            POST /v1/accounts/stuck/trades            {"accountId": "stuck", ORDER}
13 INTERNAL            TradeService/OpenTrade            POST /v1/accounts/panics/trades           {"accountId": "panics", ORDER}
 3 INVALID_FIELD       TradeService/CloseTrade           POST /v1/accounts/demo/trades/TWO:close   {"accountId": "demo", "tradeId": "TWO", "percent": "101"}
 5 TRADE_NOT_FOUND     TradeService/ModifyTrade          POST /v1/accounts/demo/trades/3-9:modify  {"accountId": "demo", "tradeId": "3-9", "addMargin": "1"}
 3 INVALID_FIELD       TradeService/GetTrade             GET  /v1/accounts/demo/trades/x           {"accountId": "demo", "tradeId": "x"}
 3 INVALID_FIELD       TradeService/ListTrades           GET  /v1/accounts/demo/trades?pageSize=-1 {"accountId": "demo", "pageSize": -1}
 3 INVALID_FIELD       TradeService/ListTrades           GET  /v1/accounts/demo/trades?orderBy=x   {"accountId": "demo", "orderBy": "x"}
 4 EXPIRED             BalanceService/ListBalances       GET  /v1/accounts/stuck/balances          {"accountId": "stuck"}
 5 CURRENCY_UNKNOWN    BalanceService/GetBalance         GET  /v1/accounts/demo/balances/DOGE      {"accountId": "demo", "currencyCode": "DOGE"}
 3 INVALID_FIELD       BalanceService/GetAccountSummary  GET  /v1/accounts/demo/summary?minSequence=18446744073709551615  {"accountId": "demo", "minSequence": "18446744073709551615"}
 5 SYMBOL_UNKNOWN      MarketService/GetInstrument       GET  /v1/instruments/NO                   {"symbol": "NO"}
 5 SYMBOL_UNKNOWN      MarketService/GetQuote            GET  /v1/quotes/NO                        {"symbol": "NO"}
 3 INVALID_FIELD       MarketService/ListCandles         GET  /v1/candles/SOL_USDC                 {"symbol": "SOL_USDC"}
 3 INVALID_FIELD       OperationService/GetOperation     GET  /v1/accounts/demo/operations/x       {"accountId": "demo", "requestId": "x"}
 5 OPERATION_NOT_FOUND OperationService/GetOperation     GET  /v1/accounts/demo/operations/NEVER   {"accountId": "demo", "requestId": "NEVER"}
"#;

/// A line of a table, with what its words stand for.
fn filled(line: &'static str) -> String {
    let order = r#""requestId": "ID", "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100.00", "leverage": "10""#;
    line.replace("ORDER", order)
        .replace("\"ID\"", &format!("{ID:?}"))
        .replace("/ID", &format!("/{ID}"))
        .replace("NEVER", "018fffff-0000-7000-8000-000000000001")
        .replace("ONE", &trade(1).trade_id)
        .replace("TWO", &trade(2).trade_id)
}

fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.is_empty())
}

/// The next word of a line, and what follows it.
fn word(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    line.split_once(' ')
        .map_or((line, ""), |(word, rest)| (word, rest.trim_start()))
}

/// A call from a line.
fn case(line: &str) -> Case {
    let ((method, rest), message) = (word(line), line[line.find('{').expect("a message")..].to_owned());
    let (verb, rest) = word(rest);
    let (path, _) = word(rest);
    let method: &'static str = method.to_owned().leak();
    let message: Value = serde_json::from_str(&message).unwrap();
    match verb {
        "GET" => get(method, path, message),
        _ => {
            let in_path = ["accountId", "tradeId"]
                .into_iter()
                .filter(|field| !message[field].is_null());
            post(method, path, &in_path.collect::<Vec<_>>(), message)
        }
    }
}

/// Every unary method of the contract.
fn unary() -> BTreeSet<String> {
    let pool = crate::support::pool();
    let services = pool.services().filter(|it| it.package_name() == "fulcrum.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let unary = methods.filter(|method| !method.is_server_streaming());
    unary
        .map(|it| format!("{}/{}", it.parent_service().name(), it.name()))
        .collect()
}

/// What is asked of the house and of one's limits has tests of its own: it is for operators, or another each time.
const ELSEWHERE: [&str; 3] = [
    "HouseService/GetConservation",
    "HouseService/GetExposure",
    "UsageService/GetUsage",
];

#[test]
fn the_tables_leave_out_no_method() {
    let elsewhere = || ELSEWHERE.iter().map(|it| (*it).to_owned());
    let good = lines(GOOD).map(|line| word(line).0.to_owned()).chain(elsewhere());
    assert_eq!(good.collect::<BTreeSet<_>>(), unary());
    let bad = lines(BAD)
        .map(|line| word(word(word(line).1).1).0.to_owned())
        .chain(elsewhere());
    let no_way_to_be_wrong = "MarketService/ListInstruments".to_owned();
    assert_eq!(bad.chain([no_way_to_be_wrong]).collect::<BTreeSet<_>>(), unary());
}

/// One outcome through all doors, with the ids that stand in errors.
async fn same(gateway: &Running, token: &str, case: &Case) -> crate::support::Outcome {
    let authorization = bearer(token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("x-request-id", "the-same-for-all"),
        ("traceparent", TRACE),
        ("grpc-timeout", "700m"),
    ];
    let mut first = None;
    for door in DOORS {
        let (answer, outcome) = call(gateway.address, door, case, &headers).await;
        assert_eq!(answer.headers["x-request-id"], "the-same-for-all", "{door:?} {case:?}");
        let first = first.get_or_insert_with(|| outcome.clone());
        assert_eq!(&outcome, first, "{door:?} differs from {:?} for {case:?}", Door::Grpc);
    }
    first.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_gives_the_same_answer_through_every_door() {
    let postgres = PrivatePostgres::migrated().await;
    crate::history::fill(&postgres.pool()).await;
    let gateway = start_with(postgres.pool(), |_| {}).await;
    let token = token(&["demo"]);
    for line in lines(GOOD) {
        let case = case(&filled(line));
        let outcome = same(&gateway, &token, &case).await;
        assert_eq!(outcome.code, 0, "{case:?}: {}", outcome.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_the_same_through_every_door() {
    let postgres = PrivatePostgres::migrated().await;
    crate::history::fill(&postgres.pool()).await;
    let gateway = start_with(postgres.pool(), |_| {}).await;
    let token = token(&["demo", "poor", "away", "stuck", "panics", "Demo"]);
    for line in lines(BAD) {
        let line = filled(line);
        let (code, rest) = word(&line);
        let (reason, call) = word(rest);
        let (code, case) = (code.parse::<i32>().unwrap(), case(call));
        let outcome = same(&gateway, &token, &case).await;
        assert_eq!(
            (outcome.code, outcome.reason()),
            (code, reason),
            "{case:?}: {}",
            outcome.json
        );
        let info = outcome
            .detail("RequestInfo")
            .unwrap_or_else(|| panic!("{}", outcome.json));
        assert_eq!(info["requestId"], "the-same-for-all");
        assert_eq!(info["servingData"], "trace 0af7651916cd43dd8448eb211c80319c");
        if code == 3 {
            assert!(outcome.detail("BadRequest").is_some(), "{}", outcome.json);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_trades_and_reads_typed_errors() {
    use contracts::v1::trade_service_client::TradeServiceClient;
    use contracts::v1::{OpenTradeRequest, Side, open_trade_request::Size};
    use tonic_types::StatusExt as _;

    let gateway = start().await;
    let channel = tonic::transport::Endpoint::new(format!("http://{}", gateway.address))
        .unwrap()
        .connect_lazy();
    for compression in [
        tonic::codec::CompressionEncoding::Gzip,
        tonic::codec::CompressionEncoding::Zstd,
    ] {
        let mut client = TradeServiceClient::new(channel.clone())
            .send_compressed(compression)
            .accept_compressed(compression);
        let mut request = tonic::Request::new(OpenTradeRequest {
            account_id: "demo".into(),
            symbol: "SOL_USDC".into(),
            side: Side::Long.into(),
            size: Some(Size::Margin("100.00".into())),
            leverage: "10".into(),
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("authorization", bearer(&token(&["demo"])).parse().unwrap());
        let response = client.open_trade(request).await.unwrap();
        let encoding = response
            .metadata()
            .get("grpc-encoding")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(encoding, format!("{compression}"));
        assert_eq!(response.into_inner().trade, Some(trade(2)));

        let status = client.open_trade(OpenTradeRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert_eq!(status.get_details_error_info().unwrap().reason, "TOKEN_INVALID");
    }
}
