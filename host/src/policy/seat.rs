//! The place of a pool's policy in one worker: where decisions are made.
//!
//! Owns the rule that a decision always comes out: the policy's if it has a good one, the host's otherwise. Owns the
//! answer to faults too: count, log, drop the instance, ask for a new one, wait longer each time. It must not know
//! sockets, nor how instances are built (they arrive through [`Seat::install`]).
//!
//! Invariant: `decide` never fails while a backend is usable.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedSender;

use super::{Deployment, Facts, Fault, Instance, Reason, Tried, fallback, instance::Answer};
use crate::{
    http1::Head,
    pool::{Pool, Snapshot, View, add},
};

/// Pause before the instance of a failed policy is replaced: doubled with every fault in a row, up to the maximum. A
/// policy that fails once an hour is back at once; one that fails always costs a rebuild (30 us) every 10 s.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A policy without a fault for this long starts over with the shortest pause.
const STRIKES_FORGOTTEN_US: u64 = 30_000_000;
/// One log line for the faults of one seat in this time; the rest is counted in the next.
const LOG_EVERY_US: u64 = 1_000_000;
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
    /// The host, because of this.
    Host(Reason),
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
#[derive(Debug)]
pub struct Rebuild {
    /// Who needs it.
    pub worker: usize,
    /// The pool whose backends it has to know.
    pub pool: Arc<Pool>,
    /// The version to build; the order is void when another one has been deployed.
    pub deployment: Arc<Deployment>,
    /// How long to wait first.
    pub pause: Duration,
}

/// A pool's policy in one worker.
pub struct Seat {
    worker: usize,
    pool: Arc<Pool>,
    snapshot: Arc<Snapshot>,
    view: Arc<View>,
    deployment: Arc<Deployment>,
    instance: Option<Instance>,
    rebuilds: UnboundedSender<Rebuild>,
    strikes: u32,
    struck_us: u64,
    logged_us: u64,
    unlogged: u64,
    /// The pool was replaced, so the snapshot is old whatever its generation.
    is_stale: bool,
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
        let snapshot = pool.snapshot();
        let view = Arc::new(View::new(&snapshot, crate::clock::now_us()));
        let mut seat = Self {
            worker,
            pool,
            snapshot,
            view,
            deployment: deployment.clone(),
            instance: None,
            rebuilds,
            strikes: 0,
            struck_us: 0,
            logged_us: 0,
            unlogged: 0,
            is_stale: false,
        };
        seat.install(deployment, instance);
        seat
    }

    /// Puts an instance into service: another version, or a replacement for one that failed. Gives the old one, so that
    /// it can be dropped where it costs no request anything.
    pub fn install(&mut self, deployment: Arc<Deployment>, mut instance: Instance) -> Option<Instance> {
        if Arc::ptr_eq(&deployment, &self.deployment) {
            add(
                &self.deployment.stats(self.worker).rebuilds,
                u64::from(self.strikes > 0),
            );
        } else {
            (self.strikes, self.struck_us) = (0, 0);
            self.deployment = deployment;
        }
        match instance.update(&self.snapshot, &self.view) {
            Ok(()) => self.instance.replace(instance),
            Err(fault) => {
                self.strike(&fault);
                self.instance.take()
            }
        }
    }

    /// A reload made a new pool out of the old one; the policy goes on.
    pub fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pool = pool;
        self.is_stale = true;
    }

    /// The version in service.
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
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
        if let Some(instance) = &mut self.instance
            && let Err(fault) = instance.update(&self.snapshot, &self.view)
        {
            self.strike(&fault);
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
        let decision = self.ask(facts, tried, head);
        if let Some(started) = started {
            let stats = self.deployment.stats(self.worker);
            add(&stats.timed_ns, started.elapsed().as_nanos() as u64);
            add(&stats.timed, 1);
        }
        decision
    }

    #[inline]
    fn ask(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        if let Some(instance) = &mut self.instance
            && let Err(fault) = instance.flush_outcomes(facts.now_us)
        {
            self.strike(&fault);
        }
        let Some(instance) = &mut self.instance else {
            return self.choose(Reason::Rebuilding, facts, tried);
        };
        let checked = instance.pick(facts, tried, head).and_then(|answer| match answer {
            Answer::Index(index) => instance.check(index, tried).map(Ok),
            other => Ok(Err(other)),
        });
        match checked {
            Ok(Ok(index)) => {
                let note = instance.take_note();
                Decision::Send(Choice {
                    index,
                    chooser: Chooser::Policy,
                    note,
                })
            }
            Ok(Err(Answer::Reject(status))) => {
                add(&self.deployment.stats(self.worker).rejected, 1);
                Decision::Reject(status)
            }
            Ok(Err(_)) => self.choose(Reason::Abstained, facts, tried),
            Err(fault) => {
                self.strike(&fault);
                self.choose(Reason::Fault, facts, tried)
            }
        }
    }

    /// The host's own choice.
    #[cold]
    fn choose(&self, reason: Reason, facts: &Facts, tried: &Tried) -> Decision {
        self.deployment.stats(self.worker).count_host(reason);
        match fallback::choose(&self.snapshot, &self.view, tried, facts.random) {
            Some(index) => Decision::Send(Choice {
                index,
                chooser: Chooser::Host(reason),
                note: None,
            }),
            None => Decision::NoBackend,
        }
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
        let index = if ended.generation == self.snapshot.generation {
            Some(ended.index)
        } else {
            self.snapshot.position(ended.backend)
        };
        let Some(index) = index else { return };
        self.view.end(index);
        if let Some(instance) = &mut self.instance {
            instance.observe(index, ended.latency_us, ended.bytes, ended.status, ended.now_us);
        }
    }

    /// A fault: counts and logs it, and if the instance is beyond use drops it and orders another.
    #[cold]
    fn strike(&mut self, fault: &Fault) {
        let now_us = crate::clock::now_us();
        self.deployment.stats(self.worker).count_fault(fault.kind);
        self.log(fault, now_us);
        if fault.kind.is_survivable() {
            return;
        }
        if now_us > self.struck_us + STRIKES_FORGOTTEN_US {
            self.strikes = 0;
        }
        self.struck_us = now_us;
        let pause = PAUSE_MIN.saturating_mul(1 << self.strikes.min(16)).min(PAUSE_MAX);
        self.strikes += 1;
        self.instance = None;
        let order = Rebuild {
            worker: self.worker,
            pool: self.pool.clone(),
            deployment: self.deployment.clone(),
            pause,
        };
        // Nobody listens only while the process stops; the host's own choice serves until then.
        let _ = self.rebuilds.send(order);
    }

    fn log(&mut self, fault: &Fault, now_us: u64) {
        if now_us < self.logged_us + LOG_EVERY_US {
            self.unlogged += 1;
            return;
        }
        self.logged_us = now_us;
        let candidate = &self.deployment.candidate;
        tracing::warn!(
            pool = self.pool.name(),
            policy = %candidate.spec.name,
            version = %candidate.version,
            worker = self.worker,
            fault = fault.kind.name(),
            call = fault.call,
            unlogged = std::mem::take(&mut self.unlogged),
            "policy fault, the host chooses: {}",
            fault.message
        );
    }
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
