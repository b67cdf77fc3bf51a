//! What the body becomes.

use transcode::{JsonOptions, Options, Unknown};

use crate::check;
use crate::common::{self, Library, request};

#[tokio::test]
async fn the_body_is_a_field_or_the_whole_message() {
    let library = Library::echo(Options::default());
    for (story, want) in [
        (
            r#"POST /v1/shelves/1/books?validate_only=true {"title":"T","isbn":"7","author":{"name":"Ada"}}"#,
            r#"CreateBook {"book":{"author":{"name":"Ada"},"isbn":"7","title":"T"},"parent":"shelves/1","validateOnly":true}"#,
        ),
        ("POST /v1/shelves/1/books", r#"CreateBook {"parent":"shelves/1"}"#),
        ("POST /v1/shelves/1/books null", r#"CreateBook {"parent":"shelves/1"}"#),
        (
            r#"PUT /v1/shelves/1/books/2 {"title":"T","genre":1,"request_id":"r","pages":0}"#,
            r#"ReplaceBook {"genre":"NOVEL","name":"shelves/1/books/2","pages":0,"requestId":"r","title":"T"}"#,
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"name":"shelves/1/books/2","isbn":7}"#,
            r#"ReplaceBook {"isbn":"7","name":"shelves/1/books/2"}"#,
        ),
        (
            r#"PUT /v1/tags/7 ["a","b"]"#,
            r#"SetTags {"isbn":"7","tags":["a","b"]}"#,
        ),
        ("PUT /v1/tags/7 []", r#"SetTags {"isbn":"7"}"#),
        // A value for one field cannot smuggle in another.
        (r#"PUT /v1/tags/7 ["a"],"isbn":8"#, "400 BODY_INVALID trailing"),
        (r#"PUT /v1/tags/7 {"tags":["a"]}"#, "400 BODY_INVALID 'tags'"),
        (
            r#"PUT /v1/shelves/1/books/2 {"name":"shelves/1/books/3"}"#,
            "400 PATH_PARAMETER_CONFLICT 'name'",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"titel":"T"}"#,
            "400 BODY_FIELD_UNKNOWN 'titel'",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"author":{"nmae":"Ada"}}"#,
            "400 BODY_FIELD_UNKNOWN 'author.nmae'",
        ),
        (
            r#"POST /v1/search:run {"byField":"a","byAuthor":{}}"#,
            "400 BODY_INVALID oneof",
        ),
        (
            r#"POST /v1/search:run {"weights":{"a":1,"a":2}}"#,
            "400 BODY_FIELD_REPEATED 'weights.a'",
        ),
        (
            r#"POST /v1/search:run {"authors":[{},{"nmae":"Ada"}]}"#,
            "400 BODY_FIELD_UNKNOWN 'authors.1.nmae'",
        ),
        (
            r#"POST /v1/search:run {"atMost":"5","authors":[{"born":1},{"born":1}]}"#,
            r#"Search {"atMost":"5","authors":[{"born":1},{"born":1}]}"#,
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"title":"a","title":"b"}"#,
            "400 BODY_FIELD_REPEATED 'title'",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"requestId":"a","request_id":"a"}"#,
            "400 BODY_FIELD_REPEATED 'request_id'",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"author":{"born":1,"b\u006frn":2}}"#,
            "400 BODY_FIELD_REPEATED 'author.born'",
        ),
        (
            r#"POST /v1/shelves/1/books {"titel":"T"}"#,
            "400 BODY_FIELD_UNKNOWN 'book.titel'",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"author":{"born":"long ago"}}"#,
            "400 BODY_INVALID 'author.born'",
        ),
        (
            r#"PUT /v1/shelves/1/books/2 {"genre":"COOKERY"}"#,
            "400 BODY_INVALID COOKERY",
        ),
        (r#"PUT /v1/shelves/1/books/2 {"title":"T""#, "400 BODY_INVALID EOF"),
        (
            r#"PUT /v1/shelves/1/books/2 {"title":"T"} {}"#,
            "400 BODY_INVALID trailing",
        ),
        ("PUT /v1/shelves/1/books/2 [1]", "400 BODY_INVALID expected"),
        (
            "PUT /v1/shelves/1/books/2?title=x {}",
            "400 QUERY_PARAMETER_UNKNOWN 'title'",
        ),
        (
            "POST /v1/shelves/1/books?book.title=x {}",
            "400 QUERY_PARAMETER_UNKNOWN 'book.title'",
        ),
        (
            "POST /v1/shelves/1/books?parent=shelves/1 {}",
            r#"CreateBook {"book":{},"parent":"shelves/1"}"#,
        ),
        (
            "POST /v1/shelves/1/books?parent=shelves/2 {}",
            "400 PATH_PARAMETER_CONFLICT 'parent'",
        ),
        (r#"POST /v1/shelves/1/books/2:publish {"x":1}"#, "400 BODY_UNEXPECTED"),
    ] {
        check(&library, story, want).await;
    }
    let json = JsonOptions {
        unknown_fields: Unknown::Ignore,
        ..JsonOptions::default()
    };
    let lenient = Library::echo(Options {
        json,
        ..Options::default()
    });
    let story = r#"PUT /v1/shelves/1/books/2 {"titel":"T","author":{"nmae":"Ada"}}"#;
    check(
        &lenient,
        story,
        r#"ReplaceBook {"author":{},"name":"shelves/1/books/2"}"#,
    )
    .await;
}

