//! `fulcrum poller`: the venue's prices onto the bus; records them; plays a recording as if it were the venue.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use opentelemetry::global;
use poller::{Playback, Poller, RecordConfig, ReplayConfig, Speed, TapeSource, VenueTime};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
use crate::process::{Frame, Stage};
use crate::settings::{
    FeedSettings, OpsListen, OpsSettings, ParentSettings, RedisSettings, TelemetrySettings, duration,
};
use crate::{probe, say};

/// Brings the venue's prices to the bus; records them, or replays a recording.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<RunOptions>),
    Record(RecordOptions),
    Replay(ReplayOptions),
}

/// Follows a feed and publishes its quotes, which is also done without a word.
#[derive(Debug, Args)]
struct RunOptions {
    #[command(flatten)]
    redis: RedisSettings,
    #[command(flatten)]
    feed: FeedSettings,
    #[command(flatten)]
    ops: OpsSettings,
    #[command(flatten)]
    telemetry: TelemetrySettings,
    #[command(flatten)]
    parent: ParentSettings,
}

/// Writes the venue's frames to a file, as they come, until stopped.
#[derive(Debug, Args)]
struct RecordOptions {
    /// The file; appended to when it exists, compressed when its name ends in .zst.
    #[arg(env = "FULCRUM_RECORD_FILE")]
    file: PathBuf,
    /// The venue's address.
    #[arg(long, env = "FULCRUM_VENUE_URL", default_value = poller::config::VENUE_URL, value_name = "URL")]
    url: String,
    /// The symbols to record, separated by commas, in the venue's spelling. All instruments unless given.
    #[arg(long, env = "FULCRUM_SYMBOLS", value_delimiter = ',', value_name = "SYMBOL")]
    symbols: Vec<String>,
    /// How long the feed may send no data before its connection is replaced.
    #[arg(long, env = "FULCRUM_SILENCE", default_value = "20s", value_name = "TIME", value_parser = duration)]
    silence: std::time::Duration,
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

/// Plays a recording on a port, in the venue's own protocol: give its address to --feed.
#[derive(Debug, Args)]
struct ReplayOptions {
    /// Recorded frames (.jsonl) or quotes (.csv), also compressed (.zst). The built-in recording unless given.
    #[arg(env = "FULCRUM_REPLAY_FILE")]
    file: Option<PathBuf>,
    /// Where it listens.
    #[arg(long, env = "FULCRUM_REPLAY_LISTEN", default_value_t = poller::config::REPLAY_LISTEN, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How fast it plays: 1 is as recorded. From 0.001 to 1000.
    #[arg(long, env = "FULCRUM_REPLAY_SPEED", default_value = "1", value_name = "FACTOR")]
    speed: Speed,
    /// Starts again at the end.
    #[arg(long = "loop", env = "FULCRUM_REPLAY_LOOP", value_parser = clap::builder::FalseyValueParser::new())]
    repeat: bool,
    /// Plays only what was recorded at or after this time: 2018-01-02T12:00:00Z, or microseconds since 1970.
    #[arg(long, env = "FULCRUM_REPLAY_FROM", value_name = "TIME", value_parser = tape_time)]
    from: Option<u64>,
    /// Plays only what was recorded before this time.
    #[arg(long, env = "FULCRUM_REPLAY_UNTIL", value_name = "TIME", value_parser = tape_time)]
    until: Option<u64>,
    /// Which times the frames carry.
    #[arg(long, env = "FULCRUM_REPLAY_TIMES", value_enum, default_value_t = Times::Now)]
    times: Times,
    #[command(flatten)]
    telemetry: TelemetrySettings,
}

/// Which times replayed frames carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Times {
    /// As if it happened now.
    Now,
    /// As recorded.
    Recorded,
}

fn tape_time(text: &str) -> Result<u64, String> {
    poller::tape_time(text).map_err(|error| error.to_string())
}

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.command {
        None => publish(options.run).await,
        Some(Command::Run(options)) => publish(*options).await,
        Some(Command::Record(options)) => record(options).await,
        Some(Command::Replay(options)) => replay(options).await,
    }
}

