//! What callers have used of their limits, and the house's books.

use serde_json::json;
use tonic::Code::{InvalidArgument, PermissionDenied};

use crate::books;
use crate::doors::{Client, Door};
use crate::life::{Life, decimal};
use crate::mesh::{Mesh, until};

/// One's own limits may be read by anybody, another's by operators. Counts depend on when one asks; the rest does not.
pub async fn usage(mesh: &Mesh, life: &mut Life) {
    let me = life.account.clone();
    let other = json!({"principal": "other"});
    life.bad("GetUsage", other.clone(), PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let mut claims = mesh.issuer.claims(&format!("operator-{}", life.client.door.word()));
    claims.scope = "operator".to_owned();
    let operator = life.client.with_token(&mesh.issuer.sign(&claims));
    let long = json!({"principal": "a".repeat(129)});
    life.bad_by(
        &operator,
        "GetUsage",
        long,
        InvalidArgument,
        "INVALID_FIELD",
        &["principal"],
    )
    .await;
    let never = operator.call("GetUsage", json!({"principal": "never seen"})).await;
    life.note(
        "of one who never called",
        "GetUsage",
        &json!({"principal": "never seen"}),
        &never,
    );
    let never = never.good();
    assert_eq!(
        (&never["usage"]["callsAdmitted"], &never["usage"]["resetAfter"]),
        (&json!("0"), &json!("0s"))
    );

    let own = life.client.call("GetUsage", json!({})).await.good();
    let seen = operator.call("GetUsage", json!({"principal": me})).await.good();
    let mut fields = Vec::new();
    for usage in [&own["usage"], &seen["usage"]] {
        assert_eq!(usage["principal"], me.as_str());
        let count = |field: &str| {
            usage[field]
                .as_str()
                .and_then(|it| it.parse::<u64>().ok())
                .expect("a count")
        };
        assert!(count("callsAdmitted") > 0 && count("callsRefused") == 0, "{usage}");
        assert!(usage["remaining"].as_u64() <= usage["burst"].as_u64(), "{usage}");
        fields.push(usage.as_object().expect("fields").keys().cloned().collect::<Vec<_>>());
    }
    assert_eq!(fields[0], fields[1]);
    life.steps.push(("the fields of usage".to_owned(), json!(fields[0])));
}

/// The house's books are for operators, and they balance; whichever door they are read through, they are the same.
pub async fn conservation(mesh: &Mesh, life: &mut Life) {
    life.bad("GetConservation", json!({}), PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let mut claims = mesh.issuer.claims("operator");
    claims.scope = "operator".to_owned();
    let token = mesh.issuer.sign(&claims);
    let [here, there] = [life.client.door, Door::Grpc].map(|door| Client::new(door, mesh.address, &token));
    let proof = here.call("GetConservation", json!({})).await.good();
    assert_eq!(proof, there.call("GetConservation", json!({})).await.good());
    let [shard] = proof["shards"].as_array().expect("shards").as_slice() else {
        panic!("one shard: {proof}")
    };
    let hash = shard["stateHash"].as_str().expect("a hash");
    assert!(hash.len() == 32 && hash != "0".repeat(32), "{proof}");
    assert_eq!(shard["currencies"], proof["totals"], "of one shard");
    let totals = proof["totals"].as_array().expect("totals");
    assert!(totals.iter().any(|one| one["currencyCode"] == "USDC"), "{proof}");
    for one in totals {
        let sum: rust_decimal::Decimal = ["clientBalances", "lockedMargin", "house", "fees"]
            .iter()
            .map(|part| decimal(&one[part]))
            .sum();
        assert_eq!(sum, decimal(&one["netDeposits"]), "{proof}");
        assert!(decimal(&one["difference"]).is_zero(), "{proof}");
        assert_eq!(one["currencyCode"] == "USDC", !sum.is_zero(), "{proof}");
    }
}

/// What the house stands against is for operators, and it is what trades and ledger say; whichever door it is read through.
pub async fn exposure(mesh: &Mesh, life: &mut Life) {
    life.bad("GetExposure", json!({}), PermissionDenied, "NOT_ALLOWED", &[])
        .await;
    let mut claims = mesh.issuer.claims("operator");
    claims.scope = "operator".to_owned();
    let token = mesh.issuer.sign(&claims);
    let [here, there] = [life.client.door, Door::Grpc].map(|door| Client::new(door, mesh.address, &token));
    let written = mesh.count("SELECT sum(seq)::bigint FROM shard_head").await;
    let told = until("the recorder is there", async || {
        let told = here.call("GetExposure", json!({})).await.good();
        let shards = told["shards"].as_array().expect("shards").iter();
        let recorded: rust_decimal::Decimal = shards.map(|shard| decimal(&shard["sequence"])).sum();
        // Between two looks a candle may come, and a price with it.
        let same = told == there.call("GetExposure", json!({})).await.good();
        (same && recorded == written.into()).then_some(told)
    })
    .await;
    books::compare(mesh, &told).await;
}
