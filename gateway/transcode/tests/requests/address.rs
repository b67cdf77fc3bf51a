//! What path and query become.

use transcode::{MultiSegment, Options, Unknown};

use crate::check;
use crate::common::Library;

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
