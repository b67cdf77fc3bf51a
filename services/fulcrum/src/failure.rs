//! Why a command ended: what a person reads, and the exit code that a script branches on.

use std::fmt;

use engine::EngineError;

/// The exit code of everything that has none of its own.
const OTHER: u8 = 1;
/// An engine was fenced; starting again is right.
const FENCED: u8 = 3;
/// What is stored is damaged.
const DAMAGED: u8 = 4;
/// The exit codes that starting again does not mend: corrupt, unsafe database settings, clocks apart.
const HOPELESS: [u8; 3] = [DAMAGED, 5, 6];

/// Why a command ended.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    killed: bool,
    cause: anyhow::Error,
}

impl Failure {
    /// A child process ended with this code; `None` when a signal ended it.
    pub(crate) fn exited(name: &str, code: Option<i32>) -> Self {
        let cause = match code {
            Some(code) => anyhow::anyhow!("{name} ended with exit code {code}"),
            None => anyhow::anyhow!("{name} was killed"),
        };
        let killed = code.is_none();
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OTHER);
        Self { code, killed, cause }
    }

    /// What is stored is not what was written.
    pub(crate) fn damaged(cause: anyhow::Error) -> Self {
        Self {
            code: DAMAGED,
            killed: false,
            cause,
        }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Whether starting again cannot help, so that people must.
    pub(crate) fn is_hopeless(&self) -> bool {
        HOPELESS.contains(&self.code)
    }

    /// Whether another took over, which happens in an ordinary life.
    pub(crate) fn is_fenced(&self) -> bool {
        self.code == FENCED
    }

    /// Whether somebody ended it from outside.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed
    }

    /// The same with a sentence in front.
    pub(crate) fn context(self, words: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self {
            cause: self.cause.context(words),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With its causes: "postgres does not start: permission denied".
        write!(f, "{:#}", self.cause)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self {
            code: OTHER,
            killed: false,
            cause,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self {
            code: error.exit_code(),
            killed: false,
            cause: error.into(),
        }
    }
}

impl From<engine::journal::JournalError> for Failure {
    fn from(error: engine::journal::JournalError) -> Self {
        anyhow::Error::from(error).context("the journal").into()
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        anyhow::Error::from(error).context("the database").into()
    }
}

impl From<bus::BusError> for Failure {
    fn from(error: bus::BusError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<poller::PollerError> for Failure {
    fn from(error: poller::PollerError) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl From<recorder::RecorderError> for Failure {
    fn from(error: recorder::RecorderError) -> Self {
        anyhow::Error::from(error).context("the recorder").into()
    }
}

impl From<gateway::GatewayError> for Failure {
    fn from(error: gateway::GatewayError) -> Self {
        anyhow::Error::from(error).into()
    }
}
