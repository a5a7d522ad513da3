//! What follows from a fault: it is counted, logged and held against the policy, or against the request.
//!
//! Owns the seat's caution: whether it is wary, and when it trusts again. It must not choose backends.
//!
//! Invariant: after a fault that the instance does not survive, there is no instance and exactly one order for another.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    super::{
        BreakerState, Deployment, Fault, FaultKind, Instance, Reason,
        breaker::Blow,
        quarantine::{FAULTS_HELD, Fingerprint},
    },
    Rebuild, Seat,
};
use crate::{http1::Head, pool::add};

/// One log line for the faults of one seat in this time; the rest is counted in the next.
const LOG_EVERY_US: u64 = 1_000_000;
/// Of a client's path in a log line.
const PATH_CHARS_MAX: usize = 128;

impl Seat {
    /// A fault, in the decision about this request if it was in one. If the instance is beyond use, it is dropped and
    /// another one ordered.
    #[cold]
    pub(super) fn strike(&mut self, fault: &Fault, request: Option<&Head>, now_us: u64) {
        let stats = self.deployment.stats(self.worker);
        stats.count_fault(fault.kind);
        let decisions = stats.decisions.load(Relaxed);
        self.reporter.fault(&self.deployment, self.worker, fault, now_us);
        if let Some(head) = request
            && self.quarantine.blame(Fingerprint::of(head), now_us)
        {
            self.breaker.pardon(FAULTS_HELD - 1);
            self.reporter.held(&self.deployment, self.worker, head, now_us);
        }
        if let Some(standby) = &mut self.standby {
            standby.extend(now_us);
        }
        let pause = self.breaker.strike(Blow {
            is_survivable: fault.kind.is_survivable(),
            missed: (fault.kind == FaultKind::Deadline).then_some(self.deployment.candidate.spec.deadline),
            decisions,
            now_us,
        });
        if let Some(pause) = pause {
            let fallen = self.instance.take();
            let order = Rebuild {
                worker: self.worker,
                pool: self.pool.clone(),
                // Whoever refused the state of this version is welcome now, without it.
                deployment: self.awaited.clone().unwrap_or_else(|| self.deployment.clone()),
                pause,
                fallen,
            };
            // Nobody listens only while the process stops; the chain serves until then.
            let _ = self.rebuilds.send(order);
        }
        self.note_condition(now_us);
    }

    /// The policy answered well while it was not trusted.
    pub(super) fn trust(&mut self, fingerprint: Option<Fingerprint>, now_us: u64) {
        let was_suspect = fingerprint.is_some_and(|print| self.quarantine.acquit(print));
        if self.breaker.passed() || was_suspect {
            self.note_condition(now_us);
        }
    }

    /// Why there is no instance.
    pub(super) fn absence(&self) -> Reason {
        match self.breaker.state() {
            BreakerState::Open => Reason::BreakerOpen,
            BreakerState::Closed | BreakerState::HalfOpen => Reason::Rebuilding,
        }
    }

    /// Forgets what is long ago. To be called about once a second; gives an instance that is not needed any more, to be
    /// dropped where it costs no request anything.
    pub fn sweep(&mut self, now_us: u64) -> Option<Instance> {
        if !self.quarantine.is_empty() {
            self.quarantine.sweep(now_us);
            self.note_condition(now_us);
        }
        let is_over = self
            .standby
            .as_ref()
            .is_some_and(|standby| standby.is_over(now_us));
        if is_over { self.standby.take() } else { None }.map(|standby| standby.instance)
    }

    /// After every change of the breaker or the quarantine.
    pub(super) fn note_condition(&mut self, now_us: u64) {
        let state = self.breaker.state();
        self.is_wary = state == BreakerState::HalfOpen || !self.quarantine.is_empty();
        let stats = self.deployment.stats(self.worker);
        stats
            .quarantined
            .store(self.quarantine.held(now_us) as u64, Relaxed);
        if stats.breaker.load(Relaxed) == state as u64 {
            return;
        }
        stats.breaker.store(state as u64, Relaxed);
        add(&stats.breaker_opens, u64::from(state == BreakerState::Open));
        // Bounded by the breaker's pauses.
        tracing::info!(
            pool = self.pool.name(),
            policy = %self.deployment.candidate.spec.name,
            version = %self.deployment.candidate.version,
            worker = self.worker,
            "policy breaker is {}",
            state.name()
        );
    }
}

/// Tells of faults in the log, now and then.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    logged_us: u64,
    unlogged: u64,
    last: Option<Fault>,
}

impl Reporter {
    pub(super) fn fault(&mut self, deployment: &Deployment, worker: usize, fault: &Fault, now_us: u64) {
        self.last = Some(fault.clone());
        if now_us < self.logged_us + LOG_EVERY_US {
            self.unlogged += 1;
            return;
        }
        self.logged_us = now_us;
        let candidate = &deployment.candidate;
        tracing::warn!(
            pool = %deployment.pool,
            policy = %candidate.spec.name,
            version = %candidate.version,
            worker,
            fault = fault.kind.name(),
            call = fault.call,
            unlogged = std::mem::take(&mut self.unlogged),
            "policy fault, the fallback chain chooses: {}",
            fault.message
        );
    }

    pub(super) fn last(&self) -> Option<&Fault> {
        self.last.as_ref()
    }

    /// A request is held: at most one line for every third fault, and those that cost no instance are as rare as lines.
    fn held(&mut self, deployment: &Deployment, worker: usize, head: &Head, now_us: u64) {
        if now_us < self.logged_us {
            return;
        }
        let path: String = head.path().chars().take(PATH_CHARS_MAX).collect();
        tracing::warn!(
            pool = %deployment.pool,
            policy = %deployment.candidate.spec.name,
            version = %deployment.candidate.version,
            worker,
            method = head.method(),
            authority = head.authority(),
            path,
            "the policy fails on this request again and again; such requests are not shown to it for a while"
        );
    }
}
