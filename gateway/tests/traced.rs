//! A gateway in a process with a tracer. A process of its own, because whether a span is worth making is remembered for the whole
//! process: beside tests without a tracer it would be theirs to say.

#[path = "it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest of it")]
mod support;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tracing_subscriber::layer::SubscriberExt as _;

use support::{Door, bearer, call, get, start, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_span_of_its_callers_trace() {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).expect("the only one");

    let gateway = start().await;
    let authorization = bearer(&token(&["demo"]));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("authorization", authorization.as_str()), ("traceparent", trace)];
    let message = json!({"accountId": "demo"});
    let balances = get("BalanceService/ListBalances", "/v1/accounts/demo/balances", message);
    call(gateway.address, Door::Grpc, &balances, &headers).await;
    let passed_on = gateway.engine.of("demo").pop().unwrap().traceparent;
    assert_eq!(passed_on.len(), trace.len(), "{passed_on}");
    assert_eq!(passed_on[..36], trace[..36], "the same trace");
    assert_ne!(passed_on[36..52], trace[36..52], "another span");
}
