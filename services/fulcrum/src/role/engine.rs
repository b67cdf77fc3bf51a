//! `fulcrum engine`: leads its part of the shards.

use std::time::Duration;

use clap::Args;
use engine::{Config, Snapshots};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
use crate::probe;
use crate::process::{Frame, Stage};
use crate::settings::{DatabaseSettings, OpsSettings, ParentSettings, RedisSettings, TelemetrySettings, duration};

/// Runs one engine: it leads its part of the shards, answers requests and follows the others as a standby.
///
/// Exit codes: 3 another engine took over, 4 the journal does not replay, 5 the database's settings are unsafe, 6 clocks apart.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    redis: RedisSettings,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    name: NameSettings,
    #[command(flatten)]
    engine: EngineSettings,
    #[command(flatten)]
    ops: OpsSettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
    #[command(flatten)]
    parent: ParentSettings,
}

/// Who this engine is.
#[derive(Args, Clone, Debug)]
struct NameSettings {
    /// Name of this engine for people and for its place on the price stream; unique among running ones. Host name and process
    /// id unless given.
    #[arg(long, env = "FULCRUM_ENGINE_NAME", value_name = "NAME")]
    name: Option<String>,
}

/// How engines work.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineSettings {
    /// How often a snapshot of a shard is written, if anything changed.
    #[arg(long, env = "FULCRUM_SNAPSHOT_EVERY", default_value = "60s", value_name = "TIME", value_parser = duration)]
    snapshot_every: Duration,
    /// After how many journal entries a snapshot is written sooner.
    #[arg(
        long,
        env = "FULCRUM_SNAPSHOT_ENTRIES",
        default_value_t = 100_000,
        value_name = "COUNT"
    )]
    snapshot_entries: u64,
    /// How long journal entries are kept once two snapshots contain them and the recorder has seen them; for ever unless given.
    /// What is dropped cannot be replayed again: keep backups. GetOperation and the history tables lose nothing.
    #[arg(long, env = "FULCRUM_JOURNAL_RETENTION", value_name = "TIME", value_parser = duration)]
    journal_retention: Option<Duration>,
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let name = options.name.name.unwrap_or_else(default_name);
    let (redis, database, engine) = (options.redis.redis_url, options.database.database_url, options.engine);
    let frame = Frame {
        telemetry: options.telemetry,
        ops: options.ops,
        parent: options.parent,
    };
    frame
        .run("engine", async |stage| {
            stage.board.expect(&["redis", "engine"]);
            let _redis = AbortOnDropHandle::new(tokio::spawn(probe::redis(
                stage.board.clone(),
                bus::Redis::open(&redis)?,
            )));
            lead(&engine, &redis, &database, &name, "engine", stage).await
        })
        .await
}

/// Runs an engine and says on the board, as `check`, which shards it leads.
pub(crate) async fn lead(
    settings: &EngineSettings,
    redis: &str,
    database: &str,
    name: &str,
    check: &str,
    stage: Stage,
) -> Result<(), Failure> {
    let redis = bus::Redis::open(redis)?;
    let config = Config {
        redis: redis.clone(),
        database: database.to_owned(),
        name: name.to_owned(),
        instruments: engine::default_instruments(),
        snapshots: Snapshots {
            every: settings.snapshot_every,
            every_entries: settings.snapshot_entries,
            journal_kept: settings.journal_retention,
        },
    };
    let (status, watched) = watch::channel(engine::Status::default());
    let pool = super::pool(database, "engine", 1)?;
    let watching = probe::engine(stage.board.clone(), check.to_owned(), watched, pool, redis);
    let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
    Ok(engine::run(config, status, stage.shutdown).await?)
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
