//! The one binary of Fulcrum: each role of the mesh as a command, and `up`, which runs them all on one machine.
//!
//! No trading happens here. A command reads its options, makes the configuration of a crate that does the work, and runs it between two
//! signals: the one that all is ready, on the ops endpoint, and the one to stop.
//!
//! Reading order: [`cli`] (the commands), [`settings`] (options they share), `process` (the frame around a role), `role` (one file each),
//! then `up` (the supervisor), from its `mod.rs` on.

pub mod cli;
pub mod settings;

mod doctor;
mod failure;
mod keys;
mod ops;
mod probe;
mod process;
mod role;
mod say;
mod telemetry;
mod up;

pub use cli::main;
