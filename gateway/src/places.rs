//! Places for what stays for long, connections and streams: so many in all, and so many of one holder, so that nobody
//! can take them all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub(crate) struct Places<K> {
    all: Arc<Semaphore>,
    held: Mutex<HashMap<K, usize>>,
    each_max: usize,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    All,
    /// This holder has as many as one may have.
    Own,
}

/// One place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Hash + Eq> {
    _one_of_all: OwnedSemaphorePermit,
    places: Arc<Places<K>>,
    holder: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// `count_max` places, of which one holder may have `each_max`. Zeroes count as one.
    pub fn new(count_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(count_max.clamp(1, Semaphore::MAX_PERMITS))),
            held: Mutex::default(),
            each_max: each_max.max(1),
        })
    }

    /// Waits until there is a place for somebody.
    pub async fn one(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.all).acquire_owned().await.expect("never closed")
    }

    /// Gives it to somebody who has fewer than one may have.
    pub fn seat(self: &Arc<Self>, one: OwnedSemaphorePermit, holder: K) -> Result<Place<K>, Full> {
        let mut held = self.lock();
        let count = held.get(&holder).copied().unwrap_or(0);
        if count >= self.each_max {
            return Err(Full::Own);
        }
        held.insert(holder.clone(), count + 1);
        Ok(Place {
            _one_of_all: one,
            places: Arc::clone(self),
            holder,
        })
    }

    /// Takes one, if there is one now.
    pub fn take(self: &Arc<Self>, holder: K) -> Result<Place<K>, Full> {
        let one = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Full::All)?;
        self.seat(one, holder)
    }
}

impl<K: Hash + Eq> Places<K> {
    /// How many somebody has.
    pub fn held_by(&self, holder: &K) -> usize {
        self.lock().get(holder).copied().unwrap_or(0)
    }
}

impl<K> Places<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().expect("nothing panics while it holds this lock")
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_its_share_and_leaves_the_rest() {
        let places = Places::new(3, 2);
        let first = places.take("a").unwrap();
        let _second = places.take("a").unwrap();
        assert_eq!(places.take("a").unwrap_err(), Full::Own);
        assert_eq!((places.held_by(&"a"), places.held_by(&"b")), (2, 0));
        let _third = places.take("b").unwrap();
        assert_eq!(places.take("c").unwrap_err(), Full::All);
        drop(first);
        drop(places.take("a").unwrap());
        drop(places.take("c").unwrap());
        assert_eq!(places.lock().len(), 2, "nothing is kept of those who left");
    }
}
