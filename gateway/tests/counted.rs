//! A gateway in a process with metrics. A process of its own, because there is one meter provider for the whole process.

#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest of it")]
mod support;

use prometheus::{Encoder as _, Registry, TextEncoder};
use serde_json::json;

use support::{Case, Door, bearer, call, get, post, start, token};

/// The line of the metrics page that counts calls with these labels, as a number.
fn counted(page: &str, labels: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| {
        line.starts_with("rpc_server_duration_seconds_count") && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rest_refuses_by_itself_is_counted_among_the_calls_with_labels_of_few_values() {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .unwrap();
    let provider = opentelemetry_sdk::metrics::SdkMeterProvider::builder()
        .with_reader(exporter)
        .build();
    opentelemetry::global::set_meter_provider(provider);

    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str())];
    for number in 0..3 {
        // A path of the caller's choosing must not become a label.
        let nothing = get("x/y", &format!("/v1/nothing-{number}"), json!({}));
        assert_eq!(
            call(gateway.address, Door::Rest, &nothing, &headers).await.0.status,
            404
        );
    }
    let put = Case {
        verb: "PUT",
        ..get("x/y", "/v1/instruments", json!({}))
    };
    assert_eq!(call(gateway.address, Door::Rest, &put, &headers).await.0.status, 405);
    let large = post(
        "x/y",
        "/v1/accounts/demo/trades",
        &[],
        json!({"symbol": "A".repeat(70_000)}),
    );
    assert_eq!(call(gateway.address, Door::Rest, &large, &headers).await.0.status, 413);
    let order = post("x/y", "/v1/accounts/demo/trades", &[], json!({"price": 1}));
    assert_eq!(call(gateway.address, Door::Rest, &order, &headers).await.0.status, 400);
    let balances = get("x/y", "/v1/accounts/demo/balances", json!({}));
    assert_eq!(
        call(gateway.address, Door::Rest, &balances, &headers).await.0.status,
        200
    );

    let mut page = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    let count = |method: &str, code: u32| {
        let labels = [
            "door=\"rest\"",
            &format!("rpc_method=\"{method}\""),
            &format!("rpc_grpc_status_code=\"{code}\""),
        ];
        counted(&page, &labels)
    };
    assert_eq!(count("other", 12), Some(4.0), "not found, and not allowed: {page}");
    assert_eq!(count("OpenTrade", 8), Some(1.0), "too large: {page}");
    assert_eq!(count("OpenTrade", 3), Some(1.0), "not understood: {page}");
    assert_eq!(
        count("ListBalances", 0),
        Some(1.0),
        "answered by the room, and counted once: {page}"
    );
    assert!(!page.contains("nothing-"), "{page}");
}
