//! Keeps something running until it is told to stop: a store, or a role, inside this process or in one of its own.

use std::time::Duration;

use bus::backoff::Backoff;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;

/// First and longest wait before something is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// Having run this long, the next failure counts as the first.
const STEADY: Duration = Duration::from_secs(60);
/// How long stopping may take before it is cut short: longer than a gateway drains and a Postgres writes out.
const STOP_WITHIN: Duration = Duration::from_secs(90);

/// Watches over what runs, and is told what cannot go on.
#[derive(Clone, Debug)]
pub(super) struct Supervisor {
    fatal: mpsc::Sender<Failure>,
    /// Set once everything was ready. Until then a failure is told to the person who waits, not tried away.
    settled: CancellationToken,
}

/// Something that is kept running.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// A supervisor, and where it tells what cannot go on.
    pub(super) fn new() -> (Self, mpsc::Receiver<Failure>) {
        let (fatal, told) = mpsc::channel(8);
        (
            Self {
                fatal,
                settled: CancellationToken::new(),
            },
            told,
        )
    }

    /// Everything was ready: from now on what fails is started again.
    pub(super) fn settled(&self) {
        self.settled.cancel();
    }

    /// Starts something and starts it again whenever it ends before it is told to, with growing pauses.
    pub(super) fn keep<Start>(&self, name: &str, start: Start) -> Running
    where
        Start: Fn(CancellationToken) -> BoxFuture<'static, Result<(), Failure>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.clone().keep_running(name.to_owned(), start, stop.clone()));
        Running {
            name: name.to_owned(),
            stop,
            task,
        }
    }

    async fn keep_running<Start>(self, name: String, start: Start, stop: CancellationToken)
    where
        Start: Fn(CancellationToken) -> BoxFuture<'static, Result<(), Failure>> + Send + 'static,
    {
        let mut backoff = Backoff::new(RESTART.0, RESTART.1);
        loop {
            let started = Instant::now();
            // A task of its own, so that a panic in a role is a role that ended.
            let ended = AbortOnDropHandle::new(tokio::spawn(start(stop.clone()))).await;
            let failure = match ended {
                Ok(Err(failure)) => failure,
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => anyhow::anyhow!("ended by itself").into(),
                Err(panic) => anyhow::anyhow!("panicked: {panic}").into(),
            };
            if stop.is_cancelled() {
                tracing::warn!("{name} ended badly while it was stopped: {failure}");
                return;
            }
            let early = !self.settled.is_cancelled() && !failure.is_fenced() && !failure.was_killed();
            if failure.is_hopeless() || early {
                // Nobody listens any more when everything is being stopped already.
                let _unheard = self.fatal.send(failure.context(name)).await;
                return;
            }
            if started.elapsed() >= STEADY {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            tracing::warn!(?delay, "{name}: {failure}; it is started again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}

impl Running {
    /// Its name, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Stops it and waits until it has ended; cut short when it does not.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        match tokio::time::timeout(STOP_WITHIN, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "{} ended badly", self.name),
            Err(_) => {
                tracing::error!(limit = ?STOP_WITHIN, "{} does not stop; it is cut short", self.name);
                self.task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt as _;

    use super::*;

    type Outcome = Result<(), Failure>;

    /// Ends in turn as told, then runs until stopped.
    fn ends(
        outcomes: Vec<fn() -> Outcome>,
    ) -> (
        impl Fn(CancellationToken) -> BoxFuture<'static, Outcome>,
        Arc<AtomicU32>,
    ) {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let start = move |stop: CancellationToken| {
            let turn = counted.fetch_add(1, Ordering::SeqCst);
            let outcome = outcomes.get(turn as usize).copied();
            async move {
                match outcome {
                    Some(outcome) => outcome(),
                    None => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
            .boxed()
        };
        (start, starts)
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_started_again_and_a_panic_is_an_end() {
        let (supervisor, mut fatal) = Supervisor::new();
        supervisor.settled();
        let (start, starts) = ends(vec![
            || Err(anyhow::anyhow!("oops").into()),
            || panic!("a bug"),
            || Ok(()),
            || Err(Failure::exited("x", None)),
        ]);
        let running = supervisor.keep("x", start);
        while starts.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        running.stop().await;
        assert_eq!(starts.load(Ordering::SeqCst), 5);
        assert!(fatal.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_starting_again_cannot_mend_is_told() {
        let (supervisor, mut fatal) = Supervisor::new();
        supervisor.settled();
        let (start, starts) = ends(vec![|| Err(Failure::exited("engine", Some(4)))]);
        let _running = supervisor.keep("engine-0", start);
        let failure = fatal.recv().await.unwrap();
        assert_eq!((failure.code(), starts.load(Ordering::SeqCst)), (4, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn before_all_is_ready_a_failure_is_told_but_being_killed_or_fenced_is_none() {
        let (supervisor, mut fatal) = Supervisor::new();
        let (start, starts) = ends(vec![
            || Err(Failure::exited("x", None)),
            || Err(Failure::exited("x", Some(3))),
            || Err(Failure::exited("x", Some(1))),
        ]);
        let _running = supervisor.keep("x", start);
        assert_eq!(fatal.recv().await.unwrap().code(), 1);
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
