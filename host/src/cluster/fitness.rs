//! Whether this node could serve.
//!
//! Owns the signs of life that the lease depends on: each worker's tick, the probe through a listener, and what the server found out
//! itself. It is read by the cluster's thread before each renewal, so a sign that stays away needs nobody to notice it.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{clock, metrics::Metrics};

/// Workers look at the clock every 100 ms at least, so less says nothing.
const TICK_MS_MIN: u64 = 250;

/// Why a node cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A worker does not run.
    WorkerStuck(usize),
    /// Nobody answers behind a listener.
    ProbeFailed,
    /// The listeners cannot be bound.
    CannotListen,
    /// The kernel's gate cannot be moved.
    Gate,
    /// The balancer is about to end.
    Stopping,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WorkerStuck(worker) => write!(f, "worker {worker} does not run"),
            Self::ProbeFailed => f.write_str("a connection to a listener of its own is not served"),
            Self::CannotListen => f.write_str("the listeners cannot be bound"),
            Self::Stopping => f.write_str("it is stopping"),
            Self::Gate => f.write_str("the kernel's gate cannot be moved"),
        }
    }
}

/// How long a node that could not move its gate rests before it would serve again: at first, and at most.
const REST_US: RangeInclusive<u64> = 10_000_000..=300_000_000;

/// The gate's trouble, which nobody would see end: a node that rests moves none. So it ends by time.
#[derive(Debug, Default)]
pub(super) struct GateRest {
    until_us: u64,
    rest_us: u64,
}

impl GateRest {
    pub(super) fn failed(&mut self, now_us: u64) {
        if now_us >= self.until_us {
            self.rest_us = (self.rest_us * 2).clamp(*REST_US.start(), *REST_US.end());
            self.until_us = now_us + self.rest_us;
        }
    }

    pub(super) fn worked(&mut self, now_us: u64) {
        if now_us >= self.until_us {
            self.rest_us = 0;
        }
    }

    pub(super) fn trouble(&self, now_us: u64) -> Option<Trouble> {
        (now_us < self.until_us).then_some(Trouble::Gate)
    }
}

/// The signs.
#[derive(Debug)]
pub struct Fitness {
    /// When a probe came back; 0 while none is expected to.
    probed_us: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
}

impl Fitness {
    pub(super) fn new() -> Self {
        Self {
            probed_us: AtomicU64::new(0),
            trouble: Mutex::new(None),
        }
    }

    /// A probe came back, or the first one is sent.
    pub fn probed(&self) {
        self.probed_us.store(clock::now_us(), Relaxed);
    }

    /// None is expected any more.
    pub fn stop_probing(&self) {
        self.probed_us.store(0, Relaxed);
    }

    /// What the server found out.
    pub fn set(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// What is wrong now.
    pub(super) fn look(&self, metrics: &Arc<Metrics>, heartbeat_us: u64) -> Option<Trouble> {
        let now_us = clock::now_us();
        let late = |at_us: u64, most_us: u64| at_us > 0 && now_us > at_us + most_us;
        let tick_us = (2 * heartbeat_us).max(TICK_MS_MIN * 1_000);
        let stuck = |worker: &usize| late(metrics.workers[*worker].ticked_us.load(Relaxed), tick_us);
        if let Some(worker) = (0..metrics.workers.len()).find(stuck) {
            return Some(Trouble::WorkerStuck(worker));
        }
        if late(self.probed_us.load(Relaxed), (5 * heartbeat_us).max(2 * tick_us)) {
            return Some(Trouble::ProbeFailed);
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{GateRest, REST_US, Trouble};

    #[test]
    fn a_gate_that_fails_again_and_again_is_tried_less_and_less() {
        let (mut rest, mut now_us, mut waits) = (GateRest::default(), 5, Vec::new());
        assert_eq!(rest.trouble(now_us), None);
        for _ in 0..8 {
            rest.failed(now_us);
            // Once it rests, more of the same is no news.
            rest.failed(now_us + 1);
            rest.worked(now_us + 2);
            let began_us = now_us;
            while rest.trouble(now_us) == Some(Trouble::Gate) {
                now_us += 1_000_000;
            }
            waits.push((now_us - began_us) / 1_000_000);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
        rest.worked(now_us);
        rest.failed(now_us);
        assert_eq!(rest.trouble(now_us + REST_US.start()), None);
    }
}
