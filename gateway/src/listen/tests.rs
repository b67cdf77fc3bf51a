//! The end of a connection, in time that is a value.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::*;
use crate::config::Deadlines;
use crate::deadline::Time;

const AGE: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(60);

/// Answers with a stream that is silent for ever.
async fn silence() -> Response<Body> {
    let never = futures::stream::pending::<Result<Frame<Bytes>, Status>>();
    Response::new(Body::new(http_body_util::StreamBody::new(never)))
}

/// Something that answers every call so.
fn silent() -> Inner {
    Inner::new(|_: Request<Body>| silence())
}

/// The same behind the gate that ends streams.
fn ending() -> Inner {
    Inner::new(|request: Request<Body>| async move {
        let time = Time::of(None, request.headers(), Deadlines::default()).unwrap();
        let over = request.extensions().get::<Socket>().map(|socket| socket.over.clone());
        time.keep(None, &CancellationToken::new(), over, silence()).await
    })
}

fn serve(doors: Inner) -> (DuplexStream, JoinHandle<Duration>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let served = Served {
        builder: Arc::new(builder),
        doors,
        limits: Connections {
            age_max: AGE,
            age_grace: GRACE,
            ..Connections::default()
        },
        leaving: CancellationToken::new(),
        metrics: Arc::new(Metrics::new()),
    };
    let begun = Instant::now();
    let serving = tokio::spawn(async move {
        served.connection(ours, "192.0.2.1:5000".parse().unwrap()).await;
        begun.elapsed()
    });
    (theirs, serving)
}

#[tokio::test(start_paused = true)]
async fn a_connection_past_its_age_is_asked_to_go_and_after_its_grace_its_streams_end_with_unavailable() {
    let (theirs, serving) = serve(ending());
    let begun = Instant::now();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(theirs))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = || Request::post("http://x/a.b/C").body(Empty::<Bytes>::new()).unwrap();
    let mut answer = sender.send_request(request()).await.unwrap();
    // It was asked to go: nothing new begins, what runs goes on.
    tokio::time::sleep_until(begun + AGE + Duration::from_secs(1)).await;
    assert!(
        sender.send_request(request()).await.is_err(),
        "a GOAWAY takes no new call"
    );
    assert!(!serving.is_finished());
    let frame = answer.frame().await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), (AGE + GRACE).as_secs());
    let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("on a new one"), "{status:?}");
    let retry = tonic_types::StatusExt::get_details_retry_info(&status).and_then(|it| it.retry_delay);
    assert!(retry.is_some(), "{status:?}");
    assert_eq!(
        serving.await.unwrap().as_secs(),
        (AGE + GRACE).as_secs(),
        "nothing is left to wait for"
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_even_then_is_cut() {
    // Whoever answers does not know that it is over.
    let (mut theirs, serving) = serve(silent());
    theirs.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    theirs.read_to_end(&mut seen).await.unwrap();
    assert!(seen.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&seen));
    assert_eq!(serving.await.unwrap().as_secs(), (AGE + GRACE + LAST_WORDS).as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_past_its_age_goes_at_once() {
    let (theirs, serving) = serve(ending());
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(theirs))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (mut sender, request) = (
        sender,
        Request::post("http://x/a.b/C").body(Empty::<Bytes>::new()).unwrap(),
    );
    drop(sender.send_request(request).await.unwrap());
    assert_eq!(serving.await.unwrap().as_secs(), AGE.as_secs());
}
