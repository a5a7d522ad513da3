//! A pool in one worker: its seat, the connections to its backends, and a canary or a shadow while there is one.
//!
//! Owns which of the two arms decides a request, and that both see all of the load. It must not know HTTP.
//!
//! Invariant: an index means the same to the seat, to the upstreams and to the canary, or the canary is not asked.

use std::{
    cell::{Ref, RefCell, RefMut},
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    budget::Budget,
    canary::Canary,
    discard::discard,
    forward::Target,
    queue::Queue,
    upstream::{Dialing, Upstream},
};
use crate::{
    clock, config,
    health::Reporter,
    http1::Head,
    policy::{Chooser, Decision, Deployment, Ended, Facts, Instance, Seat, Tried},
    pool::{Counts, Pool, State, add},
    rollout::Shadow,
    sticky::Sticky,
};

/// What a request needs to know of its pool's configuration, from its beginning to its end.
pub(super) struct PoolSettings {
    pub(super) config: Arc<config::Pool>,
    pub(super) sticky: Option<Arc<Sticky>>,
    pub(super) reporter: Reporter,
    pub(super) dialing: Dialing,
}

impl PoolSettings {
    /// What is remembered of TLS sessions is taken over from `known`, if they are of the same kind.
    pub(super) fn new(worker: usize, pool: &Pool, reporter: Reporter, known: Option<&Self>) -> Self {
        let known = known.and_then(|known| known.dialing.tls.as_ref());
        let tls = pool.tls().map(|originator| match known {
            Some(known) if Arc::ptr_eq(known.originator(), originator) => known.clone(),
            _ => Rc::new(originator.connectors()),
        });
        Self {
            config: pool.config.clone(),
            sticky: pool.sticky().cloned(),
            reporter,
            dialing: Dialing {
                worker,
                most: pool.config.limits.as_ref().and_then(|limits| limits.connections),
                within: pool.config.connect_timeout,
                tls,
                send_proxy: pool.config.send_proxy,
            },
        }
    }

    /// Whether connections are opened as they are by the other.
    fn dials_like(&self, other: &Self) -> bool {
        let tls = |settings: &Self| settings.dialing.tls.as_ref().map(Rc::as_ptr);
        tls(self) == tls(other)
            && self.config.protocol == other.config.protocol
            && self.config.send_proxy == other.config.send_proxy
    }
}

/// A pool in this worker. Outlives reloads as long as its name does.
pub(super) struct WorkerPool {
    settings: RefCell<Rc<PoolSettings>>,
    seat: RefCell<Seat>,
    canary: RefCell<Option<Canary>>,
    shadow: RefCell<Option<Arc<Shadow>>>,
    pub(super) budget: Budget,
    pub(super) queue: Queue,
    /// Indexed like the seat's snapshot.
    upstreams: RefCell<Vec<Rc<Upstream>>>,
    /// Of backends that the file no longer has, as long as there are tunnels to them.
    gone: RefCell<Vec<Rc<Upstream>>>,
}

/// What was decided, by whom, and where the request goes then.
pub(super) type Decided = (Decision, Decider, Option<Target>);

/// Whose decision it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decider {
    /// The version in service, or whoever stood in for it.
    Active,
    /// The candidate on trial.
    Canary,
}

impl WorkerPool {
    pub(super) fn new(settings: PoolSettings, seat: Seat) -> Self {
        let upstreams = seat
            .snapshot()
            .members
            .iter()
            .map(|member| Rc::new(Upstream::new(member.backend.clone())));
        let upstreams = RefCell::new(upstreams.collect());
        Self {
            settings: RefCell::new(Rc::new(settings)),
            seat: RefCell::new(seat),
            canary: RefCell::new(None),
            shadow: RefCell::new(None),
            budget: Budget::default(),
            queue: Queue::default(),
            upstreams,
            gone: RefCell::default(),
        }
    }

    pub(super) fn settings(&self) -> Rc<PoolSettings> {
        self.settings.borrow().clone()
    }

    pub(super) fn name(&self) -> String {
        self.settings.borrow().config.name.clone()
    }

