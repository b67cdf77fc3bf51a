//! Who is let in: every way a token can be wrong, through every door.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gateway::token::{self, Claims};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::support::{DOORS, PRIVATE, PUBLIC, STRANGER, bearer, call, claims, get, now_s, post, signed, start};

fn changed(change: impl FnOnce(&mut Claims)) -> String {
    let mut claims = claims(&["demo"], "view trade fund");
    change(&mut claims);
    signed(&claims)
}

fn headed(change: impl FnOnce(&mut Header)) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(token::TOKEN_TYPE.into());
    header.kid = Some("k1".into());
    change(&mut header);
    let key = EncodingKey::from_ed_pem(PRIVATE.as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &claims(&["demo"], "view"), &key).unwrap()
}

/// A token whose header and claims are put together by hand.
fn forged(header: &serde_json::Value, signature: &str) -> String {
    let claims = serde_json::to_vec(&claims(&["demo"], "view")).unwrap();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{signature}", part(header.to_string().as_bytes()), part(&claims))
}

fn without(claim: &str) -> String {
    let mut all = serde_json::to_value(claims(&["demo"], "view")).unwrap();
    all.as_object_mut().unwrap().remove(claim);
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(token::TOKEN_TYPE.into());
    header.kid = Some("k1".into());
    jsonwebtoken::encode(&header, &all, &EncodingKey::from_ed_pem(PRIVATE.as_bytes()).unwrap()).unwrap()
}

