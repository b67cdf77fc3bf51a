//! What tests share: private stores to run against, and, in `tests/`, the whole mesh in one test and the rules about the code.
//!
//! The library knows none of the other crates, so that each of them can have it as a dev-dependency. Start with [`stores`].

mod ports;
pub mod stores;

pub use ports::{free_address, free_ports};
pub use stores::{PrivatePostgres, PrivateRedis, PrivateRedisCluster, PrivateSentinels};