    /// Indexed like the seat's snapshot.
    pub(super) fn upstreams(&self) -> Ref<'_, Vec<Rc<Upstream>>> {
        self.upstreams.borrow()
    }

    #[inline]
    pub(super) fn seat(&self) -> RefMut<'_, Seat> {
        self.seat.borrow_mut()
    }

    /// The version that decides in this place.
    pub(super) fn deployment(&self, decider: Decider) -> Arc<Deployment> {
        let canary = self.canary.borrow();
        match canary.as_ref().filter(|_| decider == Decider::Canary) {
            Some(canary) => canary.deployment().clone(),
            None => self.seat.borrow().deployment().clone(),
        }
    }

    /// Decides one attempt. The target is there exactly if the decision is to send.
    #[inline]
    pub(super) fn decide(&self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decided {
        let mut seat = self.seat.borrow_mut();
        if seat.sync(facts.now_us) {
            self.resync(&seat);
        }
        let mut canary = self.canary.borrow_mut();
        let generation = seat.snapshot().generation;
        let tried_out = canary
            .as_mut()
            .and_then(|canary| canary.decide(generation, facts, tried, head));
        let (decision, decider) = match tried_out {
            Some(decision) => (decision, Decider::Canary),
            None => (seat.decide(facts, tried, head), Decider::Active),
        };
        let Decision::Send(choice) = &decision else {
            return (decision, decider, None);
        };
        if let Some(shadow) = &*self.shadow.borrow()
            && decider == Decider::Active
            && choice.chooser == Chooser::Policy
        {
            shadow.observe(
                (seat.worker(), seat.snapshot(), seat.view()),
                facts,
                tried,
                head,
                choice.index,
            );
        }
        let target = self.target((generation, choice.index), decider);
        (decision, decider, target)
    }

    /// Takes note of changes of the pool.
    pub(super) fn sync(&self, now_us: u64) {
        let mut seat = self.seat.borrow_mut();
        if seat.sync(now_us) {
            self.resync(&seat);
        }
    }

    /// The backend with this index in the snapshot of this generation.
    #[inline]
    pub(super) fn target(&self, (generation, index): (u64, usize), decider: Decider) -> Option<Target> {
        self.upstreams.borrow().get(index).map(|upstream| Target {
            upstream: upstream.clone(),
            generation,
            index,
            decider,
        })
    }

    /// A request begins to wait for a backend with room.
    pub(super) fn began_to_wait(&self, worker: usize) {
        self.seat.borrow().pool().counts(worker).begin_waiting();
    }

    /// A request waits no longer.
    pub(super) fn ended_to_wait(&self, worker: usize) {
        self.seat.borrow().pool().counts(worker).end_waiting();
    }

    /// Whether so many requests wait, over all workers. The one that is refused for it is counted.
    pub(super) fn is_queue_full(&self, worker: usize, most: u32) -> bool {
        let seat = self.seat.borrow();
        let is_full = seat.pool().waiting() >= u64::from(most);
        if is_full {
            add(&seat.pool().counts(worker).queue_full, 1);
        }
        is_full
    }

    /// With limits: a request goes to a backend.
    pub(super) fn occupy(&self, worker: usize) {
        self.seat.borrow().pool().counts(worker).begin();
    }

    /// With limits: it is over, so another may.
    pub(super) fn vacate(&self, worker: usize) {
        self.seat.borrow().pool().counts(worker).end();
        self.queue.call();
    }

    /// Whether a backend besides `tried` and `id` may be picked.
    pub(super) fn has_another(&self, tried: &Tried, id: u64) -> bool {
        let seat = self.seat.borrow();
        let mut members = seat.snapshot().members.iter();
        members.any(|member| {
            let own = member.backend.id;
            member.usable && own != id && !tried.contains(own)
        })
    }

    /// Takes from the budget what it costs to send a request again. False, which is counted, if there is not enough.
    pub(super) fn spend(&self, worker: usize, rule: &config::Retry) -> bool {
        let seat = self.seat.borrow();
        let is_paid = self.budget.spend(rule, seat.pool().workers());
        if !is_paid {
            add(&seat.pool().counts(worker).retries_denied, 1);
        }
        is_paid
    }

    /// Counts one more.
    pub(super) fn count(&self, worker: usize, counter: impl Fn(&Counts) -> &AtomicU64) {
        add(counter(self.seat.borrow().pool().counts(worker)), 1);
    }

    /// An attempt begins.
    #[inline]
    pub(super) fn begin(&self, target: &Target) {
        self.seat.borrow().begin(target.generation, target.index);
        if let Some(canary) = &*self.canary.borrow() {
            canary.begin(target);
        }
    }

    /// An attempt has ended.
    #[inline]
    pub(super) fn end(&self, ended: &Ended, decider: Decider) {
        self.seat.borrow_mut().end(ended);
        if let Some(canary) = &mut *self.canary.borrow_mut() {
            canary.end(ended, decider);
        }
    }

    /// An attempt was given up because another was quicker.
    pub(super) fn cancel(&self, ended: &Ended) {
        self.seat.borrow_mut().cancel(ended);
        if let Some(canary) = &mut *self.canary.borrow_mut() {
            canary.cancel(ended);
        }
    }

    /// The backends changed: keeps what is known of those that stay.
    #[cold]
    fn resync(&self, seat: &Seat) {
        let mut upstreams = self.upstreams.borrow_mut();
        let mut old: HashMap<u64, Rc<Upstream>> = upstreams
            .drain(..)
            .map(|upstream| (upstream.backend.id, upstream))
            .collect();
        upstreams.extend(seat.snapshot().members.iter().map(|member| {
            let is_same = |known: &Rc<Upstream>| Arc::ptr_eq(&known.backend, &member.backend);
            match old.entry(member.backend.id) {
                Entry::Occupied(known) if is_same(known.get()) => known.remove(),
                _ => Rc::new(Upstream::new(member.backend.clone())),
            }
        }));
        let gone = old.into_values().filter(|upstream| upstream.has_tunnels());
        self.gone.borrow_mut().extend(gone);
    }

    pub(super) fn reconfigure(
        &self,
        pool: Arc<Pool>,
        reporter: Reporter,
        policy: Option<(Arc<Deployment>, Box<Instance>)>,
    ) {
        let known = self.settings();
        let settings = PoolSettings::new(known.dialing.worker, &pool, reporter, Some(&known));
        if !settings.dials_like(&known) {
            self.upstreams
                .borrow()
                .iter()
                .for_each(|upstream| upstream.change_era());
        }
        *self.settings.borrow_mut() = Rc::new(settings);
        if let Some(canary) = &mut *self.canary.borrow_mut() {
            canary.set_pool(pool.clone());
        }
        self.seat.borrow_mut().set_pool(pool);
        if let Some((deployment, instance)) = policy {
            self.install(deployment, *instance);
        }
    }

    /// Puts an instance into service where its version is expected: as the pool's policy, or as its canary.
    pub(super) fn install_expected(&self, deployment: Arc<Deployment>, instance: Instance) {
        if self.seat.borrow().expects(&deployment) {
            self.install(deployment, instance);
        } else if let Some(canary) = &mut *self.canary.borrow_mut()
            && canary.expects(&deployment)
        {
            discard(canary.install(deployment, instance));
        }
    }

    /// The seat's snapshot has to be the newest before an instance is shown it.
    fn install(&self, deployment: Arc<Deployment>, instance: Instance) {
        let mut seat = self.seat.borrow_mut();
        if seat.sync(clock::now_us()) {
            self.resync(&seat);
        }
        discard(seat.install(deployment, instance));
    }

    /// Has backends that get nothing new any more end what they have, in time.
    fn let_go(&self, now_ms: u64) {
        let within_ms = self.settings.borrow().config.drain_timeout.as_millis() as u64;
        let seat = self.seat.borrow();
        let upstreams = self.upstreams.borrow();
        for (member, upstream) in seat.snapshot().members.iter().zip(&*upstreams) {
            match member.state {
                State::Draining => upstream.leave(within_ms, now_ms),
                _ => upstream.stay(),
            }
        }
        self.gone.borrow_mut().retain(|upstream| {
            upstream.leave(within_ms, now_ms);
            upstream.has_tunnels()
        });
    }

    /// Begins a trial, or ends the one that is.
    pub(super) fn set_canary(&self, canary: Option<Canary>) {
        if let Some(old) = self.canary.replace(canary) {
            discard(old);
        }
    }

    /// Has decisions compared with those of a candidate, or ends that.
    pub(super) fn set_shadow(&self, shadow: Option<Arc<Shadow>>) {
        *self.shadow.borrow_mut() = shadow;
    }

    pub(super) fn sweep(&self, now_ms: u64) {
        self.sync(now_ms * 1000);
        self.let_go(now_ms);
        let mut seat = self.seat.borrow_mut();
        seat.flush_recording();
        if let Some(unneeded) = seat.sweep(now_ms * 1000) {
            discard(unneeded);
        }
        drop(seat);
        self.budget.roll();
        let longest_ms = self.settings.borrow().config.idle_timeout.as_millis() as u64;
        self.upstreams
            .borrow()
            .iter()
            .for_each(|upstream| upstream.sweep(longest_ms, now_ms));
    }
}
