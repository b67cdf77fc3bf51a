//! What an HTTP request becomes: tables of requests, each with the message that the gRPC service saw or the reason of
//! the refusal.

mod common;

use common::{Library, request};
use http::HeaderName;
use proptest::prelude::*;
use transcode::{HeaderField, HeaderOptions, JsonOptions, Limits, MatchedBinding, MultiSegment, Options, Unknown};

/// Sends `METHOD URL [body]` and compares: with `Method {message}`, or with `status REASON text-in-the-message`.
async fn check(library: &Library, story: &str, want: &str) {
    let mut parts = story.splitn(3, ' ');
    let line = format!("{} {}", parts.next().unwrap(), parts.next().unwrap());
    let body = parts.next().unwrap_or_default();
    let answer = library.send(&line, &[], body).await;
    if answer.status == 200 {
        assert_eq!(library.take_seen(), want, "{story}");
        return;
    }
    let got = format!("{} {}", answer.status, answer.reason());
    let (wanted, text) = want.splitn(3, ' ').collect::<Vec<_>>().split_at_checked(2).map_or_else(
        || (want.to_owned(), String::new()),
        |(head, tail)| (head.join(" "), tail.join(" ")),
    );
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(got, wanted, "{story}: {message}");
    assert!(message.contains(&text), "{story}: {message}");
    assert_eq!(library.take_seen(), "nothing", "{story}");
}

