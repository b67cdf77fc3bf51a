//! The standard seeds: no promise is broken in any of them, and together they go through every corner.
#![allow(clippy::print_stderr, reason = "the summary of many runs is for people")]

use sim::{Options, run, run_many};

/// How many seeds.
const SEEDS: u64 = 1_000;

#[test]
fn no_promise_is_broken_in_any_seed_and_every_corner_is_visited() {
    let all = run_many(0..SEEDS, &Options::default(), 5);
    eprintln!(
        "{}{} seeds, {} s of virtual time",
        all.coverage,
        all.seeds,
        all.virtual_ms / 1_000
    );
    for outcome in &all.failed {
        for violation in &outcome.violations {
            eprintln!("seed {}: {violation}", outcome.seed);
        }
    }
    assert!(all.failed.is_empty(), "replay one with `fulcrum sim --seed N`");
    assert_eq!(all.coverage.missing(), [], "corners that no seed went into");
}

/// Seeds in which a queue that had changed under its leader was read at positions that meant nothing any more, for ever.
#[test]
fn a_queue_that_changed_under_its_leader_is_read_from_the_front_again() {
    for seed in [1_475, 7_865, 9_864] {
        let outcome = run(seed, &Options::default());
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
    }
}

#[test]
fn the_same_seed_runs_the_same_twice() {
    for seed in 0..12 {
        let (first, second) = (run(seed, &Options::default()), run(seed, &Options::default()));
        assert_eq!(
            (first.trace_hash, first.notes),
            (second.trace_hash, second.notes),
            "seed {seed}"
        );
    }
}
