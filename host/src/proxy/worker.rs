//! One worker: a thread with everything that its requests need.
//!
//! Owns the thread's runtime, its pools, listeners and connections, and the orders that reach it from outside. It must
//! not know where configurations come from.
//!
//! Invariant: nothing in a [`WorkerState`] is shared with another thread, except counters that only this worker writes.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender},
    oneshot,
};

use super::{
    accept::ListenerState,
    access::AccessLog,
    canary::Canary,
    pacing,
    places::Room,
    pool::{PoolSettings, WorkerPool},
    scratch::{Date, Scratch},
};
use crate::{
    clock, config,
    health::Reporter,
    metrics::{self, Metrics},
    policy::{Deployment, Instance, Rebuild, Seat},
    pool::Pool,
    rate,
    rollout::{Shadow, Split},
    tls::Terminator,
    warm::{Warm, WorkerWarm},
};

mod connections;
mod finish;
mod warm;
mod watch;

pub use finish::{Arrivals, Idle};
pub(super) use watch::SWEEP_EVERY_MS;

use connections::Connections;

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// Counters; each worker writes its own.
    pub metrics: Arc<Metrics>,
    /// Where orders for new instances go.
    pub rebuilds: UnboundedSender<Rebuild>,
}

/// An order to a worker.
pub enum Message {
    /// Put a configuration into service. Answered when it is.
    Apply(Box<Plan>, oneshot::Sender<()>),
    /// Put a new instance of the version in service into a pool's seat.
    Install {
        /// The pool's name.
        pool: String,
        /// The version it is an instance of.
        deployment: Arc<Deployment>,
        /// Built and tried.
        instance: Box<Instance>,
    },
    /// Have a candidate decide for a part of a pool's requests, in place of any other; without one, end that.
    Canary {
        /// The pool's name.
        pool: String,
        /// The candidate.
        canary: Option<Box<CanaryPlan>>,
    },
    /// Compare a pool's decisions with those of a candidate; without one, end that.
    Shadow {
        /// The pool's name.
        pool: String,
        /// The candidate.
        shadow: Option<Arc<Shadow>>,
    },
    /// Listen on these, in place of any others. Answered when it does.
    Listen(Vec<ListenerPlan>, oneshot::Sender<()>),
    /// Listen nowhere; what is under way goes on, and connections end with their next response. Answered when the sockets
    /// are gone.
    Withdraw(oneshot::Sender<()>),
    /// Have the connections that there are now end with their next response, and those that come meanwhile with their first.
    /// Answered when the former have, or after this time.
    Finish(Duration, Arrivals, oneshot::Sender<()>),
    /// Tell what another node would lack that takes this one's place; what policies have learned, too, or not.
    Tell(bool, oneshot::Sender<WorkerWarm>),
    /// Go on with what another node knew at this time, on this process's clock; with what its policies had learned, or without.
    GoOn(Arc<Warm>, u64, bool),
    /// Accept nothing more, finish what is under way, and end; after this time in any case.
    Stop(Duration, Idle),
}

/// A configuration as one worker gets it.
pub struct Plan {
    /// All listeners; those that are not among them are closed.
    pub listeners: Vec<ListenerPlan>,
    /// All pools; those that are not among them end with their last request.
    pub pools: Vec<PoolPlan>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
}

/// A listener of a [`Plan`].
pub struct ListenerPlan {
    /// Its rules.
    pub config: Arc<config::Listener>,
    /// What it needs for TLS; `None` without.
    pub tls: Option<Arc<Terminator>>,
    /// What the workers tell each other to keep its rates; `None` where it has none.
    pub rates: Option<Arc<rate::Shared>>,
    /// What is counted of it.
    pub counters: Arc<metrics::Listener>,
    /// Its sockets; none where the worker has them already.
    pub sockets: Vec<std::net::TcpListener>,
}

/// A pool of a [`Plan`].
pub struct PoolPlan {
    /// The backends.
    pub pool: Arc<Pool>,
    /// Where failures are reported.
    pub reporter: Reporter,
    /// A policy to put into service; `None` where the one in service stays.
    pub policy: Option<(Arc<Deployment>, Box<Instance>)>,
}

