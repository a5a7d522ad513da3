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

use super::add;

/// Counters of one worker for one pool.
#[derive(Debug, Default)]
pub struct Counts {
    /// Attempts after the first, at another backend.
    pub retries: AtomicU64,
    /// Requests that would have been sent again, had the budget allowed it.
    pub retries_denied: AtomicU64,
    /// Second attempts beside a first that took long.
    pub hedges: AtomicU64,
    /// Those of them that were quicker.
    pub hedges_won: AtomicU64,
    /// Requests that had to wait because every backend was full.
    pub queued: AtomicU64,
    /// Requests refused because the queue was full, too.
    pub queue_full: AtomicU64,
    /// Requests refused because they had waited for too long.
    pub queue_timeouts: AtomicU64,
    /// Requests that wait now.
    waiting: AtomicU64,
    /// Requests in flight, as long as the pool has limits.
    in_flight: AtomicU64,
}

impl Counts {
    /// Requests that wait now.
    #[inline]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// A request begins to wait.
    pub fn begin_waiting(&self) {
        add(&self.queued, 1);
        add(&self.waiting, 1);
    }

    /// A request waits no longer.
    pub fn end_waiting(&self) {
        debug_assert!(
            self.waiting() > 0,
            "a request ends to wait once, and only after it began"
        );
        self.waiting.store(self.waiting().saturating_sub(1), Relaxed);
    }

    /// Requests in flight, as long as the pool has limits.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// A request goes to a backend.
    #[inline]
    pub fn begin(&self) {
        add(&self.in_flight, 1);
    }

    /// The request that went to a backend is over.
    #[inline]
    pub fn end(&self) {
        debug_assert!(
            self.in_flight() > 0,
            "a request ends once, and only after it began"
        );
        self.in_flight.store(self.in_flight().saturating_sub(1), Relaxed);
    }
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
