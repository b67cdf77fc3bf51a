//! Whatever strangers may send, thrown at whoever reads it: eight targets, each a function of bytes that panics when something is
//! wrong. A fuzzer looks for such bytes (`targets/`, by hand); the tests throw a few thousand mutations of good input (in CI).
//!
//! Reading order: [`Target`], then [`life`], the random life of a shard that the last target leads.

pub mod life;
mod read;
pub mod seeds;

/// A function of bytes, and its name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, as the fuzzer's.
    pub name: &'static str,
    /// Panics when something is wrong with what the bytes led to; says whether they were understood.
    pub run: fn(&[u8]) -> bool,
    /// Good input, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "envelope",
        run: read::envelope,
        seeds: seeds::envelopes,
    },
    Target {
        name: "rest",
        run: read::rest,
        seeds: seeds::rest_calls,
    },
    Target {
        name: "decimal",
        run: read::decimal,
        seeds: seeds::decimals,
    },
    Target {
        name: "frame",
        run: read::frame,
        seeds: seeds::frames,
    },
    Target {
        name: "journal_row",
        run: read::journal_row,
        seeds: seeds::journal_rows,
    },
    Target {
        name: "snapshot_chunk",
        run: read::snapshot_chunk,
        seeds: seeds::snapshot_chunks,
    },
    Target {
        name: "token",
        run: read::token,
        seeds: seeds::tokens,
    },
    Target {
        name: "commands",
        run: read::commands,
        seeds: seeds::lives,
    },
];

/// The target of that name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    *TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("no target {name}"))
}
