//! What people complain about in other transcoders, one test each: here it is otherwise.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Library, Reply, request, status_with};
use futures::StreamExt;
use futures::stream;
use http_body_util::BodyExt;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use transcode::Options;

const WATCH: &str = "GET /v1/shelves/1:watch";

#[tokio::test]
async fn the_error_body_is_lost() {
    // Always a google.rpc.Status in the body, details readable, nothing hidden in grpc-* headers.
    let library = Library::new(Options::default(), |_| {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "INSUFFICIENT",
            "library",
            std::collections::HashMap::<String, String>::new(),
        );
        Reply::Failed(status_with(Code::FailedPrecondition, "not enough", details))
    });
    for line in ["GET /v1/books/1", "DELETE /v1/shelves/1/books/2", WATCH] {
        let answer = library.send(line, &[], "").await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (400, "INSUFFICIENT"),
            "{line}"
        );
        assert_eq!(
            (answer.json()["code"].as_i64(), answer.json()["message"].as_str()),
            (Some(9), Some("not enough"))
        );
        assert!(
            answer.headers.keys().all(|name| !name.as_str().starts_with("grpc-")),
            "{:?}",
            answer.headers
        );
    }
}

#[tokio::test]
async fn a_wrong_query_parameter_is_a_404_without_a_reason() {
    let answer = Library::echo(Options::default()).get("/v1/search?txet=a").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (400, "QUERY_PARAMETER_UNKNOWN")
    );
    assert_eq!(answer.json()["message"], "unknown query parameter 'txet'");
}

#[tokio::test]
async fn a_failed_stream_is_a_200_with_an_empty_array() {
    for accept in ["application/json", "application/x-ndjson", "text/event-stream"] {
        let library = Library::new(Options::default(), |_| {
            Reply::many(vec![Err(Status::not_found("no shelf"))])
        });
        let answer = library.send(WATCH, &[("accept", accept)], "").await;
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (404, Some("no shelf")),
            "{accept}"
        );
        // Too late for a status, never too late for the truth.
        let library = Library::new(Options::default(), |call| {
            Reply::many(vec![Ok(call.answer("{}")), Err(Status::data_loss("torn page"))])
        });
        let answer = library.send(WATCH, &[("accept", accept)], "").await;
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .text()
                .contains(r#"{"error":{"code":15,"details":[],"message":"torn page"}}"#),
            "{accept}"
        );
    }
}

