//! What anybody may read: liveness, the OpenAPI document, and the page that shows it.

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use serde_json::Value;

use crate::support::{Running, nowhere, send, start, start_with};

async fn ask(gateway: &Running, method: Method, path: &str) -> (StatusCode, String, Bytes) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "x")
        .body(Bytes::new())
        .unwrap();
    let answer = send(gateway.address, false, request).await;
    let header = |name| {
        answer
            .headers
            .get(name)
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default()
    };
    if answer.status == StatusCode::OK {
        assert!(
            header(CONTENT_SECURITY_POLICY).starts_with("default-src 'none'"),
            "{path}"
        );
    }
    (answer.status, header(CONTENT_TYPE).to_owned(), answer.body.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_every_binding_and_needs_no_token() {
    let gateway = start().await;
    let (status, media_type, body) = ask(&gateway, Method::GET, "/openapi.json").await;
    assert_eq!((status, media_type.as_str()), (StatusCode::OK, "application/json"));
    let document: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let open = &document["paths"]["/v1/accounts/{account_id}/trades"]["post"];
    assert_eq!(open["operationId"], "TradeService_OpenTrade");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_all_that_it_loads_are_served() {
    let gateway = start().await;
    let (status, media_type, page) = ask(&gateway, Method::GET, "/docs").await;
    assert_eq!(
        (status, media_type.as_str()),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    let page = String::from_utf8(page.to_vec()).unwrap();
    let loaded: Vec<&str> = page.split(['"']).filter(|word| word.starts_with('/')).collect();
    assert!(loaded.len() >= 3, "{loaded:?}");
    for path in loaded {
        let (status, _, body) = ask(&gateway, Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(!body.is_empty(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hides_its_interfaces_has_neither() {
    let gateway = start_with(nowhere(), |config| config.reflection = false).await;
    for path in ["/openapi.json", "/docs"] {
        assert_eq!(
            ask(&gateway, Method::GET, path).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert_eq!(ask(&gateway, Method::GET, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_read_and_nothing_else() {
    let gateway = start().await;
    assert_eq!(ask(&gateway, Method::POST, "/docs").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        ask(&gateway, Method::GET, "/docs/../openapi.json").await.0,
        StatusCode::NOT_FOUND
    );
}
