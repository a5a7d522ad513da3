//! Things of one kind that a worker's requests use in turn.
//!
//! Owns how many are kept while nobody needs them: as many as the last second's requests had in use at once, and a few. It
//! must not know what they are.

use std::cell::{Cell, RefCell};

/// More are given back to the system.
const KEPT_MAX: usize = 256;
/// So many more are kept than were needed, for ever: for the first requests after a pause.
const KEPT_MIN: usize = 8;

/// The spare ones. The one that was used last is used next, since its bytes are in the processor's caches.
pub(super) struct Spares<T> {
    kept: RefCell<Vec<T>>,
    most: usize,
    /// The fewest that there were since the last sweep: nobody has needed these meanwhile.
    unused: Cell<usize>,
}

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Self::of(KEPT_MAX)
    }
}

impl<T> Spares<T> {
    /// Keeps at most so many.
    pub(super) fn of(most: usize) -> Self {
        Self {
            kept: RefCell::default(),
            most,
            unused: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn take(&self) -> Option<T> {
        let mut kept = self.kept.borrow_mut();
        let taken = kept.pop();
        self.unused.set(self.unused.get().min(kept.len()));
        taken
    }

    #[inline]
    pub(super) fn put(&self, one: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < self.most {
            kept.push(one);
        }
    }

    /// Lets go of what nobody has needed since the last call, but for a few.
    pub(super) fn sweep(&self) {
        let mut kept = self.kept.borrow_mut();
        let over = self.unused.get().min(kept.len()).saturating_sub(KEPT_MIN);
        kept.drain(..over);
        self.unused.set(kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn use_at_once(spares: &Spares<u32>, count: u32) {
        let used: Vec<u32> = (0..count).map(|number| spares.take().unwrap_or(number)).collect();
        used.into_iter().for_each(|one| spares.put(one));
    }

    #[test]
    fn as_many_are_kept_as_were_in_use_at_once_since_the_last_sweep_and_a_few() {
        let spares = Spares::default();
        use_at_once(&spares, 100);
        spares.sweep();
        assert_eq!(spares.kept.borrow().len(), 100);
        use_at_once(&spares, 30);
        spares.sweep();
        assert_eq!(spares.kept.borrow().len(), 30 + KEPT_MIN);
    }

    #[test]
    fn a_few_are_kept_when_nobody_needs_any() {
        let spares = Spares::default();
        use_at_once(&spares, 100);
        spares.sweep();
        spares.sweep();
        spares.sweep();
        assert_eq!(spares.kept.borrow().len(), KEPT_MIN);
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let spares = Spares::of(4);
        use_at_once(&spares, 100);
        assert_eq!(spares.kept.borrow().len(), 4);
    }
}
