//! Server streams: the three framings, failure before and after the first message, resuming, keep-alive, and that
//! nobody works for a client that has gone.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Call, Library, Messages, Reply, request};
use futures::StreamExt;
use futures::stream;
use http_body_util::{BodyExt, Full};
use prost_reflect::DynamicMessage;
use tonic::Status;
use transcode::{Options, StreamFormat, StreamOptions};

const WATCH: &str = "GET /v1/shelves/1:watch";
const NDJSON: (&str, &str) = ("accept", "application/x-ndjson");
const EVENTS: (&str, &str) = ("accept", "text/event-stream");
const ARRAY: (&str, &str) = ("accept", "application/json");

fn options() -> Options {
    let streams = StreamOptions {
        event_id_field: Some("sequence".into()),
        resume_field: Some("resume_after_sequence".into()),
        ..StreamOptions::default()
    };
    Options {
        streams,
        ..Options::default()
    }
}

fn change(call: &Call, sequence: u64) -> DynamicMessage {
    call.answer(&format!(r#"{{"sequence":"{sequence}","title":"t{sequence}"}}"#))
}

/// A library whose shelves change as told: a number is a change, `Err` is the end.
fn watched(script: &'static [Result<u64, &'static str>]) -> Library {
    Library::new(options(), move |call| {
        let messages = script.iter().map(|step| match step {
            Ok(sequence) => Ok(change(&call, *sequence)),
            Err(message) => Err(Status::out_of_range(*message)),
        });
        Reply::many(messages.collect())
    })
}

#[tokio::test]
async fn accept_chooses_the_framing_and_every_framing_ends_as_it_should() {
    let error = r#"{"error":{"code":11,"details":[],"message":"gone"}}"#;
    let one = r#"{"sequence":"1","title":"t1"}"#;
    let two = r#"{"sequence":"2","title":"t2"}"#;
    for (accept, script, media_type, want) in [
        (
            NDJSON,
            &[Ok(1), Ok(2)][..],
            "application/x-ndjson",
            format!("{one}\n{two}\n"),
        ),
        (NDJSON, &[], "application/x-ndjson", String::new()),
        (
            NDJSON,
            &[Ok(1), Err("gone")],
            "application/x-ndjson",
            format!("{one}\n{error}\n"),
        ),
        (ARRAY, &[Ok(1), Ok(2)], "application/json", format!("[{one},\n{two}]\n")),
        (ARRAY, &[Ok(1)], "application/json", format!("[{one}]\n")),
        (ARRAY, &[], "application/json", "[]\n".into()),
        (
            ARRAY,
            &[Ok(1), Err("gone")],
            "application/json",
            format!("[{one},\n{error}]\n"),
        ),
        (
            EVENTS,
            &[Ok(1), Ok(2)],
            "text/event-stream",
            format!("id: 1\ndata: {one}\n\nid: 2\ndata: {two}\n\n"),
        ),
        (EVENTS, &[], "text/event-stream", String::new()),
        (
            EVENTS,
            &[Ok(1), Err("gone")],
            "text/event-stream",
            format!("id: 1\ndata: {one}\n\nevent: error\ndata: {error}\n\n"),
        ),
        // A sequence of zero is no place to resume from.
        (
            EVENTS,
            &[Ok(0)],
            "text/event-stream",
            "data: {\"sequence\":\"0\",\"title\":\"t0\"}\n\n".into(),
        ),
        (("accept", "*/*"), &[Ok(1)], "application/x-ndjson", format!("{one}\n")),
        (
            ("x-no-accept", ""),
            &[Ok(1)],
            "application/x-ndjson",
            format!("{one}\n"),
        ),
    ] {
        let answer = watched(script).send(WATCH, &[accept], "").await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, want.as_str()),
            "{accept:?} {script:?}"
        );
        assert_eq!(answer.header("content-type"), media_type);
        assert_eq!(
            (answer.header("cache-control"), answer.header("x-accel-buffering")),
            ("no-store", "no")
        );
    }
    let answer = watched(&[]).send(WATCH, &[("accept", "text/html")], "").await;
    assert_eq!((answer.status, answer.reason().as_str()), (406, "NOT_ACCEPTABLE"));
}

