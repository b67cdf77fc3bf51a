//! What a caller is told of its limits, and of a server that is not ready yet.

use gateway::{Gateway, GatewayError};
use serde_json::{Value, json};
use testkit::PrivatePostgres;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Answer, Case, DOORS, Door, Outcome, Running, bearer, call, claims, config, get, nowhere, signed, start_with,
};

fn usage(of: &str) -> Case {
    let (query, message) = match of {
        "" => (String::new(), json!({})),
        of => (format!("?principal={of}"), json!({"principal": of})),
    };
    get("UsageService/GetUsage", &format!("/v1/usage{query}"), message)
}

fn balances() -> Case {
    get(
        "BalanceService/ListBalances",
        "/v1/accounts/demo/balances",
        json!({"accountId": "demo"}),
    )
}

fn token(principal: &str, scope: &str) -> String {
    let mut claims = claims(&["demo"], scope);
    claims.sub = principal.into();
    bearer(&signed(&claims))
}

/// Calls that come back once in an hour, so that nothing comes back in a test.
async fn limited() -> Running {
    start_with(nowhere(), |config| {
        config.limits.principal = gateway::Rate {
            per_second: 1,
            burst: 3_600,
        };
        config.streams.principal_max = 7;
    })
    .await
}

async fn ask(gateway: &Running, door: Door, case: &Case, token: &str) -> (Answer, Outcome) {
    call(gateway.address, door, case, &[("authorization", token)]).await
}

fn number(usage: &Value, field: &str) -> u64 {
    usage[field]
        .as_u64()
        .or_else(|| usage[field].as_str()?.parse().ok())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_ask_how_far_the_own_limit_is_and_is_told_what_the_headers_say() {
    let gateway = limited().await;
    // Without any scope: it says nothing about an account.
    let alice = token("alice", "");
    for (calls, door) in (1..).zip(DOORS) {
        let (answer, outcome) = ask(&gateway, door, &usage(""), &alice).await;
        assert_eq!(outcome.code, 0, "{door:?}: {}", outcome.json);
        let used = &outcome.json["usage"];
        let header = |name: &str| answer.headers[name].to_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(used["principal"], "alice");
        assert_eq!((number(used, "callsPerSecond"), number(used, "burst")), (1, 3_600));
        assert_eq!(
            (number(used, "callsAdmitted"), number(used, "callsRefused")),
            (calls, 0)
        );
        assert_eq!((number(used, "streamsOpen"), number(used, "streamsMax")), (0, 7));
        assert_eq!(used["window"], "60s");
        // One comes back each second.
        let gone = 3_600 - number(used, "remaining");
        assert!(gone <= calls && gone > 0, "{door:?}: {used}");
        assert_eq!(used["resetAfter"], format!("{gone}s"));
        assert_eq!(
            (
                header("ratelimit-limit"),
                header("ratelimit-remaining"),
                header("ratelimit-reset")
            ),
            (3_600, 3_600 - gone, gone),
            "{door:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_are_counted_and_only_operators_see_those_of_others() {
    let gateway = start_with(nowhere(), |config| {
        config.limits.principal = gateway::Rate {
            per_second: 1,
            burst: 2,
        };
    })
    .await;
    let alice = token("alice", "view");
    let mut refused = 0;
    let mut admitted = 0;
    for _ in 0..6 {
        match ask(&gateway, Door::Grpc, &balances(), &alice).await.1.code {
            0 => admitted += 1,
            8 => refused += 1,
            code => panic!("{code}"),
        }
    }
    assert!(refused > 0 && admitted >= 2);
    // Each from a principal of its own, for their limit is as low.
    for (door, asked) in DOORS.into_iter().zip(["o1", "o2", "o3", "o4"]) {
        let (_, outcome) = ask(&gateway, door, &usage("alice"), &token(asked, "operator")).await;
        let used = &outcome.json["usage"];
        assert_eq!(used["principal"], "alice", "{door:?}: {}", outcome.json);
        assert_eq!(
            (number(used, "callsAdmitted"), number(used, "callsRefused")),
            (admitted, refused)
        );
        let (_, outcome) = ask(&gateway, door, &usage("nobody"), &token(asked, "operator")).await;
        let used = &outcome.json["usage"];
        assert_eq!((number(used, "callsAdmitted"), number(used, "remaining")), (0, 2));
        assert_eq!(used["resetAfter"], "0s");
        // Nobody else does, whatever the account is.
        let (_, outcome) = ask(
            &gateway,
            door,
            &usage("alice"),
            &token(&format!("v{asked}"), "view trade fund"),
        )
        .await;
        assert_eq!((outcome.code, outcome.reason()), (7, "NOT_ALLOWED"), "{door:?}");
        let long = usage(&"a".repeat(129));
        let (_, outcome) = ask(&gateway, door, &long, &token(&format!("l{asked}"), "operator")).await;
        assert_eq!((outcome.code, outcome.reason()), (3, "INVALID_FIELD"), "{door:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_port_is_there_and_says_that_it_is_not_ready() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let gateway = Gateway::bind(config(nowhere())).await.expect("it binds");
    let (address, ready, stop) = (gateway.local_addr(), gateway.readiness(), CancellationToken::new());
    let served = tokio::spawn(gateway.serve(stop.clone()));
    for door in DOORS {
        let (_, outcome) = call(
            address,
            door,
            &balances(),
            &[("authorization", &token("alice", "view"))],
        )
        .await;
        assert_eq!(
            (outcome.code, outcome.reason()),
            (14, "NOT_ACCEPTED"),
            "{door:?}: {}",
            outcome.json
        );
        assert!(outcome.detail("RetryInfo").is_some() && outcome.detail("RequestInfo").is_some());
        // What depends on nothing is as it always is.
        let (_, outcome) = call(address, door, &balances(), &[("authorization", "Bearer x")]).await;
        assert_eq!((outcome.code, outcome.reason()), (16, "TOKEN_INVALID"), "{door:?}");
    }
    let (answer, _) = call(address, Door::Rest, &get("x/y", "/healthz", json!({})), &[]).await;
    assert_eq!(answer.status.as_u16(), 200, "the process is alive");
    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let mut health = HealthClient::new(channel);
    for service in [
        "",
        "fulcrum.v1.TradeService",
        "fulcrum.v1.MarketService",
        "fulcrum.v1.UsageService",
    ] {
        let service = service.to_owned();
        let said = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
        assert_eq!(said.status(), ServingStatus::NotServing);
    }
    assert!(!*ready.borrow());
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_answers_but_was_never_migrated_is_a_mistake_and_is_told_at_once() {
    let postgres = PrivatePostgres::start().await;
    let refused = Gateway::bind(config(postgres.pool())).await.unwrap_err();
    assert!(matches!(refused, GatewayError::Database(_)), "{refused}");
}
