//! The place of a pool's policy in one worker: where decisions are made.
//!
//! Owns the rule that a decision always comes out: the policy's if it has a good one, otherwise that of the next in the
//! fallback chain. It must not know sockets, nor how instances are built (they arrive through [`Seat::install`]).
//!
//! Invariant: `decide` never fails while a backend is usable.
//! Read next: `seat/chain.rs` (who chooses when the policy does not), `seat/strike.rs` (what follows from a fault),
//! `seat/swap.rs` (how versions follow each other).

mod chain;
mod strike;
mod swap;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedSender;

use super::{
    Algorithm, Deployment, Facts, Fault, Instance, Reason, Step, Tried, breaker::Breaker, instance::Verdict,
    native::Native, quarantine::Quarantine, standby::Standby, stats::TIMED_NS_MAX,
};
use crate::{
    http1::Head,
    pool::{Pool, Snapshot, View, add},
    tenant::{Run, Share},
};
use strike::Reporter;

/// One decision in so many is timed: two clock readings cost as much as a pick.
const TIME_EVERY: u64 = 64;

/// Which backend a request goes to.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Index in [`Seat::snapshot`].
    pub index: usize,
    /// Who chose.
    pub chooser: Chooser,
    /// What the policy said about it.
    pub note: Option<String>,
}

/// Who chose a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser {
    /// The pool's policy.
    Policy,
    /// This step of the fallback chain, because of this.
    Chain(Reason, Step),
    /// The client's cookie; nobody was asked.
    Sticky,
}

impl Chooser {
    /// The word used in the access log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Chain(_, step) => step.name(),
            Self::Sticky => "sticky",
        }
    }

    /// Why it was not the policy.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Policy | Self::Sticky => None,
            Self::Chain(reason, _) => Some(reason.name()),
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It goes to a backend.
    Send(Choice),
    /// The policy refuses it with this status.
    Reject(u16),
    /// No backend is usable.
    NoBackend,
}

/// An order for a new instance.
pub struct Rebuild {
    /// Who needs it.
    pub worker: usize,
    /// The pool whose backends it has to know.
    pub pool: Arc<Pool>,
    /// The version to build; the order is void when another one has been deployed.
    pub deployment: Arc<Deployment>,
    /// How long to wait first.
    pub pause: Duration,
    /// What is left of the last one, to be dropped where nobody waits: giving 16 MiB back to the kernel takes 0.5 ms.
    pub fallen: Option<Instance>,
}

/// A pool's policy in one worker.
pub struct Seat {
    worker: usize,
    pool: Arc<Pool>,
    snapshot: Arc<Snapshot>,
    view: Arc<View>,
    deployment: Arc<Deployment>,
    instance: Option<Instance>,
    /// The policy is on trial, or some requests are not shown to it. All that a decision looks at in good times.
    is_wary: bool,
    breaker: Breaker,
    quarantine: Quarantine,
    standby: Option<Standby>,
    /// A version that did not take the state of the one in service. It gets its turn when that one fails.
    awaited: Option<Arc<Deployment>>,
    algorithm: Algorithm,
    native: Native,
    rebuilds: UnboundedSender<Rebuild>,
    reporter: Reporter,
    /// The pool was replaced, so the snapshot is old whatever its generation.
    is_stale: bool,
    /// Its policy failed when it was asked for its state in the middle of its life, and is not asked again.
    is_mute: bool,
}

impl Seat {
    /// A seat with an instance in it. At most one order at a time goes into `rebuilds`.
    pub fn new(
        worker: usize,
        pool: Arc<Pool>,
        deployment: Arc<Deployment>,
        instance: Instance,
        rebuilds: UnboundedSender<Rebuild>,
    ) -> Self {
        Self::new_at(
            crate::clock::now_us(),
            worker,
            pool,
            deployment,
            instance,
            rebuilds,
        )
    }

    /// As [`Seat::new`], at this time on the clock that all later calls go by.
    pub fn new_at(
        now_us: u64,
        worker: usize,
        pool: Arc<Pool>,
        deployment: Arc<Deployment>,
        instance: Instance,
        rebuilds: UnboundedSender<Rebuild>,
    ) -> Self {
        let snapshot = pool.snapshot();
        let view = Arc::new(View::new(&snapshot, now_us));
        let mut seat = Self {
            worker,
            algorithm: algorithm(&pool),
            pool,
            snapshot,
            view,
            deployment,
            instance: None,
            is_wary: false,
            breaker: Breaker::default(),
            quarantine: Quarantine::default(),
            standby: None,
            awaited: None,
            native: Native::default(),
            rebuilds,
            reporter: Reporter::default(),
            is_stale: false,
            is_mute: false,
        };
        seat.place(instance, now_us);
        seat
    }

    /// A reload made a new pool out of the old one; the policy goes on.
    pub fn set_pool(&mut self, pool: Arc<Pool>) {
        // Nothing is new after a change elsewhere, and to show a policy a thousand backends takes a while.
        if Arc::ptr_eq(&self.pool, &pool) {
            return;
        }
        self.algorithm = algorithm(&pool);
        self.pool = pool;
        self.is_stale = true;
    }

    /// The backends, as the control plane has them.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The version in service.
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    /// What was wrong the last time that something was.
    pub fn last_fault(&self) -> Option<&Fault> {
        self.reporter.last()
    }

    /// The live load, as the policy sees it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The worker it is in.
    #[inline]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The backends that indices refer to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Takes note of changes of the pool. True if the indices now mean something else.
    #[inline]
    pub fn sync(&mut self, now_us: u64) -> bool {
        if self.pool.generation() == self.snapshot.generation && !self.is_stale {
            self.view.refresh(&self.snapshot, now_us);
            return false;
        }
        self.resync(now_us);
        true
    }

