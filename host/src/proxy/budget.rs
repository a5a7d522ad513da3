//! How much of a pool's traffic may be repetition: what keeps retries from making an overload worse.
//!
//! Owns the count of one worker: requests of the last ten seconds, and how many of them were sent again. An ordinary
//! request costs it one addition; time is told by whoever sweeps. It must not know why a request is sent again.
//!
//! Invariant: of any ten seconds, no more is spent than the floor and the share of the requests that came in them, as
//! far as slots of a second tell.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use super::worker::SWEEP_EVERY_MS;
use crate::config::Retry;

/// As in Finagle and linkerd: long enough to save up for a backend that fails at once with all that it has, short enough
/// to be over soon after.
const WINDOW_MS: u64 = 10_000;
const SLOTS: usize = (WINDOW_MS / SWEEP_EVERY_MS) as usize;

/// The account of one pool in one worker.
pub(super) struct Budget {
    requests: Cell<u64>,
    spent: Cell<u64>,
    /// What both were at the begin of each slot, the oldest first.
    begins: RefCell<VecDeque<(u64, u64)>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            requests: Cell::new(0),
            spent: Cell::new(0),
            begins: RefCell::new(VecDeque::from([(0, 0)])),
        }
    }
}

impl Budget {
    /// A request has come.
    #[inline]
    pub(super) fn earn(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Takes what one repetition costs. False if there is not enough.
    pub(super) fn spend(&self, rule: &Retry, workers: usize) -> bool {
        let (requests, spent) = self.begins.borrow().front().copied().unwrap_or_default();
        let requests = self.requests.get() - requests;
        let spent = self.spent.get() - spent;
        let floor = (u64::from(rule.floor) * WINDOW_MS).div_ceil(1000 * workers.max(1) as u64);
        let has_some = spent < floor + requests * u64::from(rule.budget) / 100;
        if has_some {
            self.spent.set(self.spent.get() + 1);
        }
        has_some
    }

    /// A second has passed.
    pub(super) fn roll(&self) {
        let mut begins = self.begins.borrow_mut();
        if begins.len() > SLOTS {
            begins.pop_front();
        }
        begins.push_back((self.requests.get(), self.spent.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(budget: u8, floor: u32) -> Retry {
        Retry {
            budget,
            floor,
            ..Retry::default()
        }
    }

    fn spend_all(budget: &Budget, rule: &Retry, workers: usize) -> usize {
        (0..100_000).take_while(|_| budget.spend(rule, workers)).count()
    }

    #[test]
    fn a_share_of_the_requests_may_be_sent_again_and_no_more() {
        let budget = Budget::default();
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(spend_all(&budget, &rule(20, 0), 1), 200);
        (0..10).for_each(|_| budget.earn());
        assert_eq!(spend_all(&budget, &rule(20, 0), 1), 2);
        assert_eq!(spend_all(&Budget::default(), &rule(20, 0), 1), 0);
    }

    #[test]
    fn the_floor_is_shared_by_the_workers() {
        for (workers, each) in [(1, 100), (4, 25), (64, 2)] {
            assert_eq!(spend_all(&Budget::default(), &rule(0, 10), workers), each);
        }
    }

    #[test]
    fn what_is_older_than_ten_seconds_neither_gives_nor_costs() {
        let budget = Budget::default();
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(spend_all(&budget, &rule(20, 0), 1), 200);
        (0..SLOTS).for_each(|_| budget.roll());
        assert_eq!(spend_all(&budget, &rule(20, 0), 1), 0, "still in the window");
        budget.roll();
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spend_all(&budget, &rule(20, 0), 1), 20, "the old ones are over");
    }
}
