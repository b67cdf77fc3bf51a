//! The one binary. Everything is in the library, so that tests can reach it.

use std::process::ExitCode;

/// A fifth of the processor time of gateway and engine was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    fulcrum::main().await
}
