//! The deterministic simulation: the real engine and the real gateway over a simulated world, in one thread, from one seed.
//!
//! Everything outside of the two is made here: the journal with its fence, the queue, the prices, the clocks, the clients, and
//! everything that goes wrong with them. Time is virtual and chance comes from the seed, so a run can be repeated to the last detail:
//! the same seed gives the same trace. After a run the journal alone is held against everything that any client was ever told:
//! the response or the status, as it left the gateway.
//!
//! Reading order: [`mod@run`] (one run), [`world`] (what is shared), [`journal`], [`shard_bus`], [`call_lists`], [`prices`] (the
//! engine's and the gateway's ground), [`faults`] and [`clients`] (who does what), [`history`] and [`audit`] (what must hold).
#![allow(
    missing_docs,
    reason = "fields of records that only this crate reads; what is for others is documented"
)]

pub mod audit;
pub mod call_lists;
pub mod cli;
pub mod clients;
pub mod commands;
pub mod coverage;
pub mod dice;
pub mod engines;
pub mod faults;
pub mod feed;
pub mod gateways;
pub mod ground;
pub mod history;
pub mod journal;
pub mod many;
pub mod options;
pub mod postgres;
pub mod prices;
pub mod process;
pub mod redis;
pub mod run;
pub mod shard_bus;
pub mod talk;
pub mod tokens;
pub mod trace;
pub mod weather;
pub mod world;

pub use bus::mutants::Mutant;
pub use many::{Many, run_many};
pub use options::Options;
pub use run::{Outcome, run};
