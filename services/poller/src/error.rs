//! Why the poller cannot start or go on. A venue or a Redis that is away is not here: those are waited for.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the poller, the recorder or the replay server stopped or did not start.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    /// The configuration cannot be used; found before anything is opened.
    #[error("poller configuration: {0}")]
    Config(String),
    /// A tape is missing, unreadable or not in a known format.
    #[error("tape {tape}: {reason}")]
    Tape {
        /// The file, or "the built-in sample".
        tape: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The recording cannot be written.
    #[error("recording to {}: {cause}", path.display())]
    Record {
        /// Where to.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The replay server cannot listen.
    #[error("replay server on {address}: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
}