/// A candidate as one worker gets it.
pub struct CanaryPlan {
    /// The version on trial.
    pub deployment: Arc<Deployment>,
    /// Built and tried.
    pub instance: Instance,
    /// Its share, and where both arms are measured.
    pub split: Arc<Split>,
}

/// A worker before it runs: it can be sent to its thread.
pub struct Worker {
    /// From 0.
    pub id: usize,
    /// What it shares.
    pub shared: Shared,
    /// Its orders.
    pub messages: UnboundedReceiver<Message>,
}

impl Worker {
    /// Runs until it is told to stop. Blocks the thread.
    ///
    /// # Errors
    /// When the thread cannot have a runtime.
    pub fn run(self) -> std::io::Result<()> {
        let Self {
            id,
            shared,
            mut messages,
        } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        runtime.block_on(async move {
            let state = Rc::new(WorkerState::new(id, shared));
            tokio::task::spawn_local(watch::run(state.clone()));
            while let Some(message) = messages.recv().await {
                match message {
                    Message::Apply(plan, done) => {
                        state.apply(*plan);
                        // Nobody waits for the answer when the process is stopping.
                        let _ = done.send(());
                    }
                    Message::Install {
                        pool,
                        deployment,
                        instance,
                    } => state.install(&pool, deployment, *instance),
                    Message::Shadow { pool, shadow } => state.set_shadow(&pool, shadow),
                    Message::Canary { pool, canary } => state.set_canary(&pool, canary.map(|plan| *plan)),
                    Message::Listen(listeners, done) => {
                        state.apply_listeners(listeners);
                        state.set_watch_pace();
                        let _ = done.send(());
                    }
                    Message::Withdraw(done) => {
                        state.withdraw().await;
                        let _ = done.send(());
                    }
                    Message::Finish(within, arrivals, done) => {
                        tokio::task::spawn_local(state.clone().finish(within, arrivals, done));
                    }
                    Message::Tell(with_states, done) => {
                        let _ = done.send(state.tell(with_states));
                    }
                    Message::GoOn(warm, told_us, with_states) => state.go_on(&warm, told_us, with_states),
                    Message::Stop(within, idle) => return state.stop(within, idle).await,
                }
            }
        });
        Ok(())
    }
}

/// A worker as its requests see it.
pub(super) struct WorkerState {
    pub(super) id: usize,
    shared: Shared,
    clock: Rc<Cell<u64>>,
    random: RefCell<fastrand::Rng>,
    access_log: RefCell<Option<AccessLog>>,
    pub(super) scratch: Scratch,
    pub(super) pools: RefCell<HashMap<String, Rc<WorkerPool>>>,
    listeners: RefCell<HashMap<String, Rc<ListenerState>>>,
    connections: RefCell<Connections>,
    next_connection: Cell<u64>,
    /// Orders to finish that are being carried out.
    finishes: Cell<usize>,
    watch_every: Cell<Duration>,
    pub(super) room: Room,
}

impl WorkerState {
    fn new(id: usize, shared: Shared) -> Self {
        Self {
            id,
            shared,
            clock: Rc::new(Cell::new(clock::now_us() / 1000)),
            random: RefCell::new(fastrand::Rng::new()),
            access_log: RefCell::new(None),
            scratch: Scratch::default(),
            pools: RefCell::default(),
            listeners: RefCell::default(),
            connections: RefCell::default(),
            finishes: Cell::new(0),
            next_connection: Cell::new(0),
            watch_every: Cell::new(watch::EVERY_MAX),
            room: Room::new(),
        }
    }

    /// Reads the clock, and sets the coarse one by it.
    #[inline]
    pub(super) fn tick(&self) -> u64 {
        let now_us = clock::now_us();
        self.clock.set(now_us / 1000);
        now_us
    }

    /// The time of the last [`Self::tick`], at most 100 ms ago.
    #[inline]
    pub(super) fn coarse_ms(&self) -> u64 {
        self.clock.get()
    }

    #[inline]
    pub(super) fn date(&self) -> Date {
        self.scratch.date(self.coarse_ms())
    }

    #[inline]
    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    #[inline]
    pub(super) fn metrics(&self) -> &metrics::Worker {
        &self.shared.metrics.workers[self.id]
    }

