//! Clients that mean harm, each beside one that does not: the neighbour's calls go on, and memory stays within bounds.
//!
//! What is asserted are counts: connections closed, streams refused, bytes taken, calls that reached the engine, and the
//! memory of this process, which holds the gateway and its attackers both. Each story is alone in the process while it
//! runs, because memory is.

#![allow(clippy::print_stdout, reason = "what was measured is worth reading")]

#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "another test uses the rest of it")]
mod support;

mod bodies;
mod frames;
mod http1;
mod http2;
mod idle;
mod memory;
mod neighbour;
