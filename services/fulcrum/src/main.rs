//! The one binary. Everything is in the library, so that tests can reach it.

use std::process::ExitCode;

/// What was freed last is given out first, so it is in the caches still. The system's allocator took a fifth of the processor time of gateway
/// and engine; one that gives out a whole page before it begins again kept their small pieces out of the caches.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    fulcrum::main().await
}
