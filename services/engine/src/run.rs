//! The engine: checks what it stands on, follows every shard, and serves as a host of leaders.

use std::sync::Arc;

use bus::{BusError, FollowPrices, PriceEntry, PriceStream as _};
use engine_core::Instrument;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Snapshots};
use crate::follow::{self, Replicas};
use crate::ground::{Ground, RealGround};
use crate::health::Status;
use crate::host::{Follower, Host};
use crate::inbox::SKEW_MAX;
use crate::journal::{JournalError, PgJournal, UnsafeSetting};
use crate::lead::LeadError;
use crate::shard::Corrupt;
use crate::window::Limits;

/// Connections to Postgres of the loop that leads: commit, check, and one to spare.
const CONNECTIONS_LEADING: u32 = 3;
/// And of all that goes on beside it: renew, look, follow, recover, and write a snapshot.
const CONNECTIONS: u32 = 5;
/// Price batches that a slow shard may be behind before it reads them from the stream itself.
const PRICES_BUFFERED: usize = 256;

/// Why the engine stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another engine took a shard over while this one believed to lead it.
    #[error(transparent)]
    Fenced(LeadError),
    /// The journal does not replay to the state its writer had.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The database would lose what it acknowledged.
    #[error(transparent)]
    UnsafeSetting(#[from] UnsafeSetting),
    /// Clocks do not agree at the start.
    #[error(
        "the clocks of this machine, Postgres and Redis are {apart_ms} ms apart, at most {limit_ms} ms are allowed: synchronise them"
    )]
    Clock {
        /// Largest difference seen. Milliseconds.
        apart_ms: i64,
        /// Largest allowed. Milliseconds.
        limit_ms: u128,
    },
    /// The journal cannot be reached at the start.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bus cannot be reached at the start.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The system gives no thread to lead on.
    #[error("no thread to lead on: {0}")]
    Thread(#[from] std::io::Error),
}

impl EngineError {
    /// The process's exit code: 3 fenced, 4 corrupt, 5 unsafe database settings, 6 clock, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fenced(_) => 3,
            Self::Corrupt(_) => 4,
            Self::UnsafeSetting(_) => 5,
            Self::Clock { .. } => 6,
            Self::Journal(_) | Self::Bus(_) | Self::Thread(_) => 1,
        }
    }
}

/// Runs an engine on Postgres and Redis until `shutdown`, telling `status` which shards it leads.
///
/// # Errors
/// [`EngineError`]; its exit code says what kind.
pub async fn run(
    config: Config,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let thread = LeaderThread::start_beside(Handle::current())?;
    let connecting = async {
        let journal = PgJournal::connect(&config.database, CONNECTIONS).await?;
        journal.check_settings().await??;
        let shards = journal.shards().await?;
        let ground = RealGround::connect(journal, config.redis.clone()).await?;
        let (database, redis) = (config.database.clone(), config.redis);
        let reaching = async move {
            let journal = PgJournal::connect(&database, CONNECTIONS_LEADING).await?;
            Ok::<_, EngineError>(RealGround::connect(journal, redis).await?)
        };
        let leading = Leading {
            ground: on(&thread.runtime, reaching).await?,
            runtime: thread.runtime.clone(),
        };
        Ok::<_, EngineError>((ground, leading, shards))
    };
    let Some(connected) = shutdown.run_until_cancelled(connecting).await else {
        return Ok(());
    };
    let (ground, leading, shards) = connected?;
    let options = Options {
        name: config.name,
        shards,
        instruments: config.instruments,
        snapshots: config.snapshots,
        window: Limits::default(),
    };
    serve_apart(ground, leading, options, status, shutdown).await
}

/// A thread that leads and does nothing else. What its tasks hand to each other stays in the caches of one core, memory is freed where it
/// was taken, and one wakes another without a system call. Leases are renewed elsewhere, so a long round of the leader loses none.
#[derive(Debug)]
struct LeaderThread {
    runtime: Handle,
    _ends: DropGuard,
}

