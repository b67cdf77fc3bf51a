//! The recorder: raw frames to a file, with the time they came, one JSON object a line: `{"t_us":1700000000000000,"frame":"…"}`.
//!
//! What the venue sent is written before anybody judges it, so garbage is on the tape too. Once a second, and at the end, everything is
//! flushed: a recorder that is killed leaves a file that can be played. An existing file is appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::RecordConfig;
use crate::error::PollerError;
use crate::feed::{Client, Heard, Listener, Network};
use crate::frame::{self, Frame};
use crate::state::{Mode, Status};

/// How often a running recording is flushed, microseconds.
const FLUSH_EVERY_US: u64 = 1_000_000;
/// Compression level: fast enough for any feed; a tape that is kept can be recompressed.
const ZSTD_LEVEL: i32 = 3;

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
    let failed = |cause| PollerError::Record {
        path: config.file.clone(),
        cause,
    };
    let status = Arc::new(Status::default());
    status.set_origin(Mode::Live, &config.url);
    // A full disk ends the recording, not only the writing.
    let stop = shutdown.child_token();
    let mut recorder = Recorder::open(&config.file, stop.clone()).map_err(failed)?;
    let client = Client {
        dial: Network {
            url: config.url.clone(),
        },
        symbols: config.symbols.clone(),
        silence: config.silence,
        status: Arc::clone(&status),
    };
    tracing::info!(url = config.url, file = %config.file.display(), "recording");
    client.run(&mut recorder, &stop).await;
    let frames = recorder.finish().map_err(failed)?;
    let counts = status.counters().counts();
    Ok(Recorded {
        frames,
        reconnects: counts.disconnects + counts.silences,
    })
}

/// Writes what it hears.
struct Recorder {
    output: Output,
    frames: u64,
    flushed_us: u64,
    failure: Option<io::Error>,
    stop: CancellationToken,
}

enum Output {
    Plain(BufWriter<File>),
    Compressed(Box<zstd::Encoder<'static, BufWriter<File>>>),
}

#[derive(Serialize)]
struct Line<'a> {
    t_us: u64,
    frame: &'a str,
}

impl Recorder {
    fn open(path: &Path, stop: CancellationToken) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let file = BufWriter::new(file);
        let output = if path.extension().is_some_and(|extension| extension == "zst") {
            Output::Compressed(Box::new(zstd::Encoder::new(file, ZSTD_LEVEL)?))
        } else {
            Output::Plain(file)
        };
        Ok(Self {
            output,
            frames: 0,
            flushed_us: 0,
            failure: None,
            stop,
        })
    }

    fn write(&mut self, at_us: u64, text: &str) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line {
            t_us: at_us,
            frame: text,
        })?;
        line.push(b'\n');
        self.output.writer().write_all(&line)?;
        self.frames += 1;
        if at_us.saturating_sub(self.flushed_us) >= FLUSH_EVERY_US {
            self.flushed_us = at_us;
            self.output.writer().flush()?;
        }
        Ok(())
    }

    fn finish(self) -> io::Result<u64> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let mut file = match self.output {
            Output::Plain(file) => file,
            Output::Compressed(encoder) => encoder.finish()?,
        };
        file.flush()?;
        Ok(self.frames)
    }
}

impl Output {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(file) => file,
            Self::Compressed(encoder) => encoder,
        }
    }
}

impl Listener for Recorder {
    fn frame(&mut self, at_us: u64, text: &str) -> Heard {
        if self.failure.is_none()
            && let Err(error) = self.write(at_us, text)
        {
            self.failure = Some(error);
            self.stop.cancel();
        }
        match frame::parse(text) {
            Frame::Quote(_) | Frame::Other(_) | Frame::Rejected { .. } => Heard::Data,
            Frame::VenueError { code, message } => {
                tracing::warn!(code, message, "the venue answered with an error");
                Heard::Nothing
            }
            Frame::Garbage(_) => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::TapeSource;
    use crate::tape::{Body, Tape};

    const FRAME: &str = r#"{"data":{"E":3,"T":2,"a":"2","b":"1","e":"bookTicker","s":"SOL_USDC","u":1},"stream":"bookTicker.SOL_USDC"}"#;

    fn tape(path: &Path) -> Vec<(u64, String)> {
        let events = Tape::open(&TapeSource::File(path.to_owned())).unwrap();
        events
            .map(|event| match event.unwrap() {
                crate::tape::Event {
                    at_us,
                    body: Body::Frame { stream, .. },
                } => (at_us, stream),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_recording_is_a_tape_plain_or_compressed_and_grows_when_it_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["frames.jsonl", "frames.jsonl.zst"] {
            let path = directory.path().join(name);
            for run in 0..2 {
                let mut recorder = Recorder::open(&path, CancellationToken::new()).unwrap();
                assert_eq!(recorder.frame(run * 10 + 5, FRAME), Heard::Data);
                assert_eq!(recorder.frame(run * 10 + 6, "hello \"there\"\n"), Heard::Nothing);
                assert_eq!(recorder.finish().unwrap(), 2);
            }
            let stream = "bookTicker.SOL_USDC".to_owned();
            assert_eq!(tape(&path), [(5, stream.clone()), (15, stream)], "{name}");
        }
    }

    #[test]
    fn a_killed_recorder_leaves_what_is_older_than_a_second() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["frames.jsonl", "frames.jsonl.zst"] {
            let path = directory.path().join(name);
            let mut recorder = Recorder::open(&path, CancellationToken::new()).unwrap();
            recorder.frame(FLUSH_EVERY_US, FRAME);
            recorder.frame(2 * FLUSH_EVERY_US, FRAME);
            assert_eq!(tape(&path).len(), 2, "{name}: read while it is being written");
        }
    }

    #[test]
    fn a_full_disk_ends_the_recording() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let stop = CancellationToken::new();
        let mut recorder = Recorder::open(full, stop.clone()).unwrap();
        recorder.frame(FLUSH_EVERY_US, FRAME);
        assert!(stop.is_cancelled());
        assert!(recorder.finish().is_err());
    }
}
