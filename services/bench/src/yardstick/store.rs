//! A Redis of the bench's own: on a socket, in memory, gone with the value.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bus::Redis;
use tempfile::TempDir;

use crate::cpu::Subject;

/// How long it may take until it answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running Redis.
#[derive(Debug)]
pub struct Store {
    process: Child,
    url: String,
    _directory: TempDir,
}

impl Store {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When there is no `redis-server` on this machine, or it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("fulcrum-bench-")
            .tempdir()
            .context("a directory")?;
        let socket = directory.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server cannot be started")?;
        let mut store = Self {
            process,
            url: format!("redis+unix://{}", socket.display()),
            _directory: directory,
        };
        let begun = Instant::now();
        while store.redis()?.commands().await.is_err() {
            if let Some(ended) = store.process.try_wait().context("redis-server")? {
                bail!("redis-server ended: {ended}");
            }
            if begun.elapsed() > ANSWER_WITHIN {
                bail!("redis-server does not answer");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(store)
    }

    /// Where it is.
    ///
    /// # Errors
    /// Never, in truth: the address is ours.
    pub fn redis(&self) -> anyhow::Result<Redis> {
        Ok(Redis::open(&self.url)?)
    }

    /// How it is watched.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject::Process(self.process.id())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Nothing in it is worth keeping.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
