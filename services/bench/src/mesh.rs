//! The system under test: one that runs already, or one that is started for the bench and stopped after it.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::backends::Backends;
use crate::cpu::{Subject, Watch, pid_in};
use crate::load::{self, Target};
use crate::say;

/// How long a mesh may take until it is up, and until it is down.
const UP_WITHIN: Duration = Duration::from_secs(180);
const DOWN_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Tokens of the load, each of a principal of its own.
const PRINCIPALS: usize = 8;
/// The processes of a mesh: the name in tables, and the file that its number is in.
const PROCESSES: [(&str, &str); 6] = [
    ("gateway", "gateway-0.pid"),
    ("engine", "engine-0.pid"),
    ("redis", "redis-0.pid"),
    ("postgres", "postgres-0.pid"),
    ("recorder", "recorder-0.pid"),
    ("poller", "poller-0.pid"),
];
/// What a call goes through: the sum that is compared with an echo.
pub const PATH: [&str; 4] = ["gateway", "engine", "redis", "postgres"];
/// Limits that one machine under load must not meet, because they are there to keep one caller from crowding out others.
const UNLIMITED: [&str; 4] = [
    "--principal-rate=100000000",
    "--principal-burst=100000000",
    "--address-rate=100000000",
    "--address-burst=100000000",
];

/// The feed of a mesh unless a measurement has its own.
const REPLAY: &str = "replay";
/// As what the recorder makes Postgres do is named in tables. It is not on the path of a call.
pub const RECORDERS: &str = "recorder's postgres";

/// Whose engine decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engines {
    /// The mesh's.
    Own,
    /// One of the bench, whose journal is its memory.
    Unjournaled,
}

/// What is to be measured.
#[derive(Args, Clone, Debug)]
pub struct MeshSettings {
    /// Starts a mesh of its own, each role a process, and stops it at the end.
    #[arg(long, env = "FULCRUM_BENCH_SELF_CONTAINED", value_parser = clap::builder::FalseyValueParser::new())]
    self_contained: bool,
    /// Address of a gateway that runs already. Its rate limits must be far up.
    #[arg(
        long,
        env = "FULCRUM_BENCH_GATEWAY",
        value_name = "ADDRESS",
        conflicts_with = "self_contained"
    )]
    gateway: Option<SocketAddr>,
    /// Token for every account ("*") of the gateway that runs already; may be given several times.
    #[arg(
        long,
        env = "FULCRUM_BENCH_TOKEN",
        value_delimiter = ',',
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Vec<String>,
    /// Directory with the process ids of the mesh that runs already, as `fulcrum up --separate-processes` names it. Without it no
    /// processor time is measured.
    #[arg(long, env = "FULCRUM_BENCH_RUN_DIR", value_name = "DIRECTORY")]
    run_dir: Option<PathBuf>,
    /// Shards of the mesh that is started.
    #[arg(long, env = "FULCRUM_BENCH_SHARDS", default_value_t = 16, value_name = "COUNT")]
    shards: u32,
    /// Accounts that the load is spread over.
    #[arg(long, env = "FULCRUM_BENCH_ACCOUNTS", default_value_t = 1_024, value_name = "COUNT")]
    accounts: usize,
    /// The program that is started; this one unless given.
    #[arg(long, env = "FULCRUM_BENCH_PROGRAM", value_name = "FILE")]
    program: Option<PathBuf>,
}

/// A mesh to be measured, stopped with the value if it was started for us.
#[derive(Debug)]
pub struct Mesh {
    /// How it is called and watched.
    pub target: Target,
    /// Its database, where known.
    pub database: Option<String>,
    /// Where its files are, where known.
    pub directory: Option<PathBuf>,
    /// The processes in which it runs.
    pub postgres: Option<u32>,
    /// Where its Redis is, where known.
    pub redis: Option<String>,
    /// What goes on in its database, where known.
    pub backends: Option<Mutex<Backends>>,
    /// The program it was started from, where known.
    pub program: Option<PathBuf>,
    /// Ends before what it stands on.
    _engine: Option<Unjournaled>,
    _own: Option<Own>,
}

