//! Requests that wait because every backend of their pool is full, as one worker has them.
//!
//! Owns their order: first come, first served. A backend has room again when a request ends, here or in another worker;
//! the first is called then, looks for itself, and stays the first if it finds none. It must not know what full means.
//!
//! Invariants: while anybody waits, the first is called again and again; whoever leaves, for whatever reason, has the
//! next one called; nobody that comes later overtakes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::Waker,
    time::Duration,
};

use super::pool::WorkerPool;

/// What other workers finish is not told, so it is looked for: much less than a request usually takes.
const CALL_EVERY: Duration = Duration::from_millis(2);

/// The queue of one pool in one worker.
#[derive(Default)]
pub(super) struct Queue {
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    is_called_regularly: Cell<bool>,
}

#[derive(Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    is_called: Cell<bool>,
}

/// A request's place in a queue. It leaves by being dropped.
pub(super) struct Place {
    pool: Rc<WorkerPool>,
    worker: usize,
    waiter: Rc<Waiter>,
}

impl Queue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// There may be room: the first is to look.
    pub(super) fn call(&self) {
        let first = self.waiting.borrow().front().cloned();
        if let Some(first) = first {
            first.is_called.set(true);
            if let Some(waker) = &*first.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Place {
    /// The last place in the pool's queue.
    pub(super) fn last(pool: &Rc<WorkerPool>, worker: usize) -> Self {
        let waiter = Rc::<Waiter>::default();
        pool.queue.waiting.borrow_mut().push_back(waiter.clone());
        pool.began_to_wait(worker);
        if !pool.queue.is_called_regularly.replace(true) {
            tokio::task::spawn_local(call_regularly(pool.clone()));
        }
        Self {
            pool: pool.clone(),
            worker,
            waiter,
        }
    }

    /// Whether it has been called since it was asked last. If not, this wakes when it is.
    pub(super) fn is_called(&self, waker: &Waker) -> bool {
        let is_called = self.waiter.is_called.replace(false);
        if !is_called {
            *self.waiter.waker.borrow_mut() = Some(waker.clone());
        }
        is_called
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.pool.queue.waiting.borrow_mut();
        // Nearly always the first.
        let at = waiting.iter().position(|waiter| Rc::ptr_eq(waiter, &self.waiter));
        if let Some(at) = at {
            waiting.remove(at);
        }
        drop(waiting);
        self.pool.ended_to_wait(self.worker);
        self.pool.queue.call();
    }
}

/// As long as anybody waits.
async fn call_regularly(pool: Rc<WorkerPool>) {
    while !pool.queue.is_empty() {
        tokio::time::sleep(CALL_EVERY).await;
        pool.queue.call();
    }
    pool.queue.is_called_regularly.set(false);
}
