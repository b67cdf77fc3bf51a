//! `fulcrum sim`: the deterministic simulation. All of it is in the crate `sim`.

pub(crate) use sim::cli::SimOptions as Options;

use anyhow::Context as _;

use crate::failure::Failure;

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    // On a thread of its own: time is virtual there, and so is everything that waits.
    let done = tokio::task::spawn_blocking(move || sim::cli::main_with(&options));
    Ok(done
        .await
        .context("the simulation itself failed")?
        .map_err(anyhow::Error::from)?)
}
