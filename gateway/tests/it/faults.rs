//! Faults that systems of this kind were seen to have, each as a story that must end well here.

use std::time::{Duration, Instant};

use bytes::Bytes;
use contracts::bus::request::Command;
use serde_json::json;

use crate::support::{Case, DOORS, Door, bearer, call, claims, get, post, raw, send, signed, start, token};

fn order(account_id: &str, more: serde_json::Value) -> Case {
    let mut message = json!({"accountId": account_id, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100.00", "leverage": "10"});
    message
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    post(
        "TradeService/OpenTrade",
        &format!("/v1/accounts/{account_id}/trades"),
        &["accountId"],
        message,
    )
}

fn balances(account_id: &str) -> Case {
    let path = format!("/v1/accounts/{account_id}/balances");
    get("BalanceService/ListBalances", &path, json!({"accountId": account_id}))
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_01_a_stuck_engine_is_answered_in_time_and_its_orders_expire() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck"]));
    let begun = Instant::now();
    let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "300m")];
    let case = order("stuck", json!({}));
    let calls = (0..20).map(|_| call(gateway.address, Door::Grpc, &case, &headers));
    for (_, outcome) in futures::future::join_all(calls).await {
        assert_eq!(outcome.reason(), "UNKNOWN_OUTCOME");
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(
        gateway
            .engine
            .of("stuck")
            .iter()
            .all(|request| request.expires_at_us > 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_one_stuck_call_does_not_delay_another() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck", "demo"]));
    let address = gateway.address;
    let slow = {
        let authorization = authorization.clone();
        tokio::spawn(async move {
            let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "3S")];
            call(address, Door::Grpc, &balances("stuck"), &headers).await
        })
    };
    while gateway.engine.of("stuck").is_empty() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    for door in DOORS {
        let (_, outcome) = call(address, door, &balances("demo"), &[("authorization", &authorization)]).await;
        assert_eq!(outcome.code, 0, "{door:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(!slow.is_finished());
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_06_a_timeout_never_claims_that_nothing_happened() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck"]));
    for door in DOORS {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "200m")];
        let (_, outcome) = call(gateway.address, door, &order("stuck", json!({})), &headers).await;
        assert_eq!((outcome.code, outcome.reason()), (4, "UNKNOWN_OUTCOME"), "{door:?}");
        assert!(
            outcome.json["message"]
                .as_str()
                .unwrap()
                .contains("may have been executed")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_06_an_order_whose_client_hangs_up_is_seen_to_its_end() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck"]));
    let address = gateway.address;
    let client = tokio::spawn(async move {
        call(
            address,
            Door::Rest,
            &order("stuck", json!({})),
            &[("authorization", &authorization)],
        )
        .await
    });
    while gateway.engine.of("stuck").is_empty() {
        tokio::task::yield_now().await;
    }
    client.abort();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // It went out once, whole, with its id: a repeat or GetOperation finds it.
    let sent = gateway.engine.of("stuck");
    assert_eq!((sent.len(), sent[0].request_id.len()), (1, 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_07_a_client_cannot_choose_the_trades_id() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    for field in ["tradeId", "orderId", "trade_id"] {
        let body = json!({"symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "1", "leverage": "1", field: "0-1"});
        let case = Case {
            body,
            ..order("demo", json!({}))
        };
        let (answer, outcome) = call(gateway.address, Door::Rest, &case, &[("authorization", &authorization)]).await;
        assert_eq!((answer.status.as_u16(), outcome.code), (400, 3), "{field}");
    }
    assert!(gateway.engine.of("demo").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_09_and_10_a_number_is_canonical_text_or_refused_by_name() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    for leverage in [
        "1e1",
        "10.",
        "+10",
        "010",
        "0x0a",
        "NaN",
        "-10",
        "0",
        " 10",
        "10x",
        "1234567890123456789",
    ] {
        for door in DOORS {
            let (_, outcome) = call(
                gateway.address,
                door,
                &order("demo", json!({"leverage": leverage})),
                &headers,
            )
            .await;
            assert_eq!(
                (outcome.code, outcome.reason()),
                (3, "INVALID_FIELD"),
                "{leverage} through {door:?}"
            );
            let fields = &outcome.detail("BadRequest").unwrap()["fieldViolations"];
            assert_eq!(fields[0]["field"], "leverage", "{leverage} through {door:?}");
        }
    }
    // A JSON number would have been through a float.
    let case = Case {
        body: json!({"symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": 1.15, "leverage": "10"}),
        ..order("demo", json!({}))
    };
    let (answer, _) = call(gateway.address, Door::Rest, &case, &headers).await;
    assert_eq!(answer.status.as_u16(), 400);
    let (_, outcome) = call(
        gateway.address,
        Door::Rest,
        &order("demo", json!({"margin": "1.15"})),
        &headers,
    )
    .await;
    assert_eq!(outcome.code, 0);
    let sent = gateway.engine.of("demo");
    let Some(Command::OpenTrade(sent)) = &sent[0].command else {
        panic!("an order")
    };
    assert_eq!(
        sent.size,
        Some(contracts::v1::open_trade_request::Size::Margin("1.15".into())),
        "to the digit"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_16_the_body_cannot_name_another_account_or_reply_list() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    let good = json!({"symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100.00", "leverage": "10"});
    for (field, value) in [
        ("accountId", json!("victim")),
        ("account_id", json!("victim")),
        ("principal", json!("victim")),
        ("email", json!("victim@example.com")),
        ("event", json!("CLOSE_TRADE")),
        ("currentPrice", json!(1)),
        ("responseChannel", json!("any-redis-key")),
        ("replyTo", json!("replies:mine")),
        ("reply_to", json!("{s0}:requests")),
        ("correlationId", json!("AAAA")),
        ("shard", json!(1)),
        ("sequence", json!("1")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let case = Case {
            body,
            ..order("demo", json!({}))
        };
        let (answer, _) = call(gateway.address, Door::Rest, &case, &headers).await;
        assert_eq!(answer.status.as_u16(), 400, "{field}");
    }
    // The same in protobuf: fields that the message does not have are nothing.
    let mut payload = crate::support::framed("TradeService/OpenTrade", &order("demo", json!({})).message).to_vec();
    let smuggled = [&[0x8a, 0x7d, 6][..], b"victim"].concat();
    payload.extend(&smuggled);
    let length = u32::try_from(payload.len() - 5).unwrap();
    payload[1..5].copy_from_slice(&length.to_be_bytes());
    let (_, outcome) = raw(
        gateway.address,
        Door::Grpc,
        &order("demo", json!({})),
        "application/grpc",
        Bytes::from(payload),
        &headers,
    )
    .await;
    assert_eq!(outcome.code, 0);

    assert!(gateway.engine.of("victim").is_empty());
    let sent = gateway.engine.of("demo");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].principal, "alice");
    assert_eq!(sent[0].shard, crate::support::shard("demo"));
    assert!(
        sent[0].reply_to.is_empty() && sent[0].correlation_id.is_empty(),
        "the bus fills these in"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_16_metadata_cannot_name_another_principal() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [
        ("authorization", authorization.as_str()),
        ("x-principal", "victim"),
        ("x-account-id", "victim"),
        ("grpc-metadata-principal", "victim"),
    ];
    for door in DOORS {
        call(gateway.address, door, &balances("demo"), &headers).await;
    }
    assert!(
        gateway
            .engine
            .of("demo")
            .iter()
            .all(|request| request.principal == "alice")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_17_a_token_for_something_else_is_no_session() {
    let gateway = start().await;
    // In a cookie, in the query, or in the body: a token counts in one place alone.
    let token = token(&["demo"]);
    let request = http::Request::get(format!("http://{}/v1/accounts/demo/balances", gateway.address))
        .header("host", "x")
        .header("cookie", format!("authToken={token}"));
    let answer = send(gateway.address, false, request.body(Bytes::new()).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 401);
    let path = format!("/v1/accounts/demo/balances?access_token={token}");
    let (answer, _) = call(gateway.address, Door::Rest, &get("x/y", &path, json!({})), &[]).await;
    assert!(matches!(answer.status.as_u16(), 400 | 401));
    assert!(gateway.engine.of("demo").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_18_an_error_tells_nothing_of_our_insides_and_a_panic_ends_one_call() {
    let gateway = start().await;
    let authorization = bearer(&token(&["panics", "demo"]));
    let headers = [("authorization", authorization.as_str())];
    for door in DOORS {
        let (_, outcome) = call(gateway.address, door, &balances("panics"), &headers).await;
        assert_eq!((outcome.code, outcome.reason()), (13, "INTERNAL"), "{door:?}");
        let text = outcome.json.to_string();
        assert!(
            !text.contains("played") && !text.contains(".rs") && !text.contains("panic"),
            "{text}"
        );
        let (_, outcome) = call(gateway.address, door, &balances("demo"), &headers).await;
        assert_eq!(outcome.code, 0, "{door:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_engine_keeps_its_status_reason_and_facts() {
    // Elsewhere every refusal came out as "500 Trade failed".
    let gateway = start().await;
    let authorization = bearer(&token(&["poor"]));
    for door in DOORS {
        let (answer, outcome) = call(
            gateway.address,
            door,
            &order("poor", json!({})),
            &[("authorization", &authorization)],
        )
        .await;
        assert_eq!((outcome.code, outcome.reason()), (9, "INSUFFICIENT_MARGIN"), "{door:?}");
        assert_eq!(outcome.detail("ErrorInfo").unwrap()["metadata"]["free"], "50.00");
        assert!(outcome.detail("PreconditionFailure").is_some());
        if door == Door::Rest {
            assert_eq!(answer.status.as_u16(), 400);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_by_somebody_else_is_somebody_elses() {
    let gateway = start().await;
    let id = uuid::Uuid::now_v7().to_string();
    for principal in ["alice", "bob"] {
        let mut claims = claims(&["demo"], "trade");
        claims.sub = principal.into();
        let authorization = bearer(&signed(&claims));
        let case = order("demo", json!({"requestId": id}));
        call(gateway.address, Door::Grpc, &case, &[("authorization", &authorization)]).await;
    }
    let principals: Vec<String> = gateway
        .engine
        .of("demo")
        .into_iter()
        .map(|request| request.principal)
        .collect();
    assert_eq!(
        principals,
        ["alice", "bob"],
        "the engine tells them apart by the token's subject"
    );
}
