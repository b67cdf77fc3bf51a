//! A Postgres and a Redis of one's own: in a temporary directory, on a Unix socket, gone with the value or with the test's process.
//!
//! No port is opened and nothing is shared, so tests run at once and a test may kill its store and start it again. With
//! `TMPDIR=/dev/shm`, where that is large enough, they start several times faster. Reading order:
//! [`PrivatePostgres`], [`PrivateRedis`], then `server` for how no child outlives its test.
//!
//! Everything panics where a service would return an error: a test without its store has nothing to say.

mod redis_sets;
mod server;
mod template;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use redis_sets::{Frozen, Guards, PrivateRedisCluster, PrivateSentinels};
use rustix::process::{Pid, Signal, kill_process};
use server::{Ending, Server};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tempfile::TempDir;

/// How long a store may take until it answers.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at whether it answers.
const READY_PAUSE: Duration = Duration::from_millis(10);
/// Most bytes that the path of a Unix socket may have, everywhere that we know of.
const SOCKET_PATH_MAX: usize = 100;
/// Most connections of a pool made by [`PrivatePostgres::pool`].
const POOL_CONNECTIONS_MAX: u32 = 8;

/// Settings that make a Postgres quick to start and to stop, and unsafe against a power cut. A crash of its processes loses nothing.
const POSTGRES_SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "32MB"),
    ("max_connections", "100"),
    ("autovacuum", "off"),
    ("log_min_messages", "warning"),
];

/// A Postgres server of its own, empty at first.
#[derive(Debug)]
pub struct PrivatePostgres {
    // Before the directory: fields are dropped in order, and the server must be gone first.
    server: Option<Server>,
    directory: TempDir,
    settings: Vec<(String, String)>,
}

impl PrivatePostgres {
    /// Starts one with `fsync=off`.
    ///
    /// # Panics
    /// When there is no Postgres on this machine, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with more settings, later ones winning: `&[("fsync", "on")]` for an engine that insists.
    ///
    /// # Panics
    /// When there is no Postgres on this machine, or it does not start.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = temporary("pg");
        template::copy_to(&directory.path().join("data"));
        let settings = POSTGRES_SETTINGS
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let mut postgres = Self {
            server: None,
            settings: settings.collect(),
            directory,
        };
        postgres.start_again().await;
        postgres
    }

    /// Starts one and brings its schema up to date.
    ///
    /// # Panics
    /// When it does not start or a migration fails.
    pub async fn migrated() -> Self {
        let postgres = Self::start().await;
        postgres.migrate().await;
        postgres
    }

    /// Brings the schema up to date.
    ///
    /// # Panics
    /// When a migration fails.
    pub async fn migrate(&self) {
        let mut connection = PgConnection::connect(&self.url()).await.expect("a running Postgres");
        sqlx::migrate!("../../migrations")
            .run(&mut connection)
            .await
            .expect("migrations that run");
        connection.close().await.expect("a running Postgres");
    }

    /// Its address, for anything that takes a Postgres URL.
    #[must_use]
    pub fn url(&self) -> String {
        let port = self.settings.iter().rev().find(|(name, _)| name == "port");
        format!(
            "postgres://fulcrum@localhost:{}/postgres?host={}",
            port.map_or("5432", |(_, port)| port),
            self.directory.path().display()
        )
    }

    /// A pool on it, which connects when first used.
    ///
    /// # Panics
    /// When the address cannot be read, which would be a fault here.
    #[must_use]
    pub fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy(&self.url())
            .expect("our own address")
    }

    /// Stops it as a crash would: every connection is cut, nothing is flushed. What was committed is there after
    /// [`PrivatePostgres::start_again`].
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Kills its first process with signal 9, as a machine short of memory does. The others notice and go by themselves, and may
    /// finish the statement they are at first.
    ///
    /// # Panics
    /// When they do not go.
    pub async fn crash(&mut self) {
        let data = self
            .directory
            .path()
            .join("data")
            .canonicalize()
            .expect("our own directory");
        let first = std::fs::read_to_string(data.join("postmaster.pid")).ok();
        let first = first.and_then(|text| Pid::from_raw(text.lines().next()?.trim().parse().ok()?));
        kill_process(first.expect("a running Postgres"), Signal::KILL).expect("a running Postgres");
        let start = Instant::now();
        while server::works_in(&data) {
            assert!(start.elapsed() < READY_TIMEOUT, "processes of a dead Postgres stay");
            tokio::time::sleep(READY_PAUSE).await;
        }
        self.kill();
    }

    /// Starts it again on the same data and the same address.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        self.kill();
        let data = self.directory.path().join("data");
        let mut command = vec![template::binary("postgres").into(), "-D".into(), data.into()];
        command.extend(["-k".into(), self.directory.path().into()]);
        for (name, value) in &self.settings {
            command.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let mut server = Server::start(&command, template::user(), Ending::Quit, self.directory.path());
        // The server takes connections before it serves them while it recovers, so ask for more than the socket.
        until_ready(&mut server, async || {
            Ok(PgConnection::connect(&self.url()).await?.close().await?)
        })
        .await;
        self.server = Some(server);
    }
}

