//! How many at once.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Counted;

/// As many are there as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How many there are of each key. Nothing is remembered of those that have none. Clones count together.
#[derive(Clone, Debug)]
pub struct Slots<K: Hash + Eq + Clone = Counted>(Arc<DashMap<K, u32>>);

impl<K: Hash + Eq + Clone> Default for Slots<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> Slots<K> {
    /// A place among at most `most`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&self, key: &K, most: NonZeroU32) -> Result<Slot<K>, Full> {
        let mut count = self.0.entry(key.clone()).or_insert(0);
        if *count >= most.get() {
            return Err(Full);
        }
        *count += 1;
        drop(count);
        Ok(Slot { slots: Arc::clone(&self.0), key: key.clone() })
    }
}

/// A place, given up when it is dropped.
#[derive(Debug)]
pub struct Slot<K: Hash + Eq + Clone = Counted> {
    slots: Arc<DashMap<K, u32>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Drop for Slot<K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.slots.entry(self.key.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_nothing_is_left_of_those_who_have_none() {
        let slots = Slots::<u8>::default();
        let two = NonZeroU32::new(2).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let held: Vec<_> = (0..3).map(|_| slots.enter(&1, two)).collect();
                        assert!(held.iter().filter(|held| held.is_ok()).count() <= 2);
                    }
                });
            }
        });
        assert!(slots.0.is_empty());
        let held = [slots.enter(&1, two), slots.enter(&1, two)];
        assert_eq!((slots.enter(&1, two).err(), slots.enter(&2, two).is_ok()), (Some(Full), true));
        drop(held);
        assert!(slots.enter(&1, two).is_ok());
        assert!(slots.0.is_empty());
    }
}
