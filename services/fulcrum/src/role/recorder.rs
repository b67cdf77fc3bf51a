//! `fulcrum recorder`: the journal to history tables, the price stream to candles.

use clap::Args;
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
use crate::ops::Condition;
use crate::process::{Frame, Stage};
use crate::settings::{DatabaseSettings, OpsSettings, ParentSettings, RedisSettings, TelemetrySettings, duration};
use crate::{probe, say};

/// Connections: journal, candles, and one to ask whether Postgres is there.
const CONNECTIONS_MAX: u32 = 4;

/// Runs the recorder: it turns the journal into the tables that history is read from, and prices into candles.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    redis: RedisSettings,
    #[command(flatten)]
    database: DatabaseSettings,
    #[command(flatten)]
    recorder: RecorderSettings,
    /// Empties the history tables, makes them again from the journal, and ends. Candles stay.
    #[arg(long, env = "FULCRUM_REBUILD", value_parser = clap::builder::FalseyValueParser::new())]
    rebuild: bool,
    #[command(flatten)]
    ops: OpsSettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
    #[command(flatten)]
    parent: ParentSettings,
}

/// How the recorder works.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecorderSettings {
    /// Longest wait between two looks at an idle journal.
    #[arg(long, env = "FULCRUM_RECORDER_POLL", default_value = "100ms", value_name = "TIME", value_parser = duration)]
    recorder_poll: std::time::Duration,
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let frame = Frame {
        telemetry: options.telemetry,
        ops: options.ops,
        parent: options.parent,
    };
    let (redis, database) = (options.redis.redis_url, options.database.database_url);
    if options.rebuild {
        let rebuild = async |_| {
            recorder::rebuild(&super::pool(&database, "recorder", CONNECTIONS_MAX)?).await?;
            say::line("history made again from the journal");
            Ok(())
        };
        return frame.run("recorder-rebuild", rebuild).await;
    }
    frame
        .run("recorder", async |stage| {
            stage.board.expect(&["redis", "postgres", "recorder"]);
            let _redis = AbortOnDropHandle::new(tokio::spawn(probe::redis(
                stage.board.clone(),
                bus::Redis::open(&redis)?,
            )));
            let looking = probe::postgres(stage.board.clone(), super::pool(&database, "recorder", 1)?);
            let _postgres = AbortOnDropHandle::new(tokio::spawn(looking));
            record(&options.recorder, &redis, &database, stage).await
        })
        .await
}

/// Runs a recorder.
pub(crate) async fn record(
    settings: &RecorderSettings,
    redis: &str,
    database: &str,
    stage: Stage,
) -> Result<(), Failure> {
    let config = recorder::Config {
        redis: bus::Redis::open(redis)?,
        pool: super::pool(database, "recorder", CONNECTIONS_MAX)?,
        poll: settings.recorder_poll,
    };
    stage.board.set("recorder", Condition::new(true));
    let outcome = recorder::run(config, stage.shutdown).await;
    let gone = match &outcome {
        Ok(()) => Condition::new(false),
        Err(error) => Condition::missing(error),
    };
    stage.board.set("recorder", gone);
    Ok(outcome?)
}
