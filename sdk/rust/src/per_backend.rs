//! Values a policy keeps per backend, which must follow their backend through reloads.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use crate::pool::Pool;

/// One `T` per backend of the pool, indexed like the pool. [`follow`](PerBackend::follow) carries each value over to
/// its backend's new index; a backend that joins starts with the default, one that leaves takes its value along.
#[derive(Clone, Debug, Default)]
pub struct PerBackend<T> {
    ids: Vec<u64>,
    values: Vec<T>,
}

impl<T: Default> PerBackend<T> {
    /// Rearranges the values for the pool as it is now. Costs one comparison of the ids when only health or weights
    /// changed, `O(n log n)` when backends came or went.
    pub fn follow(&mut self, pool: &Pool) {
        if self.ids == pool.ids() {
            return;
        }
        let mut old: BTreeMap<u64, T> = self.ids.drain(..).zip(self.values.drain(..)).collect();
        self.ids.extend_from_slice(pool.ids());
        self.values
            .extend(pool.ids().iter().map(|id| old.remove(id).unwrap_or_default()));
    }
}

impl<T> PerBackend<T> {
    /// Each value with the id of its backend, for exporting them.
    pub fn by_id(&self) -> impl Iterator<Item = (u64, &T)> {
        self.ids.iter().copied().zip(&self.values)
    }

    /// The value of the backend with this id, for importing one.
    pub fn of_id(&mut self, id: u64) -> Option<&mut T> {
        let index = self.ids.iter().position(|&known| known == id)?;
        self.values.get_mut(index)
    }
}

impl<T> Deref for PerBackend<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T> DerefMut for PerBackend<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::PerBackend;
    use crate::testing;

    #[test]
    fn values_follow_their_backends() {
        let mut values = PerBackend::<u32>::default();
        values.follow(&testing::pool(["a", "b", "c"]).build());
        values.copy_from_slice(&[1, 2, 3]);
        values.follow(&testing::pool(["c", "d", "a"]).build());
        assert_eq!(*values, [3, 0, 1]);
    }

    #[test]
    fn values_are_found_by_the_ids_that_they_are_listed_with() {
        let mut values = PerBackend::<u32>::default();
        values.follow(&testing::pool(["a", "b"]).build());
        values.copy_from_slice(&[1, 2]);
        let listed: Vec<_> = values.by_id().map(|(id, &value)| (id, value)).collect();
        for (id, value) in listed {
            assert_eq!(values.of_id(id), Some(&mut value.clone()));
        }
        assert_eq!(values.of_id(0), None);
    }
}
