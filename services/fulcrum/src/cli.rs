//! The commands. Each has its options in its own file; what several share is in [`crate::settings`].

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::failure::Failure;
use crate::role::{bench, dead_letters, engine, gateway, migrate, poller, recorder, shards, sim, token, verify};
use crate::{doctor, say, up};

/// Leveraged trading over gRPC, grpc-web and REST, on Redis and Postgres.
///
/// `fulcrum up` starts everything on this machine. The other commands run one role each, against any Redis and Postgres.
/// Every option can also be given as an environment variable, which its description names.
#[derive(Debug, Parser)]
#[command(name = "fulcrum", version, max_term_width = 110, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(Box<up::Options>),
    Gateway(Box<gateway::Options>),
    Engine(engine::Options),
    Poller(Box<poller::Options>),
    Recorder(recorder::Options),
    Migrate(migrate::Options),
    Token(token::Options),
    Keygen(token::KeygenOptions),
    Ready(crate::ops::ReadyOptions),
    Doctor(Box<doctor::Options>),
    Shards(shards::Options),
    DeadLetters(dead_letters::Options),
    Verify(verify::Options),
    Bench(Box<bench::Options>),
    Sim(sim::Options),
    Chaos(chaos::Options),
}

/// Runs the command of this process's arguments.
pub async fn main() -> ExitCode {
    run(std::env::args_os()).await
}

async fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = Cli::command().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // One provider for every TLS connection of the process, chosen before the first.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        say::error("a TLS provider was installed before ours");
    }
    let given = matches.subcommand().map(|(_, given)| given);
    match dispatch(cli.command, given).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::error(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

async fn dispatch(command: Command, given: Option<&clap::ArgMatches>) -> Result<(), Failure> {
    match command {
        Command::Up(options) => up::run(*options, given.expect("the command was among the arguments")).await,
        Command::Gateway(options) => gateway::run(*options).await,
        Command::Engine(options) => engine::run(options).await,
        Command::Poller(options) => poller::run(*options).await,
        Command::Recorder(options) => recorder::run(options).await,
        Command::Migrate(options) => migrate::run(options).await,
        Command::Token(options) => token::run(options),
        Command::Keygen(options) => token::keygen(options),
        Command::Ready(options) => crate::ops::ready(options).await,
        Command::Doctor(options) => doctor::run(*options).await,
        Command::Shards(options) => shards::run(options).await,
        Command::DeadLetters(options) => dead_letters::run(options).await,
        Command::Verify(options) => verify::run(options).await,
        Command::Bench(options) => bench::run(*options).await,
        Command::Sim(options) => sim::run(options).await,
        Command::Chaos(options) => Ok(chaos::command(options).await?),
    }
}
