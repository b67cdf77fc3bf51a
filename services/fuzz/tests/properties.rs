//! Every target on its good input, on random bytes, and on mutations of the good input.

use std::cell::Cell;

use fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Mutations a target. The fuzzer does a million.
const CASES: u32 = 1_500;

/// What is done to good input, at a place that is a share of its length.
#[derive(Clone, Debug)]
enum Change {
    Flip(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    Repeat(u16, u8),
    Cut(u16),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<u16>(), 1..=255u8).prop_map(|(at, mask)| Change::Flip(at, mask)),
        2 => (any::<u16>(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (any::<u16>(), 1..32u8).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (any::<u16>(), 1..64u8).prop_map(|(at, count)| Change::Repeat(at, count)),
        1 => any::<u16>().prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: &u16| usize::from(*at) * bytes.len() / (usize::from(u16::MAX) + 1);
        match change {
            Change::Flip(at, mask) => {
                let place = place(at);
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= mask;
                }
            }
            Change::Insert(at, new) => {
                let place = place(at);
                bytes.splice(place..place, new.iter().copied());
            }
            Change::Remove(at, count) => {
                let place = place(at);
                let end = (place + usize::from(*count)).min(bytes.len());
                bytes.drain(place..end);
            }
            Change::Repeat(at, count) => {
                let place = place(at);
                let end = (place + usize::from(*count)).min(bytes.len());
                bytes.extend_from_within(place..end);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
        }
    }
    bytes
}

fn throw(target: Target) {
    let seeds = (target.seeds)();
    let understood = Cell::new(0_u32);
    for seed in &seeds {
        understood.update(|count| count + u32::from((target.run)(seed)));
    }
    assert!(understood.get() > 0, "{}: no good input is understood", target.name);
    let good = (0..seeds.len(), proptest::collection::vec(change(), 0..5))
        .prop_map(move |(seed, changes)| changed(seeds[seed].clone(), &changes));
    let random = proptest::collection::vec(any::<u8>(), 0..300);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    runner
        .run(&prop_oneof![4 => good, 1 => random], |bytes| {
            understood.update(|count| count + u32::from((target.run)(&bytes)));
            Ok(())
        })
        .unwrap_or_else(|found| panic!("{}: {found}", target.name));
    // What is checked is checked of what was understood: a target whose every mutation is refused would check nothing.
    assert!(
        understood.get() > CASES / 50,
        "{}: {} of {CASES} understood",
        target.name,
        understood.get()
    );
}

#[test]
fn no_target_panics_on_mutated_and_random_bytes() {
    for target in TARGETS {
        throw(target);
    }
}

#[test]
fn the_fuzzer_has_every_target() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/fuzz_targets");
    for target in TARGETS {
        let file = format!("{directory}/{}.rs", target.name);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("\"{}\"", target.name)), "{file}");
    }
}
