//! `fulcrum up`: everything on this machine, one command to start it and one key to stop it.
//!
//! A private Redis and a private Postgres are started under the data directory, the schema is brought up to date, then engines, recorder,
//! poller and gateway run: as tasks of this process, or each as a process of its own. What dies is started again. Stopping goes the other
//! way round, so that nobody loses what they stand on.
//!
//! Reading order: this file, `mesh` (what is started, in which order), `running` (how it is kept running), `home` (the data directory),
//! `server` (the process of a store), `postgres` and `redis`, `children`, `banner`.

mod banner;
mod children;
mod home;
mod mesh;
mod postgres;
mod redis;
mod running;
mod server;
mod user;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context as _;
use clap::{ArgMatches, Args};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
pub(crate) use self::home::DataSettings;
use self::home::Home;
use self::mesh::Mesh;
use self::running::Supervisor;
use crate::failure::Failure;
use crate::ops::{Board, Endpoint};
use crate::process::{INTERRUPTED, Signals};
use crate::role::engine::EngineSettings;
use crate::role::gateway::{GatewaySettings, ListenSettings};
use crate::role::migrate::ShardSettings;
use crate::role::recorder::RecorderSettings;
use crate::say;
use crate::settings::{FeedSettings, OpsSettings, TelemetrySettings};
use crate::telemetry::Telemetry;

/// Most engines of one machine: more would lead no shard faster.
const ENGINES_MAX: i64 = 16;

/// Starts everything on this machine: a private Redis and Postgres, engine, poller, recorder and gateway.
///
/// Ctrl-C stops all of it in order; a second one at once. What was committed is there at the next start.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: DataSettings,
    /// Uses a new data directory that is removed at the end.
    #[arg(long, env = "FULCRUM_EPHEMERAL", value_parser = clap::builder::FalseyValueParser::new())]
    ephemeral: bool,
    #[command(flatten)]
    listen: ListenSettings,
    #[command(flatten)]
    ops: OpsSettings,
    #[command(flatten)]
    feed: FeedSettings,
    #[command(flatten)]
    shards: ShardSettings,
    /// How many engines run; they share the shards, and one takes over what another leaves. With 0 nobody waits for a leader.
    #[arg(
        long,
        env = "FULCRUM_ENGINES",
        default_value_t = 1,
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=ENGINES_MAX)
    )]
    engines: u32,
    /// Runs each role as a process of its own, with its process id in <run-dir>/<role>-<n>.pid; one that dies is started again.
    #[arg(long, env = "FULCRUM_SEPARATE_PROCESSES", value_parser = clap::builder::FalseyValueParser::new())]
    separate_processes: bool,
    #[command(flatten)]
    engine: EngineSettings,
    #[command(flatten)]
    recorder: RecorderSettings,
    #[command(flatten)]
    gateway: GatewaySettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

/// Runs the command. `given` is what was given, to hand it on to children.
pub(crate) async fn run(options: Options, given: &ArgMatches) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    ensure_free(options.listen.listen)?;
    let endpoint = Endpoint::bind(&options.ops).await?;
    let ops = endpoint.address();
    let home = Home::open(&options.data, options.ephemeral)?;
    let telemetry = Telemetry::install(&options.telemetry, "up", Some(&home.log("fulcrum")))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "up starts"
    );

    let board = Board::default();
    let ends = CancellationToken::new();
    let watching = tokio::spawn(endpoint.serve(board.clone(), telemetry.metrics(), ends.clone()));
    let (supervisor, fatal) = Supervisor::new();
    let mut mesh = Mesh::new(home, options, given, supervisor, board.clone());
    let outcome = run_until_stopped(&mut mesh, fatal, &mut signals, ops).await;

    board.leave();
    tokio::select! {
        () = mesh.stop() => {}
        what = signals.next_again() => {
            say::error(&format!("{what} again: ending at once"));
            std::process::exit(INTERRUPTED);
        }
    }
    ends.cancel();
    if let Err(error) = watching.await {
        tracing::warn!(%error, "the ops endpoint ended badly");
    }
    telemetry.shutdown().await;
    outcome
}

/// Starts everything, tells the person, and waits for a reason to stop.
async fn run_until_stopped(
    mesh: &mut Mesh<'_>,
    mut fatal: mpsc::Receiver<Failure>,
    signals: &mut Signals,
    ops: Option<SocketAddr>,
) -> Result<(), Failure> {
    let started = tokio::select! {
        started = mesh.start() => started?,
        Some(failure) = fatal.recv() => return Err(failure),
        what = signals.next() => {
            say::line(format!("\n{what}: stopping"));
            return Ok(());
        }
    };
    let options = mesh.options();
    let home = mesh.home();
    let program = std::env::args().next().unwrap_or_else(|| "fulcrum".to_owned());
    say::line(
        Banner {
            listen: started.listen,
            tls: options.gateway.tls().is_some(),
            ops,
            data: &home.root,
            stores: Some(home.stores.as_path()).filter(|stores| !stores.starts_with(&home.root)),
            run: &home.run,
            ephemeral: home.ephemeral,
            default_data: !home.ephemeral && std::path::absolute(".fulcrum").is_ok_and(|it| it == home.root),
            shards: started.shards,
            engines: options.engines,
            separate: options.separate_processes,
            feed: started.feed.as_ref(),
            token: &started.token,
            program: &program,
        }
        .text(),
    );
    tokio::select! {
        Some(failure) = fatal.recv() => Err(failure),
        what = signals.next() => {
            say::line(format!("\n{what}: stopping"));
            Ok(())
        }
    }
}

/// Says early that a port is taken, before anything was started for nothing.
fn ensure_free(address: SocketAddr) -> anyhow::Result<()> {
    TcpListener::bind(address)
        .map(drop)
        .with_context(|| format!("the gateway cannot listen on {address}; choose another place with --listen"))
}

/// Makes a link, in place of whatever link was there.
fn link(target: &Path, link: &Path) -> anyhow::Result<()> {
    let _absent = std::fs::remove_file(link);
    std::os::unix::fs::symlink(target, link).with_context(|| format!("the link {}", link.display()))
}
