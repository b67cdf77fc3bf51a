//! The gateway as its clients meet it: over TCP, through every door, with an engine that is played.
//!
//! [`support`] plays the engine, mints tokens and speaks each door's protocol byte by byte, so that nothing of ours
//! checks itself. Stories that need history start a private Postgres.

mod support;

mod complaints;
mod doors;
mod edges;
mod faults;
mod history;
mod pages;
mod rest;
mod streams;
mod tls;
mod tokens;
mod usage;
