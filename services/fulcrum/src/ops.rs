//! The ops endpoint: `/livez`, `/readyz` and `/metrics`, on a port of its own.
//!
//! Alive means that this process answers, whatever its stores do: restarting it would not bring them back. Ready means that it can do its
//! work now; the answer says for each thing it needs whether it is there. A process with children answers for them too.

mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use page::Form;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::say;
use crate::settings::{OpsListen, OpsSettings};
use crate::telemetry::Metrics;

/// How long a child, or a process asked by `ready`, may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Most bytes read of an answer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a process needs and whether it is there. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    conditions: BTreeMap<String, Condition>,
    children: BTreeMap<String, PathBuf>,
    leaving: bool,
}

/// One thing that a process needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Condition {
    ready: bool,
    /// What else there is to say.
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl Condition {
    /// There or not.
    pub(crate) fn new(ready: bool) -> Self {
        Self {
            ready,
            details: Map::new(),
        }
    }

    /// Not there, and why.
    pub(crate) fn missing(why: impl std::fmt::Display) -> Self {
        Self::new(false).with("error", why.to_string())
    }

    /// With something more to say.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Whether it is there.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Something more that it says.
    pub(crate) fn detail(&self, name: &str) -> Option<&Value> {
        self.details.get(name)
    }
}

/// The whole board as it is now.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether everything is there.
    pub(crate) ready: bool,
    /// What is.
    pub(crate) checks: BTreeMap<String, Condition>,
}

impl Board {
    /// Says how one thing is.
    pub(crate) fn set(&self, name: &str, condition: Condition) {
        self.lock().conditions.insert(name.to_owned(), condition);
    }

    /// Says what will be told about: until it is, it is missing.
    pub(crate) fn expect(&self, names: &[&str]) {
        let mut inner = self.lock();
        for name in names {
            inner
                .conditions
                .entry((*name).to_owned())
                .or_insert_with(|| Condition::missing("not known yet"));
        }
    }

    /// Answers for a child as well, whose ops endpoint is on this socket.
    pub(crate) fn add_child(&self, name: &str, socket: PathBuf) {
        self.lock().children.insert(name.to_owned(), socket);
    }

    /// From now on not ready: the process is about to end.
    pub(crate) fn leave(&self) {
        self.lock().leaving = true;
    }

    /// The board with the answers of the children.
    pub(crate) async fn readiness(&self) -> Readiness {
        let (mut checks, children, leaving) = {
            let inner = self.lock();
            (inner.conditions.clone(), inner.children.clone(), inner.leaving)
        };
        let answers = children
            .iter()
            .map(|(name, socket)| async move { (name, child(name, socket).await) });
        for (name, (condition, more)) in futures::future::join_all(answers).await {
            checks.insert(name.clone(), condition);
            checks.extend(more);
        }
        let ready = !leaving && !checks.is_empty() && checks.values().all(Condition::is_ready);
        Readiness { ready, checks }
    }

    /// What this process itself needs, as metrics: alerts name the thing that is missing.
    fn page(&self) -> String {
        let inner = self.lock();
        let mut page = "# HELP fulcrum_ready Whether what a process needs is there, by its name on /readyz.\n\
                        # TYPE fulcrum_ready gauge\n"
            .to_owned();
        for (name, condition) in &inner.conditions {
            page += &format!("fulcrum_ready{{check=\"{name}\"}} {}\n", u8::from(condition.ready));
        }
        page
    }

    /// The metrics pages of the children that answer, in this form, with their names.
    async fn child_metrics(&self, form: Form) -> Vec<(String, String)> {
        let children = self.lock().children.clone();
        let answers = children.into_iter().map(|(name, socket)| async move {
            let (_, page) = ask(&socket, "/metrics", form.content_type()).await.ok()?;
            Some((name, page))
        });
        futures::future::join_all(answers).await.into_iter().flatten().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// A child's own readiness, and what it says about the thing that only it knows.
async fn child(name: &str, socket: &Path) -> (Condition, BTreeMap<String, Condition>) {
    let asked = ask(socket, "/readyz", "*/*")
        .await
        .and_then(|(_, body)| Ok(serde_json::from_str::<Value>(&body)?));
    match asked {
        Ok(answer) => {
            let ready = answer.get("ready").and_then(Value::as_bool).unwrap_or(false);
            let checks = answer.get("checks").cloned().unwrap_or_default();
            // The feed is the whole mesh's, so it stands where it stands when all is one process.
            let feed = checks.get("feed").and_then(Value::as_object).cloned();
            let more = feed.map(|mut details| {
                let ready = details.remove("ready").and_then(|it| it.as_bool()).unwrap_or(false);
                ("feed".to_owned(), Condition { ready, details })
            });
            (Condition::new(ready).with("checks", checks), more.into_iter().collect())
        }
        Err(error) => (
            Condition::missing(format!("{name} does not answer: {error:#}")),
            BTreeMap::new(),
        ),
    }
}

/// An ops endpoint that is bound; it answers once [`Endpoint::serve`] runs.
#[derive(Debug)]
pub(crate) enum Endpoint {
    Off,
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoint {
    /// Binds it.
    ///
    /// # Errors
    /// When the place is taken.
    pub(crate) async fn bind(settings: &OpsSettings) -> anyhow::Result<Self> {
        let place = &settings.ops_listen;
        let advice = || format!("the ops endpoint cannot listen on {place}; choose another place with --ops-listen");
        Ok(match place {
            OpsListen::Off => Self::Off,
            OpsListen::Tcp(address) => Self::Tcp(TcpListener::bind(address).await.with_context(advice)?),
            OpsListen::Unix(path) => {
                // What is left of a process that was killed.
                let _absent = std::fs::remove_file(path);
                Self::Unix(UnixListener::bind(path).with_context(advice)?)
            }
        })
    }

    /// Where it is, with the port that the system chose.
    pub(crate) fn address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Off | Self::Unix(_) => None,
        }
    }

    /// Answers until `shutdown`.
    pub(crate) async fn serve(self, board: Board, metrics: Metrics, shutdown: CancellationToken) {
        let router = Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(page))
            .with_state((board, metrics));
        let served = match self {
            Self::Off => return shutdown.cancelled().await,
            Self::Tcp(listener) => {
                axum::serve(listener, router)
                    .with_graceful_shutdown(shutdown.cancelled_owned())
                    .await
            }
            Self::Unix(listener) => {
                axum::serve(listener, router)
                    .with_graceful_shutdown(shutdown.cancelled_owned())
                    .await
            }
        };
        if let Err(error) = served {
            tracing::error!(%error, "the ops endpoint ended");
        }
    }
}

