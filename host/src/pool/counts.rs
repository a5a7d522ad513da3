//! What one worker counts of a pool, beyond what belongs to a backend or to the policy.
//!
//! Owns the counters, which live over reloads. It must not decide anything.
//!
//! Invariant: as for a backend's [`Load`](super::Load), each worker writes its own and everyone may read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;

/// Counters of one worker for one pool.
#[derive(Debug, Default)]
pub struct Counts {
    /// Attempts after the first, at another backend.
    pub retries: AtomicU64,
    /// Requests that would have been sent again, had the budget allowed it.
    pub retries_denied: AtomicU64,
}

/// Those of all workers.
#[derive(Clone, Debug)]
pub(super) struct AllCounts(Arc<[CachePadded<Counts>]>);

impl AllCounts {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| CachePadded::default()).collect())
    }

    pub(super) fn workers(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(super) fn of(&self, worker: usize) -> &Counts {
        &self.0[worker]
    }

    pub(super) fn total(&self, read: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        self.0.iter().map(|counts| read(counts).load(Relaxed)).sum()
    }
}
