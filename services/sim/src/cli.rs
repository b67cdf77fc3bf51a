//! The command: many seeds with a summary, or one with everything that happened in it.

use std::io::Write as _;

use clap::Args;
use tracing_subscriber::fmt::MakeWriter;

use crate::options::Options;
use crate::run::run;
use crate::{run_many, trace};

/// Runs the deterministic simulation: the real engine over a simulated world, checked against every promise.
#[derive(Args, Clone, Debug)]
pub struct SimOptions {
    /// How many seeds to run, from the first on.
    #[arg(long, env = "FULCRUM_SIM_SEEDS", value_name = "COUNT", default_value_t = 100)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, env = "FULCRUM_SIM_FIRST", value_name = "SEED", default_value_t = 0)]
    pub first: u64,
    /// Runs this seed alone, and shows everything that happened in it.
    #[arg(long, env = "FULCRUM_SIM_SEED", value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,
    /// How long faults go on in each run, virtual time in milliseconds.
    #[arg(long, env = "FULCRUM_SIM_FAULTS_MS", value_name = "MS", default_value_t = Options::default().faults_ms)]
    pub faults_ms: u64,
    /// A bug to make on purpose, as the list of mutants spells it; needs a build with the feature `mutants`.
    #[arg(long, env = "FULCRUM_SIM_MUTANT", value_name = "NAME")]
    pub mutant: Option<String>,
}

/// Why the command failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SimError {
    /// The build has no bugs on purpose, or none of this name.
    #[error("no mutant {name} in this build; the feature `mutants` brings {known:?}", known = crate::Mutant::ALL)]
    NoSuchMutant {
        /// What was asked for.
        name: String,
    },
    /// Promises were broken; what and by which seed was written before.
    #[error("promises were broken in {runs} runs; `--seed N` shows all of one")]
    Broken {
        /// In how many runs.
        runs: usize,
    },
}

/// Runs the command, and writes what it sees to the standard output.
///
/// # Errors
/// [`SimError::Broken`] when a run broke a promise.
///
/// # Panics
/// On a thread that runs futures: the simulation has a runtime of its own.
pub fn main_with(sim: &SimOptions) -> Result<(), SimError> {
    let mut options = Options {
        faults_ms: sim.faults_ms,
        ..Options::default()
    };
    if let Some(name) = &sim.mutant {
        let known = crate::Mutant::ALL
            .into_iter()
            .find(|mutant| format!("{mutant:?}") == *name);
        let Some(mutant) = known.filter(|_| cfg!(feature = "mutants")) else {
            return Err(SimError::NoSuchMutant { name: name.clone() });
        };
        options.mutant = Some(mutant);
    }
    match sim.seed {
        Some(seed) => one(seed, options),
        None => many(sim.first..sim.first + sim.seeds, &options),
    }
}

fn one(seed: u64, mut options: Options) -> Result<(), SimError> {
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

fn many(seeds: std::ops::Range<u64>, options: &Options) -> Result<(), SimError> {
    let all = run_many(seeds, options, 10);
    say(&all.coverage.to_string());
    say(&format!(
        "{} seeds, {} s of virtual time",
        all.seeds,
        all.virtual_ms / 1_000
    ));
    verdict(&all.failed)
}

fn verdict(outcomes: &[crate::Outcome]) -> Result<(), SimError> {
    for outcome in outcomes {
        for violation in &outcome.violations {
            say(&format!("seed {}: {violation}", outcome.seed));
        }
    }
    match outcomes.iter().filter(|outcome| !outcome.violations.is_empty()).count() {
        0 => Ok(()),
        runs => Err(SimError::Broken { runs }),
    }
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
