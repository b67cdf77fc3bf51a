//! The bench: what the hot path costs, beside what it would cost at the least.
//!
//! A shared machine gives other rates every minute, so everything is a ratio to a yardstick that was measured in the same run, or
//! processor time a call. Reading order: [`cpu`] (who used how much), [`sample`] (the arithmetic), [`load`] (how calls are made),
//! [`yardstick`] (the least that is possible), [`mesh`] (what is measured), [`compare`] and [`marks`] (how it is judged), [`report`].

pub mod compare;
pub mod cpu;
pub mod load;
pub mod marks;
pub mod mesh;
pub mod plot;
pub mod report;
pub mod sample;
mod say;
pub mod yardstick;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::load::{Door, Loop, Plan, Target, Work};
use self::mesh::{Mesh, MeshSettings, PATH};
use self::report::Report;
use self::sample::Ratios;
use self::yardstick::disk;
use self::yardstick::echo::Echo;
use self::yardstick::lists::{self, Way};
use self::yardstick::store::Store;

/// Sizes of the batches that are put on disk.
const BATCHES: [usize; 4] = [1, 16, 256, 1_024];

/// Measures what calls cost: processor time a call, calls a second, latency, and all of it beside yardsticks of the same run.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A bare gRPC server with the same messages: the first yardstick.
    Echo(EchoOptions),
    /// Request and reply over two Redis lists with nothing behind them, and our own queue beside it: the second yardstick.
    Redis(RedisOptions),
    /// A file with fdatasync, and commits to Postgres: the third yardstick.
    Fsync(FsyncOptions),
    /// Opening trades; they pile up.
    Open(LoadOptions),
    /// Opening a trade and closing it, again and again.
    OpenClose(LoadOptions),
    /// Reading balances.
    Balance(LoadOptions),
    /// Eight reads to an open and a close.
    Mix(LoadOptions),
    /// Interleaved rounds of yardstick and mesh, and whether each mark is met.
    Compare(CompareOptions),
    /// All of the above.
    All(CompareOptions),
}

/// How long a measurement takes.
#[derive(Args, Clone, Copy, Debug)]
pub struct TimingSettings {
    /// How long each measurement counts. Seconds.
    #[arg(long, env = "FULCRUM_BENCH_SECONDS", default_value_t = 3.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// How long load runs before it counts. Seconds.
    #[arg(long, env = "FULCRUM_BENCH_WARM_UP", default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    warm_up: f64,
}

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before it counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measure: Duration,
}

impl TimingSettings {
    fn timing(self) -> Timing {
        Timing {
            warm_up: Duration::from_secs_f64(self.warm_up),
            measure: Duration::from_secs_f64(self.seconds),
        }
    }
}

/// Where results go besides the terminal.
#[derive(Args, Clone, Debug)]
struct OutSettings {
    /// Writes the results as JSON.
    #[arg(long, env = "FULCRUM_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws latency against rate, as SVG.
    #[arg(long, env = "FULCRUM_BENCH_PLOT", value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct LoopSettings {
    /// Calls at once, each number a measurement.
    #[arg(
        long,
        env = "FULCRUM_BENCH_CONCURRENCY",
        value_delimiter = ',',
        default_value = "1,16,64,256,1024",
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=8_192)
    )]
    concurrency: Vec<u32>,
    /// Calls begun a second whatever becomes of those before, each number a measurement.
    #[arg(long, env = "FULCRUM_BENCH_RATE", value_delimiter = ',', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Vec<u32>,
}

impl LoopSettings {
    fn loops(&self) -> Vec<Loop> {
        let closed = self.concurrency.iter().map(|&count| Loop::Closed {
            concurrency: count as usize,
        });
        let open = self.rate.iter().map(|&count| Loop::Open {
            per_second: f64::from(count),
        });
        closed.chain(open).collect()
    }
}

#[derive(Args, Clone, Debug)]
struct EchoOptions {
    /// Which messages.
    #[arg(long, env = "FULCRUM_BENCH_WORK", value_enum, default_value_t = Work::Open)]
    work: Work,
    #[command(flatten)]
    loops: LoopSettings,
    #[command(flatten)]
    timing: TimingSettings,
    #[command(flatten)]
    out: OutSettings,
}

#[derive(Args, Clone, Debug)]
struct RedisOptions {
    /// How requests and replies travel.
    #[arg(
        long,
        env = "FULCRUM_BENCH_WAY",
        value_enum,
        value_delimiter = ',',
        default_value = "aggregated,naive,ours"
    )]
    way: Vec<Way>,
    #[command(flatten)]
    loops: LoopSettings,
    #[command(flatten)]
    timing: TimingSettings,
    #[command(flatten)]
    out: OutSettings,
}

#[derive(Args, Clone, Debug)]
struct FsyncOptions {
    /// Directory for the file: on the disk that the database is on.
    #[arg(long, env = "FULCRUM_BENCH_DIRECTORY", default_value = ".", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Database for the commits; none are measured without it. A table is made and removed.
    #[arg(long, env = "FULCRUM_BENCH_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    #[command(flatten)]
    timing: TimingSettings,
    #[command(flatten)]
    out: OutSettings,
}

#[derive(Args, Clone, Debug)]
struct LoadOptions {
    #[command(flatten)]
    mesh: MeshSettings,
    /// Through which door, each a measurement.
    #[arg(
        long,
        env = "FULCRUM_BENCH_DOOR",
        value_enum,
        value_delimiter = ',',
        default_value = "grpc,rest,grpc-web"
    )]
    door: Vec<Door>,
    #[command(flatten)]
    loops: LoopSettings,
    #[command(flatten)]
    timing: TimingSettings,
    #[command(flatten)]
    out: OutSettings,
}

