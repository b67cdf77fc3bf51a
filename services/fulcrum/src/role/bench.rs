//! `fulcrum bench`: what the hot path costs. All of it is in the crate `bench`.

pub(crate) use bench::Options;

use crate::failure::Failure;

/// Runs the command.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    Ok(bench::run(options).await?)
}
