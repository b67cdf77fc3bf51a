//! Yardsticks: the least that a call, a queue and a commit can cost on this machine, measured in the same run.
//!
//! Figures of a shared machine drift from minute to minute; what stands between ours and these does not.

pub mod disk;
pub mod echo;
pub mod lists;
pub mod store;
