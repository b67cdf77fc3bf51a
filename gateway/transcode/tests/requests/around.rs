//! What stands around a message: headers and extensions.

use http::HeaderName;
use transcode::{HeaderField, HeaderOptions, MatchedBinding, Options};

use crate::common::{Library, request};

#[tokio::test]
async fn chosen_headers_become_metadata_and_others_stay_outside() {
    let headers = HeaderOptions {
        forward_prefix: Some("grpc-metadata-".into()),
        ..HeaderOptions::default()
    };
    let library = Library::echo(Options {
        headers,
        ..Options::default()
    });
    let sent = [
        ("authorization", "Bearer t"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
        ("x-request-id", "r-1"),
        ("idempotency-key", "k-1"),
        ("accept-language", "de"),
        ("user-agent", "curl"),
        ("cookie", "secret"),
        ("x-other", "no"),
        ("grpc-metadata-tenant", "t1"),
        ("grpc-metadata-grpc-timeout", "1n"),
        ("grpc-metadata-te", "gzip"),
    ];
    assert_eq!(library.send("GET /v1/books/1", &sent, "").await.status, 200);
    let call = library.take_call();
    let mut names: Vec<String> = call
        .metadata
        .clone()
        .into_headers()
        .keys()
        .map(|name| name.to_string())
        .collect();
    names.sort();
    let want = [
        "accept-language",
        "authorization",
        "content-type",
        "idempotency-key",
        "te",
        "tenant",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-request-id",
    ];
    assert_eq!(names, want);
    assert_eq!(call.metadata.get("te").unwrap(), "trailers");
}

#[tokio::test]
async fn a_header_fills_a_field_that_the_request_left_empty() {
    let fields = vec![HeaderField {
        header: HeaderName::from_static("idempotency-key"),
        field: "request_id".into(),
    }];
    let headers = HeaderOptions {
        fields,
        ..HeaderOptions::default()
    };
    let library = Library::echo(Options {
        headers,
        ..Options::default()
    });
    let key = [("idempotency-key", "k-1")];
    for (line, body, want) in [
        (
            "DELETE /v1/shelves/1/books/2",
            "",
            r#"DeleteBook {"name":"shelves/1/books/2","requestId":"k-1"}"#,
        ),
        (
            "DELETE /v1/shelves/1/books/2?request_id=q",
            "",
            r#"DeleteBook {"name":"shelves/1/books/2","requestId":"q"}"#,
        ),
        (
            "POST /v1/shelves/1/books",
            "{}",
            r#"CreateBook {"book":{},"parent":"shelves/1","requestId":"k-1"}"#,
        ),
        (
            "PUT /v1/shelves/1/books/2",
            r#"{"requestId":"b"}"#,
            r#"ReplaceBook {"name":"shelves/1/books/2","requestId":"b"}"#,
        ),
        // This request has no such field.
        ("GET /v1/search", "", "Search {}"),
    ] {
        assert_eq!(library.send(line, &key, body).await.status, 200);
        assert_eq!(library.take_seen(), want);
    }
}

#[tokio::test]
async fn extensions_go_along_and_the_binding_is_among_them() {
    #[derive(Clone, PartialEq, Debug)]
    struct Peer(&'static str);
    let library = Library::echo(Options::default());
    let mut request = request("GET /v1/shelves/1/books/2", &[], "");
    request.extensions_mut().insert(Peer("10.0.0.1"));
    let answer = library.send_request(request).await;
    let want = MatchedBinding {
        template: "/v1/{name=shelves/*/books/*}".into(),
        grpc_path: "/library.v1.Library/GetBook".into(),
    };
    assert_eq!(answer.extensions.get(), Some(&want));
    let call = library.take_call();
    assert_eq!(call.extensions.get(), Some(&Peer("10.0.0.1")));
    assert_eq!(call.extensions.get(), Some(&want));
    // A refused request is labelled too; an unknown path has no label.
    assert_eq!(
        library
            .get("/v1/books/x")
            .await
            .extensions
            .get::<MatchedBinding>()
            .unwrap()
            .template
            .as_ref(),
        "/v1/books/{isbn}"
    );
    assert!(
        library
            .get("/nowhere")
            .await
            .extensions
            .get::<MatchedBinding>()
            .is_none()
    );
}
