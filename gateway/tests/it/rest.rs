//! What the REST door refuses by itself: in the words of every other error, and at the cost of who sent it.

use serde_json::json;

use crate::support::{Case, Door, bearer, call, get, nowhere, post, start, start_with, token};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_is_unimplemented_or_not_found_and_never_html() {
    let gateway = start().await;
    for (door, media_type) in [
        (Door::Grpc, "application/grpc"),
        (Door::WebBinary, "application/grpc-web+proto"),
        (Door::WebText, "application/grpc-web-text"),
    ] {
        for method in ["TradeService/Nothing", "NothingService/OpenTrade"] {
            let case = get(method, "/", json!({}));
            let payload = crate::support::frame(&[]);
            let payload = if door == Door::WebText {
                bytes::Bytes::from_static(b"AAAAAAA=")
            } else {
                payload
            };
            let (_, outcome) = crate::support::raw(gateway.address, door, &case, media_type, payload, &[]).await;
            assert_eq!(
                (outcome.code, outcome.reason()),
                (12, "METHOD_UNKNOWN"),
                "{door:?} {method}"
            );
        }
    }
    for path in [
        "/",
        "/v1/nothing",
        "/fulcrum.v1.TradeService/OpenTrade",
        "/index.html",
        "/v2/instruments",
    ] {
        let (answer, outcome) = call(gateway.address, Door::Rest, &get("x/y", path, json!({})), &[]).await;
        assert_eq!(
            (answer.status.as_u16(), outcome.code, outcome.reason()),
            (404, 12, "METHOD_UNKNOWN"),
            "{path}"
        );
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let (answer, _) = call(
        gateway.address,
        Door::Rest,
        &post("x/y", "/v1/instruments", &[], json!({})),
        &[],
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers.get("allow").is_some()),
        (405, true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rest_refuses_by_itself_says_what_every_other_error_says() {
    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let trades = "/v1/accounts/demo/trades";
    let long = format!("/v1/instruments?x={}", "a".repeat(9_000));
    let large = format!("{{\"symbol\": \"{}\"}}", "a".repeat(70_000));
    let json = "application/json";
    for (verb, path, media_type, body, status, reason, refusal, field) in [
        (
            "GET",
            "/v1/nothing",
            json,
            "",
            404,
            "METHOD_UNKNOWN",
            "PATH_UNKNOWN",
            "",
        ),
        (
            "PUT",
            trades,
            json,
            "{}",
            405,
            "METHOD_UNKNOWN",
            "METHOD_NOT_ALLOWED",
            "",
        ),
        (
            "POST",
            trades,
            json,
            large.as_str(),
            413,
            "BODY_TOO_LARGE",
            "BODY_TOO_LARGE",
            "",
        ),
        (
            "GET",
            long.as_str(),
            json,
            "",
            414,
            "INVALID_FIELD",
            "URL_TOO_LONG",
            "request",
        ),
        (
            "POST",
            trades,
            "text/plain",
            "x",
            415,
            "INVALID_FIELD",
            "MEDIA_TYPE_UNSUPPORTED",
            "request",
        ),
        ("POST", trades, json, "{", 400, "INVALID_FIELD", "BODY_INVALID", ""),
        (
            "POST",
            trades,
            json,
            "{\"price\": 1}",
            400,
            "INVALID_FIELD",
            "BODY_FIELD_UNKNOWN",
            "price",
        ),
        (
            "POST",
            trades,
            json,
            "{\"side\": \"UP\"}",
            400,
            "INVALID_FIELD",
            "BODY_INVALID",
            "side",
        ),
        (
            "GET",
            "/v1/instruments?x=1",
            json,
            "",
            400,
            "INVALID_FIELD",
            "QUERY_PARAMETER_UNKNOWN",
            "x",
        ),
    ] {
        let case = Case {
            verb,
            ..get("x/y", path, json!({}))
        };
        let headers = [("authorization", authorization.as_str()), ("x-request-id", "who-asked")];
        let payload = bytes::Bytes::from(body.to_owned());
        let (answer, outcome) =
            crate::support::raw(gateway.address, Door::Rest, &case, media_type, payload, &headers).await;
        assert_eq!(
            (answer.status.as_u16(), outcome.reason()),
            (status, reason),
            "{verb} {path}: {}",
            outcome.json
        );
        let info = outcome.detail("ErrorInfo").unwrap();
        assert_eq!(
            (&info["domain"], &info["metadata"]["refusal"]),
            (&json!("fulcrum"), &json!(refusal))
        );
        assert_eq!(
            outcome.detail("RequestInfo").unwrap()["requestId"],
            "who-asked",
            "{verb} {path}"
        );
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
        let named = outcome
            .detail("BadRequest")
            .map(|it| it["fieldViolations"][0]["field"].clone());
        assert_eq!(named.is_some(), reason == "INVALID_FIELD", "{}", outcome.json);
        if let Some(named) = named.filter(|_| !field.is_empty()) {
            assert_eq!(named, field, "{verb} {path}");
        }
    }
    // Also where a body must not come.
    let request = http::Request::head(format!("http://{}/v1/nothing", gateway.address)).header("host", "x");
    let answer = crate::support::send(gateway.address, true, request.body(bytes::Bytes::new()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (404, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rest_refuses_by_itself_is_charged_to_the_address_like_every_other_call() {
    let limit = |config: &mut gateway::Config| {
        config.limits.address = gateway::Rate {
            per_second: 1,
            burst: 6,
        }
    };
    let gateway = start_with(nowhere(), limit).await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    let put = Case {
        verb: "PUT",
        ..get("x/y", "/v1/instruments", json!({}))
    };
    let balances = get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    );
    let bad = post("x/y", "/v1/accounts/demo/trades", &[], json!("no object"));
    let mut seen = Vec::new();
    for case in [
        &get("x/y", "/v1/nothing", json!({})),
        &put,
        &bad,
        // Answered by the room, and charged once: the principal's own limit is further away and is shown.
        &balances,
        &get("x/y", "/openapi.json", json!({})),
        &get("x/y", "/v1/nothing", json!({})),
        &bad,
        &balances,
    ] {
        let uri = format!("http://{}{}", gateway.address, case.path);
        let mut request = http::Request::builder().method(case.verb).uri(uri).header("host", "x");
        request = request
            .header(headers[0].0, headers[0].1)
            .header("content-type", "application/json");
        let body = if case.body.is_null() {
            String::new()
        } else {
            case.body.to_string()
        };
        let answer = crate::support::send(gateway.address, false, request.body(body.into()).unwrap()).await;
        let left = answer
            .headers
            .get("ratelimit-remaining")
            .map(|it| it.to_str().unwrap().to_owned());
        seen.push((answer.status.as_u16(), left.unwrap_or_default()));
        if answer.status == 429 {
            assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
            let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert!(said.to_string().contains("THROTTLED"), "{said}");
        }
    }
    let want = [
        (404, "5"),
        (405, "4"),
        (400, "3"),
        (200, "1999"),
        (200, ""),
        (404, "0"),
        (429, "0"),
        (429, "0"),
    ];
    // At a call a second a slow machine gets one back now and then: what counts is that each took one.
    let want: Vec<_> = want
        .iter()
        .map(|(status, left)| (*status, (*left).to_owned()))
        .collect();
    assert_eq!(seen, want);
    // Whoever asks whether the process lives is not sent away.
    let (answer, _) = call(gateway.address, Door::Rest, &get("x/y", "/healthz", json!({})), &[]).await;
    assert_eq!(answer.status.as_u16(), 200);
}
