//! The simulation as a program of its own, for builds with the feature `mutants`.

use std::process::ExitCode;

use clap::Parser;

/// See the library.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Cli {
    #[command(flatten)]
    options: sim::cli::SimOptions,
}

fn main() -> ExitCode {
    sim::cli::main_with(&Cli::parse().options)
}
