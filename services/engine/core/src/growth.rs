//! A list and a map that grow a little at a time.
//!
//! A vector or a hash map that is full moves all it holds to a place twice as large, and whoever adds the next element waits for it: at a
//! million open trades for half a second, while every account of the shard stands still. These move a small part at most.

use std::hash::{BuildHasher as _, BuildHasherDefault, Hash};

use crate::hashing::{Map, Mixer};

/// Elements that lie together.
const CHUNK: usize = 1_024;
/// Tables that share what a map holds. A power of two.
const PARTS: u64 = 64;

/// A list that is added to at its end.
#[derive(Clone)]
pub(crate) struct List<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T> List<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(value),
            // The first one grows as small lists do; whoever has more than that has use for all of the next.
            None => self.chunks.push(vec![value]),
            Some(_) => {
                let mut next = Vec::with_capacity(CHUNK);
                next.push(value);
                self.chunks.push(next);
            }
        }
        self.len = self.len.saturating_add(1);
    }

    pub fn get(&self, number: usize) -> Option<&T> {
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)
    }

    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.chunks.get_mut(number / CHUNK)?.get_mut(number % CHUNK)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }
}

/// A map with deterministic hashing.
#[derive(Clone, Debug)]
pub struct Spread<K, V> {
    /// Each key's place follows from its hash.
    parts: Vec<Map<K, V>>,
    len: usize,
}

impl<K, V> Default for Spread<K, V> {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Map::default()).collect(),
            len: 0,
        }
    }
}

impl<K: Hash + Eq, V> Spread<K, V> {
    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is kept under this key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.parts.get(part_of(key))?.get(key)
    }

    /// The same, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.parts.get_mut(part_of(key))?.get_mut(key)
    }

    /// Keeps a value, and gives back the one that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let replaced = self.parts.get_mut(part_of(&key))?.insert(key, value);
        if replaced.is_none() {
            self.len = self.len.saturating_add(1);
        }
        replaced
    }

    /// Lets a value go.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.parts.get_mut(part_of(key))?.remove(key);
        if removed.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        removed
    }

    /// All of them, in an order that means nothing: sort before it shows.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flatten()
    }
}

/// By bits that the tables themselves do not use.
fn part_of<K: Hash>(key: &K) -> usize {
    let hash = BuildHasherDefault::<Mixer>::default().hash_one(key);
    usize::try_from((hash >> 48) & (PARTS - 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 200_000;

    #[test]
    fn a_list_is_what_was_pushed() {
        let mut list = List::default();
        (0..MANY).for_each(|n| list.push(n));
        assert_eq!(list.len(), MANY);
        assert!(list.iter().copied().eq(0..MANY));
        for n in [0, CHUNK - 1, CHUNK, MANY - 1] {
            assert_eq!(list.get(n), Some(&n));
            *list.get_mut(n).expect("there") += 1;
            assert_eq!(list.get(n), Some(&(n + 1)));
        }
        assert_eq!(list.get(MANY), None);
        assert_eq!(list.get_mut(MANY), None);
        assert!(
            list.chunks.iter().all(|chunk| chunk.capacity() <= CHUNK),
            "nothing larger is ever moved"
        );
    }

    #[test]
    fn a_map_keeps_replaces_and_lets_go() {
        let mut map = Spread::default();
        assert!((0..MANY).all(|n| map.insert(n, n).is_none()));
        assert_eq!(map.insert(7, 8), Some(7));
        assert_eq!((map.len(), map.get(&7), map.get(&MANY)), (MANY, Some(&8), None));
        *map.get_mut(&7).expect("there") += 1;
        assert_eq!((map.remove(&7), map.remove(&7), map.get(&7)), (Some(9), None, None));
        assert_eq!(map.get_mut(&7), None);
        assert_eq!((map.len(), map.is_empty()), (MANY - 1, false));
        let mut all: Vec<usize> = map.iter().map(|(key, _)| *key).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq((0..MANY).filter(|n| *n != 7)));
    }

    #[test]
    fn no_table_of_a_map_holds_much_more_than_its_share() {
        let share = MANY / usize::try_from(PARTS).expect("small");
        let largest = |map: &Spread<String, ()>| map.parts.iter().map(Map::len).max();
        let mut texts = Spread::default();
        assert!((0..MANY).all(|n| texts.insert(format!("account-{n}"), ()).is_none()));
        assert!(largest(&texts) < Some(share * 5 / 4));
        let mut numbers = Spread::default();
        assert!((0..MANY).all(|n| numbers.insert(n, ()).is_none()));
        let largest = numbers.parts.iter().map(Map::len).max();
        assert!(largest < Some(share * 5 / 4), "numbers in a row: {largest:?}");
    }
}
