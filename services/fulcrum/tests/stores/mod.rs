//! Private stores, and the real program run against them.
#![allow(dead_code, reason = "each suite uses its part")]

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::PgPool;
use testkit::{PrivatePostgres, PrivateRedis};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A migrated database and a Redis of some kind.
pub struct Stores<R = PrivateRedis> {
    pub postgres: PrivatePostgres,
    pub redis: R,
    /// Where Redis is.
    pub address: String,
    pub pool: PgPool,
}

impl Stores {
    pub async fn start(shards: u32) -> Self {
        let redis = PrivateRedis::start().await;
        let address = redis.url();
        Self::start_on(redis, address, shards).await
    }
}

impl<R> Stores<R> {
    pub async fn start_on(redis: R, address: String, shards: u32) -> Self {
        let postgres = PrivatePostgres::start_with(&[("fsync", "on"), ("full_page_writes", "on")]).await;
        let pool = postgres.pool();
        let stores = Self {
            postgres,
            redis,
            address,
            pool,
        };
        assert_eq!(stores.told(&["migrate", "--shards", &shards.to_string()]).0, Some(0));
        stores
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fulcrum"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FULCRUM_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("FULCRUM_DATABASE_URL", self.postgres.url())
            .env("FULCRUM_REDIS_URL", &self.address);
        command
    }

    /// Runs the program; its exit code, and what it said.
    pub fn told(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("our own program");
        let said = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (status.code(), said.concat())
    }

    /// Starts an engine of this name.
    pub fn engine(&self, name: &str) -> Process {
        let mut command = self.command(&["engine", "--name", name, "--ops-listen", "127.0.0.1:0"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().expect("our own program"))
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("it runs")
    }

    pub async fn until(&self, sql: &'static str, wanted: i64) {
        let waiting = async {
            while self.count(sql).await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {wanted} of {sql}"));
    }
}

/// A process of ours, ended with the test.
pub struct Process(Child);

impl Process {
    /// Asks it to leave and waits for its exit code.
    pub fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
        self.0.wait().expect("it ends").code()
    }

    /// Kills it without a word.
    pub fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }

    /// Its exit code, once it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().expect("our child")?.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ended = self.0.kill();
            let _reaped = self.0.wait();
        }
    }
}