#[tokio::test]
async fn streams_are_not_json_and_the_last_delimiter_is_missing() {
    let library = Library::new(Options::default(), |call| {
        Reply::many(
            (1..=3)
                .map(|it| Ok(call.answer(&format!(r#"{{"sequence":"{it}"}}"#))))
                .collect(),
        )
    });
    let array = library.send(WATCH, &[("accept", "application/json")], "").await;
    assert_eq!(array.json().as_array().unwrap().len(), 3);
    let lines = library.send(WATCH, &[("accept", "application/x-ndjson")], "").await;
    assert!(lines.text().ends_with('\n'));
    for line in lines.text().split_terminator('\n') {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let events = library.send(WATCH, &[("accept", "text/event-stream")], "").await;
    assert!(events.text().ends_with("\n\n"));
    assert_eq!(events.text().split_terminator("\n\n").count(), 3);
}

#[tokio::test]
async fn nobody_knows_how_numbers_enums_and_unset_fields_are_written() {
    let library = Library::new(Options::default(), |call| {
        Reply::one(call.answer(r#"{"isbn":"9007199254740993"}"#))
    });
    let json = library.get("/v1/books/1").await.json();
    assert_eq!(json["isbn"], "9007199254740993", "64-bit integers are strings");
    assert_eq!(json["genre"], "GENRE_UNSPECIFIED", "enums are names");
    assert_eq!(
        (&json["title"], &json["tags"]),
        (&"".into(), &serde_json::json!([])),
        "unset fields are there"
    );
    assert!(
        json.get("pages").is_none() && json.get("author").is_none(),
        "unless they track presence"
    );
    // All of it is read in either form.
    let echo = Library::echo(Options::default());
    for body in [
        r#"{"isbn":"7","genre":"NOVEL","requestId":"r"}"#,
        r#"{"isbn":7,"genre":1,"request_id":"r"}"#,
    ] {
        assert_eq!(echo.send("PUT /v1/shelves/1/books/2", &[], body).await.status, 200);
        let want = r#"ReplaceBook {"genre":"NOVEL","isbn":"7","name":"shelves/1/books/2","requestId":"r"}"#;
        assert_eq!(echo.take_seen(), want);
    }
}

#[tokio::test]
async fn encoded_slashes_and_colons_are_decoded_twice_or_split() {
    let library = Library::echo(Options::default());
    for (path, want) in [
        ("/v1/pages/a%2Fb", r#"PageOne {"path":"a/b"}"#),
        ("/v1/pages/a%252Fb", r#"PageOne {"path":"a%2Fb"}"#),
        ("/v1/pages/a%253Ab", r#"PageOne {"path":"a%3Ab"}"#),
        ("/v1/pages/a:b", r#"PageOne {"path":"a:b"}"#),
        ("/v1/pages/a%3Aprint", r#"PageOne {"path":"a:print"}"#),
        ("/v1/pages/x/a%2Fb", r#"PageRest {"path":"x/a%2Fb"}"#),
        (
            "/v1/shelves/a%2Fb/books/c",
            r#"GetBook {"name":"shelves/a%2Fb/books/c"}"#,
        ),
        ("/v1/search?text=100%2525", r#"Search {"text":"100%25"}"#),
    ] {
        assert_eq!(library.get(path).await.status, 200, "{path}");
        assert_eq!(library.take_seen(), want, "{path}");
    }
}

#[tokio::test]
async fn a_415_hides_a_404_or_a_405() {
    let library = Library::echo(Options::default());
    let text = [("content-type", "text/plain")];
    for (line, status, reason) in [
        ("POST /nowhere", 404, "PATH_UNKNOWN"),
        ("POST /v1/search", 405, "METHOD_NOT_ALLOWED"),
        ("PUT /v1/shelves/1/books/2", 415, "MEDIA_TYPE_UNSUPPORTED"),
    ] {
        let answer = library.send(line, &text, "hello").await;
        assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{line}");
    }
}

#[tokio::test]
async fn the_stream_runs_on_for_a_client_that_has_gone_and_timeouts_are_not_carried() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let library = Library::new(Options::default(), move |call| {
        assert_eq!(call.metadata.get("grpc-timeout").unwrap(), "9000000u");
        let flag = Flag(told.clone());
        let first = Ok(call.answer("{}"));
        Reply::Many(Box::pin(stream::iter([first]).chain(stream::pending()).map(
            move |message| {
                let _ = &flag;
                message
            },
        )))
    });
    let mut answer = library.open(request(WATCH, &[("x-request-timeout", "9")], "")).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    assert!(!ended.load(Ordering::SeqCst));
    drop(answer);
    assert!(ended.load(Ordering::SeqCst), "the gRPC stream is dropped with the body");
}

#[tokio::test]
async fn repeated_keys_and_raw_bodies_are_parsed_by_other_rules_than_the_body() {
    let library = Library::echo(Options::default());
    assert_eq!(
        library
            .get("/v1/search?tags=a&tags=b&genres=NOVEL&genres=2")
            .await
            .status,
        200
    );
    assert_eq!(
        library.take_seen(),
        r#"Search {"genres":["NOVEL","POETRY"],"tags":["a","b"]}"#
    );
    // One value for one field: neither the first nor the last wins in silence.
    let answer = library.get("/v1/search?text=a&text=b").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (400, "QUERY_PARAMETER_INVALID")
    );
    // A raw body is taken as it is, whatever stands in the query beside it.
    let raw = [("content-type", "application/json")];
    let answer = library
        .send("POST /v1/upload/x?note=n", &raw, r#"{"data":"not decoded"}"#)
        .await;
    assert_eq!(answer.status, 200);
    let file = library
        .take_call()
        .message
        .get_field_by_name("file")
        .unwrap()
        .into_owned();
    let data = file
        .as_message()
        .unwrap()
        .get_field_by_name("data")
        .unwrap()
        .into_owned();
    assert_eq!(data.as_bytes().unwrap().as_ref(), br#"{"data":"not decoded"}"#);
}

#[tokio::test]
async fn the_outcome_hides_in_headers_and_trailers_that_a_browser_cannot_see() {
    // The outcome is in the status line and the body alone: no CORS list of exposed headers is needed to read it, and
    // an error that the gRPC service put into headers (trailers-only) or into trailers reads the same.
    let early = Library::new(Options::default(), |_| Reply::Failed(Status::unauthenticated("who?")));
    let late = Library::new(Options::default(), |_| {
        Reply::many(vec![Err(Status::unauthenticated("who?"))])
    });
    let (early, late) = (early.send(WATCH, &[], "").await, late.send(WATCH, &[], "").await);
    assert_eq!((early.status, early.text()), (late.status, late.text()));
    assert_eq!(
        (early.status, early.text()),
        (401, r#"{"code":16,"details":[],"message":"who?"}"#)
    );
    for answer in [early, late] {
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("grpc-")));
    }
}
