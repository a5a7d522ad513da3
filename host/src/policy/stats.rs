//! A policy in service, and what is counted about it.
//!
//! Owns the counters per pool and version. Each worker writes a block of its own; readers sum. It must not decide anything.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crossbeam_utils::CachePadded;

use super::{BreakerState, Candidate, FaultKind};
use crate::pool::add;

/// One version of a policy in the service of one pool.
#[derive(Debug)]
pub struct Deployment {
    /// What runs.
    pub candidate: Arc<Candidate>,
    /// The pool it decides for.
    pub pool: Arc<str>,
    workers: Box<[CachePadded<Stats>]>,
}

impl Deployment {
    /// A version that has not decided anything yet.
    pub fn new(candidate: Arc<Candidate>, pool: &str, workers: usize) -> Self {
        let workers = (0..workers).map(|_| CachePadded::new(Stats::default())).collect();
        Self {
            candidate,
            pool: pool.into(),
            workers,
        }
    }

    /// The counters that this worker writes.
    #[inline]
    pub fn stats(&self, worker: usize) -> &Stats {
        &self.workers[worker]
    }

    /// The sum over all workers.
    pub fn total(&self, read: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|stats| read(stats).load(Relaxed)).sum()
    }

    /// How many workers' breakers are in this state.
    pub fn breakers(&self, state: BreakerState) -> usize {
        let is_in = |stats: &&CachePadded<Stats>| stats.breaker.load(Relaxed) == state as u64;
        self.workers.iter().filter(is_in).count()
    }

    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        FaultKind::ALL
            .iter()
            .map(|kind| self.total(|stats| stats.faults(*kind)))
            .sum()
    }
}

/// Why the host chose, and not the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The policy failed in this very decision.
    Fault,
    /// The policy answered none.
    Abstained,
    /// No instance: one is being built after a fault.
    Rebuilding,
    /// The breaker is open: the policy failed again and again.
    BreakerOpen,
    /// The policy failed on this very request before, again and again.
    Quarantined,
    /// The pool's tenant has used its share of the worker's time.
    Throttled,
    /// The backends that it named are full.
    Full,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Fault,
        Self::Abstained,
        Self::Rebuilding,
        Self::BreakerOpen,
        Self::Quarantined,
        Self::Throttled,
        Self::Full,
    ];

    /// The word used in logs, metrics and the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Abstained => "abstained",
            Self::Rebuilding => "rebuilding",
            Self::BreakerOpen => "breaker-open",
            Self::Quarantined => "quarantined",
            Self::Throttled => "throttled",
            Self::Full => "full",
        }
    }
}

/// Who chose in the policy's place: the steps of the fallback chain, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The last good version of the policy.
    LastGood,
    /// The host's version of the built-in that the pool names.
    BuiltIn,
    /// The host: any healthy backend.
    Any,
}

impl Step {
    /// All steps, in the order of the chain and of their counters.
    pub const ALL: [Self; 3] = [Self::LastGood, Self::BuiltIn, Self::Any];

    /// The word used in logs, metrics and the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastGood => "last-good",
            Self::BuiltIn => "built-in",
            Self::Any => "any",
        }
    }
}

/// What a timed decision counts at most in `bounded_ns`.
pub(super) const TIMED_NS_MAX: u64 = 200_000;

/// What one worker counted.
#[derive(Debug, Default)]
pub struct Stats {
    /// Decisions the policy was asked for or should have been.
    pub decisions: AtomicU64,
    /// Requests the policy refused.
    pub rejected: AtomicU64,
    /// Instances built to replace one that failed.
    pub rebuilds: AtomicU64,
    /// Nanoseconds of the decisions that were timed, and how many were.
    pub timed_ns: AtomicU64,
    /// See `timed_ns`.
    pub timed: AtomicU64,
    /// As `timed_ns`, but with [`TIMED_NS_MAX`] at most for each: a worker that lost its core distorts it little.
    pub bounded_ns: AtomicU64,
    /// Times the breaker opened.
    pub breaker_opens: AtomicU64,
    /// Fingerprints of requests that are not shown to the policy now.
    pub quarantined: AtomicU64,
    /// Times this version was refused by a worker because it did not take the old one's state.
    pub state_refusals: AtomicU64,
    /// A [`BreakerState`] by its number.
    pub(super) breaker: AtomicU64,
    host: [AtomicU64; Reason::ALL.len()],
    steps: [AtomicU64; Step::ALL.len()],
    faults: [AtomicU64; FaultKind::ALL.len()],
}

impl Stats {
    /// Decisions that the host made or had made by the chain, for this reason.
    pub fn host(&self, reason: Reason) -> &AtomicU64 {
        &self.host[reason as usize]
    }

    /// Decisions that this step of the fallback chain made.
    pub fn step(&self, step: Step) -> &AtomicU64 {
        &self.steps[step as usize]
    }

    /// Faults of this kind.
    pub fn faults(&self, kind: FaultKind) -> &AtomicU64 {
        &self.faults[kind as usize]
    }

    pub(super) fn count_host(&self, reason: Reason, step: Step) {
        add(self.host(reason), 1);
        add(self.step(step), 1);
    }

    pub(super) fn count_fault(&self, kind: FaultKind) {
        add(self.faults(kind), 1);
    }
}