    #[cold]
    fn resync(&mut self, now_us: u64) {
        self.is_stale = false;
        self.snapshot = self.pool.snapshot();
        self.view = Arc::new(View::new(&self.snapshot, now_us));
        self.native.forget_pool();
        // Whatever the tenant has used: an instance must know its backends.
        let run = self.share().map(|share| share.begin(now_us));
        if let Some(instance) = &mut self.instance
            && let Err(fault) = instance.update(&self.snapshot, &self.view)
        {
            self.strike(&fault, None, now_us);
        }
        if let Some(run) = &run {
            self.account(run);
        }
    }

    /// Decides one attempt of a request. To be called after [`Seat::sync`]. The head is lent to the policy.
    #[inline]
    pub fn decide(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        if self.snapshot.usable == 0 {
            return Decision::NoBackend;
        }
        let stats = self.deployment.stats(self.worker);
        let count = stats.decisions.load(std::sync::atomic::Ordering::Relaxed);
        add(&stats.decisions, 1);
        let started = count.is_multiple_of(TIME_EVERY).then(std::time::Instant::now);
        let decision = self.ask_within_share(facts, tried, head);
        if let Some(started) = started {
            let stats = self.deployment.stats(self.worker);
            let spent_ns = started.elapsed().as_nanos() as u64;
            add(&stats.timed_ns, spent_ns);
            add(&stats.bounded_ns, spent_ns.min(TIMED_NS_MAX));
            add(&stats.timed, 1);
        }
        decision
    }

    /// Asks, unless the pool's tenant has used its share of this worker; accounts what is used.
    #[inline]
    fn ask_within_share(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        let Some(share) = self.share() else {
            return self.ask(facts, tried, head);
        };
        let now_us = crate::clock::now_us();
        if !share.admits(now_us) {
            return self.choose(Reason::Throttled, facts, tried, head);
        }
        let run = share.begin(now_us);
        let decision = self.ask(facts, tried, head);
        self.account(&run);
        decision
    }

    /// What the pool's tenant may use of this worker, if that is limited.
    #[inline]
    fn share(&self) -> Option<Share<'_>> {
        self.pool.tenant()?.share(self.worker)
    }

    fn account(&self, run: &Run) {
        if let Some(share) = self.share() {
            share.end(run, crate::clock::now_us());
        }
    }

    #[inline]
    fn ask(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        if self.is_wary {
            return self.ask_warily(facts, tried, head);
        }
        self.ask_policy(facts, tried, head)
    }

    #[inline]
    fn ask_policy(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        if let Some(instance) = &mut self.instance
            && let Err(fault) = instance.flush_outcomes(facts.now_us)
        {
            self.strike(&fault, None, facts.now_us);
        }
        let Some(instance) = &mut self.instance else {
            return self.choose(self.absence(), facts, tried, head);
        };
        match instance.answer(facts, tried, head) {
            Ok(Verdict::Send(index)) => Decision::Send(Choice {
                index,
                chooser: Chooser::Policy,
                note: instance.take_note(),
            }),
            Ok(Verdict::Reject(status)) => self.reject(status),
            Ok(Verdict::Abstain) => self.choose(Reason::Abstained, facts, tried, head),
            Err(fault) => {
                self.strike(&fault, Some(head), facts.now_us);
                self.choose(Reason::Fault, facts, tried, head)
            }
        }
    }

    fn reject(&self, status: u16) -> Decision {
        add(&self.deployment.stats(self.worker).rejected, 1);
        Decision::Reject(status)
    }

    /// What the last decision is known by in a recording, once; `None` if it is in none.
    pub fn take_recorded_id(&mut self) -> Option<String> {
        self.instance.as_mut()?.take_recorded_id()
    }

    /// Hands over what is recorded so far.
    pub fn flush_recording(&mut self) {
        if let Some(instance) = &mut self.instance {
            instance.flush_recording();
        }
    }

    /// An attempt begins, decided under `generation`. The backend's own counters are the caller's business.
    #[inline]
    pub fn begin(&self, generation: u64, index: usize) {
        if generation == self.snapshot.generation {
            self.view.begin(index);
        }
    }

    /// An attempt has ended. The backend's own counters are the caller's business.
    #[inline]
    pub fn end(&mut self, ended: &Ended) {
        let Some(index) = self.index_of(ended) else { return };
        self.view.end(index);
        if let Some(instance) = &mut self.instance {
            instance.observe(index, ended.latency_us, ended.bytes, ended.status, ended.now_us);
        }
    }
}

impl Seat {
    /// An attempt was given up before its outcome was known, so the policy is told of none.
    pub fn cancel(&mut self, ended: &Ended) {
        if let Some(index) = self.index_of(ended) {
            self.view.end(index);
        }
    }

    /// Where the backend of an attempt is now.
    #[inline]
    fn index_of(&self, ended: &Ended) -> Option<usize> {
        if ended.generation == self.snapshot.generation {
            Some(ended.index)
        } else {
            self.snapshot.position(ended.backend)
        }
    }
}

/// What the pool's `fallback` names. The configuration has checked the name.
fn algorithm(pool: &Pool) -> Algorithm {
    Algorithm::named(&pool.config.fallback).unwrap_or(Algorithm::LeastConnections)
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Generation of the snapshot that it was decided on.
    pub generation: u64,
    /// Index in that snapshot.
    pub index: usize,
    /// The backend's id.
    pub backend: u64,
    /// Time to the response head, or to the failure.
    pub latency_us: u64,
    /// Body bytes both ways.
    pub bytes: u64,
    /// The response's status, if one came.
    pub status: Option<u16>,
    /// When it ended.
    pub now_us: u64,
}
