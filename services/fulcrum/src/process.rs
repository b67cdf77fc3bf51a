//! The frame around a role that runs alone: telemetry, the ops endpoint, and the signals that end it.

use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
use crate::ops::{Board, Endpoint};
use crate::settings::{OpsSettings, ParentSettings, TelemetrySettings};
use crate::telemetry::Telemetry;

/// The exit code of a process that was interrupted, as shells have it.
pub(crate) const INTERRUPTED: i32 = 130;
/// Signals within this time of the first mean the same.
const SAME_WISH: Duration = Duration::from_millis(200);

/// What every role that runs alone is told.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) telemetry: TelemetrySettings,
    pub(crate) ops: OpsSettings,
    pub(crate) parent: ParentSettings,
}

/// What a role is given to run with.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Where it says how it is.
    pub(crate) board: Board,
    /// When it is to stop.
    pub(crate) shutdown: CancellationToken,
}

impl Frame {
    /// Runs a role until it ends or is told to stop. A second signal ends the process at once.
    ///
    /// # Errors
    /// The role's own, or what keeps the frame from being built.
    pub(crate) async fn run(
        self,
        name: &str,
        role: impl AsyncFnOnce(Stage) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let telemetry = Telemetry::install(&self.telemetry, name, None)?;
        let mut signals = Signals::listen()?;
        let endpoint = Endpoint::bind(&self.ops).await?;
        let stage = Stage {
            board: Board::default(),
            shutdown: CancellationToken::new(),
        };
        let ends = CancellationToken::new();
        let watching = tokio::spawn(endpoint.serve(stage.board.clone(), telemetry.metrics(), ends.clone()));
        if self.parent.until_stdin_ends {
            stop_with_stdin(stage.shutdown.clone());
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            "{name} starts"
        );

        let (board, shutdown) = (stage.board.clone(), stage.shutdown.clone());
        let stopping = tokio::spawn(async move {
            let what = signals.next().await;
            tracing::info!("{what}: stopping");
            board.leave();
            shutdown.cancel();
            let what = signals.next_again().await;
            tracing::warn!("{what} again: ending at once");
            std::process::exit(INTERRUPTED);
        });
        let _stopping = AbortOnDropHandle::new(stopping);
        let outcome = role(stage).await;
        match &outcome {
            Ok(()) => tracing::info!("{name} ended"),
            Err(failure) => tracing::error!(exit_code = failure.code(), "{name} ended: {failure}"),
        }
        ends.cancel();
        if let Err(error) = watching.await {
            tracing::warn!(%error, "the ops endpoint ended badly");
        }
        telemetry.shutdown().await;
        outcome
    }
}

/// The signals that end a process.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them over.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("signals");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for another one, after one has come. Those that come close behind the first are the same wish: wrappers pass on what the
    /// terminal has sent to everybody.
    pub(crate) async fn next_again(&mut self) -> &'static str {
        tokio::time::sleep(SAME_WISH).await;
        while self.next().now_or_never().is_some() {}
        self.next().await
    }

    /// Waits for one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminate",
            _ = self.hangup.recv() => "hang-up",
        }
    }
}

/// Runs a role on a thread of its own that runs nothing else. What its tasks hand to each other stays in one core's caches, memory is freed
/// where it was taken, and one wakes another without a system call: a gateway needs a third less processor time so. Dropped, it ends.
pub(crate) async fn alone<T, F>(name: &str, work: F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let dropped = CancellationToken::new();
    let _dropped = dropped.clone().drop_guard();
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(dropped.run_until_cancelled(work)))
        }));
        // Nobody hears it who does not wait for it.
        let _unheard = tell.send(ended);
    });
    let ended: std::thread::Result<std::io::Result<Option<T>>> = match spawned {
        Ok(_) => told.await.expect("it is told whatever happens"),
        Err(error) => Ok(Err(error)),
    };
    match ended {
        Ok(Ok(ended)) => ended.expect("it is cancelled only when nobody waits any more"),
        Ok(Err(error)) => panic!("no thread for the {name}: {error}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Cancels when standard input ends. A thread of its own: a blocked read must not keep the runtime from ending.
fn stop_with_stdin(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tracing::warn!(?ended, "the parent is gone: stopping");
        shutdown.cancel();
    });
}
