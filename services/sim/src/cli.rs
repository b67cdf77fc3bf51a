//! The command: many seeds with a summary, or one with everything that happened in it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use tracing_subscriber::fmt::MakeWriter;

use crate::options::Options;
use crate::run::run;
use crate::{run_many, trace};

/// Runs the deterministic simulation: the real engine over a simulated world, checked against every promise.
#[derive(Args, Clone, Debug)]
pub struct SimOptions {
    /// How many seeds to run, from the first on.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub first: u64,
    /// Runs this seed alone, and shows everything that happened in it.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,
    /// How long faults go on in each run, virtual time in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = Options::default().faults_ms)]
    pub faults_ms: u64,
    /// A bug to make on purpose, as the list of mutants spells it; needs a build with the feature `mutants`.
    #[arg(long, value_name = "NAME")]
    pub mutant: Option<String>,
}

/// Runs the command. Fails when a run broke a promise.
#[must_use]
pub fn main_with(sim: &SimOptions) -> ExitCode {
    let mut options = Options {
        faults_ms: sim.faults_ms,
        ..Options::default()
    };
    if let Some(name) = &sim.mutant {
        let known = crate::Mutant::ALL
            .into_iter()
            .find(|mutant| format!("{mutant:?}") == *name);
        let Some(mutant) = known.filter(|_| cfg!(feature = "mutants")) else {
            say(&format!("no mutant {name} in this build: {:?}", crate::Mutant::ALL));
            return ExitCode::from(2);
        };
        options.mutant = Some(mutant);
    }
    match sim.seed {
        Some(seed) => one(seed, options),
        None => many(sim.first..sim.first + sim.seeds, &options),
    }
}

fn one(seed: u64, mut options: Options) -> ExitCode {
    options.readable = true;
    let log = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(IntoTrace)
        .finish();
    let outcome = tracing::subscriber::with_default(log, || run(seed, &options));
    outcome.lines.iter().for_each(|line| say(line));
    say(&outcome.coverage.to_string());
    say(&format!(
        "seed {seed}: trace {:016x}, {} notes in {} s of virtual time",
        outcome.trace_hash,
        outcome.notes,
        outcome.virtual_ms / 1_000
    ));
    verdict(&[outcome])
}

fn many(seeds: std::ops::Range<u64>, options: &Options) -> ExitCode {
    let all = run_many(seeds, options, 10);
    say(&all.coverage.to_string());
    say(&format!(
        "{} seeds, {} s of virtual time",
        all.seeds,
        all.virtual_ms / 1_000
    ));
    verdict(&all.failed)
}

fn verdict(outcomes: &[crate::Outcome]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for outcome in outcomes {
        for violation in &outcome.violations {
            say(&format!("seed {}: {violation}", outcome.seed));
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn say(line: &str) {
    // Nobody reads any more: nothing to do about it.
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Puts the engines' log between the notes of the trace.
struct IntoTrace;

impl<'a> MakeWriter<'a> for IntoTrace {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }
}

struct Line;

impl std::io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        trace::line(|| format!("            log {}", String::from_utf8_lossy(bytes).trim_end()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