impl Mesh {
    /// Finds or starts it, and makes wallets.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(settings: &MeshSettings) -> anyhow::Result<Self> {
        let mesh = if settings.self_contained {
            Self::start_apart(settings, Engines::Own, REPLAY).await?
        } else {
            let address = settings
                .gateway
                .context("--self-contained starts a mesh; --gateway with --token names one that runs")?;
            ensure!(!settings.token.is_empty(), "--token is missing");
            let run = settings.run_dir.as_deref();
            Self {
                target: Target {
                    address,
                    tokens: settings.token.clone(),
                    accounts: settings.accounts,
                    watch: run.map(|run| watch(run, Engines::Own)).unwrap_or_default(),
                },
                database: None,
                directory: None,
                postgres: run.and_then(|run| pid_in(&run.join("postgres-0.pid"))),
                redis: None,
                backends: None,
                program: None,
                _engine: None,
                _own: None,
            }
        };
        mesh.prepared().await
    }

    /// Starts one on the prices of this feed, and makes wallets.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn fed(settings: &MeshSettings, feed: &str) -> anyhow::Result<Self> {
        Self::start_apart(settings, Engines::Own, feed).await?.prepared().await
    }

    /// Starts one whose engine keeps its journal in memory, and makes wallets.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn unjournaled(settings: &MeshSettings) -> anyhow::Result<Self> {
        Self::start_apart(settings, Engines::Unjournaled, REPLAY)
            .await?
            .prepared()
            .await
    }

    async fn start_apart(settings: &MeshSettings, engines: Engines, feed: &str) -> anyhow::Result<Self> {
        let (settings, feed) = (settings.clone(), feed.to_owned());
        tokio::task::spawn_blocking(move || Self::start(&settings, engines, &feed))
            .await
            .context("starting a mesh panicked")?
    }

    /// Whether it was started for us.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self._own.is_some()
    }

    async fn prepared(self) -> anyhow::Result<Self> {
        let mut mesh = self;
        if let Some(database) = &mesh.database {
            let backends = Backends::watch(database).await?;
            mesh.target.watch.set_apart(RECORDERS, &backends.of_recorder);
            mesh.backends = Some(Mutex::new(backends));
        }
        say::aside(format!("making {} wallets", mesh.target.accounts));
        load::prepare(&mesh.target).await?;
        Ok(mesh)
    }

    fn start(settings: &MeshSettings, engines: Engines, feed: &str) -> anyhow::Result<Self> {
        let program = match &settings.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("our own program")?,
        };
        say::aside("starting a mesh");
        let directory = tempfile::Builder::new()
            .prefix("fulcrum-bench-")
            .tempdir_in("/tmp")
            .context("a directory")?;
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .context("a port")?;
        let mut process = Command::new(&program)
            .arg("up")
            .arg(format!("--data-dir={}", directory.path().display()))
            .arg(format!("--listen={address}"))
            .arg(format!("--shards={}", settings.shards))
            .args(["--separate-processes", "--ops-listen=off", "--log=warn"])
            .arg(format!("--feed={feed}"))
            .args(UNLIMITED)
            .args((engines == Engines::Unjournaled).then_some("--engines=0"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let said = process.stdout.take().map(lines).context("a pipe")?;
        let own = Own { process, directory };
        own.wait_until_up(&said)?;
        let path = own.directory.path();
        let run = std::fs::read_link(path.join("run")).context("the run directory")?;
        let mut watch = watch(&run, engines);
        let engine = match engines {
            Engines::Own => None,
            Engines::Unjournaled => {
                let engine = Unjournaled::start(&program, &run, settings.shards)?;
                watch.add("engine", Subject::Process(engine.0.id()));
                Some(engine)
            }
        };
        let tokens = (0..PRINCIPALS)
            .map(|n| token(&program, path, n))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            target: Target {
                address,
                tokens,
                accounts: settings.accounts,
                watch,
            },
            database: Some(format!(
                "postgres://fulcrum@localhost/fulcrum?host={}",
                run.join("s").display()
            )),
            directory: Some(path.to_owned()),
            postgres: pid_in(&run.join("postgres-0.pid")),
            redis: Some(redis_url(&run)),
            backends: None,
            program: Some(program),
            _engine: engine,
            _own: Some(own),
        })
    }
}

fn redis_url(run: &Path) -> String {
    format!("redis+unix://{}", run.join("s/redis.sock").display())
}

/// Watches every process of a mesh whose number is known.
fn watch(run: &Path, engines: Engines) -> Watch {
    let mut watch = Watch::default();
    let is_there = |name: &str| name != "engine" || engines == Engines::Own;
    for (name, file) in PROCESSES.into_iter().filter(|(name, _)| is_there(name)) {
        match pid_in(&run.join(file)) {
            Some(pid) => watch.add(name, Subject::Process(pid)),
            None => say::aside(format!("no {file} in {}: {name} is not measured", run.display())),
        }
    }
    watch
}

fn token(program: &Path, data: &Path, number: usize) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(["token", "--account=*", "--ttl=24h"])
        .arg(format!("--principal=bench-{number}"))
        .arg(format!("--data-dir={}", data.display()))
        .output()
        .context("making a token")?;
    ensure!(
        output.status.success(),
        "making a token: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a child says, line by line, read to its end so that it is never stopped by a full pipe.
fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _unheard = send.send(line);
        }
    });
    lines
}

/// An engine whose journal is its memory.
#[derive(Debug)]
struct Unjournaled(Child);

impl Unjournaled {
    /// Starts it beside a mesh without engines, and waits until it leads every shard.
    fn start(program: &Path, run: &Path, shards: u32) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .args(["bench", "engine"])
            .arg(format!(
                "--redis-url=redis+unix://{}",
                run.join("s/redis.sock").display()
            ))
            .arg(format!("--shards={shards}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let said = process.stdout.take().map(lines).context("a pipe")?;
        let engine = Self(process);
        match said.recv_timeout(UP_WITHIN) {
            Ok(line) if line == crate::unjournaled::LEADS => Ok(engine),
            other => bail!("the engine without a journal does not lead: {other:?}"),
        }
    }
}

impl Drop for Unjournaled {
    fn drop(&mut self) {
        // What it knows is lost by design.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A mesh that was started for us.
#[derive(Debug)]
struct Own {
    process: Child,
    directory: TempDir,
}

impl Own {
    fn wait_until_up(&self, said: &mpsc::Receiver<String>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut all = Vec::new();
        loop {
            let left = UP_WITHIN.saturating_sub(begun.elapsed());
            let Ok(line) = said.recv_timeout(left) else {
                bail!("the mesh did not come up; it said:\n{}", all.join("\n"));
            };
            if line.starts_with("Ctrl-C stops everything") {
                return Ok(());
            }
            all.push(line);
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // The interrupt that a person would give, so that it stops in its order. There is no call for it in the standard library.
        let _told = Command::new("kill")
            .args(["-INT", &self.process.id().to_string()])
            .status();
        let begun = Instant::now();
        while begun.elapsed() < DOWN_WITHIN {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}
