//! What a client reads: JSON, headers, and errors in all their forms.

mod common;

use std::time::Duration;

use common::{GrpcServer, Library, Reply, request, status_with};
use http::HeaderName;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use transcode::{HeaderOptions, JsonOptions, Options, Refusal, Returned, Services, Transcoder};

fn failing(status: Status) -> Library {
    Library::new(Options::default(), move |_| Reply::Failed(status.clone()))
}

fn answering(options: Options, json: &'static str) -> Library {
    Library::new(options, move |call| Reply::one(call.answer(json)))
}

#[tokio::test]
async fn json_prints_defaults_and_the_options_change_its_shape() {
    let book = r#"{"isbn":"9007199254740993","genre":"NOVEL","author":{"name":"Ada"}}"#;
    let answer = answering(Options::default(), book).get("/v1/books/1").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.text(),
        concat!(
            r#"{"name":"","isbn":"9007199254740993","title":"","genre":"NOVEL","author":{"name":"Ada","born":0},"#,
            r#""tags":[],"requestId":""}"#
        )
    );
    let json = JsonOptions {
        print_defaults: false,
        proto_names: true,
        enum_numbers: true,
        int64_strings: false,
        ..JsonOptions::default()
    };
    let book = r#"{"isbn":"9007199254740993","genre":"NOVEL","requestId":"r"}"#;
    let answer = answering(
        Options {
            json,
            ..Options::default()
        },
        book,
    )
    .get("/v1/books/1")
    .await;
    assert_eq!(answer.text(), r#"{"isbn":9007199254740993,"genre":1,"request_id":"r"}"#);
}