    pub(super) fn access_log(&self) -> Option<Ref<'_, AccessLog>> {
        Ref::filter_map(self.access_log.borrow(), Option::as_ref).ok()
    }

    fn apply(self: &Rc<Self>, plan: Plan) {
        *self.access_log.borrow_mut() = plan.access_log;
        let mut pools = HashMap::new();
        for PoolPlan {
            pool,
            reporter,
            policy,
        } in plan.pools
        {
            let name = pool.name().to_owned();
            let known = self.pools.borrow().get(&name).cloned();
            let applied = match (known, policy) {
                (Some(known), policy) => {
                    known.reconfigure(pool, reporter, policy);
                    known
                }
                (None, Some((deployment, instance))) => {
                    let seat = Seat::new(
                        self.id,
                        pool.clone(),
                        deployment,
                        *instance,
                        self.shared.rebuilds.clone(),
                    );
                    Rc::new(WorkerPool::new(
                        PoolSettings::new(self.id, &pool, reporter, None),
                        seat,
                    ))
                }
                // The plan's maker knows which pools are new; without a policy there is nobody to decide.
                (None, None) => {
                    tracing::error!(pool = name, "bug: a new pool without a policy was left out");
                    continue;
                }
            };
            pools.insert(name, applied);
        }
        *self.pools.borrow_mut() = pools;
        self.apply_listeners(plan.listeners);
        self.set_watch_pace();
    }

    fn apply_listeners(self: &Rc<Self>, plans: Vec<ListenerPlan>) {
        let mut listeners = HashMap::new();
        for ListenerPlan {
            config,
            tls,
            rates,
            counters,
            sockets,
        } in plans
        {
            let key = config.key();
            let known = self.listeners.borrow_mut().remove(&key);
            let rates = pacing::limiter(self.id, &config, (rates, known.as_deref()));
            let rules = Rc::new(self.rules(config, tls, rates));
            let listener = match known {
                Some(known) => {
                    known.set_rules(rules);
                    known
                }
                None => Rc::new(ListenerState::new(rules, counters)),
            };
            sockets.into_iter().for_each(|socket| listener.open(self, socket));
            listeners.insert(key, listener);
        }
        let closed = self.listeners.replace(listeners);
        closed.into_values().for_each(|listener| listener.close());
    }

    fn install(&self, pool: &str, deployment: Arc<Deployment>, instance: Instance) {
        if let Some(pool) = self.pools.borrow().get(pool) {
            pool.install_expected(deployment, instance);
        }
    }

    fn set_canary(&self, pool: &str, plan: Option<CanaryPlan>) {
        if let Some(pool) = self.pools.borrow().get(pool) {
            let rebuilds = self.shared.rebuilds.clone();
            let backends = pool.seat().pool().clone();
            pool.set_canary(plan.map(|plan| Canary::new(self.id, backends, plan, rebuilds)));
        }
    }

    fn set_shadow(&self, pool: &str, shadow: Option<Arc<Shadow>>) {
        if let Some(pool) = self.pools.borrow().get(pool) {
            pool.set_shadow(shadow);
        }
    }

    /// Tells every connection. How many are idle and stay until their next request.
    fn tell_to_stop(&self, idle: Idle) -> usize {
        let connections = self.connections.borrow();
        let watches = connections.values().map(|(watch, _)| watch);
        match idle {
            Idle::Close => {
                watches.for_each(|watch| watch.stop());
                0
            }
            Idle::Answer => watches.filter(|watch| watch.stop_with_an_answer()).count(),
        }
    }

    async fn stop(&self, within: Duration, idle: Idle) {
        let listeners = self.listeners.take();
        listeners.values().for_each(|listener| listener.close());
        let deadline = tokio::time::Instant::now() + within;
        let mut waiting = 0;
        while tokio::time::Instant::now() < deadline {
            // Connections that the listeners' queues still held come in during the first rounds, so all are told again.
            waiting = self.tell_to_stop(idle);
            let are_closed = listeners.values().all(|listener| listener.is_closed());
            if are_closed && self.connections.borrow().is_empty() {
                return;
            }
            tokio::time::sleep(watch::EVERY_MIN).await;
        }
        // Closing what is idle cuts nothing.
        let cut = self.connections.borrow().len().saturating_sub(waiting);
        if cut > 0 {
            tracing::warn!(
                worker = self.id,
                connections = cut,
                "drain time is over, connections are cut"
            );
        }
    }
}