#[tokio::test]
async fn the_default_framing_is_a_choice() {
    let streams = StreamOptions {
        default_format: StreamFormat::Array,
        ..StreamOptions::default()
    };
    let library = Library::new(
        Options {
            streams,
            ..Options::default()
        },
        |call| Reply::many(vec![Ok(change(&call, 1))]),
    );
    assert_eq!(
        library.send(WATCH, &[], "").await.header("content-type"),
        "application/json"
    );
}

#[tokio::test]
async fn a_failure_before_the_first_message_has_its_real_status_in_every_framing() {
    for accept in [NDJSON, EVENTS, ARRAY] {
        let early = watched(&[Err("gone")]).send(WATCH, &[accept], "").await;
        assert_eq!(
            (early.status, early.text()),
            (400, r#"{"code":11,"details":[],"message":"gone"}"#)
        );
        let at_once = Library::new(options(), |_| Reply::Failed(Status::permission_denied("no")));
        let at_once = at_once.send(WATCH, &[accept], "").await;
        assert_eq!(
            (at_once.status, at_once.header("content-type")),
            (403, "application/json")
        );
    }
}

#[tokio::test]
async fn last_event_id_resumes_and_is_newer_than_the_url() {
    let library = Library::new(options(), |call| {
        let message = serde_json::json!({"title": call.json()}).to_string();
        Reply::many(vec![Ok(call.answer(&message))])
    });
    let title = async |line: &str, headers: &[(&str, &str)]| -> String {
        let answer = library.send(line, headers, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let line = answer
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("data: "))
            .unwrap()
            .to_owned();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["title"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(title(WATCH, &[EVENTS]).await, r#"{"shelf":"shelves/1"}"#);
    let resumed = r#"{"resumeAfterSequence":"42","shelf":"shelves/1"}"#;
    assert_eq!(title(WATCH, &[EVENTS, ("last-event-id", "42")]).await, resumed);
    let old_url = format!("{WATCH}?resume_after_sequence=7");
    assert_eq!(title(&old_url, &[EVENTS, ("last-event-id", "42")]).await, resumed);
    let answer = library.send(WATCH, &[EVENTS, ("last-event-id", "x")], "").await;
    assert_eq!((answer.status, answer.reason().as_str()), (400, "HEADER_INVALID"));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_event_stream_is_kept_alive_with_comments() {
    let library = Library::new(options(), |call| {
        let first = stream::iter([Ok(change(&call, 1))]);
        let second = Ok(change(&call, 2));
        let later = stream::once(async {
            tokio::time::sleep(Duration::from_secs(40)).await;
            second
        });
        Reply::Many(Box::pin(first.chain(later)))
    });
    let answer = library.send(WATCH, &[EVENTS], "").await;
    let shape: Vec<&str> = answer
        .text()
        .split("\n\n")
        .map(|event| event.split('\n').next().unwrap())
        .collect();
    assert_eq!(shape, ["id: 1", ": keep-alive", ": keep-alive", "id: 2", ""]);
    // A comment has no place in the other framings.
    assert_eq!(library.send(WATCH, &[NDJSON], "").await.text().lines().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_opens_after_a_while_and_a_late_failure_is_its_last_element() {
    let library = Library::new(options(), |_| {
        Reply::Many(Box::pin(stream::once(async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            Err(Status::out_of_range("late"))
        })))
    });
    let start = tokio::time::Instant::now();
    let answer = library.open(request(WATCH, &[NDJSON], "")).await;
    assert_eq!((answer.status().as_u16(), start.elapsed().as_secs()), (200, 5));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{\"error\":{\"code\":11,\"details\":[],\"message\":\"late\"}}\n");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_given_up_after_its_deadline() {
    let library = Library::new(options(), |call| {
        let first = stream::iter([Ok(change(&call, 1))]);
        Reply::Many(Box::pin(first.chain(stream::pending())))
    });
    let answer = library.send(WATCH, &[NDJSON, ("grpc-timeout", "30S")], "").await;
    let last = answer.text().lines().last().unwrap();
    assert!(last.starts_with(r#"{"error":{"code":4,"#), "{last}");
}

#[tokio::test]
async fn a_stream_of_http_bodies_is_one_download() {
    let script = |failing: bool| {
        Library::new(Options::default(), move |call| {
            let chunk = |data: &str| call.answer(&format!(r#"{{"contentType":"text/csv","data":"{data}"}}"#));
            let mut messages = vec![Ok(chunk("YSxi")), Ok(chunk("Cg==")), Ok(chunk("Yyxk"))];
            if failing {
                messages.push(Err(Status::data_loss("torn page")));
            }
            Reply::many(messages)
        })
    };
    let answer = script(false).get("/v1/download/1").await;
    assert_eq!((answer.header("content-type"), answer.text()), ("text/csv", "a,b\nc,d"));
    // There is no place for an error in it, so it must not look complete.
    let broken = script(true).open(request("GET /v1/download/1", &[], "")).await;
    assert!(broken.into_body().collect().await.is_err());
    let empty = Library::new(Options::default(), |_| Reply::many(vec![]))
        .get("/v1/download/1")
        .await;
    assert_eq!((empty.status, empty.text()), (200, ""));
    let early = Library::new(Options::default(), |_| Reply::many(vec![Err(Status::not_found("no"))]));
    assert_eq!(early.get("/v1/download/1").await.status, 404);
}

/// Counts the streams that are open on the gRPC server.
#[derive(Clone, Default)]
struct Open(Arc<AtomicU64>);

struct Guard(Open);

impl Open {
    fn enter(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(self.clone())
    }

    async fn becomes(&self, want: u64) {
        tokio::time::timeout(Duration::from_secs(20), async {
            while self.0.load(Ordering::SeqCst) != want {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{} streams are open, not {want}", self.0.load(Ordering::SeqCst)));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One change at once and then none for ever.
fn endless(open: Open) -> impl Fn(Call) -> Reply + Send + Sync {
    move |call| {
        let guard = open.enter();
        if call.method == "GetBook" {
            return Reply::One(Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            }));
        }
        let first = Ok(change(&call, 1));
        let messages: Messages = Box::pin(stream::iter([first]).chain(stream::pending()).map(move |message| {
            let _ = &guard;
            message
        }));
        Reply::Many(messages)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_flushed_and_a_client_that_leaves_ends_the_call() {
    // Over real sockets on both sides, for HTTP/1.1 and HTTP/2.
    let open = Open::default();
    let pool = common::pool("library.proto");
    let upstream = common::serve(common::GrpcServer::new(pool.clone(), endless(open.clone()))).await;
    let channel = tonic::transport::Endpoint::try_from(format!("http://{upstream}"))
        .unwrap()
        .connect_lazy();
    let transcoder = transcode::Transcoder::new(pool, transcode::Services::All, options()).unwrap();
    let address = common::serve(transcoder.into_service(channel)).await;
    for client in [common::http1(), common::http2()] {
        let url = format!("http://{address}/v1/shelves/1:watch");
        let request = http::Request::get(url)
            .header(EVENTS.0, EVENTS.1)
            .body(Full::<Bytes>::default())
            .unwrap();
        let mut answer = client.request(request).await.unwrap();
        let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"id: 1\ndata: "), "{first:?}");
        open.becomes(1).await;
        drop(answer);
        drop(client);
        open.becomes(0).await;
    }
    // A unary call that is waited for no longer ends too.
    let client = common::http2();
    let url: http::Uri = format!("http://{address}/v1/books/1").parse().unwrap();
    let pending = tokio::spawn(async move { client.get(url).await.map(|_| ()) });
    open.becomes(1).await;
    pending.abort();
    open.becomes(0).await;
}

#[tokio::test]
async fn dropping_the_body_drops_the_call_in_process_too() {
    let open = Open::default();
    let library = Library::new(options(), endless(open.clone()));
    let mut answer = library.open(request(WATCH, &[NDJSON], "")).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    open.becomes(1).await;
    drop(answer);
    open.becomes(0).await;
}
