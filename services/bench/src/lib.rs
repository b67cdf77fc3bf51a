//! The bench: what the hot path costs, beside what it would cost at the least.
//!
//! A shared machine gives other rates every minute, so everything is a ratio to a yardstick that was measured in the same run, or
//! processor time a call. Reading order: [`cpu`] (who used how much), [`sample`] (the arithmetic), [`load`] (how calls are made),
//! [`yardstick`] (the least that is possible), [`mesh`] (what is measured), [`compare`], [`durable`], [`pile`] and
//! [`marks`] (how it is judged), [`inside`] (the engine without anything around it), [`report`].

pub mod backends;
mod client;
pub mod compare;
pub mod cpu;
pub mod durable;
pub mod inside;
pub mod load;
pub mod marks;
pub mod mesh;
mod options;
pub mod pile;
pub mod plot;
pub mod report;
pub mod sample;
mod say;
pub mod streams;
pub mod ticks;
mod unjournaled;
pub mod yardstick;

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use self::load::{Door, Loop, Plan, Target, Work};
use self::mesh::{Mesh, PATH};
pub use self::options::Options;
use self::options::{
    AllOptions, Command, CompareOptions, EchoOptions, InsideOptions, InsideSettings, LoadOptions, OutSettings,
    RateSettings, RedisOptions, TicksOptions,
};
use self::report::Report;
use self::sample::Ratios;
use self::yardstick::disk;
use self::yardstick::echo::Echo;
use self::yardstick::lists;
use self::yardstick::store::Store;

/// Sizes of the batches that are put on disk.
const BATCHES: [usize; 4] = [1, 16, 256, 1_024];
/// Open trades at which the core is measured besides the most.
const CORE_SIZES: [usize; 3] = [0, 1_000, 10_000];

/// How long a measurement takes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before it counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measure: Duration,
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
        Command::Core(options) => inside(options, core, &mut report).await?,
        Command::Recovery(options) => inside(options, recovery, &mut report).await?,
        Command::Snapshot(options) => inside(options, snapshot, &mut report).await?,
        Command::Compare(options) => on_mesh(options, &[Part::Marks], &mut report).await?,
        Command::Durable(options) => on_mesh(options, &[Part::Durable], &mut report).await?,
        Command::Pile(options) => on_mesh(options, &[Part::Pile], &mut report).await?,
        Command::Ticks(options) => {
            let TicksOptions { compare, rates } = options;
            ticks(&compare, &rates, &mut report).await?;
            compare.out
        }
        Command::Streams(options) => {
            let part = Part::Streams(options.subscribers.subscribers);
            on_mesh(options.compare, &[part], &mut report).await?
        }
        Command::Engine(options) => return unjournaled::run(options).await,
        Command::All(options) => all(options, &mut report).await?,
    };
    report.marks.sort_by_key(|mark| mark.number);
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

/// What is measured on a mesh besides single commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Few trades and many.
    Pile,
    /// So many subscribers.
    Streams(usize),
    /// Every kind of call at every concurrency.
    Calls,
    /// What the marks ask for.
    Marks,
    /// What durability costs.
    Durable,
}

/// All of it: in this process first, while nothing else runs and nothing was freed.
async fn all(options: AllOptions, report: &mut Report) -> anyhow::Result<OutSettings> {
    let rounds = options.compare.rounds;
    for what in [core as Inside, recovery, snapshot] {
        let settings = options.inside.clone();
        report.take(inside::apart(move |report| what(&settings, rounds, report)).await?);
    }
    ticks(&options.compare, &options.rates, report).await?;
    let subscribers = options.subscribers.subscribers;
    on_mesh(
        options.compare,
        &[
            Part::Pile,
            Part::Streams(subscribers),
            Part::Calls,
            Part::Marks,
            Part::Durable,
        ],
        report,
    )
    .await
}

async fn ticks(options: &CompareOptions, rates: &RateSettings, report: &mut Report) -> anyhow::Result<()> {
    let timing = options.timing.timing();
    ticks::run(&options.mesh, &rates.tick_rate, options.pile, timing, report).await
}

async fn on_mesh(options: CompareOptions, parts: &[Part], report: &mut Report) -> anyhow::Result<OutSettings> {
    let (timing, rounds) = (options.timing.timing(), options.rounds);
    let mesh = Mesh::open(&options.mesh).await?;
    let echo = Echo::start(mesh.target.tokens.clone()).await?;
    for part in parts {
        match part {
            Part::Pile => pile::run(&mesh, options.pile, timing, report).await?,
            Part::Streams(subscribers) => streams::run(&mesh, *subscribers, timing, report).await?,
            Part::Calls => calls(&mesh, &echo, timing, report).await?,
            Part::Marks => {
                let store = Store::start().await?;
                compare::run(&mesh, &echo, &store, timing, rounds, report).await?;
            }
            Part::Durable => {
                durable::recorder(&mesh, timing, report).await?;
                durable::journal(&mesh, timing, rounds, report).await?;
                durable::without(&mesh, &options.mesh, timing, rounds, report).await?;
            }
        }
    }
    Ok(options.out)
}

async fn calls(mesh: &Mesh, echo: &Echo, timing: Timing, report: &mut Report) -> anyhow::Result<()> {
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
    Ok(())
}

/// What one of the measurements in this process does.
type Inside = fn(&InsideSettings, usize, &mut Report) -> anyhow::Result<()>;

async fn inside(options: InsideOptions, what: Inside, report: &mut Report) -> anyhow::Result<OutSettings> {
    let (settings, rounds) = (options.inside, options.rounds);
    report.take(inside::apart(move |report| what(&settings, rounds, report)).await?);
    Ok(options.out)
}

fn core(settings: &InsideSettings, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let most = settings.open_trades;
    inside::resident::run(most, most.div_ceil(10), report)?;
    let mut sizes: Vec<usize> = CORE_SIZES.into_iter().filter(|size| *size < most).collect();
    sizes.push(most);
    inside::core::run(&sizes, rounds, report)
}

fn recovery(settings: &InsideSettings, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    inside::recovery::run(settings.open_trades, settings.tail, rounds, report)
}

fn snapshot(settings: &InsideSettings, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    inside::snapshot::run(settings.open_trades, rounds, report)
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
