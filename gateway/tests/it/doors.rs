//! gRPC, grpc-web (both encodings) and REST give the same answer to the same call, good or bad.

use serde_json::{Value, json};
use testkit::PrivatePostgres;

use crate::support::{Case, DOORS, Door, Running, bearer, call, get, post, start, start_with, token, trade};

const ID: &str = "01900000-0000-7000-8000-000000000001";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Every unary method with a request that is carried out.
fn good() -> Vec<Case> {
    let (one, two) = (trade(1).trade_id, trade(2).trade_id);
    let demo = || json!({"accountId": "demo"});
    let with = |more: Value| {
        let mut all = demo();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let account = &["accountId"][..];
    let both = &["accountId", "tradeId"][..];
    let money = json!({"requestId": ID, "amount": {"currencyCode": "USDC", "amount": "100.00"}});
    let open =
        json!({"requestId": ID, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100.00", "leverage": "10"});
    vec![
        post(
            "WalletService/InitializeWallet",
            "/v1/accounts/demo/wallet:initialize",
            account,
            with(json!({"requestId": ID})),
        ),
        post(
            "WalletService/Deposit",
            "/v1/accounts/demo/wallet:deposit",
            account,
            with(money.clone()),
        ),
        post(
            "WalletService/Withdraw",
            "/v1/accounts/demo/wallet:withdraw",
            account,
            with(money),
        ),
        get(
            "WalletService/ListTransactions",
            "/v1/accounts/demo/transactions?pageSize=2",
            with(json!({"pageSize": 2})),
        ),
        post(
            "TradeService/OpenTrade",
            "/v1/accounts/demo/trades",
            account,
            with(open),
        ),
        post(
            "TradeService/CloseTrade",
            &format!("/v1/accounts/demo/trades/{two}:close"),
            both,
            with(json!({"tradeId": two, "requestId": ID, "percent": "50"})),
        ),
        post(
            "TradeService/ModifyTrade",
            &format!("/v1/accounts/demo/trades/{two}:modify"),
            both,
            with(json!({"tradeId": two, "requestId": ID, "clearStopLoss": true})),
        ),
        get(
            "TradeService/GetTrade",
            &format!("/v1/accounts/demo/trades/{two}"),
            with(json!({"tradeId": two})),
        ),
        get(
            "TradeService/GetTrade",
            &format!("/v1/accounts/demo/trades/{one}"),
            with(json!({"tradeId": one})),
        ),
        get(
            "TradeService/ListTrades",
            "/v1/accounts/demo/trades?status=TRADE_STATUS_OPEN",
            with(json!({"status": 1})),
        ),
        get("TradeService/ListTrades", "/v1/accounts/demo/trades", demo()),
        get("BalanceService/ListBalances", "/v1/accounts/demo/balances", demo()),
        get(
            "BalanceService/ListBalances",
            "/v1/accounts/me/balances",
            json!({"accountId": "me"}),
        ),
        get(
            "BalanceService/GetBalance",
            "/v1/accounts/demo/balances/USDC",
            with(json!({"currencyCode": "USDC"})),
        ),
        get("BalanceService/GetAccountSummary", "/v1/accounts/demo/summary", demo()),
        get("MarketService/ListInstruments", "/v1/instruments", json!({})),
        get(
            "MarketService/GetInstrument",
            "/v1/instruments/SOL_USDC",
            json!({"symbol": "SOL_USDC"}),
        ),
        get(
            "MarketService/GetQuote",
            "/v1/quotes/SOL_USDC",
            json!({"symbol": "SOL_USDC"}),
        ),
        get(
            "MarketService/ListCandles",
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1M",
            json!({"symbol": "SOL_USDC", "interval": 2}),
        ),
        get(
            "OperationService/GetOperation",
            &format!("/v1/accounts/demo/operations/{ID}"),
            with(json!({"requestId": ID})),
        ),
    ]
}

/// Every unary method with a request that is refused, and the reason.
fn bad() -> Vec<(Case, i32, &'static str)> {
    let two = trade(2).trade_id;
    let account = &["accountId"][..];
    let both = &["accountId", "tradeId"][..];
    let (invalid, denied, missing) = (3, 7, 5);
    let money = json!({"accountId": "demo", "amount": {"currencyCode": "USDC", "amount": "1e2"}});
    let order = |account_id: &str| json!({"accountId": account_id, "requestId": ID, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100.00", "leverage": "10"});
    let none = "018fffff-0000-7000-8000-000000000001";
    vec![
        (
            post(
                "WalletService/InitializeWallet",
                "/v1/accounts/Demo/wallet:initialize",
                account,
                json!({"accountId": "Demo"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            post(
                "WalletService/Deposit",
                "/v1/accounts/demo/wallet:deposit",
                account,
                money.clone(),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            post(
                "WalletService/Withdraw",
                "/v1/accounts/demo/wallet:withdraw",
                account,
                money,
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            get(
                "WalletService/ListTransactions",
                "/v1/accounts/demo/transactions?pageToken=x",
                json!({"accountId": "demo", "pageToken": "x"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            post(
                "TradeService/OpenTrade",
                "/v1/accounts/demo/trades",
                account,
                json!({"accountId": "demo"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            post(
                "TradeService/OpenTrade",
                "/v1/accounts/other/trades",
                account,
                order("other"),
            ),
            denied,
            "NOT_ALLOWED",
        ),
        (
            post(
                "TradeService/OpenTrade",
                "/v1/accounts/poor/trades",
                account,
                order("poor"),
            ),
            9,
            "INSUFFICIENT_MARGIN",
        ),
        (
            post(
                "TradeService/OpenTrade",
                "/v1/accounts/away/trades",
                account,
                order("away"),
            ),
            14,
            "NOT_ACCEPTED",
        ),
        (
            post(
                "TradeService/OpenTrade",
                "/v1/accounts/stuck/trades",
                account,
                order("stuck"),
            ),
            4,
            "UNKNOWN_OUTCOME",
        ),
        (
            post(
                "TradeService/OpenTrade",
                "/v1/accounts/panics/trades",
                account,
                order("panics"),
            ),
            13,
            "INTERNAL",
        ),
        (
            post(
                "TradeService/CloseTrade",
                &format!("/v1/accounts/demo/trades/{two}:close"),
                both,
                json!({"accountId": "demo", "tradeId": two, "percent": "101"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            post(
                "TradeService/ModifyTrade",
                "/v1/accounts/demo/trades/3-9:modify",
                both,
                json!({"accountId": "demo", "tradeId": "3-9", "addMargin": "1"}),
            ),
            missing,
            "TRADE_NOT_FOUND",
        ),
        (
            get(
                "TradeService/GetTrade",
                "/v1/accounts/demo/trades/x",
                json!({"accountId": "demo", "tradeId": "x"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            get(
                "TradeService/ListTrades",
                "/v1/accounts/demo/trades?pageSize=-1",
                json!({"accountId": "demo", "pageSize": -1}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            get(
                "BalanceService/ListBalances",
                "/v1/accounts/stuck/balances",
                json!({"accountId": "stuck"}),
            ),
            4,
            "EXPIRED",
        ),
        (
            get(
                "BalanceService/GetBalance",
                "/v1/accounts/demo/balances/DOGE",
                json!({"accountId": "demo", "currencyCode": "DOGE"}),
            ),
            missing,
            "CURRENCY_UNKNOWN",
        ),
        (
            get(
                "BalanceService/GetAccountSummary",
                "/v1/accounts/demo/summary?minSequence=18446744073709551615",
                json!({"accountId": "demo", "minSequence": "18446744073709551615"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            get(
                "MarketService/GetInstrument",
                "/v1/instruments/NO",
                json!({"symbol": "NO"}),
            ),
            missing,
            "SYMBOL_UNKNOWN",
        ),
        (
            get("MarketService/GetQuote", "/v1/quotes/NO", json!({"symbol": "NO"})),
            missing,
            "SYMBOL_UNKNOWN",
        ),
        (
            get(
                "MarketService/ListCandles",
                "/v1/candles/SOL_USDC",
                json!({"symbol": "SOL_USDC"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            get(
                "OperationService/GetOperation",
                "/v1/accounts/demo/operations/x",
                json!({"accountId": "demo", "requestId": "x"}),
            ),
            invalid,
            "INVALID_FIELD",
        ),
        (
            get(
                "OperationService/GetOperation",
                &format!("/v1/accounts/demo/operations/{none}"),
                json!({"accountId": "demo", "requestId": none}),
            ),
            missing,
            "OPERATION_NOT_FOUND",
        ),
    ]
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
    for case in good() {
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
    for (case, code, reason) in bad() {
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
