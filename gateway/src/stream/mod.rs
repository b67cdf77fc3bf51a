//! Streams: account events and quotes.
//!
//! [`events`] and [`quote_hub`] each follow one source for the whole process and hand on what they read; [`account`] is
//! one client's stream of events, [`quotes`] one of quotes, [`conflate`] decides what a reader of the newest gets next,
//! [`wire`] turns journal entries into public events. A reader that is slow is told of its gap or skips, and never delays
//! another.

pub(crate) mod account;
pub(crate) mod conflate;
pub(crate) mod events;
pub(crate) mod quote_hub;
pub(crate) mod quotes;
pub(crate) mod wire;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;
use tracing::Instrument as _;

use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::places::{Full, Place};
use crate::room::Room;

/// Messages that wait in front of a client's connection.
const AHEAD_MAX: usize = 8;

/// A message on its way to a client. In a box, for a queue has room for 32 of them from its start: an idle stream would
/// hold ten kilobytes of nothing.
type Waiting<T> = Box<Result<T, Status>>;

/// What a client gets of a stream; its place is free again when it is dropped.
pub(crate) struct Messages<T> {
    receiver: mpsc::Receiver<Waiting<T>>,
    _place: Counted,
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx).map(|message| message.map(|it| *it))
    }
}

struct Counted {
    _place: Place<String>,
    metrics: Arc<Metrics>,
    method: &'static str,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.streams_changed(-1, self.method);
    }
}

/// The client is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// The writing end of a stream.
pub(crate) struct Out<T>(mpsc::Sender<Waiting<T>>);

impl<T> Out<T> {
    /// Writes, when the client has room.
    pub async fn send(&self, message: T) -> Result<(), Gone> {
        self.0.send(Box::new(Ok(message))).await.map_err(|_| Gone)
    }

    /// Waits for room, so that what is written is chosen as late as can be.
    pub async fn room(&self) -> Result<mpsc::Permit<'_, Waiting<T>>, Gone> {
        self.0.reserve().await.map_err(|_| Gone)
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        self.0.closed().await;
    }

    async fn fail(&self, failure: Failure) {
        let _gone = self.0.send(Box::new(Err(failure.into()))).await;
    }
}

/// How a stream ended.
pub(crate) type Ended = Result<(), Stop>;

/// Why it ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client left.
    Gone,
    /// Something failed, and the client is told.
    Failed(Failure),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Starts a stream: its headers go out at once, and `run` writes what follows.
fn start<C, T, F, Fut>(
    room: &Arc<Room<C>>,
    principal: String,
    method: &'static str,
    run: F,
) -> Result<Messages<T>, Failure>
where
    T: Send + 'static,
    F: FnOnce(Arc<Out<T>>) -> Fut,
    Fut: Future<Output = Ended> + Send + 'static,
{
    let place = room.places.take(principal).map_err(|full| Failure::Throttled {
        subject: match full {
            Full::All => "streams of this server".to_owned(),
            Full::Own => "streams of this principal".to_owned(),
        },
        retry_after: Duration::from_secs(1),
    })?;
    room.metrics.streams_changed(1, method);
    let place = Counted {
        _place: place,
        metrics: Arc::clone(&room.metrics),
        method,
    };
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    let out = Arc::new(Out(sender));
    let running = run(Arc::clone(&out));
    let story = async move {
        tokio::select! {
            ended = running => if let Err(Stop::Failed(failure)) = ended { out.fail(failure).await },
            () = out.gone() => {}
        }
    };
    tokio::spawn(story.in_current_span());
    Ok(Messages {
        receiver,
        _place: place,
    })
}

/// Wall clock, microseconds since the epoch.
pub(crate) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
