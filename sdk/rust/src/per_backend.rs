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
}