async fn readyz(State((board, _)): State<(Board, Metrics)>) -> Response {
    let readiness = board.readiness().await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

async fn page(State((board, metrics)): State<(Board, Metrics)>, headers: HeaderMap) -> Response {
    let form = Form::wanted(&headers);
    match metrics.text() {
        Ok(text) => {
            let own = form.of(text + &board.page(), &latency::examples());
            let text = form.merged(&own, &board.child_metrics(form).await);
            ([(header::CONTENT_TYPE, form.content_type())], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Asks a socket for a path, in a form.
async fn ask(socket: &Path, path: &str, accept: &str) -> anyhow::Result<(u16, String)> {
    let asked = async { get_from(UnixStream::connect(socket).await?, path, accept).await };
    tokio::time::timeout(ASK_TIMEOUT, asked)
        .await
        .context("no answer in time")?
}

/// One GET over an open connection. HTTP/1.0, because it ends where the connection does.
async fn get_from(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    accept: &str,
) -> anyhow::Result<(u16, String)> {
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// Asks a running process whether it is ready; the exit code is the answer.
#[derive(Debug, Args)]
pub(crate) struct ReadyOptions {
    #[command(flatten)]
    ops: OpsSettings,
}

/// Runs `fulcrum ready`.
pub(crate) async fn ready(options: ReadyOptions) -> Result<(), Failure> {
    let place = options.ops.ops_listen;
    let asked = async {
        match &place {
            OpsListen::Off => anyhow::bail!("with --ops-listen off there is nobody to ask"),
            OpsListen::Tcp(address) => get_from(TcpStream::connect(address).await?, "/readyz", "*/*").await,
            OpsListen::Unix(path) => get_from(UnixStream::connect(path).await?, "/readyz", "*/*").await,
        }
    };
    let answer = tokio::time::timeout(ASK_TIMEOUT, asked)
        .await
        .context("no answer in time")
        .and_then(|answer| answer);
    let (status, body) = answer.with_context(|| format!("asking {place}"))?;
    say::line(body);
    if status == 200 {
        Ok(())
    } else {
        Err(anyhow::anyhow!("not ready").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_that_everything_is_there() {
        let board = Board::default();
        assert!(!board.readiness().await.ready, "nothing is known yet");
        board.expect(&["redis"]);
        assert!(!board.readiness().await.ready, "it is missing until it is told");
        board.set("redis", Condition::new(true));
        board.expect(&["redis"]);
        assert!(board.readiness().await.ready);
        board.set("postgres", Condition::missing("it is away"));
        let readiness = board.readiness().await;
        assert!(!readiness.ready);
        let text = serde_json::to_string(&readiness).unwrap();
        assert_eq!(
            text,
            r#"{"ready":false,"checks":{"postgres":{"ready":false,"error":"it is away"},"redis":{"ready":true}}}"#
        );
        board.set("postgres", Condition::new(true));
        board.leave();
        assert!(!board.readiness().await.ready, "about to end");
    }

    #[tokio::test]
    async fn a_process_answers_for_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("poller.ops");
        let settings = OpsSettings {
            ops_listen: OpsListen::Unix(socket.clone()),
        };
        let inner = Board::default();
        inner.set("feed", Condition::new(true).with("mode", "replay"));
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(Endpoint::bind(&settings).await.unwrap().serve(
            inner,
            Metrics::default(),
            shutdown.clone(),
        ));

        let outer = Board::default();
        outer.add_child("poller-0", socket);
        let readiness = outer.readiness().await;
        assert!(readiness.ready);
        assert_eq!(readiness.checks["feed"].detail("mode"), Some(&"replay".into()));

        shutdown.cancel();
        serving.await.unwrap();
        assert!(!outer.readiness().await.ready, "a child that is gone is not ready");
    }
}
