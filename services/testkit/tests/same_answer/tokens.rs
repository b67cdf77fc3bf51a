//! Operations by their id, and tokens that are not good for a call.

use serde_json::json;
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unauthenticated};

use crate::life::{Life, id, long};
use crate::mesh::{self, Issuer, Mesh};
use crate::trades::Closed;

pub async fn operations(life: &mut Life, closed: &Closed) {
    let me = life.account.clone();
    let found = life
        .mine("done", "GetOperation", json!({"request_id": closed.request_id}))
        .await;
    let mut response = found["operation"]["response"].clone();
    response.as_object_mut().expect("an answer").remove("@type");
    assert_eq!(
        (&found["operation"]["method"], &response),
        (&json!("CloseTrade"), &closed.answer)
    );

    let poor = long(&me, json!({"margin": "100000"}));
    let refused = life
        .bad(
            "OpenTrade",
            poor.clone(),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            &[],
        )
        .await;
    let found = life
        .mine("refused", "GetOperation", json!({"request_id": poor["request_id"]}))
        .await;
    assert_eq!(found["operation"]["error"]["message"], refused.message.as_str());

    let never = json!({"account_id": me, "request_id": id()});
    life.bad("GetOperation", never, NotFound, "OPERATION_NOT_FOUND", &[])
        .await;
    life.bad(
        "GetOperation",
        json!({"account_id": me, "request_id": "x"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["request_id"],
    )
    .await;
}

pub async fn tokens(mesh: &Mesh, life: &mut Life) {
    let me = life.account.clone();
    let claims = mesh.issuer.claims(&me);
    let now = mesh::now_us() / 1_000_000;
    let signed = |change: fn(&mut gateway::token::Claims, u64)| {
        let mut claims = claims.clone();
        change(&mut claims, now);
        mesh.issuer.sign(&claims)
    };
    let good = mesh.issuer.sign(&claims);
    let mut altered = good.clone().into_bytes();
    *altered.last_mut().expect("a signature") = if altered.ends_with(b"A") { b"Q" } else { b"A" }[0];
    let unsigned = format!(
        "{}.{}.",
        "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0",
        good.split('.').nth(1).expect("claims")
    );
    let refused = [
        ("expired", signed(|it, now| it.exp = now - 3_600)),
        ("not yet valid", signed(|it, now| it.nbf = now + 3_600)),
        ("for another audience", signed(|it, _| it.aud = "elsewhere".to_owned())),
        ("by another issuer", signed(|it, _| it.iss = "elsewhere".to_owned())),
        ("of another key", Issuer::new([8; 32]).sign(&claims)),
        ("altered", String::from_utf8(altered).expect("text")),
        ("unsigned", unsigned),
        ("nonsense", "nonsense".to_owned()),
    ];
    for (what, token) in refused {
        let client = life.client.with_token(&token);
        let answer = life
            .bad_by(
                &client,
                "OpenTrade",
                long(&me, json!({})),
                Unauthenticated,
                "TOKEN_INVALID",
                &[],
            )
            .await;
        assert!(!answer.message.contains(&token), "{what}: a token is not repeated");
    }
    let client = life.client.without_token();
    life.bad_by(
        &client,
        "OpenTrade",
        long(&me, json!({})),
        Unauthenticated,
        "TOKEN_INVALID",
        &[],
    )
    .await;

    let viewer = life.client.with_token(&signed(|it, _| it.scope = "view".to_owned()));
    life.bad_by(
        &viewer,
        "OpenTrade",
        long(&me, json!({})),
        PermissionDenied,
        "NOT_ALLOWED",
        &[],
    )
    .await;
    let money = json!({"account_id": me, "amount": {"currency_code": "USDC", "amount": "1"}, "request_id": id()});
    life.bad_by(&viewer, "Deposit", money, PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let trader = life.client.with_token(&signed(|it, _| it.scope = "trade".to_owned()));
    life.bad_by(
        &trader,
        "ListBalances",
        json!({"account_id": me}),
        PermissionDenied,
        "NOT_ALLOWED",
        &[],
    )
    .await;
    for read in ["ListBalances", "ListTrades", "ListTransactions", "GetAccountSummary"] {
        life.bad(
            read,
            json!({"account_id": "other"}),
            PermissionDenied,
            "NOT_ALLOWED",
            &[],
        )
        .await;
    }
}