#[tokio::test]
async fn paths_choose_a_method_and_fill_fields() {
    let library = Library::echo(Options::default());
    for (story, want) in [
        ("GET /v1/shelves/1/books/2", r#"GetBook {"name":"shelves/1/books/2"}"#),
        ("GET /v1/books/42", r#"GetBook {"isbn":"42"}"#),
        ("GET /v1/authors/Ada/latest", r#"GetBook {"author":{"name":"Ada"}}"#),
        (
            "DELETE /v1/shelves/1/books/2",
            r#"DeleteBook {"name":"shelves/1/books/2"}"#,
        ),
        (
            "POST /v1/shelves/1/books/2:publish",
            r#"PublishBook {"name":"shelves/1/books/2"}"#,
        ),
        (
            "POST /v1/shelves/1/books/2:publish {}",
            r#"PublishBook {"name":"shelves/1/books/2"}"#,
        ),
        ("PURGE /v1/cache/7", r#"PurgeCache {"isbn":"7"}"#),
        ("GET /v1/anything", "Anything {}"),
        ("REPORT /v1/anything?isbn=1", r#"Anything {"isbn":"1"}"#),
        // A literal before one segment, one before the rest.
        ("GET /v1/pages/home", "PageLiteral {}"),
        ("GET /v1/pages/away", r#"PageOne {"path":"away"}"#),
        ("GET /v1/pages/a/b/c", r#"PageRest {"path":"a/b/c"}"#),
        ("GET /v1/pages", "PageRest {}"),
        ("GET /v1/pages/", "PageRest {}"),
        ("GET /v1/pages/home/x", r#"PageRest {"path":"home/x"}"#),
        // A verb only where there is one; elsewhere the colon is data.
        ("GET /v1/pages/a/b:print", r#"PageRestVerb {"path":"a/b"}"#),
        ("GET /v1/pages/a/b:other", r#"PageRest {"path":"a/b:other"}"#),
        ("GET /v1/pages/a:b:print", r#"PageRestVerb {"path":"a:b"}"#),
        ("GET /v1/pages/a%3Aprint", r#"PageOne {"path":"a:print"}"#),
        (
            "GET /v1/shelves/1/books/2:publish",
            r#"GetBook {"name":"shelves/1/books/2:publish"}"#,
        ),
        // One spelling of a literal is as good as another.
        ("GET /v1/%70ages/x", r#"PageOne {"path":"x"}"#),
        // A `*` is never empty.
        ("GET /v1/shelves//books/2", "404 PATH_UNKNOWN"),
        ("GET /v1/shelves/1/books/", "404 PATH_UNKNOWN"),
        ("GET /v1/books/", "404 PATH_UNKNOWN"),
        ("GET /v1/books/42/", "404 PATH_UNKNOWN"),
        ("GET /v2/books/42", "404 PATH_UNKNOWN"),
        ("GET /", "404 PATH_UNKNOWN"),
        ("GET /library.v1.Library/Hidden", "404 PATH_UNKNOWN"),
        ("GET /v1/books/many", "400 PATH_PARAMETER_INVALID 'isbn'"),
        ("GET /v1/pages/%", "400 PATH_PARAMETER_INVALID '%'"),
        ("GET /v1/pages/%FF", "400 PATH_PARAMETER_INVALID UTF-8"),
    ] {
        check(&library, story, want).await;
    }
}

#[tokio::test]
async fn one_segment_is_decoded_in_full_and_several_keep_reserved_characters() {
    let library = Library::echo(Options::default());
    for (story, want) in [
        ("GET /v1/pages/a%2Fb", r#"PageOne {"path":"a/b"}"#),
        ("GET /v1/pages/a+b%2Bc%20d", r#"PageOne {"path":"a+b+c d"}"#),
        ("GET /v1/pages/100%2525", r#"PageOne {"path":"100%25"}"#),
        ("GET /v1/pages/%E2%98%BA", r#"PageOne {"path":"☺"}"#),
        ("GET /v1/pages/a%2Fb/c%20d%3Ae", r#"PageRest {"path":"a%2Fb/c d%3Ae"}"#),
        (
            "GET /v1/shelves/a%2fb/books/%C3%BC",
            r#"GetBook {"name":"shelves/a%2fb/books/ü"}"#,
        ),
    ] {
        check(&library, story, want).await;
    }
    let library = Library::echo(Options {
        multi_segment: MultiSegment::KeepSlash,
        ..Options::default()
    });
    check(
        &library,
        "GET /v1/pages/a%2Fb/c%20d%3Ae",
        r#"PageRest {"path":"a%2Fb/c d:e"}"#,
    )
    .await;
    check(&library, "GET /v1/pages/a%2Fb", r#"PageOne {"path":"a/b"}"#).await;
}

#[tokio::test]
async fn the_query_fills_what_is_left() {
    let library = Library::echo(Options::default());
    let search = |query: &str, want: &str| (format!("GET /v1/search?{query}"), format!("Search {want}"));
    for (story, want) in [
        search("", "{}"),
        search("text=a+b%2Bc%26", r#"{"text":"a b+c&"}"#),
        search("text=a=b", r#"{"text":"a=b"}"#),
        search("text", "{}"),
        search("&text=x&&", r#"{"text":"x"}"#),
        search("t%65xt=x", r#"{"text":"x"}"#),
        search("tags=a&tags=b&tags=", r#"{"tags":["a","b",""]}"#),
        search("years=1984&years=-1", r#"{"years":[1984,-1]}"#),
        search("genre=NOVEL", r#"{"genre":"NOVEL"}"#),
        search("genre=2", r#"{"genre":"POETRY"}"#),
        // Without the enum's own prefix, as a person types it.
        search("genre=UNSPECIFIED", "{}"),
        search("genre=77", r#"{"genre":77}"#),
        search("genres=NOVEL&genres=2", r#"{"genres":["NOVEL","POETRY"]}"#),
        search(
            "author.name=Ada&author.born=1815",
            r#"{"author":{"born":1815,"name":"Ada"}}"#,
        ),
        search(
            "since=2026-11-22T10:00:00.5Z",
            r#"{"since":"2026-11-22T10:00:00.500Z"}"#,
        ),
        search(
            "since=2026-11-22T10:00:00%2B02:00",
            r#"{"since":"2026-11-22T08:00:00Z"}"#,
        ),
        search("within=1.5s", r#"{"within":"1.500s"}"#),
        search("fields=title,authorName", r#"{"fields":"title,authorName"}"#),
        search("fields.paths=title&fields.paths=isbn", r#"{"fields":"title,isbn"}"#),
        search(
            "at_most=5&in_print=false&language=de",
            r#"{"atMost":"5","inPrint":false,"language":"de"}"#,
        ),
        search("atMost=5&inPrint=true", r#"{"atMost":"5","inPrint":true}"#),
        search("at_most.value=5", r#"{"atMost":"5"}"#),
        search("weights[a]=1&weights%5Bb%5D=2", r#"{"weights":{"a":1,"b":2}}"#),
        search("cursor=-_-_-w", r#"{"cursor":"+/+/+w=="}"#),
        search("page_size=0", r#"{"pageSize":0}"#),
        search(
            "revision=18446744073709551615",
            r#"{"revision":"18446744073709551615"}"#,
        ),
        search(
            "score=-29e4&ratio=NaN&exact=true",
            r#"{"exact":true,"ratio":"NaN","score":-290000.0}"#,
        ),
        search("by_field=title", r#"{"byField":"title"}"#),
        search(
            "by_author.name=Ada&by_author.born=1815",
            r#"{"byAuthor":{"born":1815,"name":"Ada"}}"#,
        ),
    ] {
        check(&library, &story, &want).await;
    }
}

#[tokio::test]
async fn the_query_is_refused_by_name() {
    let library = Library::echo(Options::default());
    for (query, want) in [
        ("nope=1", "400 QUERY_PARAMETER_UNKNOWN 'nope'"),
        ("author.nope=1", "400 QUERY_PARAMETER_UNKNOWN 'author.nope'"),
        ("text.x=1", "400 QUERY_PARAMETER_UNKNOWN 'text.x'"),
        ("author=Ada", "400 QUERY_PARAMETER_UNKNOWN 'author'"),
        ("authors.name=Ada", "400 QUERY_PARAMETER_UNKNOWN 'authors.name'"),
        ("authors=Ada", "400 QUERY_PARAMETER_UNKNOWN 'authors'"),
        ("weights=1", "400 QUERY_PARAMETER_UNKNOWN 'weights'"),
        ("text[a]=1", "400 QUERY_PARAMETER_UNKNOWN 'text[a]'"),
        ("=1", "400 QUERY_PARAMETER_UNKNOWN ''"),
        (".=1", "400 QUERY_PARAMETER_UNKNOWN '.'"),
        ("a%20b=1", "400 QUERY_PARAMETER_UNKNOWN 'a b'"),
        ("%zz=1", "400 QUERY_PARAMETER_INVALID '%zz'"),
        ("text=%zz", "400 QUERY_PARAMETER_INVALID 'text'"),
        ("text=%FF", "400 QUERY_PARAMETER_INVALID UTF-8"),
        ("text=a&text=b", "400 QUERY_PARAMETER_INVALID more than once"),
        ("page_size=1&pageSize=1", "400 QUERY_PARAMETER_INVALID more than once"),
        (
            "weights[a]=1&weights[a]=2",
            "400 QUERY_PARAMETER_INVALID more than once",
        ),
        ("weights[a]=x", "400 QUERY_PARAMETER_INVALID 'weights[a]'"),
        ("genre=COOKERY", "400 QUERY_PARAMETER_INVALID library.v1.Genre"),
        ("exact=yes", "400 QUERY_PARAMETER_INVALID 'yes'"),
        ("page_size=", "400 QUERY_PARAMETER_INVALID 'page_size'"),
        ("page_size=4294967296", "400 QUERY_PARAMETER_INVALID 32-bit"),
        ("since=yesterday", "400 QUERY_PARAMETER_INVALID 'since'"),
        ("within=5", "400 QUERY_PARAMETER_INVALID 'within'"),
        (
            "by_field=title&by_author.name=Ada",
            "400 ONEOF_CONFLICT 'by_author.name'",
        ),
        ("by_author.name=Ada&by_field=title", "400 ONEOF_CONFLICT 'by_field'"),
    ] {
        check(&library, &format!("GET /v1/search?{query}"), want).await;
    }
}

#[tokio::test]
async fn a_recursive_message_cannot_be_built_endlessly_by_a_url() {
    let library = Library::echo(Options::default());
    let nested = |steps: usize| format!("GET /v1/search?author.{}name=Ada", "teacher.".repeat(steps));
    let answer = library.send(&nested(30), &[], "").await;
    assert_eq!(answer.status, 200);
    let answer = library.send(&nested(31), &[], "").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (400, "QUERY_PARAMETER_UNKNOWN")
    );
}

#[tokio::test]
async fn unknown_query_parameters_can_be_passed_over() {
    let lenient = Library::echo(Options {
        unknown_query: Unknown::Ignore,
        ..Options::default()
    });
    check(
        &lenient,
        "GET /v1/search?nope=1&text=x&author=y",
        r#"Search {"text":"x"}"#,
    )
    .await;
    check(&lenient, "GET /v1/search?page_size=x", "400 QUERY_PARAMETER_INVALID").await;
    let some = Library::echo(Options {
        ignored_query: vec!["access_token".into()],
        ..Options::default()
    });
    check(
        &some,
        "GET /v1/search?access_token=%zz&text=x",
        r#"Search {"text":"x"}"#,
    )
    .await;
    check(&some, "GET /v1/search?accesstoken=1", "400 QUERY_PARAMETER_UNKNOWN").await;
}

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

/// Everything but `[-_.~0-9a-zA-Z]`.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

thread_local! {
    static LIBRARY: Library = Library::echo(Options::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives_a_path_segment_and_a_query(text in ".{1,30}") {
        let library = LIBRARY.with(Library::clone);
        // Dots alone are steps in a path to every client; the escape for them is the dot itself.
        for line in [format!("GET /v1/pages/x{}", escape(&text)), format!("GET /v1/search?text=x{}", escape(&text))] {
            let answer = block_on(library.send(&line, &[], ""));
            prop_assert_eq!(answer.status, 200);
            let message = library.take_call().message;
            let got = message.get_field_by_name("path").or_else(|| message.get_field_by_name("text")).unwrap();
            prop_assert_eq!(got.as_str().unwrap(), format!("x{text}"));
        }
    }

    #[test]
    fn nothing_a_client_sends_is_an_internal_error(
        method in "GET|PUT|POST|HEAD|PURGE",
        path in "(/(v1|shelves|books|search|pages|tags|upload|1|[:%a-c*{}.]{0,3}|%2[Ff]|:publish)){0,7}",
        query in "((text|tags|author\\.name|weights\\[a\\]|by_field|since|[a-z.%\\[\\]+]{0,6})=?[0-9a-z%+.-]{0,5}&?){0,4}",
        body in "|\\{(\"(title|isbn|author|tags|x)\":(1|\"a\"|null|\\[\\]|\\{\\}),?){0,3}\\}|[{}\\[\\]\",:0-9a-z]{0,20}",
    ) {
        let url = format!("http://localhost{path}?{query}");
        prop_assume!(url.parse::<http::Uri>().is_ok());
        let library = LIBRARY.with(Library::clone);
        let answer = block_on(library.send(&format!("{method} {url}"), &[], &body));
        prop_assert!(answer.status < 500, "{}", answer.status);
        if answer.status != 200 && method != "HEAD" {
            answer.reason();
        }
    }
}
