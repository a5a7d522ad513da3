//! What is counted of each listener.
//!
//! Owns a block of counters for each worker, and their sums. Listeners keep it over reloads. It must not know what a limit is.
//!
//! Invariant: as everywhere, a block has one writer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use crate::pool::add;

/// A listener's counters.
#[derive(Debug)]
pub struct Listener {
    workers: Box<[CachePadded<ListenerWorker>]>,
}

/// What one worker counts of a listener.
#[derive(Debug, Default)]
pub struct ListenerWorker {
    /// Connections accepted, those that were turned away included.
    pub connections: AtomicU64,
    /// Of those, the ones that are over.
    pub connections_closed: AtomicU64,
    /// Idle connections that were closed to make room for others.
    pub connections_evicted: AtomicU64,
    /// Connections that were closed at once since there was no room.
    pub connections_refused: AtomicU64,
    /// Connections that were closed at once since too many came, of all clients together.
    pub connections_over: AtomicU64,
    /// The same, of one client.
    pub connections_over_of_client: AtomicU64,
    /// Requests that were refused since too many came, of all clients together.
    pub requests_over: AtomicU64,
    /// The same, of one client.
    pub requests_over_of_client: AtomicU64,
}

impl Listener {
    /// All zero.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// One worker's block.
    #[inline]
    pub fn of(&self, worker: usize) -> &ListenerWorker {
        &self.workers[worker]
    }

    /// The sum over all workers.
    pub fn total(&self, read: impl Fn(&ListenerWorker) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| read(worker).load(Relaxed)).sum()
    }

    /// Connections that are not over. One that another worker is just accepting may be missing.
    pub fn open(&self) -> u64 {
        // In this order, so that one that ends meanwhile is not taken off before it was counted.
        let closed = self.total(|worker| &worker.connections_closed);
        self.total(|worker| &worker.connections).saturating_sub(closed)
    }
}

impl ListenerWorker {
    /// Counts one more. Only the worker itself may call this.
    #[inline]
    pub fn count(&self, counter: impl Fn(&Self) -> &AtomicU64) {
        add(counter(self), 1);
    }
}