async fn publish(options: RunOptions) -> Result<(), Failure> {
    let frame = Frame {
        telemetry: options.telemetry,
        ops: options.ops,
        parent: options.parent,
    };
    let (redis, feed) = (options.redis.redis_url, options.feed);
    frame
        .run("poller", async |stage| {
            stage.board.expect(&["redis", "feed"]);
            let looking = probe::redis(stage.board.clone(), bus::Redis::open(&redis)?);
            let _redis = AbortOnDropHandle::new(tokio::spawn(looking));
            follow(&feed, &redis, stage).await
        })
        .await
}

/// Runs a poller and says on the board how the feed is.
pub(crate) async fn follow(settings: &FeedSettings, redis: &str, stage: Stage) -> Result<(), Failure> {
    let mut config = poller::Config::new(bus::Redis::open(redis)?, settings.feed(), settings.symbols());
    config.batch = settings.batch;
    config.silence = settings.silence;
    let poller = Poller::new(config)?;
    count(&poller);
    let _feed = AbortOnDropHandle::new(tokio::spawn(probe::feed(stage.board.clone(), poller.state())));
    Ok(poller.run(stage.shutdown).await?)
}

/// Puts what the poller counts on the metrics page.
fn count(poller: &Poller) {
    let meter = global::meter("fulcrum.poller");
    for (name, what, _) in poller.counters().counts().each() {
        let counters = poller.counters();
        meter
            .u64_observable_counter(format!("fulcrum.poller.{name}"))
            .with_description(what)
            .with_callback(move |observer| {
                let now = counters.counts().each();
                if let Some((_, _, value)) = now.iter().find(|(other, ..)| *other == name) {
                    observer.observe(*value, &[]);
                }
            })
            .build();
    }
    let (state, frames) = (poller.state(), poller.state());
    meter
        .u64_observable_gauge("fulcrum.poller.live")
        .with_description("1 when prices are the venue's own, 0 when they are a replay.")
        .with_callback(move |observer| observer.observe(u64::from(state.borrow().mode == poller::Mode::Live), &[]))
        .build();
    meter
        .f64_observable_gauge("fulcrum.poller.last_frame_age")
        .with_unit("s")
        .with_description("Since the last frame of data came.")
        .with_callback(move |observer| {
            let came = frames.borrow().last_frame_at;
            if let Some(age) = came.and_then(|at| SystemTime::now().duration_since(at).ok()) {
                observer.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
}

async fn record(options: RecordOptions) -> Result<(), Failure> {
    let mut symbols = options.symbols;
    if symbols.is_empty() {
        symbols = engine::default_instruments()
            .iter()
            .map(|it| it.symbol.as_str().to_owned())
            .collect();
    }
    let config = RecordConfig {
        url: options.url,
        symbols,
        file: options.file,
        silence: options.silence,
    };
    without_ops(options.telemetry)
        .run("poller-record", async |stage| {
            let recorded = poller::record(config, stage.shutdown).await?;
            say::line(format!(
                "{} frames recorded, {} reconnects",
                recorded.frames, recorded.reconnects
            ));
            Ok(())
        })
        .await
}

async fn replay(options: ReplayOptions) -> Result<(), Failure> {
    let playback = Playback {
        tape: options.file.map_or(TapeSource::BuiltIn, TapeSource::File),
        speed: options.speed,
        repeat: options.repeat,
        from_us: options.from,
        until_us: options.until,
        venue_time: match options.times {
            Times::Now => VenueTime::Now,
            Times::Recorded => VenueTime::Recorded,
        },
    };
    let config = ReplayConfig {
        listen: options.listen,
        playback,
    };
    without_ops(options.telemetry)
        .run("poller-replay", async |stage| {
            let server = poller::ReplayServer::bind(config.listen, config.playback).await?;
            say::line(format!("replaying on {}", server.url()));
            Ok(server.serve(stage.shutdown).await?)
        })
        .await
}

/// Tools have nobody who asks whether they are ready.
fn without_ops(telemetry: TelemetrySettings) -> Frame {
    Frame {
        telemetry,
        ops: OpsSettings {
            ops_listen: OpsListen::Off,
        },
        parent: ParentSettings {
            until_stdin_ends: false,
        },
    }
}
