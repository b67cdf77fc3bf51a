//! What surrounds a call: deadlines, limits, sizes, CORS, health, reflection, drain.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::support::{
    Case, DOORS, Door, ORIGIN, Running, bearer, call, frame, get, nowhere, post, raw, send, start, start_with, token,
};

fn balances(account_id: &str) -> Case {
    let path = format!("/v1/accounts/{account_id}/balances");
    get("BalanceService/ListBalances", &path, json!({"accountId": account_id}))
}

fn order(account_id: &str) -> Case {
    let message =
        json!({"accountId": account_id, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "1", "leverage": "1"});
    post(
        "TradeService/OpenTrade",
        &format!("/v1/accounts/{account_id}/trades"),
        &["accountId"],
        message,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_and_an_order_past_it_names_its_id() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck"]));
    for door in DOORS {
        let begun = Instant::now();
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "300m")];
        let (_, outcome) = call(gateway.address, door, &order("stuck"), &headers).await;
        let took = begun.elapsed();
        assert_eq!((outcome.code, outcome.reason()), (4, "UNKNOWN_OUTCOME"), "{door:?}");
        assert!(took < Duration::from_millis(1_500), "{door:?} {took:?}");
        // The client made no id: without this one it could not ask again.
        let id = outcome.detail("ErrorInfo").unwrap()["metadata"]["request_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let sent = gateway.engine.of("stuck").pop().unwrap();
        assert_eq!(
            uuid::Uuid::try_parse(&id).unwrap().as_bytes().as_slice(),
            sent.request_id.as_ref()
        );
        // The engine will not execute it after that.
        let now_us = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
        assert!(sent.expires_at_us < now_us, "{door:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_deadline_there_is_a_default() {
    let gateway = start_with(nowhere(), |config| {
        config.deadlines.default = Duration::from_millis(200)
    })
    .await;
    let authorization = bearer(&token(&["stuck"]));
    for door in DOORS {
        let (_, outcome) = call(
            gateway.address,
            door,
            &balances("stuck"),
            &[("authorization", &authorization)],
        )
        .await;
        assert_eq!((outcome.code, outcome.reason()), (4, "EXPIRED"), "{door:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_is_none_is_refused_and_none_at_all_sends_nothing() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let case = balances("demo");
    for door in [Door::Grpc, Door::WebBinary, Door::WebText] {
        for (timeout, code) in [("123456789S", 3), ("soon", 3), ("-1S", 3), ("0m", 4), ("1n", 4)] {
            let headers = [("authorization", authorization.as_str()), ("grpc-timeout", timeout)];
            let (_, outcome) = call(gateway.address, door, &case, &headers).await;
            assert_eq!(outcome.code, code, "{timeout} through {door:?}");
        }
    }
    let (answer, _) = call(
        gateway.address,
        Door::Rest,
        &case,
        &[("authorization", &authorization), ("x-request-timeout", "soon")],
    )
    .await;
    assert_eq!(answer.status.as_u16(), 400);
    assert!(gateway.engine.of("demo").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_too_many_wait_a_call_is_turned_away_before_its_token_is_looked_at() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    gateway.engine.full.store(true, Ordering::Relaxed);
    for door in DOORS {
        for case in [order("demo"), balances("demo")] {
            for headers in [&[("authorization", authorization.as_str())][..], &[]] {
                let (answer, outcome) = call(gateway.address, door, &case, headers).await;
                assert_eq!((outcome.code, outcome.reason()), (14, "NOT_ACCEPTED"), "{door:?}");
                assert_eq!(outcome.detail("RetryInfo").unwrap()["retryDelay"], "0.500s");
                let named = &outcome.detail("RequestInfo").unwrap()["requestId"];
                assert_eq!(answer.headers["x-request-id"], named.as_str().unwrap(), "{door:?}");
                // No limit was touched either; but REST's, whose requests are read first and counted for that.
                let limited = answer.headers.contains_key("ratelimit-limit");
                assert_eq!(limited, door == Door::Rest, "{door:?}");
            }
        }
        let usage = get("UsageService/GetUsage", "/v1/usage", json!({}));
        let (_, outcome) = call(gateway.address, door, &usage, &[("authorization", &authorization)]).await;
        assert_eq!(outcome.code, 0, "{door:?}: what waits for no engine is answered");
    }
    assert!(gateway.engine.of("demo").is_empty());
    gateway.engine.full.store(false, Ordering::Relaxed);
    let (_, outcome) = call(
        gateway.address,
        Door::Grpc,
        &order("demo"),
        &[("authorization", &authorization)],
    )
    .await;
    assert_eq!(outcome.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_said_fast_with_a_time_to_come_back() {
    let gateway = start().await;
    let authorization = bearer(&token(&["away"]));
    for door in DOORS {
        let begun = Instant::now();
        let (answer, outcome) = call(
            gateway.address,
            door,
            &order("away"),
            &[("authorization", &authorization)],
        )
        .await;
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!((outcome.code, outcome.reason()), (14, "NOT_ACCEPTED"), "{door:?}");
        assert_eq!(outcome.detail("RetryInfo").unwrap()["retryDelay"], "0.500s");
        if door == Door::Rest {
            assert_eq!(
                (answer.status.as_u16(), &answer.headers["retry-after"]),
                (503, &http::HeaderValue::from(1))
            );
        } else {
            assert_eq!(answer.headers["grpc-retry-pushback-ms"], "500", "{door:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_principal_is_limited_and_another_is_not() {
    let limit = |config: &mut gateway::Config| {
        config.limits.principal = gateway::Rate {
            per_second: 1,
            burst: 2,
        }
    };
    let gateway = start_with(nowhere(), limit).await;
    let authorization = bearer(&token(&["demo"]));
    let mut last = None;
    for _ in 0..3 {
        last = Some(
            call(
                gateway.address,
                Door::Rest,
                &balances("demo"),
                &[("authorization", &authorization)],
            )
            .await,
        );
    }
    let (answer, outcome) = last.unwrap();
    assert_eq!((answer.status.as_u16(), outcome.reason()), (429, "THROTTLED"));
    assert!(outcome.detail("QuotaFailure").is_some() && outcome.detail("RetryInfo").is_some());
    assert_eq!(
        (
            &answer.headers["ratelimit-limit"],
            &answer.headers["ratelimit-remaining"]
        ),
        (&http::HeaderValue::from(2), &http::HeaderValue::from(0))
    );
    assert!(answer.headers.contains_key("retry-after"));
    // The same principal through another door, then somebody else.
    let (_, outcome) = call(
        gateway.address,
        Door::Grpc,
        &balances("demo"),
        &[("authorization", &authorization)],
    )
    .await;
    assert_eq!(outcome.code, 8);
    let mut bob = crate::support::claims(&["demo"], "view");
    bob.sub = "bob".into();
    let bob = bearer(&crate::support::signed(&bob));
    let (answer, outcome) = call(
        gateway.address,
        Door::Grpc,
        &balances("demo"),
        &[("authorization", &bob)],
    )
    .await;
    assert_eq!(
        (outcome.code, &answer.headers["ratelimit-remaining"]),
        (0, &http::HeaderValue::from(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_tokens_is_limited_by_address() {
    let limit = |config: &mut gateway::Config| {
        config.limits.address = gateway::Rate {
            per_second: 1,
            burst: 3,
        }
    };
    let gateway = start_with(nowhere(), limit).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        // Another address in the header makes no other caller.
        let forwarded = format!("198.51.100.{}", codes.len());
        let headers = [("authorization", "Bearer x"), ("x-forwarded-for", forwarded.as_str())];
        codes.push(
            call(gateway.address, Door::Grpc, &balances("demo"), &headers)
                .await
                .1
                .code,
        );
    }
    assert_eq!(codes, [16, 16, 16, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_through_every_door() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    let case = order("demo");
    // Field 1 of 70,000 bytes.
    let mut large = vec![0x0a, 0xf0, 0xa2, 0x04];
    large.extend(std::iter::repeat_n(b'a', 70_000));
    let framed = frame(&large);
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &framed);
    let json = Bytes::from(format!("{{\"symbol\": \"{}\"}}", "a".repeat(70_000)));
    for (door, media_type, payload) in [
        (Door::Grpc, "application/grpc", framed.clone()),
        (Door::WebBinary, "application/grpc-web+proto", framed),
        (Door::WebText, "application/grpc-web-text", Bytes::from(text)),
        (Door::Rest, "application/json", json),
    ] {
        let (answer, outcome) = raw(gateway.address, door, &case, media_type, payload, &headers).await;
        assert_eq!((outcome.code, outcome.reason()), (8, "BODY_TOO_LARGE"), "{door:?}");
        if door == Door::Rest {
            assert_eq!(answer.status.as_u16(), 413);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_none_is_the_clients_mistake() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    let case = order("demo");
    let garbage = frame(&[0xff, 0xff, 0xff]);
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &garbage);
    for (door, media_type, payload) in [
        (Door::Grpc, "application/grpc", garbage.clone()),
        (Door::WebBinary, "application/grpc-web", garbage),
        (Door::WebText, "application/grpc-web-text", Bytes::from(text)),
        (Door::Rest, "application/json", Bytes::from_static(b"{\"symbol\": ")),
        (
            Door::Rest,
            "application/json",
            Bytes::from_static(b"{\"price\": \"1\"}"),
        ),
        (Door::Rest, "application/json", Bytes::from("[".repeat(50_000))),
    ] {
        let (_, outcome) = raw(gateway.address, door, &case, media_type, payload, &headers).await;
        assert_eq!(outcome.code, 3, "{door:?} {}", outcome.json);
        assert!(outcome.detail("ErrorInfo").is_some());
    }
    let (answer, _) = raw(
        gateway.address,
        Door::Rest,
        &case,
        "text/plain",
        Bytes::from_static(b"x"),
        &headers,
    )
    .await;
    assert_eq!(answer.status.as_u16(), 415);
}

async fn preflight(gateway: &Running, origin: &str) -> crate::support::Answer {
    let request = http::Request::builder()
        .method(Method::OPTIONS)
        .uri("/fulcrum.v1.TradeService/OpenTrade")
        .header("host", "x")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,x-grpc-web,authorization,grpc-timeout",
        );
    send(gateway.address, false, request.body(Bytes::new()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_call_from_the_origins_we_named_and_no_others() {
    let gateway = start().await;
    let answer = preflight(&gateway, ORIGIN).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["access-control-allow-origin"]),
        (200, &ORIGIN.parse().unwrap())
    );
    let list = |name: &str| answer.headers[name].to_str().unwrap().to_lowercase();
    for header in [
        "content-type",
        "x-grpc-web",
        "authorization",
        "grpc-timeout",
        "idempotency-key",
        "x-request-id",
    ] {
        assert!(list("access-control-allow-headers").contains(header), "{header}");
    }
    assert_eq!(answer.headers["access-control-max-age"], "600");
    assert!(
        !preflight(&gateway, "https://evil.test")
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );

    // What a browser may read of an answer, also of a refused one.
    let (answer, _) = call(
        gateway.address,
        Door::WebBinary,
        &balances("demo"),
        &[("origin", ORIGIN)],
    )
    .await;
    let exposed = answer.headers["access-control-expose-headers"]
        .to_str()
        .unwrap()
        .to_lowercase();
    for header in ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"] {
        assert!(exposed.contains(header), "{header}");
    }
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_goes_in_and_comes_out_and_nonsense_is_replaced() {
    let gateway = start().await;
    for door in DOORS {
        let (answer, _) = call(gateway.address, door, &balances("demo"), &[("x-request-id", "abc-1")]).await;
        assert_eq!(answer.headers["x-request-id"], "abc-1", "{door:?}");
        let long = "a".repeat(200);
        for nonsense in ["", "a b", long.as_str()] {
            let (answer, outcome) = call(gateway.address, door, &balances("demo"), &[("x-request-id", nonsense)]).await;
            let id = answer.headers["x-request-id"].to_str().unwrap();
            assert_eq!(id.len(), 32, "{door:?} {nonsense:?}");
            assert_eq!(outcome.detail("RequestInfo").unwrap()["requestId"], id);
        }
    }
    let (answer, _) = call(gateway.address, Door::Rest, &get("x/y", "/nowhere", json!({})), &[]).await;
    assert!(
        answer.headers.contains_key("x-request-id"),
        "also where there is nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_the_request_id_of_rest() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let id = uuid::Uuid::now_v7();
    let key = id.to_string();
    let headers = [
        ("authorization", authorization.as_str()),
        ("idempotency-key", key.as_str()),
    ];
    let (answer, _) = call(gateway.address, Door::Rest, &order("demo"), &headers).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(gateway.engine.of("demo")[0].request_id.as_ref(), id.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_says_that_it_is_alive() {
    let gateway = start().await;
    let (answer, _) = call(gateway.address, Door::Rest, &get("x/y", "/healthz", json!({})), &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_ref()),
        (200, br#"{"status":"ok"}"#.as_slice())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_per_service_and_unready_at_shutdown() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let gateway = start().await;
    let channel = tonic::transport::Endpoint::new(format!("http://{}", gateway.address))
        .unwrap()
        .connect_lazy();
    let mut client = HealthClient::new(channel);
    let service = "fulcrum.v1.MarketService".to_owned();
    let mut watch = client.watch(HealthCheckRequest { service }).await.unwrap().into_inner();
    let mut told = Vec::new();
    while told.last() != Some(&ServingStatus::Serving) {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.message())
            .await
            .unwrap()
            .unwrap();
        told.push(next.unwrap().status());
    }
    // The engine is there, the database is not.
    let service = "fulcrum.v1.TradeService".to_owned();
    let trades = client.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(trades.status(), ServingStatus::NotServing);
    let unknown = client
        .check(HealthCheckRequest { service: "x".into() })
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);

    gateway.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(status) => break Some(status.code()),
            }
        }
    });
    assert_eq!(ended.await.unwrap(), Some(tonic::Code::Unavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_answers_in_both_versions_unless_it_is_off() {
    async fn services(gateway: &Running, path: &str) -> (i32, Vec<u8>) {
        // ServerReflectionRequest { list_services: "" }: field 7, empty.
        let request = http::Request::post(format!("http://{}{path}", gateway.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let answer = send(gateway.address, true, request.body(frame(&[0x3a, 0x00])).unwrap()).await;
        let status = answer
            .trailers
            .get("grpc-status")
            .or(answer.headers.get("grpc-status"))
            .unwrap();
        (status.to_str().unwrap().parse().unwrap(), answer.body.to_vec())
    }
    let paths = [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    let gateway = start().await;
    for path in paths {
        let (code, body) = services(&gateway, path).await;
        assert_eq!(code, 0, "{path}");
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(
            text.contains("fulcrum.v1.TradeService") && text.contains("grpc.health.v1.Health"),
            "{text}"
        );
    }
    let gateway = start_with(nowhere(), |config| config.reflection = false).await;
    for path in paths {
        assert_eq!(services(&gateway, path).await.0, 12, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_calls_finish_and_takes_no_new_ones() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck", "demo"]));
    let address = gateway.address;
    let running = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "1S")];
        call(address, Door::Rest, &balances("stuck"), &headers).await.1.code
    });
    while gateway.engine.of("stuck").is_empty() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    gateway.shutdown.cancel();
    assert_eq!(running.await.unwrap(), 4, "it had its whole second");
    gateway.served.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_bounded() {
    let gateway = start_with(nowhere(), |config| config.drain = Duration::from_millis(300)).await;
    let authorization = bearer(&token(&["stuck"]));
    let address = gateway.address;
    let cut = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "20S")];
        call(address, Door::Rest, &balances("stuck"), &headers).await
    });
    while gateway.engine.of("stuck").is_empty() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    gateway.shutdown.cancel();
    gateway.served.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(cut.await.is_err(), "its connection was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let quick = |config: &mut gateway::Config| config.connections.first_request = Duration::from_millis(200);
    let gateway = start_with(nowhere(), quick).await;
    for half in ["", "PRI * HTTP/2", "GET / HT"] {
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{half:?} holds the connection open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_given_up() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let quick = |config: &mut gateway::Config| {
        config.deadlines = gateway::Deadlines {
            default: Duration::from_millis(200),
            max: Duration::from_millis(300),
        };
    };
    let gateway = start_with(nowhere(), quick).await;
    let authorization = bearer(&token(&["demo"]));
    for media_type in ["application/json", "application/grpc-web+proto"] {
        let path = match media_type {
            "application/json" => "/v1/accounts/demo/trades",
            _ => "/fulcrum.v1.TradeService/OpenTrade",
        };
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media_type}\r\nauthorization: {authorization}\r\n\
             connection: close\r\ncontent-length: 100\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[0, 0, 0]).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{media_type} waits for ever");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 504") || answer.contains("grpc-status: 4"),
            "{media_type}: {answer}"
        );
    }
    assert!(gateway.engine.of("demo").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tracer_the_callers_trace_is_passed_on() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for door in DOORS {
        let headers = [("authorization", authorization.as_str()), ("traceparent", trace)];
        call(gateway.address, door, &balances("demo"), &headers).await;
        assert_eq!(gateway.engine.of("demo").pop().unwrap().traceparent, trace, "{door:?}");
    }
    let headers = [("authorization", authorization.as_str()), ("traceparent", "nonsense")];
    call(gateway.address, Door::Grpc, &balances("demo"), &headers).await;
    assert_eq!(gateway.engine.of("demo").pop().unwrap().traceparent, "");
}
