//! The core's tests, in one program: stories, faults of a peer, published numbers, random lives and a real fall.
//!
//! Only [`story`] knows the API; the rest of the stories outlive refactors of it. [`naive`] is the same set of rules
//! written a second time, in integers and with plain scans, to be held against the real one.

mod fall;
mod faults;
mod golden;
mod limits;
mod lives;
mod naive;
mod prices;
mod refusals;
mod snapshots;
mod stories;
mod story;
mod triggers;
