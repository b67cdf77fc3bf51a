//! The system under test: private stores that can be taken away, and two engines, two gateways, a poller and a recorder, each a process
//! of its own that can be taken away too. Also for tests of one fault at a time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use sqlx::PgPool;
use tempfile::TempDir;
use testkit::{PrivatePostgres, PrivateRedis, free_address};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::process::{Process, Recipe};

/// How long anything expected may take before the run gives up.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Pause between two looks at a state.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A role that ended by itself is started again after this, as whoever runs it would.
const RESTART_AFTER: Duration = Duration::from_millis(300);
/// The symbol that is traded.
pub const SYMBOL: &str = "SOL_USDC";
/// Connections that all roles open together, and those of killed ones that the server has not noticed yet.
const CONNECTIONS_MAX: &str = "300";
/// Limits that a few clients on one address would meet.
const UNLIMITED: [&str; 4] = [
    "--principal-rate=1000000",
    "--principal-burst=1000000",
    "--address-rate=1000000",
    "--address-burst=1000000",
];

/// A process of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// One engine.
    EngineA,
    /// The other.
    EngineB,
    /// One gateway.
    GatewayA,
    /// The other.
    GatewayB,
    /// The poller, which plays a tape.
    Poller,
    /// The recorder.
    Recorder,
}

impl Role {
    /// In the order in which they are started, and in a rolling restart stopped.
    pub const ALL: [Self; 6] = [
        Self::EngineA,
        Self::EngineB,
        Self::Recorder,
        Self::Poller,
        Self::GatewayA,
        Self::GatewayB,
    ];
    /// The engines.
    pub const ENGINES: [Self; 2] = [Self::EngineA, Self::EngineB];
    /// The gateways.
    pub const GATEWAYS: [Self; 2] = [Self::GatewayA, Self::GatewayB];

    /// For people, for files, and as an engine's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EngineA => "engine-a",
            Self::EngineB => "engine-b",
            Self::GatewayA => "gateway-a",
            Self::GatewayB => "gateway-b",
            Self::Poller => "poller",
            Self::Recorder => "recorder",
        }
    }

    /// The other of a pair.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::EngineA => Self::EngineB,
            Self::EngineB => Self::EngineA,
            Self::GatewayA => Self::GatewayB,
            Self::GatewayB => Self::GatewayA,
            Self::Poller | Self::Recorder => self,
        }
    }
}

/// An end that nobody ordered.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Who.
    pub role: Role,
    /// How.
    pub status: ExitStatus,
    /// The end of what it said.
    pub log: String,
}

/// The stores, and the roles that run on them. Everything goes with the value.
#[derive(Debug)]
pub struct Mesh {
    roles: BTreeMap<Role, Process>,
    /// When a role that ended by itself is started again.
    due: BTreeMap<Role, Instant>,
    /// Where the two gateways are.
    pub gateways: [SocketAddr; 2],
    /// A pool of our own.
    pub pool: PgPool,
    /// The journal.
    pub postgres: PrivatePostgres,
    /// The bus.
    pub redis: PrivateRedis,
    /// Number of shards.
    pub shards: u32,
    program: PathBuf,
    directory: TempDir,
}

