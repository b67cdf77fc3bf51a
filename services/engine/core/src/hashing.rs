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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher as _, Hash};

    const KEYS: u64 = 10_000;

    /// Distinct values of the bits that a table takes its bucket from, and of those that it takes its tag from.
    fn spread<K: Hash>(keys: impl Iterator<Item = K>) -> [usize; 2] {
        let hashes: Vec<u64> = keys
            .map(|key| BuildHasherDefault::<Mixer>::default().hash_one(key))
            .collect();
        let distinct = |bits: fn(u64) -> u64| hashes.iter().map(|hash| bits(*hash)).collect::<BTreeSet<_>>().len();
        [distinct(|hash| hash & 0xFFFF), distinct(|hash| hash >> 57)]
    }

    /// By chance 10,000 keys meet in 65,536 buckets so seldom that at least 9,000 stay apart, and every tag of seven bits occurs.
    fn assert_spread<K: Hash>(keys: impl Iterator<Item = K>, what: &str) {
        let [buckets, tags] = spread(keys);
        assert!(
            buckets >= 9_000 && tags == 128,
            "{what}: {buckets} buckets, {tags} tags"
        );
    }

    #[test]
    fn keys_spread_over_buckets_and_tags() {
        assert_spread(0..KEYS, "numbers in a row");
        assert_spread((0..KEYS).map(|n| n << 20), "numbers that differ high up");
        assert_spread((0..KEYS).map(|n| format!("account-{n}")), "texts");
        assert_spread((0..KEYS).map(|n| (n % 100, n / 100)), "pairs");
    }

    #[test]
    fn the_terminator_of_a_text_counts() {
        let hash = |write: fn(&mut Mixer)| {
            let mut mixer = Mixer::default();
            write(&mut mixer);
            mixer.finish()
        };
        let text = hash(|it| it.write(b"ab"));
        let ended = hash(|it| {
            it.write(b"ab");
            it.write_u8(0xFF);
        });
        assert_eq!(ended, text ^ 0xFF);
    }
}
