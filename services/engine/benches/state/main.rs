//! What a large state costs: how long a leader stands still while its follower makes a snapshot, and how long a start takes without a
//! standby. By hand, for it takes minutes and gigabytes:
//!
//! ```sh
//! cargo bench -p engine --bench state -- stall 1000000
//! cargo bench -p engine --bench state -- recovery 300000 100000     # open trades, journal entries after the snapshot
//! ```
//!
//! Without arguments both run at a size that only shows that they do.
#![allow(clippy::print_stdout, reason = "what was measured is for people")]

mod large;
mod memory;
mod recovery;
mod stall;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let number = |n: usize, otherwise: usize| {
        words
            .get(n)
            .map_or(otherwise, |word| word.parse().expect("a whole number"))
    };
    match words.first().map(String::as_str) {
        Some("stall") => stall::run(number(1, 1_000_000)),
        Some("recovery") => recovery::run(number(1, 300_000), number(2, 100_000)),
        None => {
            stall::run(20_000);
            recovery::run(20_000, 5_000);
        }
        Some(other) => panic!("{other} is neither stall nor recovery"),
    }
}
