//! Each bug made on purpose is caught: a simulation is worth what the bugs it has been shown to catch are worth.
#![allow(clippy::print_stderr, reason = "the summary of many runs is for people")]

use sim::{Mutant, Options, run_many};

/// Within so many seeds each must show.
const SEEDS: u64 = 1_000;

fn caught(mutant: Mutant) {
    let options = Options {
        mutant: Some(mutant),
        ..Options::default()
    };
    let all = run_many(0..SEEDS, &options, 1);
    let first = all
        .failed
        .first()
        .unwrap_or_else(|| panic!("{mutant:?} was not caught in {} seeds", all.seeds));
    let violation = &first.violations[0];
    eprintln!(
        "{mutant:?}: caught by seed {} of {}: {violation}",
        first.seed, all.seeds
    );
}

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        caught(mutant);
    }
}
