//! One simulated balancer: a pool, a seat for each worker, and what watches over the backends.
//!
//! Owns the way from virtual time to the host's own code, which is the code that serves: `pool::Pool`, `policy::Seat`,
//! the columns of `pool::View`, the tallies of `health`. It must not decide anything of its own.
//!
//! Invariant: the host's code is told the virtual time only, so that a run is the same on every machine and at any pace.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    SimulateError,
    agenda::Ns,
    cast::{Actor, DEADLINE, zone_of},
    draw::{Draw, Purpose},
    fleet::Fleet,
};
use crate::{
    config::{self, Scenario},
    health::{Conduct, Past, Tally, Verdict},
    policy::{Decision, Deployment, Ended, Facts, Instance, Rebuild, Seat, Tried},
    pool::{Backend, Elsewhere, Pool},
};

/// What the host's clock says at the beginning: it never says 0, which means never.
const BEGIN_US: u64 = 1_000_000;

/// From virtual time to the forms that the host's code takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    begin: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
        }
    }

    fn instant(self, now: Ns) -> Instant {
        self.begin + Duration::from_nanos(now)
    }

    fn ns(self, instant: Instant) -> Ns {
        let since = instant.saturating_duration_since(self.begin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Microseconds, as the host counts them.
pub(super) fn now_us(now: Ns) -> u64 {
    BEGIN_US + now / 1000
}

/// A balancer.
pub(super) struct Node {
    number: u32,
    clock: Clock,
    pool: Arc<Pool>,
    /// Which server each position of the pool is.
    servers: Vec<u32>,
    seats: Vec<Seat>,
    deployment: Arc<Deployment>,
    rebuilds: UnboundedReceiver<Rebuild>,
    watched: BTreeMap<u32, Watched>,
    pub(super) zone: Option<String>,
}

/// What the checks of a backend have come to.
struct Watched {
    id: u64,
    tally: Option<Tally>,
    conduct: Conduct,
}

/// Where an attempt goes.
pub(super) struct Target {
    pub(super) server: u32,
    pub(super) backend: Arc<Backend>,
    pub(super) generation: u64,
    pub(super) index: usize,
}

/// What becomes of a request.
pub(super) enum Decided {
    Send(Target),
    Reject,
    NoBackend,
}

impl Node {
    /// A balancer with a new instance of the policy in each worker.
    pub(super) fn new(
        (scenario, fleet): (&Scenario, &Fleet<'_>),
        number: u32,
        actor: &Actor,
        (clock, draw): (Clock, Draw),
    ) -> Result<Self, SimulateError> {
        let (pool, servers) = make_pool(scenario, fleet, None, clock.instant(0));
        let pool = Arc::new(pool.with_own_generations(clock.instant(0)));
        let candidate = actor.candidates[number as usize].clone();
        let workers = scenario.balancers.workers as usize;
        let deployment = Arc::new(Deployment::new(candidate, pool.name(), workers));
        let (orders, rebuilds) = unbounded_channel();
        let mut node = Self {
            number,
            clock,
            pool,
            servers,
            seats: Vec::new(),
            deployment,
            rebuilds,
            watched: BTreeMap::new(),
            zone: zone_of(scenario, number).map(str::to_owned),
        };
        for worker in 0..workers {
            let instance = node.instance(worker, 0, draw);
            let unfit =
                |fault| SimulateError::Policy(format!("{}: fails before it serves: {fault}", actor.name));
            let seat = Seat::new_at(
                now_us(0),
                worker,
                node.pool.clone(),
                node.deployment.clone(),
                instance.map_err(unfit)?,
                orders.clone(),
            );
            node.seats.push(seat);
        }
        node.watch();
        Ok(node)
    }

    /// Builds an instance, as the host does for a worker. The trial pick's facts are drawn.
    fn instance(&self, worker: usize, now: Ns, draw: Draw) -> Result<Instance, crate::policy::Fault> {
        let bits = |part: u64| {
            let number = now ^ (u64::from(self.number) << 48 | (worker as u64) << 40 | part << 63);
            draw.bits(Purpose::Trial, number)
        };
        let facts = Facts {
            key: bits(0),
            random: bits(1),
            client: 1,
            now_us: now_us(now),
        };
        let instance = Instance::build_at(&self.deployment.candidate, &self.pool, &facts)?;
        Ok(instance.with_update_deadline(DEADLINE))
    }

    /// The host's counters of decisions.
    pub(super) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// What was wrong with the policy last.
    pub(super) fn last_fault(&self) -> Option<String> {
        let fault = self.seats.iter().find_map(Seat::last_fault)?;
        Some(fault.to_string())
    }

    /// Decides one attempt, and counts it as begun.
    pub(super) fn decide(
        &mut self,
        worker: u32,
        facts: &Facts,
        tried: &Tried,
        head: &mut crate::http1::Head,
    ) -> Decided {
        let seat = &mut self.seats[worker as usize];
        seat.sync(facts.now_us);
        let generation = seat.snapshot().generation;
        let index = match seat.decide(facts, tried, head) {
            Decision::Send(choice) => choice.index,
            Decision::Reject(_) => return Decided::Reject,
            Decision::NoBackend => return Decided::NoBackend,
        };
        let backend = seat.snapshot().members[index].backend.clone();
        backend.load(worker as usize).begin();
        seat.begin(generation, index);
        Decided::Send(Target {
            server: self.servers[index],
            backend,
            generation,
            index,
        })
    }

    /// An attempt has ended, with this status if an answer came. True if the backend was ejected for it.
    pub(super) fn end(
        &mut self,
        worker: u32,
        target: &Target,
        (began, now): (Ns, Ns),
        (status, bytes): (Option<u16>, u64),
    ) -> bool {
        let (latency_us, now_us) = ((now - began) / 1000, now_us(now));
        let load = target.backend.load(worker as usize);
        load.record_latency(latency_us, now_us);
        let in_a_row = load.record_status(status);
        load.record_bytes(0, bytes, now_us / 1000);
        load.end();
        self.seats[worker as usize].end(&Ended {
            generation: target.generation,
            index: target.index,
            backend: target.backend.id,
            latency_us,
            bytes,
            status,
            now_us,
        });
        let rule = self.pool.config.outlier.as_ref();
        let is_too_many =
            |rule: &config::Outlier| in_a_row > 0 && in_a_row.is_multiple_of(rule.consecutive_failures.get());
        if !rule.is_some_and(is_too_many) {
            return false;
        }
        let is_ejected = self
            .pool
            .eject(target.backend.id, self.clock.instant(now))
            .is_some();
        if is_ejected
            && let Some(watched) = self.watched.get_mut(&target.server)
            && let Some(tally) = &mut watched.tally
        {
            tally.forget_good();
        }
        is_ejected
    }

    /// Does what is due in the pool, as the host's supervisor does. Gives the time of the next look.
    pub(super) fn look(&mut self, now: Ns) -> Option<Ns> {
        let instant = self.clock.instant(now);
        let mut next = self.pool.advance(instant);
        let max_ejection = self.pool.config.outlier.as_ref().map(|rule| rule.max_ejection);
        let snapshot = self.pool.snapshot();
        for (server, member) in self.servers.iter().zip(&snapshot.members) {
            let Some(watched) = self.watched.get_mut(server) else {
                continue;
            };
            watched.conduct.observe(member.state, instant);
            let forgiven_at = max_ejection.and_then(|time| watched.conduct.forgiven_at(time));
            if forgiven_at.is_some_and(|at| at <= instant) {
                self.pool.forgive(member.backend.id);
                watched.conduct = Conduct::Clean;
            } else {
                next = [next, forgiven_at].into_iter().flatten().min();
            }
        }
        next.map(|next| self.clock.ns(next))
    }

    /// A check of a backend ended. True if that changed the pool.
    pub(super) fn checked(&mut self, server: u32, ok: bool, now: Ns) -> bool {
        let Some(watched) = self.watched.get_mut(&server) else {
            return false;
        };
        let Some(tally) = &mut watched.tally else {
            return false;
        };
        let verdict = if ok { tally.good() } else { tally.bad() };
        verdict.is_some_and(|verdict| {
            let is_down = verdict == Verdict::Down;
            self.pool.set_down(watched.id, is_down, self.clock.instant(now))
        })
    }

    /// An operator drains a backend, or puts it back.
    pub(super) fn drain(&mut self, server: u32, drains: bool, now: Ns) {
        if let Some(watched) = self.watched.get(&server) {
            self.pool
                .set_draining(watched.id, drains, self.clock.instant(now));
        }
    }

    /// The configuration names other backends now: a reload.
    pub(super) fn reload(&mut self, scenario: &Scenario, fleet: &Fleet<'_>, now: Ns) {
        let (pool, servers) = make_pool(scenario, fleet, Some(&self.pool), self.clock.instant(now));
        (self.pool, self.servers) = (Arc::new(pool), servers);
        for seat in &mut self.seats {
            seat.set_pool(self.pool.clone());
        }
        self.watch();
    }

    /// Begins to watch over backends that are new.
    fn watch(&mut self) {
        let mut known = std::mem::take(&mut self.watched);
        let rule = self.pool.config.health.as_ref();
        for (server, member) in self.servers.iter().zip(&self.pool.snapshot().members) {
            let fresh = || Watched {
                id: member.backend.id,
                // What a simulation begins with has worked before.
                tally: rule.map(|rule| Tally::new(rule, Past::Proven)),
                conduct: Conduct::Clean,
            };
            let watched = known.remove(server).unwrap_or_else(fresh);
            self.watched.insert(*server, watched);
        }
    }

    /// An instance that is wanted in place of one that failed, and the pause before it.
    pub(super) fn next_order(&mut self) -> Option<Rebuild> {
        self.rebuilds.try_recv().ok()
    }

    /// Builds what was ordered. False if it failed before it could serve.
    pub(super) fn rebuild(&mut self, worker: usize, now: Ns, draw: Draw) -> bool {
        match self.instance(worker, now, draw) {
            Ok(instance) => {
                self.seats[worker].install_at(self.deployment.clone(), instance, now_us(now));
                true
            }
            Err(_) => false,
        }
    }

    /// A second is over.
    pub(super) fn sweep(&mut self, now: Ns) {
        for seat in &mut self.seats {
            seat.sweep(now_us(now));
        }
    }

    /// Adds what is in flight from this balancer to the sums of all backends.
    pub(super) fn add_in_flight(&self, sums: &mut [u32]) {
        for (server, active) in self.in_flight() {
            sums[server as usize] += active;
        }
    }

    /// Takes note of what all balancers have in flight, this one's own among it.
    pub(super) fn learn(&self, sums: &[u32], now: Ns) {
        let snapshot = self.pool.snapshot();
        for ((server, own), member) in self.in_flight().zip(&snapshot.members) {
            let elsewhere = Elsewhere {
                active: sums[server as usize].saturating_sub(own),
                rate: 0,
                told_ms: now_us(now) / 1000,
            };
            member.backend.others.tell(elsewhere, u64::MAX);
        }
    }

    /// What each backend has in flight from this balancer's workers.
    fn in_flight(&self) -> impl Iterator<Item = (u32, u32)> {
        let snapshot = self.pool.snapshot();
        let own = move |place: usize| snapshot.members[place].backend.active();
        self.servers
            .iter()
            .enumerate()
            .map(move |(place, server)| (*server, own(place)))
    }
}

/// A pool of the backends that are there now.
fn make_pool(
    scenario: &Scenario,
    fleet: &Fleet<'_>,
    previous: Option<&Pool>,
    now: Instant,
) -> (Pool, Vec<u32>) {
    let servers = fleet.members();
    let spec = |server: &u32| {
        let server = &fleet.servers[*server as usize];
        let group = &scenario.groups[server.group];
        config::Backend {
            address: server.address.clone(),
            weight: group.weight,
            zone: group.zone.clone(),
            tier: group.tier,
            labels: group.labels.clone(),
        }
    };
    let config = config::Pool {
        backends: servers.iter().map(spec).collect(),
        ..(*scenario.pool).clone()
    };
    // Nobody connects to it.
    let socket = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let sockets = vec![socket; servers.len()];
    let workers = scenario.balancers.workers as usize;
    let pool = Pool::new(Arc::new(config), &sockets, workers, previous, now);
    (pool, servers)
}