/// A Redis server of its own.
#[derive(Debug)]
pub struct PrivateRedis {
    // Before the directory, as above.
    server: Option<Server>,
    directory: TempDir,
    options: Vec<(String, String)>,
}

impl PrivateRedis {
    /// Starts one that keeps nothing: started again it is empty, as a Redis that lost everything.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one that writes every command to a file first: started again it has what it had.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start_appendonly() -> Self {
        Self::start_with(&[("appendonly", "yes")]).await
    }

    /// Starts one with more options, later ones winning: `&[("aclfile", "/path/users.acl")]` for one that asks who you are.
    ///
    /// # Panics
    /// When there is no Redis on this machine, or it does not start.
    pub async fn start_with(options: &[(&str, &str)]) -> Self {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let mut redis = Self {
            server: None,
            directory: temporary("redis"),
            options: options.collect(),
        };
        redis.start_again().await;
        redis
    }

    /// Its address, for anything that takes a Redis URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills it with signal 9.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts it again at the same address.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        self.kill();
        let mut command = vec![
            "redis-server".into(),
            "--port".into(),
            "0".into(),
            "--unixsocket".into(),
            self.socket().into(),
            "--dir".into(),
            self.directory.path().into(),
            "--save".into(),
            "".into(),
            "--appendonly".into(),
            "no".into(),
            "--appendfsync".into(),
            "always".into(),
        ];
        for (name, value) in &self.options {
            command.extend([format!("--{name}").into(), value.into()]);
        }
        let mut server = Server::start(&command, None, Ending::Kill, self.directory.path());
        let client = redis::Client::open(self.url()).expect("our own address");
        until_ready(&mut server, async || {
            let mut connection = client.get_multiplexed_async_connection().await?;
            Ok(redis::cmd("PING").exec_async(&mut connection).await?)
        })
        .await;
        self.server = Some(server);
    }

    /// Takes away all it has, and lets it run.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn empty(&self) {
        self.command("FLUSHALL").await;
    }

    /// Keeps a copy of what it has now.
    ///
    /// # Panics
    /// When it is not running.
    pub async fn keep_copy(&self) {
        self.command("SAVE").await;
        std::fs::rename(self.dump(), self.copy()).expect("our own directory");
    }

    /// Kills it and starts it again with what it had when [`PrivateRedis::keep_copy`] was called last.
    ///
    /// # Panics
    /// When there is no copy, or it does not start.
    pub async fn start_again_from_copy(&mut self) {
        self.kill();
        std::fs::copy(self.copy(), self.dump()).expect("a copy that was kept");
        self.start_again().await;
        // It is empty again after the next start.
        std::fs::remove_file(self.dump()).expect("our own directory");
    }

    async fn command(&self, name: &str) {
        let client = redis::Client::open(self.url()).expect("our own address");
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.expect("a running Redis");
        let done = redis::cmd(name).exec_async(&mut connection).await;
        done.expect("a running Redis");
    }

    fn dump(&self) -> PathBuf {
        self.directory.path().join("dump.rdb")
    }

    fn copy(&self) -> PathBuf {
        self.directory.path().join("copy.rdb")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }
}

/// Makes a file readable for nobody but the Postgres servers started here, as Postgres wants it of a private key.
///
/// # Panics
/// When it cannot be.
pub fn give_to_postgres(file: &Path) {
    template::give(file);
    let only_its_owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, only_its_owner).expect("our own file");
}

/// A directory for one store, near enough to the root that the path of a socket in it fits.
fn temporary(name: &str) -> TempDir {
    let near = std::env::temp_dir();
    let parent = if near.as_os_str().len() <= SOCKET_PATH_MAX / 2 {
        near
    } else {
        "/tmp".into()
    };
    let directory = tempfile::Builder::new()
        .prefix(&format!("fulcrum-{name}-"))
        .tempdir_in(parent);
    let directory = directory.expect("a directory for temporary files");
    template::give(directory.path());
    directory
}

type Answer = Result<(), Box<dyn std::error::Error>>;

async fn until_ready(server: &mut Server, ask: impl AsyncFn() -> Answer) {
    let start = Instant::now();
    while let Err(error) = ask().await {
        assert!(
            start.elapsed() < READY_TIMEOUT,
            "the store does not answer: {error}; its log:\n{}",
            server.log()
        );
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Runs a program of a store to its end.
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether a directory is there.
fn there(path: &Path) -> bool {
    path.try_exists().unwrap_or(false)
}