impl LeaderThread {
    /// Starts it; it ends when this is dropped, with all that runs on it. Where there is only one thread, it is that.
    fn start_beside(here: Handle) -> std::io::Result<Self> {
        let ends = CancellationToken::new();
        let ended = ends.clone();
        let handle = if here.runtime_flavor() == RuntimeFlavor::CurrentThread {
            here
        } else {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let thread = std::thread::Builder::new().name("leader".to_owned());
            thread.spawn(move || runtime.block_on(ended.cancelled()))?;
            handle
        };
        Ok(Self {
            runtime: handle,
            _ends: ends.drop_guard(),
        })
    }
}

/// Where the loop that leads runs.
#[derive(Clone, Debug)]
pub(crate) struct Leading<G> {
    /// What it stands on: connections of its own, because one is driven by the runtime that opened it.
    pub(crate) ground: G,
    /// Its runtime.
    pub(crate) runtime: Handle,
}

/// Does something on another runtime; a panic there is ours. Dropped, it is given up.
pub(crate) async fn on<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> T {
    match AbortOnDropHandle::new(runtime.spawn(work)).await {
        Ok(done) => done,
        Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        // That runtime has ended, and so has whoever would hear of it.
        Err(_) => std::future::pending().await,
    }
}

/// What an engine needs to know besides what it stands on.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this process, unique among running engines.
    pub name: String,
    /// Number of shards of the deployment.
    pub shards: u32,
    /// The instruments to trade.
    pub instruments: Vec<Instrument>,
    /// When snapshots are written.
    pub snapshots: Snapshots,
    /// How long operations are remembered; the same for all engines that ever write to a journal.
    pub window: Limits,
}

/// Runs an engine on any ground: what [`run`] does once it trusts what it stands on.
///
/// # Errors
/// [`EngineError`]; its exit code says what kind.
pub async fn serve<G: Ground>(
    ground: G,
    options: Options,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let leading = Leading {
        ground: ground.clone(),
        runtime: Handle::current(),
    };
    serve_apart(ground, leading, options, status, shutdown).await
}

async fn serve_apart<G: Ground>(
    ground: G,
    leading: Leading<G>,
    options: Options,
    status: watch::Sender<Status>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    check_clocks(&ground).await?;
    // What the process stands on ends after it has, so it has a token of its own.
    let standing = CancellationToken::new();
    let _ends = standing.clone().drop_guard();
    let (prices, _) = broadcast::channel(PRICES_BUFFERED);
    let replicas = Replicas::default();
    let reader = ground.prices().follow(&format!("engine:{}", options.name));
    tokio::spawn(standing.run_until_cancelled_owned(read_prices(reader, prices.clone())));
    let mut follower = Follower::new();
    follower.spawn(follow::follow(
        ground.journal().clone(),
        replicas.clone(),
        options.snapshots,
        options.window,
    ));
    let mut host = Host::start(ground, leading, options, prices, replicas, status);
    let outcome = host.serve(&mut follower, &shutdown).await;
    host.leave().await;
    outcome
}

async fn read_prices(mut follower: impl FollowPrices, out: broadcast::Sender<Arc<[PriceEntry]>>) {
    // From now on; a leader reads what lies between its journaled cursor and here by itself.
    loop {
        let entries = follower.next().await;
        if !entries.is_empty() {
            // No receiver: nothing is led yet.
            let _unheard = out.send(entries.into());
        }
    }
}

async fn check_clocks<G: Ground>(ground: &G) -> Result<(), EngineError> {
    let asked = Instant::now();
    let clocks = ground.clocks().await?;
    // What the questions took is not a difference between clocks.
    let took = i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX);
    let apart = clocks.iter().max().unwrap_or(&0) - clocks.iter().min().unwrap_or(&0) - took;
    let limit = SKEW_MAX.as_millis();
    if apart / 1_000 > i64::try_from(limit).unwrap_or(i64::MAX) {
        return Err(EngineError::Clock {
            apart_ms: apart / 1_000,
            limit_ms: limit,
        });
    }
    Ok(())
}
