//! Map hashing that is fast and the same on every machine.
//!
//! The standard hasher is seeded at random, so its iteration order differs between runs, and it is slow on the keys
//! we have. No code here iterates a hash map; the fixed seed is a second line of defence, not the first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A map with deterministic hashing. Look up, insert and remove; never iterate.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Texts through xxh3, numbers through one multiplication.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, value: u8) {
        // The terminator that `str` appends.
        self.0 ^= u64::from(value);
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The table takes its bucket from the low bits and its tag from the high ones: give both something.
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
