//! The client's deadline, kept on this side too.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

/// When the client stops waiting, and when a call that is still going on is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    give_up_at: Option<Instant>,
}

impl Deadline {
    /// A deadline `timeout` from now, or none where the clock cannot hold it.
    pub fn after(timeout: Duration, grace: Option<Duration>) -> Option<Self> {
        let at = Instant::now().checked_add(timeout)?;
        Some(Self {
            at,
            give_up_at: grace.and_then(|grace| at.checked_add(grace)),
        })
    }

    pub fn give_up_at(&self) -> Option<Instant> {
        self.give_up_at
    }

    /// A call that its transport cancelled because time was up has exceeded its deadline, and says so.
    pub fn correct(&self, status: Status) -> Status {
        if status.code() != Code::Cancelled || Instant::now() < self.at {
            return status;
        }
        let details = status.details().to_vec().into();
        let metadata = status.metadata().clone();
        Status::with_details_and_metadata(Code::DeadlineExceeded, status.message(), details, metadata)
    }
}

/// Awaits a call within its deadline.
pub(crate) async fn within<T>(
    deadline: Option<&Deadline>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(deadline) = deadline else { return call.await };
    let answer = match deadline.give_up_at {
        Some(at) => tokio::time::timeout_at(at, call).await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the deadline passed before there was an answer",
            ))
        }),
        None => call.await,
    };
    answer.map_err(|status| deadline.correct(status))
}
