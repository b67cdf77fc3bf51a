//! How long a call may take: what the client asks for, within what we allow.
//!
//! The handler knows best what is lost at the deadline, so it gets the [`Deadline`] and answers by it; the gate cuts
//! off what does not. tonic's own timeout would answer CANCELLED and would let streams run on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::config::Deadlines;
use crate::failure::Failure;
use crate::methods::Method;

/// How long after the deadline a handler is cut off that did not answer by itself.
const GRACE: Duration = Duration::from_millis(100);
/// Most of a client's timeout that is kept back, so that the answer is there before the client hangs up.
const MARGIN_MAX: Duration = Duration::from_millis(50);

/// Until when a call wants its answer; streams have it only if their client set one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// On our clock for waiting.
    pub at: Instant,
}

impl Deadline {
    /// So much from now.
    pub fn after(timeout: Duration) -> Self {
        Self {
            at: Instant::now() + timeout,
        }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// On the wall clock: what the envelope carries. Microseconds since the epoch.
    pub fn wall_us(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.left();
        u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Reads `grpc-timeout`: at most 8 digits and a unit.
fn read(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(parse);
    parsed
        .map(Some)
        .ok_or_else(|| Failure::invalid("grpc-timeout", "must be 1 to 8 digits and one of H, M, S, m, u, n"))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// How long this call gets; `None` for as long as it likes.
fn allowed(asked: Option<Duration>, streams: bool, limits: Deadlines) -> Option<Duration> {
    match asked {
        None if streams => None,
        None => Some(limits.default),
        Some(asked) if streams => Some(asked),
        Some(asked) => Some((asked - (asked / 10).min(MARGIN_MAX)).min(limits.max)),
    }
}

/// What is said when the handler did not answer in time.
fn cut_off(method: Option<&Method>) -> Failure {
    if method.is_some_and(|method| method.mutates) {
        Failure::UnknownOutcome { request_id: None }
    } else {
        Failure::Expired
    }
}

/// The time of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// Streams may have none.
    deadline: Option<Deadline>,
    /// When its answer must have begun; it is cut off a little later.
    answered_by: Instant,
    /// It answers with a stream.
    streams: bool,
}

impl Time {
    /// What a call gets.
    pub fn of(method: Option<&Method>, headers: &HeaderMap, limits: Deadlines) -> Result<Self, Failure> {
        // Health watches and reflection are open-ended too; they come and go with their connection.
        let streams = method.is_none_or(|method| method.streams);
        let now = Instant::now();
        // It may go on for ever, but not wait for ever to be asked: its request must come.
        let longest = now + limits.max;
        let (deadline, answered_by) = match allowed(read(headers)?, streams, limits) {
            None => (None, longest),
            Some(timeout) if timeout.is_zero() => return Err(Failure::Expired),
            Some(timeout) => {
                let at = now + timeout;
                (Some(Deadline { at }), if streams { at.min(longest) } else { at })
            }
        };
        Ok(Self {
            deadline,
            answered_by,
            streams,
        })
    }

    /// Until when its answer is wanted.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Answers in time. Streams end, with a status, also when the server is `leaving` and when their connection's time is `over`.
    pub async fn keep(
        self,
        method: Option<&Method>,
        leaving: &CancellationToken,
        over: Option<CancellationToken>,
        answering: impl Future<Output = Response<Body>>,
    ) -> Response<Body> {
        match tokio::time::timeout_at(self.answered_by + GRACE, answering).await {
            Ok(response) if self.streams => {
                let ends = Ends {
                    deadline: self.deadline,
                    leaving: leaving.clone(),
                    over,
                };
                response.map(|body| Body::new(Bounded::new(body, ends)))
            }
            // One message that is there already.
            Ok(response) => response,
            Err(_) => Status::from(cut_off(method)).into_http(),
        }
    }
}

/// What ends a stream that would go on.
struct Ends {
    deadline: Option<Deadline>,
    /// The server's leaving.
    leaving: CancellationToken,
    /// The end of the connection, where there is one.
    over: Option<CancellationToken>,
}

impl Ends {
    async fn come(self) -> Failure {
        let up = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.at).await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            match &self.over {
                Some(over) => over.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = up => Failure::Expired,
            () = self.leaving.cancelled() => Failure::Leaving,
            () = over => Failure::ConnectionOver,
        }
    }
}

/// A body that ends with a status when its time is up, the server leaves or its connection's time is over.
struct Bounded {
    body: Body,
    end: Pin<Box<dyn Future<Output = Failure> + Send>>,
    ended: bool,
}

impl Bounded {
    fn new(body: Body, ends: Ends) -> Self {
        Self {
            body,
            end: Box::pin(ends.come()),
            ended: false,
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(failure) = self.end.as_mut().poll(cx) {
            self.ended = true;
            // Whoever writes into it sees that nobody reads.
            self.body = Body::empty();
            let mut trailers = HeaderMap::new();
            let written = Status::from(failure).add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        for (text, want) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("10S", Some(Duration::from_secs(10))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("0m", Some(Duration::ZERO)),
            ("5u", Some(Duration::from_micros(5))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("+1S", None),
            ("1 S", None),
            ("1é", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse(text), want, "{text:?}");
        }
    }

    #[test]
    fn unary_calls_are_bounded_and_streams_only_when_asked() {
        let limits = Deadlines::default();
        let seconds = Duration::from_secs;
        assert_eq!(allowed(None, false, limits), Some(seconds(5)));
        assert_eq!(allowed(Some(seconds(3600)), false, limits), Some(seconds(30)));
        assert_eq!(
            allowed(Some(seconds(1)), false, limits),
            Some(Duration::from_millis(950))
        );
        assert_eq!(allowed(None, true, limits), None);
        assert_eq!(allowed(Some(seconds(3600)), true, limits), Some(seconds(3600)));
        assert_eq!(allowed(Some(Duration::ZERO), false, limits), Some(Duration::ZERO));
    }

    fn silent() -> Body {
        Body::new(http_body_util::StreamBody::new(futures::stream::pending::<
            Result<Frame<Bytes>, Status>,
        >()))
    }

    async fn end(mut body: Bounded) -> tonic::Code {
        use http_body_util::BodyExt as _;
        let frame = body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.is_none());
        Status::from_header_map(frame.trailers_ref().unwrap()).unwrap().code()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_a_status_at_its_deadline_and_when_the_server_leaves() {
        let (leaving, over) = (CancellationToken::new(), CancellationToken::new());
        let ends = |deadline| Ends {
            deadline,
            leaving: leaving.clone(),
            over: Some(over.clone()),
        };
        let second = Deadline::after(Duration::from_secs(1));
        assert_eq!(
            end(Bounded::new(silent(), ends(Some(second)))).await,
            tonic::Code::DeadlineExceeded
        );
        let body = Bounded::new(silent(), ends(None));
        over.cancel();
        assert_eq!(end(body).await, tonic::Code::Unavailable);
        let body = Bounded::new(
            silent(),
            Ends {
                over: None,
                ..ends(None)
            },
        );
        leaving.cancel();
        assert_eq!(end(body).await, tonic::Code::Unavailable);
    }
}