#[tokio::test]
async fn a_float_in_its_shortest_digits_is_read_though_it_names_a_larger_double() {
    let compliance = common::pool("google/showcase/v1beta1/compliance.proto");
    let transcoder =
        transcode::Transcoder::new(compliance.clone(), transcode::Services::All, Options::default()).unwrap();
    let (saw, seen) = std::sync::mpsc::channel();
    let rest = transcoder.into_service(common::GrpcServer::new(compliance, move |call| {
        saw.send(call.json()).unwrap();
        common::Reply::one(prost_reflect::DynamicMessage::new(call.output))
    }));
    for (number, want) in [
        ("3.4028235e38", Some(r#"{"info":{"fFloat":3.4028234663852886e38}}"#)),
        ("-3.4028235e+38", Some(r#"{"info":{"fFloat":-3.4028234663852886e38}}"#)),
        ("3.5e38", None),
    ] {
        let body = format!(r#"{{"info":{{"fFloat":{number}}}}}"#);
        let request = request("POST /v1beta1/repeat:body", &[], body);
        let answer = tower::ServiceExt::oneshot(rest.clone(), request).await.unwrap();
        assert_eq!(answer.status().is_success(), want.is_some(), "{number}");
        assert_eq!(
            seen.try_recv().ok().map(|it| it.replace("e+", "e")).as_deref(),
            want,
            "{number}"
        );
    }
}

#[tokio::test]
async fn the_media_type_of_a_json_body_must_be_json() {
    let library = Library::echo(Options::default());
    let send = async |headers: &[(&str, &str)]| library.send("PUT /v1/shelves/1/books/2", headers, "{}").await;
    for fine in [
        &[][..],
        &[("content-type", "application/json")],
        &[("content-type", "Application/JSON; charset=\"UTF-8\"; x=y")],
        &[("content-type", "application/merge-patch+json")],
        &[("content-type", "application/json"), ("content-encoding", "identity")],
    ] {
        assert_eq!(send(fine).await.status, 200, "{fine:?}");
    }
    for (refused, reason) in [
        (&[("content-type", "text/plain")][..], "MEDIA_TYPE_UNSUPPORTED"),
        (
            &[("content-type", "application/x-www-form-urlencoded")],
            "MEDIA_TYPE_UNSUPPORTED",
        ),
        (
            &[("content-type", "application/json; charset=latin1")],
            "MEDIA_TYPE_UNSUPPORTED",
        ),
        (&[("content-type", "")], "MEDIA_TYPE_UNSUPPORTED"),
        (
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            "CONTENT_CODING_UNSUPPORTED",
        ),
    ] {
        let answer = send(refused).await;
        assert_eq!((answer.status, answer.reason().as_str()), (415, reason), "{refused:?}");
    }
    // Without a body there is nothing to judge.
    let answer = library
        .send("GET /v1/books/1", &[("content-type", "text/plain")], "")
        .await;
    assert_eq!(answer.status, 200);
}