fn wrong() -> Vec<(&'static str, String)> {
    let good = signed(&claims(&["demo"], "view trade fund"));
    let mut with_public_key = Header::new(Algorithm::HS256);
    with_public_key.typ = Some(token::TOKEN_TYPE.into());
    with_public_key.kid = Some("k1".into());
    let hs256 = jsonwebtoken::encode(
        &with_public_key,
        &claims(&["demo"], "view"),
        &EncodingKey::from_secret(PUBLIC.as_bytes()),
    )
    .unwrap();
    let (front, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = front.split_once('.').unwrap();
    let richer = serde_json::to_vec(&claims(&["*"], "view trade fund operator")).unwrap();
    let tampered = format!("{head}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(richer));
    vec![
        ("expired", changed(|it| it.exp = now_s() - 6)),
        ("not yet valid", changed(|it| it.nbf = now_s() + 30)),
        ("another audience", changed(|it| it.aud = "other".into())),
        ("another issuer", changed(|it| it.iss = "https://other".into())),
        ("an empty subject", changed(|it| it.sub = String::new())),
        ("a long subject", changed(|it| it.sub = "a".repeat(129))),
        ("a subject with a line break", changed(|it| it.sub = "a\nb".into())),
        ("another type", headed(|it| it.typ = Some("JWT".into()))),
        ("a refresh token", headed(|it| it.typ = Some("rt+jwt".into()))),
        ("no type", headed(|it| it.typ = None)),
        ("an unknown key", headed(|it| it.kid = Some("../../etc/passwd".into()))),
        ("a key id of SQL", headed(|it| it.kid = Some("' OR 1=1 --".into()))),
        ("no key id", headed(|it| it.kid = None)),
        (
            "algorithm none",
            forged(&json!({"alg": "none", "typ": "at+jwt", "kid": "k1"}), ""),
        ),
        (
            "algorithm NONE",
            forged(&json!({"alg": "NONE", "typ": "at+jwt", "kid": "k1"}), signature),
        ),
        ("HS256 with the public key", hs256),
        (
            "a stranger's signature",
            token::sign(&claims(&["demo"], "view"), Some("k1"), STRANGER.as_bytes()).unwrap(),
        ),
        ("tampered claims", tampered),
        ("truncated", good[..good.len() - 8].to_owned()),
        ("no signature", format!("{front}.")),
        ("no dots", "token".to_owned()),
        ("empty", String::new()),
        ("6 KB", "a".repeat(6 * 1024)),
        ("no exp", without("exp")),
        ("no nbf", without("nbf")),
        ("no aud", without("aud")),
        ("no iss", without("iss")),
        ("no sub", without("sub")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_opens_no_door() {
    let gateway = start().await;
    let case = get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    );
    for (what, token) in wrong() {
        let authorization = bearer(&token);
        for door in DOORS {
            let (answer, outcome) = call(gateway.address, door, &case, &[("authorization", &authorization)]).await;
            assert_eq!(
                (outcome.code, outcome.reason()),
                (16, "TOKEN_INVALID"),
                "{what} through {door:?}"
            );
            assert!(outcome.detail("RequestInfo").is_some());
            assert_eq!(answer.headers["www-authenticate"], "Bearer", "{what} through {door:?}");
        }
    }
    for headers in [
        &[][..],
        &[("authorization", "Basic YTpi")],
        &[("authorization", "Bearer")],
        &[("authorization", "x")],
    ] {
        for door in DOORS {
            let (_, outcome) = call(gateway.address, door, &case, headers).await;
            assert_eq!(
                (outcome.code, outcome.reason()),
                (16, "TOKEN_INVALID"),
                "{headers:?} through {door:?}"
            );
        }
    }
    assert!(gateway.engine.of("demo").is_empty(), "nothing of it reached the engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_64_kb_is_refused_before_it_is_read() {
    let gateway = start().await;
    let case = get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    );
    let request = http::Request::get(format!("http://{}{}", gateway.address, case.path))
        .header("host", "x")
        .header("authorization", bearer(&"a".repeat(64 * 1024)))
        .body(bytes::Bytes::new())
        .unwrap();
    let answer = crate::support::send(gateway.address, false, request).await;
    assert!(matches!(answer.status.as_u16(), 401 | 431), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tokens_are_none() {
    let gateway = start().await;
    let case = get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    );
    let good = bearer(&crate::support::token(&["demo"]));
    for door in DOORS {
        let (_, outcome) = call(
            gateway.address,
            door,
            &case,
            &[("authorization", &good), ("authorization", &good)],
        )
        .await;
        assert_eq!(outcome.code, 16, "{door:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_works_a_thousand_times_and_not_once_more_after_it_expired() {
    let gateway = start().await;
    let case = get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    );
    // Past its time but within the leeway for one more second.
    let mut short = claims(&["demo"], "view");
    short.exp = now_s() - 4;
    let authorization = bearer(&signed(&short));
    let (_, outcome) = call(
        gateway.address,
        crate::support::Door::Grpc,
        &case,
        &[("authorization", &authorization)],
    )
    .await;
    assert_eq!(outcome.code, 0);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    let (_, outcome) = call(
        gateway.address,
        crate::support::Door::Grpc,
        &case,
        &[("authorization", &authorization)],
    )
    .await;
    assert_eq!(outcome.code, 16, "a remembered token expires too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_covers_what_it_says() {
    let gateway = start().await;
    let id = "01900000-0000-7000-8000-000000000001";
    let account = &["accountId"][..];
    let view = get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    );
    let market = get("MarketService/ListInstruments", "/v1/instruments", json!({}));
    let trade = post(
        "TradeService/OpenTrade",
        "/v1/accounts/demo/trades",
        account,
        json!({"accountId": "demo", "requestId": id, "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "1", "leverage": "1"}),
    );
    let make = post(
        "WalletService/InitializeWallet",
        "/v1/accounts/demo/wallet:initialize",
        account,
        json!({"accountId": "demo"}),
    );
    let fund = post(
        "WalletService/Deposit",
        "/v1/accounts/demo/wallet:deposit",
        account,
        json!({"accountId": "demo", "amount": {"currencyCode": "USDC", "amount": "1"}}),
    );
    let books = get("HouseService/GetConservation", "/v1/conservation", json!({}));
    // Read from tables that are not here, so only its refusals are asked for.
    let exposure = get("HouseService/GetExposure", "/v1/house/exposure", json!({}));
    for (scope, allowed) in [
        ("view", [true, true, false, false, false, false]),
        ("trade", [false, false, true, true, false, false]),
        ("fund", [false, false, false, false, true, false]),
        ("view trade fund", [true, true, true, true, true, false]),
        ("operator", [false, false, false, false, false, true]),
        ("view operator", [true, true, false, false, false, true]),
        ("", [false; 6]),
        ("viewtrade VIEW operators", [false; 6]),
    ] {
        let authorization = bearer(&signed(&claims(&["demo"], scope)));
        if !scope.contains(" operator") && scope != "operator" {
            for door in DOORS {
                let (_, outcome) = call(gateway.address, door, &exposure, &[("authorization", &authorization)]).await;
                assert_eq!(
                    (outcome.code, outcome.reason()),
                    (7, "NOT_ALLOWED"),
                    "{scope:?} through {door:?}"
                );
            }
        }
        for (case, allowed) in [&view, &market, &trade, &make, &fund, &books].into_iter().zip(allowed) {
            for door in DOORS {
                let (_, outcome) = call(gateway.address, door, case, &[("authorization", &authorization)]).await;
                let wanted = if allowed { (0, "") } else { (7, "NOT_ALLOWED") };
                assert_eq!(
                    (outcome.code, outcome.reason()),
                    wanted,
                    "{scope:?} for {case:?} through {door:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_denied_by_every_method_that_names_one() {
    let gateway = start().await;
    let id = "01900000-0000-7000-8000-000000000001";
    let trade = format!("{}-1", crate::support::shard("victim"));
    let both = &["accountId", "tradeId"][..];
    let base = json!({"accountId": "victim"});
    let with = |more: serde_json::Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let money = with(json!({"amount": {"currencyCode": "USDC", "amount": "1"}}));
    let a = &["accountId"][..];
    let cases = [
        post(
            "WalletService/InitializeWallet",
            "/v1/accounts/victim/wallet:initialize",
            a,
            base.clone(),
        ),
        post(
            "WalletService/Deposit",
            "/v1/accounts/victim/wallet:deposit",
            a,
            money.clone(),
        ),
        post(
            "WalletService/Withdraw",
            "/v1/accounts/victim/wallet:withdraw",
            a,
            money,
        ),
        get(
            "WalletService/ListTransactions",
            "/v1/accounts/victim/transactions",
            base.clone(),
        ),
        post(
            "TradeService/CloseTrade",
            &format!("/v1/accounts/victim/trades/{trade}:close"),
            both,
            with(json!({"tradeId": trade})),
        ),
        post(
            "TradeService/ModifyTrade",
            &format!("/v1/accounts/victim/trades/{trade}:modify"),
            both,
            with(json!({"tradeId": trade, "addMargin": "1"})),
        ),
        get(
            "TradeService/GetTrade",
            &format!("/v1/accounts/victim/trades/{trade}"),
            with(json!({"tradeId": trade})),
        ),
        get("TradeService/ListTrades", "/v1/accounts/victim/trades", base.clone()),
        get(
            "BalanceService/ListBalances",
            "/v1/accounts/victim/balances",
            base.clone(),
        ),
        get(
            "BalanceService/GetBalance",
            "/v1/accounts/victim/balances/USDC",
            with(json!({"currencyCode": "USDC"})),
        ),
        get(
            "BalanceService/GetAccountSummary",
            "/v1/accounts/victim/summary",
            base.clone(),
        ),
        get(
            "OperationService/GetOperation",
            &format!("/v1/accounts/victim/operations/{id}"),
            with(json!({"requestId": id})),
        ),
        get(
            "TradeService/StreamAccountEvents",
            "/v1/accounts/victim/events:stream",
            base.clone(),
        ),
    ];
    let authorization = bearer(&crate::support::token(&["demo"]));
    for case in &cases {
        for door in DOORS {
            let (_, outcome) = call(gateway.address, door, case, &[("authorization", &authorization)]).await;
            assert_eq!(
                (outcome.code, outcome.reason()),
                (7, "NOT_ALLOWED"),
                "{case:?} through {door:?}"
            );
        }
    }
    assert!(gateway.engine.of("victim").is_empty());
}
