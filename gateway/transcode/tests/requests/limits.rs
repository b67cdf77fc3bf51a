//! How much of anything is looked at.

use transcode::{Limits, Options};

use crate::check;
use crate::common::Library;

#[tokio::test]
async fn limits_answer_by_name() {
    let limits = Limits {
        url_bytes_max: 64,
        query_pairs_max: 2,
        body_bytes_max: 40,
        json_depth_max: 2,
        ..Limits::default()
    };
    let library = Library::echo(Options {
        limits,
        ..Options::default()
    });
    let long = "x".repeat(64);
    for (story, want) in [
        (format!("GET /v1/search?text={long}"), "414 URL_TOO_LONG 64"),
        (format!("GET /v1/pages/{long}"), "414 URL_TOO_LONG"),
        ("GET /v1/search?tags=a&tags=b&tags=c".into(), "400 QUERY_TOO_LONG 2"),
        (
            format!(r#"PUT /v1/shelves/1/books/2 {{"title":"{long}"}}"#),
            "413 BODY_TOO_LARGE 40",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"author":{"name":{}}}"#.into(),
            "400 BODY_TOO_DEEP 2",
        ),
        (r#"PUT /v1/tags/7 [[[]]]"#.into(), "400 BODY_TOO_DEEP"),
        (
            r#"PUT /v1/tags/7 ["[[["]"#.into(),
            r#"SetTags {"isbn":"7","tags":["[[["]}"#,
        ),
    ] {
        check(&library, &story, want).await;
    }
    // A body that does not say its length is stopped on the way.
    let chunks = futures::stream::iter(
        (0..10).map(|_| Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from_static(b"          ")))),
    );
    let body = http_body_util::StreamBody::new(chunks);
    let request = http::Request::put("/v1/shelves/1/books/2").body(body).unwrap();
    let answer = tower::ServiceExt::oneshot(library.rest.clone(), request).await.unwrap();
    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let library = Library::echo(Options::default());
    let chunks = futures::stream::iter([
        Ok(http_body::Frame::data(bytes::Bytes::from_static(b"{"))),
        Err(std::io::Error::other("the client went away")),
    ]);
    let request = http::Request::put("/v1/shelves/1/books/2")
        .body(http_body_util::StreamBody::new(chunks))
        .unwrap();
    let answer = tower::ServiceExt::oneshot(library.rest.clone(), request).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(library.take_seen(), "nothing");
}
