//! A Redis Cluster and a Sentinel set of one's own: real servers on free ports of the loopback, gone with the value.
//!
//! Both are small and in a hurry: a master that is killed is missed after a second. Ports, because neither works over sockets.

mod cluster;
mod node;
mod sentinels;

pub use cluster::{Frozen, PrivateRedisCluster};
pub use node::Guards;
pub use sentinels::PrivateSentinels;

/// Milliseconds after which a silent server counts as down.
const DOWN_AFTER_MS: &str = "1000";