#[tokio::test]
async fn response_body_answers_with_one_field() {
    let full = r#"{"titles":["a","b"],"best":{"name":"n"},"total":"3","counts":{"x":1}}"#;
    let best = r#"{"name":"n","isbn":"0","title":"","genre":"GENRE_UNSPECIFIED","tags":[],"requestId":""}"#;
    for (url, want, empty) in [
        ("/v1/search/titles", r#"["a","b"]"#, "[]"),
        ("/v1/search/best", best, "null"),
        ("/v1/search/total", r#""3""#, r#""0""#),
        ("/v1/search/counts", r#"{"x":1}"#, "{}"),
    ] {
        assert_eq!(answering(Options::default(), full).get(url).await.text(), want, "{url}");
        assert_eq!(
            answering(Options::default(), "{}").get(url).await.text(),
            empty,
            "{url}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_has_no_json_form_is_an_internal_error() {
    let library = Library::new(Options::default(), |call| {
        let mut book = call.answer("{}");
        let any = prost_types::Any {
            type_url: "type.googleapis.com/no.such.Type".into(),
            value: vec![8, 1],
        };
        let field = prost_reflect::ReflectMessage::descriptor(&book)
            .get_field_by_name("extra")
            .unwrap();
        let prost_reflect::Value::Message(extra) = book.get_field_mut(&field) else {
            panic!()
        };
        extra.transcode_from(&any).unwrap();
        Reply::one(book)
    });
    let answer = library.get("/v1/books/1").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (500, Some(13)));
}

#[tokio::test]
async fn every_code_has_its_http_status() {
    for (code, status) in [
        (Code::Cancelled, 499),
        (Code::Unknown, 500),
        (Code::InvalidArgument, 400),
        (Code::DeadlineExceeded, 504),
        (Code::NotFound, 404),
        (Code::AlreadyExists, 409),
        (Code::PermissionDenied, 403),
        (Code::ResourceExhausted, 429),
        (Code::FailedPrecondition, 400),
        (Code::Aborted, 409),
        (Code::OutOfRange, 400),
        (Code::Unimplemented, 501),
        (Code::Internal, 500),
        (Code::Unavailable, 503),
        (Code::DataLoss, 500),
        (Code::Unauthenticated, 401),
    ] {
        for url in ["/v1/books/1", "/v1/shelves/1:watch"] {
            let answer = failing(Status::new(code, "no ☺")).get(url).await;
            assert_eq!(answer.status, status, "{code:?}");
            assert_eq!(
                answer.text(),
                format!(r#"{{"code":{},"details":[],"message":"no ☺"}}"#, code as i32)
            );
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }
}

#[tokio::test]
async fn details_are_typed_and_an_unknown_one_does_not_lose_the_others() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info("STALE", "library", [("shelf".to_owned(), "1".to_owned())])
        .add_bad_request_violation("isbn", "too old")
        .set_retry_info(Some(Duration::from_millis(1500)));
    let known = status_with(Code::Unavailable, "later", details);
    let mut status = tonic_types::pb::Status::decode(known.details()).unwrap();
    for (type_url, value) in [
        ("type.googleapis.com/library.v1.Author", vec![0x0a, 3, b'A', b'd', b'a']),
        ("type.googleapis.com/no.such.Type", vec![1, 2, 3]),
        ("type.googleapis.com/library.v1.Book", vec![0xff]),
        ("type.googleapis.com/google.protobuf.Duration", vec![8, 2]),
        ("", vec![]),
    ] {
        status.details.push(prost_types::Any {
            type_url: type_url.into(),
            value,
        });
    }
    let status = Status::with_details(Code::Unavailable, "later", status.encode_to_vec().into());
    let answer = failing(status).get("/v1/books/1").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
    let mut found: Vec<String> = answer.json()["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| detail.to_string())
        .collect();
    found.sort();
    let want = [
        r#"{"@type":"","value":""}"#,
        r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"2s"}"#,
        r#"{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"description":"too old","field":"isbn"}]}"#,
        r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"library","metadata":{"shelf":"1"},"reason":"STALE"}"#,
        r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.500s"}"#,
        r#"{"@type":"type.googleapis.com/library.v1.Author","name":"Ada"}"#,
        r#"{"@type":"type.googleapis.com/library.v1.Book","value":"/w=="}"#,
        r#"{"@type":"type.googleapis.com/no.such.Type","value":"AQID"}"#,
    ];
    assert_eq!(found, want);
}

#[tokio::test]
async fn details_that_are_no_status_leave_the_error_standing() {
    let answer = failing(Status::with_details(Code::Aborted, "m", vec![0xff, 0xff].into()))
        .get("/v1/books/1")
        .await;
    assert_eq!(
        (answer.status, answer.text()),
        (409, r#"{"code":10,"details":[],"message":"m"}"#)
    );
}

#[tokio::test]
async fn retry_pushback_becomes_retry_after() {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", "2001".parse().unwrap());
    let answer = failing(Status::with_metadata(Code::ResourceExhausted, "slow down", metadata))
        .get("/v1/books/1")
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "3"));
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
    let answer = failing(Status::with_metadata(Code::ResourceExhausted, "never", metadata))
        .get("/v1/books/1")
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, ""));
}

#[tokio::test]
async fn a_wrong_method_is_405_with_allow() {
    let library = Library::echo(Options::default());
    for (line, allow) in [
        ("PATCH /v1/shelves/1/books/2", "GET, HEAD, PUT, DELETE"),
        ("POST /v1/search", "GET, HEAD"),
        ("OPTIONS /v1/search", "GET, HEAD"),
        ("GET /v1/cache/1", "PURGE"),
        // A stream has no HEAD: its length is not known, and asking would start it.
        ("HEAD /v1/shelves/1:watch", "GET"),
    ] {
        let answer = library.send(line, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{line}");
        if !line.starts_with("HEAD") {
            assert_eq!(answer.reason(), "METHOD_NOT_ALLOWED", "{line}");
            assert_eq!(answer.json()["code"], 12);
        }
    }
}

#[tokio::test]
async fn head_answers_as_get_without_the_body() {
    let library = Library::echo(Options::default());
    let get = library.get("/v1/books/1").await;
    let head = library.send("HEAD /v1/books/1", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    assert_eq!(head.header("content-type"), "application/json");
    assert_eq!(library.send("HEAD /nowhere", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_client_that_will_not_take_json_is_told_so() {
    let library = Library::echo(Options::default());
    for (accept, status) in [
        ("application/json", 200),
        ("text/html, */*;q=0.1", 200),
        ("application/*", 200),
        ("text/html", 406),
        ("application/json;q=0", 406),
    ] {
        let answer = library.send("GET /v1/books/1", &[("accept", accept)], "").await;
        assert_eq!(answer.status, status, "{accept}");
        if status == 406 {
            assert_eq!(answer.reason(), "NOT_ACCEPTABLE");
        }
    }
}

#[tokio::test]
async fn refusals_carry_the_field_and_the_domain() {
    let library = Library::echo(Options {
        error_domain: "library".into(),
        ..Options::default()
    });
    let answer = library.get("/v1/search?nope=1").await;
    let json = answer.json();
    assert_eq!(json["message"], "unknown query parameter 'nope'");
    let details = json["details"].as_array().unwrap();
    assert!(details.contains(&serde_json::json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "library", "reason": "QUERY_PARAMETER_UNKNOWN"
    })));
    assert!(details.contains(&serde_json::json!({
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": "nope", "description": "unknown query parameter 'nope'"}]
    })));
}

/// A unary answer, and a failure, with metadata of all kinds.
fn with_metadata(returned: Returned) -> Library {
    let headers = HeaderOptions {
        returned,
        ..HeaderOptions::default()
    };
    Library::new(
        Options {
            headers,
            ..Options::default()
        },
        |call| {
            let mut metadata = MetadataMap::new();
            metadata.insert("x-request-id", "r-1".parse().unwrap());
            metadata.append("x-many", "a".parse().unwrap());
            metadata.append("x-many", "b".parse().unwrap());
            metadata.insert("grpc-retry-pushback-ms", "1".parse().unwrap());
            metadata.insert("connection", "close".parse().unwrap());
            if call.method == "DeleteBook" {
                return Reply::Failed(Status::with_metadata(Code::NotFound, "gone", metadata));
            }
            let mut response = tonic::Response::new(call.answer("{}"));
            *response.metadata_mut() = metadata;
            Reply::One(Box::pin(std::future::ready(Ok(response))))
        },
    )
}

#[tokio::test]
async fn metadata_come_back_as_headers_without_the_reserved_ones() {
    for line in ["GET /v1/books/1", "DELETE /v1/shelves/1/books/2"] {
        let answer = with_metadata(Returned::All).send(line, &[], "").await;
        let mut names: Vec<&str> = answer.headers.keys().map(HeaderName::as_str).collect();
        names.retain(|name| *name != "retry-after");
        names.sort();
        assert_eq!(names, ["content-type", "x-many", "x-request-id"], "{line}");
        assert_eq!(answer.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(answer.headers.get_all("content-type").iter().count(), 1);
        let only = Returned::Only(vec![HeaderName::from_static("x-request-id")]);
        let answer = with_metadata(only).send(line, &[], "").await;
        assert_eq!((answer.header("x-request-id"), answer.header("x-many")), ("r-1", ""));
    }
}

#[tokio::test]
async fn the_deadline_travels_and_is_kept() {
    let library = Library::echo(Options::default());
    for (headers, want) in [
        (&[][..], None),
        (&[("grpc-timeout", "2S")], Some("2000000u")),
        (&[("x-request-timeout", "0.25")], Some("250000u")),
        (
            &[("x-request-timeout", "250ms"), ("grpc-timeout", "1H")],
            Some("250000u"),
        ),
    ] {
        assert_eq!(library.send("GET /v1/books/1", headers, "").await.status, 200);
        let call = library.take_call();
        let millis = call
            .metadata
            .get("grpc-timeout")
            .map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(millis.as_deref(), want, "{headers:?}");
    }
    let answer = library.send("GET /v1/books/1", &[("grpc-timeout", "soon")], "").await;
    assert_eq!((answer.status, answer.reason().as_str()), (400, "HEADER_INVALID"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_forgets_the_deadline_is_given_up() {
    let library = Library::new(Options::default(), |_| Reply::One(Box::pin(std::future::pending())));
    let start = tokio::time::Instant::now();
    let answer = library.send("GET /v1/books/1", &[("x-request-timeout", "2")], "").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (504, Some(4)));
    assert_eq!(start.elapsed().as_millis(), 2500);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_cancels_at_the_deadline_has_exceeded_it() {
    let library = Library::new(Options::default(), |_| {
        Reply::One(Box::pin(async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Err(Status::cancelled("Timeout expired"))
        }))
    });
    assert_eq!(
        library
            .send("GET /v1/books/1", &[("grpc-timeout", "2S")], "")
            .await
            .status,
        504
    );
    assert_eq!(
        library
            .send("GET /v1/books/1", &[("grpc-timeout", "3S")], "")
            .await
            .status,
        499
    );
    assert_eq!(library.get("/v1/books/1").await.status, 499);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unavailable() {
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let channel = tonic::transport::Endpoint::try_from(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let set = common::descriptor_set("library.proto");
    let transcoder = Transcoder::decode(&set, Services::All, Options::default()).unwrap();
    let rest = transcoder.clone().into_service(channel);
    let answer = tower::ServiceExt::oneshot(rest, request("GET /v1/books/1", &[], ""))
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    // An error from in front of the service can be answered in the same form.
    let answer = transcoder.error_response(Status::unauthenticated("who?"));
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["content-type"].to_str().unwrap()
        ),
        (401, "application/json")
    );
}

#[tokio::test]
async fn a_401_challenges_unless_the_service_does() {
    assert_eq!(
        failing(Status::unauthenticated("who?"))
            .get("/v1/books/1")
            .await
            .header("www-authenticate"),
        "Bearer"
    );
    let mut metadata = MetadataMap::new();
    metadata.insert("www-authenticate", "Bearer error=\"invalid_token\"".parse().unwrap());
    let status = Status::with_metadata(Code::Unauthenticated, "old token", metadata);
    let answer = failing(status).get("/v1/books/1").await;
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["Bearer error=\"invalid_token\""]);
}

#[tokio::test]
async fn layers_outside_can_tell_errors_apart() {
    let answer = failing(Status::aborted("no")).get("/v1/books/1").await;
    assert_eq!(answer.extensions.get(), Some(&Code::Aborted));
    assert!(answer.extensions.get::<Refusal>().is_none());
    let answer = failing(Status::aborted("no")).get("/nowhere").await;
    assert_eq!(
        (answer.extensions.get(), answer.extensions.get()),
        (Some(&Code::NotFound), Some(&Refusal::PathUnknown))
    );
}

#[tokio::test]
async fn it_stands_in_an_axum_router_and_calls_tonic_routes() {
    let pool = common::pool("library.proto");
    let routes = Routes::new(GrpcServer::new(pool.clone(), |call| Reply::one(call.answer("{}"))));
    let transcoder = Transcoder::new(pool, Services::All, Options::default()).unwrap();
    let app = axum::Router::new()
        .route("/healthz", axum::routing::get(|| async { "ok" }))
        .fallback_service(transcoder.into_service(routes));
    for (line, status, body) in [
        ("GET /healthz", 200, "ok"),
        ("GET /v1/search/titles", 200, "[]"),
        ("GET /nowhere", 404, "PATH_UNKNOWN"),
    ] {
        let request = request(line, &[], "").map(axum::body::Body::new);
        let answer = tower::ServiceExt::oneshot(app.clone(), request).await.unwrap();
        assert_eq!(answer.status(), status, "{line}");
        let text = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap()
            .to_bytes();
        assert!(std::str::from_utf8(&text).unwrap().contains(body), "{line}");
    }
}

#[tokio::test]
async fn http_body_is_raw_in_both_directions() {
    let library = Library::new(Options::default(), |call| match call.method.as_str() {
        "EchoRaw" => Reply::one(call.echo()),
        _ => {
            let json = call.json();
            Reply::one(call.answer(&serde_json::json!({"title": json}).to_string()))
        }
    });
    let png = [("content-type", "image/png"), ("accept", "image/*")];
    let answer = library.send("POST /v1/raw", &png, "\u{0}\u{1}raw").await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.text()),
        (200, "image/png", "\0\u{1}raw")
    );
    let answer = library.send("POST /v1/raw", &[], "").await;
    assert_eq!(
        (answer.header("content-type"), answer.text()),
        ("application/octet-stream", "")
    );
    // Its fields are not query parameters: they come from the body alone.
    let answer = library.send("POST /v1/raw?content_type=text/html", &png, "x").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (400, "QUERY_PARAMETER_UNKNOWN")
    );

    let png = &png[..1];
    let answer = library.send("POST /v1/upload/a/b.png?note=n", png, "hello").await;
    let seen = r#"{"file":{"contentType":"image/png","data":"aGVsbG8="},"note":"n","path":"a/b.png"}"#;
    assert_eq!(answer.json()["title"], seen);
    let answer = library.send("POST /v1/upload/a?file.data=eA", png, "hello").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (400, "QUERY_PARAMETER_UNKNOWN")
    );
}