impl Mesh {
    /// Starts the stores and readies the roles; none runs yet.
    ///
    /// # Errors
    /// When the program refuses to.
    pub async fn prepare(program: &Path, shards: u32) -> anyhow::Result<Self> {
        // Near the root, because the path of a socket is short.
        let directory = tempfile::Builder::new()
            .prefix("fulcrum-chaos-")
            .tempdir_in("/tmp")
            .context("a directory")?;
        let settings = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("max_connections", CONNECTIONS_MAX),
        ];
        let (postgres, redis) = tokio::join!(PrivatePostgres::start_with(&settings), PrivateRedis::start());
        let path = directory.path();
        std::fs::write(path.join("tape.csv"), tape()).context("the tape")?;
        let mut mesh = Self {
            roles: BTreeMap::new(),
            due: BTreeMap::new(),
            gateways: [free_address(), free_address()],
            pool: postgres.pool(),
            postgres,
            redis,
            shards,
            program: program.to_owned(),
            directory,
        };
        mesh.tool(&["migrate", &format!("--shards={shards}")]).await?;
        let keys = mesh.path("keys");
        mesh.tool(&["keygen", &format!("--out={}", keys.display())]).await?;
        for role in Role::ALL {
            let process = Process::new(mesh.recipe(role));
            mesh.roles.insert(role, process);
        }
        Ok(mesh)
    }

    /// The same, and starts every role and waits until all are ready.
    ///
    /// # Errors
    /// When one of them is not.
    pub async fn start(program: &Path, shards: u32) -> anyhow::Result<Self> {
        let mut mesh = Self::prepare(program, shards).await?;
        mesh.start_all().await?;
        Ok(mesh)
    }

    /// Starts every role and waits until all are ready.
    ///
    /// # Errors
    /// When one of them is not.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for role in Role::ALL {
            self.role(role).start()?;
        }
        for role in Role::ALL {
            self.until_ready(role).await?;
        }
        Ok(())
    }

    /// The process of a role.
    pub fn role(&mut self, role: Role) -> &mut Process {
        self.due.remove(&role);
        self.roles.get_mut(&role).expect("made for every role")
    }

    /// Whether a role was started and its end not seen yet.
    #[must_use]
    pub fn is_started(&self, role: Role) -> bool {
        self.roles[&role].is_started()
    }

    /// A token for an account, of a principal with the same name.
    ///
    /// # Errors
    /// When the program makes none.
    pub async fn token(&self, account: &str) -> anyhow::Result<String> {
        let key = self.path("keys").join("token.key.pem");
        let (key, account) = (format!("--key={}", key.display()), format!("--account={account}"));
        self.tool(&["token", &key, &account, "--ttl=24h"]).await
    }

    /// A file in the directory of this mesh.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Leaves the directory with logs and acknowledgements where it is, and says where.
    #[must_use]
    pub fn keep_files(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }

    /// Waits until a role says that it is ready.
    ///
    /// # Errors
    /// When it does not.
    pub async fn until_ready(&mut self, role: Role) -> anyhow::Result<()> {
        let socket = self.path(&format!("{}.ops", role.name()));
        let begun = Instant::now();
        while !is_ready(&socket).await {
            if let Some(status) = self.roles.get_mut(&role).expect("made for every role").ended()? {
                let log = self.roles[&role].log_tail();
                bail!("{} ended before it was ready ({status}):\n{log}", role.name());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} is not ready:\n{}",
                role.name(),
                self.roles[&role].log_tail()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Starts again what ended by itself, as whoever runs it would; and says what did.
    ///
    /// # Errors
    /// When something cannot be started again.
    pub fn mind(&mut self) -> anyhow::Result<Vec<Ended>> {
        let mut ends = Vec::new();
        for (&role, process) in &mut self.roles {
            if let Some(status) = process.ended()? {
                let log = process.log_tail();
                ends.push(Ended { role, status, log });
                self.due.insert(role, Instant::now() + RESTART_AFTER);
            } else if self.due.get(&role).is_some_and(|due| *due <= Instant::now()) {
                self.due.remove(&role);
                process.start()?;
            }
        }
        Ok(ends)
    }

    /// Which shards an engine leads, with the epochs it leads them under; nothing while Postgres does not say.
    pub async fn led_by(&self, engine: Role) -> Vec<(u32, u64)> {
        let heads = sqlx::query_as::<_, (i32, i64)>(
            "SELECT shard, epoch FROM shard_head WHERE lease_name = $1 AND lease_until > clock_timestamp() ORDER BY shard",
        );
        let heads = heads.bind(engine.name()).fetch_all(&self.pool).await;
        heads.unwrap_or_default().into_iter().map(numbers).collect()
    }

    /// The epochs of all shards; nothing while Postgres does not say.
    pub async fn epochs(&self) -> BTreeMap<u32, u64> {
        let heads = sqlx::query_as::<_, (i32, i64)>("SELECT shard, epoch FROM shard_head").fetch_all(&self.pool);
        heads.await.unwrap_or_default().into_iter().map(numbers).collect()
    }

    /// The engine that leads most shards, if any does.
    pub async fn leader(&self) -> Option<Role> {
        let (a, b) = (
            self.led_by(Role::EngineA).await.len(),
            self.led_by(Role::EngineB).await.len(),
        );
        match (a, b) {
            (0, 0) => None,
            _ if a >= b => Some(Role::EngineA),
            _ => Some(Role::EngineB),
        }
    }

    /// Waits until all of these shards are led under a newer epoch.
    ///
    /// # Errors
    /// When they are not.
    pub async fn until_taken(&self, shards: &[(u32, u64)]) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let epochs = self.epochs().await;
            if shards
                .iter()
                .all(|(shard, old)| epochs.get(shard).is_some_and(|new| new > old))
            {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "nobody took over");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the recorder has expanded all there is.
    ///
    /// # Errors
    /// When it does not.
    pub async fn until_recorded(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.mind()?;
            let behind = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM shard_head h JOIN recorder_cursor c USING (shard) WHERE c.seq < h.seq",
            );
            if behind.fetch_one(&self.pool).await.is_ok_and(|behind| behind == 0) {
                return Ok(());
            }
            let log = self.roles[&Role::Recorder].log_tail();
            ensure!(begun.elapsed() < PATIENCE, "the recorder stays behind:\n{log}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has the program itself replay the whole journal and compare everything with it.
    ///
    /// # Errors
    /// When something differs; what.
    pub async fn verify(&self) -> anyhow::Result<()> {
        self.tool(&["verify", "--from-genesis"]).await?;
        Ok(())
    }

    fn recipe(&self, role: Role) -> Recipe {
        let mut arguments: Vec<OsString> = match role {
            Role::EngineA | Role::EngineB => vec![
                "engine".into(),
                format!("--name={}", role.name()).into(),
                // So often that snapshots are written under load and read back at take-overs.
                "--snapshot-every=2s".into(),
            ],
            Role::GatewayA | Role::GatewayB => {
                let listen = self.gateways[usize::from(role == Role::GatewayB)];
                let key = self.path("keys").join("token.pub.pem");
                let mut arguments = vec!["gateway".into(), format!("--listen={listen}").into()];
                arguments.push(format!("--token-key={}", key.display()).into());
                arguments.extend(UNLIMITED.map(OsString::from));
                arguments
            }
            Role::Poller => vec![
                "poller".into(),
                "run".into(),
                format!("--feed={}", self.path("tape.csv").display()).into(),
                format!("--symbols={SYMBOL}").into(),
            ],
            Role::Recorder => vec!["recorder".into()],
        };
        let ops = self.path(&format!("{}.ops", role.name()));
        arguments.extend([
            format!("--ops-listen=unix:{}", ops.display()).into(),
            "--until-stdin-ends".into(),
        ]);
        Recipe {
            program: self.program.clone(),
            arguments,
            environment: self.stores(),
            log: self.path(&format!("{}.log", role.name())),
        }
    }

    fn stores(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("FULCRUM_REDIS_URL".into(), self.redis.url().into()),
            ("FULCRUM_DATABASE_URL".into(), self.postgres.url().into()),
        ]
    }

    /// Runs the program to its end and gives what it said.
    async fn tool(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.program)
            .args(arguments)
            .envs(self.stores())
            .output()
            .await
            .with_context(|| self.program.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} {arguments:?}: {said}",
            self.program.display()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The database has no unsigned numbers.
fn numbers((shard, epoch): (i32, i64)) -> (u32, u64) {
    (shard.cast_unsigned(), epoch.cast_unsigned())
}

/// Ten quotes a second that move within a percent, so that nothing is liquidated and what clients compute is what is true.
fn tape() -> String {
    let mut text = String::from("ts_us,symbol,bid,bid_qty,ask,ask_qty\n");
    for step in 0_u64..200 {
        let at_us = 1_514_866_800_000_000 + step * 100_000;
        // Up by a cent a step, then down again, in cents.
        let cents = 20_000 + step.min(200 - step);
        let price = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
        writeln!(text, "{at_us},{SYMBOL},{},,{},", price(cents), price(cents + 2)).expect("text");
    }
    text
}

async fn is_ready(socket: &Path) -> bool {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(100_000).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.split(' ').nth(1) == Some("200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(true)))
}