#[derive(Args, Clone, Debug)]
struct CompareOptions {
    #[command(flatten)]
    mesh: MeshSettings,
    /// Rounds of each comparison.
    #[arg(long, env = "FULCRUM_BENCH_ROUNDS", default_value_t = 7, value_name = "COUNT")]
    rounds: usize,
    #[command(flatten)]
    timing: TimingSettings,
    #[command(flatten)]
    out: OutSettings,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, at most 600".to_owned()),
    }
}

/// Runs the command. Told to stop, it stops what it started first.
///
/// # Errors
/// When something cannot be measured, or when it is told to stop.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    tokio::select! {
        measured = measure(options) => measured,
        _ = terminate.recv() => bail!("told to stop"),
        _ = tokio::signal::ctrl_c() => bail!("told to stop"),
    }
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let out = match options.command {
        Command::Echo(options) => {
            echo(&options, &mut report).await?;
            options.out
        }
        Command::Redis(options) => {
            redis(&options, &mut report).await?;
            options.out
        }
        Command::Fsync(options) => {
            let (file, database) = (Some(options.directory.as_path()), options.database_url.as_deref());
            fsync(file, database, None, options.timing.timing(), &mut report).await?;
            options.out
        }
        Command::Open(options) => mesh_load(Work::Open, options, &mut report).await?,
        Command::OpenClose(options) => mesh_load(Work::OpenClose, options, &mut report).await?,
        Command::Balance(options) => mesh_load(Work::Balance, options, &mut report).await?,
        Command::Mix(options) => mesh_load(Work::Mix, options, &mut report).await?,
        Command::Compare(options) => compare(options, false, &mut report).await?,
        Command::All(options) => compare(options, true, &mut report).await?,
    };
    say::line(report.table());
    for mark in &report.marks {
        say::line(mark.line());
    }
    if let Some(file) = &out.json {
        report.write_json(file)?;
    }
    if let Some(file) = &out.plot {
        std::fs::write(file, plot::svg(&report.samples)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

async fn echo(options: &EchoOptions, report: &mut Report) -> anyhow::Result<()> {
    // As long as a real token, because headers are a part of the message.
    let echo = Echo::start(vec!["x".repeat(400)]).await?;
    for load in options.loops.loops() {
        let plan = plan(options.work, Door::Grpc, load, options.timing.timing());
        report.add(load::run("echo", &echo.target, plan).await?);
    }
    Ok(())
}

async fn redis(options: &RedisOptions, report: &mut Report) -> anyhow::Result<()> {
    let store = Store::start().await?;
    let Timing { warm_up, measure } = options.timing.timing();
    for &way in &options.way {
        for &count in &options.loops.concurrency {
            report.add(lists::run(&store, way, count as usize, warm_up, measure).await?);
        }
    }
    Ok(())
}

async fn fsync(
    directory: Option<&std::path::Path>,
    database: Option<&str>,
    postgres: Option<u32>,
    timing: Timing,
    report: &mut Report,
) -> anyhow::Result<()> {
    for batch in BATCHES {
        if let Some(directory) = directory {
            report.add(disk::file(directory, batch, timing.measure).await?);
        }
        if let Some(database) = database {
            report.add(disk::postgres(database, postgres, batch, timing.measure).await?);
        }
    }
    Ok(())
}

async fn mesh_load(work: Work, options: LoadOptions, report: &mut Report) -> anyhow::Result<OutSettings> {
    let mesh = Mesh::open(&options.mesh).await?;
    let echo = Echo::start(mesh.target.tokens.clone()).await?;
    for &door in &options.door {
        for load in options.loops.loops() {
            let plan = plan(work, door, load, options.timing.timing());
            beside_echo(&mesh.target, &echo.target, plan, report).await?;
        }
    }
    Ok(options.out)
}

/// The yardstick, then the mesh, with the ratio between the two.
async fn beside_echo(mesh: &Target, echo: &Target, plan: Plan, report: &mut Report) -> anyhow::Result<()> {
    let bare = Plan {
        door: Door::Grpc,
        ..plan
    };
    let yardstick = load::run("echo", echo, bare).await?;
    let mut sample = load::run("mesh", mesh, plan).await?;
    sample.to_echo = Some(Ratios::of(&sample, &PATH, &yardstick, &["echo"]));
    report.add(yardstick);
    report.add(sample);
    Ok(())
}

async fn compare(options: CompareOptions, all: bool, report: &mut Report) -> anyhow::Result<OutSettings> {
    let timing = options.timing.timing();
    let mesh = Mesh::open(&options.mesh).await?;
    let echo = Echo::start(mesh.target.tokens.clone()).await?;
    let store = Store::start().await?;
    if all {
        let (directory, database) = (mesh.directory.as_deref(), mesh.database.as_deref());
        fsync(directory, database, mesh.postgres, timing, report).await?;
        for work in [Work::OpenClose, Work::Balance, Work::Mix] {
            for door in [Door::Grpc, Door::Rest, Door::GrpcWeb] {
                for concurrency in [1, 16, 64, 256, 1_024] {
                    let plan = plan(work, door, Loop::Closed { concurrency }, timing);
                    beside_echo(&mesh.target, &echo.target, plan, report).await?;
                }
            }
        }
    }
    compare::run(&mesh, &echo, &store, timing, options.rounds, report).await?;
    Ok(options.out)
}

fn plan(work: Work, door: Door, load: Loop, timing: Timing) -> Plan {
    Plan {
        work,
        door,
        load,
        warm_up: timing.warm_up,
        measure: timing.measure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded() {
        assert!(seconds("0.25").is_ok() && seconds("600").is_ok());
        for bad in ["", "-1", "601", "NaN", "inf", "3s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
