//! A Redis for one test: started on a socket in a temporary directory, killed at the end.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bus::Redis;
use tokio::time::{sleep, timeout};

/// A Redis of the test's own.
pub struct OwnRedis {
    child: Child,
    directory: tempfile::TempDir,
}

impl OwnRedis {
    /// Nothing when there is no `redis-server` to start.
    pub async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let child = Self::spawn(directory.path());
        if child.is_none() {
            // Past the test harness, which would swallow it.
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no redis-server on the path");
        }
        let own = Self {
            child: child?,
            directory,
        };
        own.answering().await;
        Some(own)
    }

    fn spawn(directory: &Path) -> Option<Child> {
        Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
                "redis.sock",
            ])
            .current_dir(directory)
            .stdout(Stdio::null())
            .spawn()
            .ok()
    }

    pub fn redis(&self) -> Redis {
        Redis::open(&format!(
            "redis+unix://{}",
            self.directory.path().join("redis.sock").display()
        ))
        .unwrap()
    }

    async fn answering(&self) {
        let redis = self.redis();
        let answered = async {
            while redis.time_us().await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), answered)
            .await
            .expect("redis-server answers");
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub async fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.directory.path().join("redis.sock"));
        self.child = Self::spawn(self.directory.path()).expect("it was there before");
        self.answering().await;
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.kill();
    }
}
