//! The backends of a route: their identity, live load, condition, and the snapshot that picks see.
//!
//! Owns every change of a backend's state: health, ejection, drain, weight and slow start all go through [`Pool`], which
//! publishes a new [`Snapshot`] after each change. It must not do I/O, await, or read a clock: callers pass `now`.
//!
//! Invariants: a published snapshot never changes; its generation only grows; the ready share never falls below what
//! `max_ejected` allows by ejections alone. Workers only read (`snapshot`, `generation`); the lock is the control plane's.
//! Read next: `pool/snapshot.rs` (who is usable), `pool/view.rs` (live load), `health.rs` (who calls this).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use crate::{config, sticky::Sticky, tenant::Tenant, tls::Originator};

mod backend;
mod counts;
mod following;
mod load;
mod others;
mod snapshot;
mod standing;
mod view;

pub use backend::{Backend, State};
pub use counts::Counts;
pub use load::{LatencySum, Load};
pub use others::{Elsewhere, Others, Told};
pub use snapshot::{Member, Snapshot};
pub use standing::Standing;
pub use view::{Figures, View};

pub(crate) use load::add;

use backend::Status;
use counts::AllCounts;
use snapshot::Rules;

/// The backends of a route.
#[derive(Debug)]
pub struct Pool {
    /// What the configuration says; a reload makes a new pool that takes over the backends.
    pub config: Arc<config::Pool>,
    tenant: Option<Arc<Tenant>>,
    tls: Option<Arc<Originator>>,
    sticky: Option<Arc<Sticky>>,
    slots: Mutex<Vec<Slot>>,
    snapshot: ArcSwap<Snapshot>,
    generation: CachePadded<AtomicU64>,
    generations: Generations,
    counts: AllCounts,
}

/// Generations count over all pools, so that they never repeat for a policy that outlives its pool in a reload.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// What a pool's generations are counted by.
#[derive(Clone, Debug)]
enum Generations {
    /// All pools of the process together.
    Process,
    /// Only those that follow each other, so that the numbers are the same in every run.
    Own(Arc<AtomicU64>),
}

impl Generations {
    fn next(&self) -> u64 {
        let last = match self {
            Self::Process => &GENERATIONS,
            Self::Own(last) => last,
        };
        last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One backend with its condition.
#[derive(Clone, Debug)]
struct Slot {
    backend: Arc<Backend>,
    spec: config::Backend,
    labels: Arc<BTreeMap<String, String>>,
    zone: u16,
    status: Status,
}

impl Slot {
    fn weight(&self) -> u32 {
        self.status.weight.unwrap_or(self.spec.weight)
    }

    /// The condition that this backend of pool `old` begins with in a pool with the configuration `new`.
    fn status_after(
        &self,
        spec: &config::Backend,
        socket: SocketAddr,
        old: &Pool,
        new: &config::Pool,
    ) -> Status {
        let moved = self.backend.socket != socket;
        let mut status = if moved {
            self.status.moved()
        } else {
            self.status.taken_over(&old.config, new)
        };
        if self.spec.weight != spec.weight {
            status.weight = None;
        }
        status
    }
}

impl Pool {
    /// A pool whose backends are all taken to be healthy until something is known. Backends that `previous` has too (by
    /// address) are taken over with their counters and condition, or, when the name now leads elsewhere, with what an
    /// operator said; a weight set by an operator is kept unless the file's own weight for that backend changed.
    /// `sockets` are the resolved addresses, in the order of the configuration. What `previous` learns after this call
    /// is lost, so stop its supervisor first.
    pub fn new(
        config: Arc<config::Pool>,
        sockets: &[SocketAddr],
        workers: usize,
        previous: Option<&Self>,
        now: Instant,
    ) -> Self {
        debug_assert_eq!(config.backends.len(), sockets.len(), "one socket a backend");
        let old = previous.map(|pool| pool.lock().clone()).unwrap_or_default();
        let generations = previous.map_or(Generations::Process, |pool| pool.generations.clone());
        let generation = generations.next();
        let zones = number_zones(&config.backends);
        let specs = config.backends.iter().zip(sockets).zip(zones);
        let slots: Vec<Slot> = specs
            .map(|((spec, socket), zone)| {
                let known = old.iter().find(|slot| slot.spec.address == spec.address);
                let status = previous.zip(known);
                let status = status.map(|(pool, slot)| slot.status_after(spec, *socket, pool, &config));
                // With another number of workers the counters do not fit; they start again, the condition stays.
                let same = known
                    .map(|slot| &slot.backend)
                    .filter(|backend| backend.socket == *socket && backend.workers() == workers);
                let new = || Arc::new(Backend::new(&spec.address, *socket, workers));
                Slot {
                    backend: same.cloned().unwrap_or_else(new),
                    labels: Arc::new(spec.labels.clone()),
                    spec: spec.clone(),
                    zone,
                    status: status.unwrap_or_default(),
                }
            })
            .collect();
        let snapshot = take_snapshot(&config, &slots, generation, now);
        let known_counts = previous.map(|pool| pool.counts.clone());
        let known_counts = known_counts.filter(|counts| counts.workers() == workers);
        Self {
            config,
            tenant: None,
            tls: None,
            sticky: None,
            slots: Mutex::new(slots),
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: CachePadded::new(AtomicU64::new(generation)),
            generations,
            counts: known_counts.unwrap_or_else(|| AllCounts::new(workers)),
        }
    }

    /// The same pool with generations of its own, as have those that follow it: what policies are told then does not
    /// depend on the other pools of the process.
    #[must_use]
    pub fn with_own_generations(mut self, now: Instant) -> Self {
        self.generations = Generations::Own(Arc::default());
        self.publish(&self.lock(), now);
        self
    }

    /// The same pool, of this tenant.
    #[must_use]
    pub fn of_tenant(self, tenant: Option<Arc<Tenant>>) -> Self {
        Self { tenant, ..self }
    }

    /// The same pool, whose backends are reached over TLS in this way.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Originator>>) -> Self {
        Self { tls, ..self }
    }

    /// How TLS begins with its backends; `None` where they speak plain text.
    pub fn tls(&self) -> Option<&Arc<Originator>> {
        self.tls.as_ref()
    }

    /// The same pool, with sticky sessions.
    #[must_use]
    pub fn with_sticky(self, sticky: Option<Arc<Sticky>>) -> Self {
        Self { sticky, ..self }
    }

    /// Its sticky sessions; `None` where each request is the policy's.
    pub fn sticky(&self) -> Option<&Arc<Sticky>> {
        self.sticky.as_ref()
    }

    /// Whose it is.
    #[inline]
    pub fn tenant(&self) -> Option<&Arc<Tenant>> {
        self.tenant.as_ref()
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// How many workers serve it.
    pub fn workers(&self) -> usize {
        self.counts.workers()
    }

    /// What this worker counts of it.
    #[inline]
    pub fn counts(&self, worker: usize) -> &Counts {
        self.counts.of(worker)
    }

    /// Requests that wait for a backend with room.
    pub fn waiting(&self) -> u64 {
        (0..self.workers())
            .map(|worker| self.counts(worker).waiting())
            .sum()
    }

    /// A count, summed over all workers.
    pub fn total(&self, read: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        self.counts.total(read)
    }

    /// The backends now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Cheap to read: whether a snapshot kept from before is still the current one.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Active checks found a backend dead, or alive again. Coming back also ends an ejection: the backend has just proved
    /// that it answers. True if this changed anything.
    pub fn set_down(&self, id: u64, down: bool, now: Instant) -> bool {
        self.change(id, now, |status, slow_start| {
            let recovered = !down && (status.down || status.ejected_until.is_some());
            if status.down == down && !recovered {
                return false;
            }
            status.down = down;
            if recovered {
                status.readmit(slow_start, now);
            }
            true
        })
    }

    /// Real requests failed: takes the backend out for a while, and gives that time, which grows with each ejection in a
    /// row. `None` when it is out already (for whatever cause), ejection is off, or too many others are ejected.
    pub fn eject(&self, id: u64, now: Instant) -> Option<Duration> {
        let rule = self.config.outlier.as_ref()?;
        let mut slots = self.lock();
        let (size, ejected) = (
            slots.len(),
            slots.iter().filter(|slot| slot.status.is_ejected(now)).count(),
        );
        // One may always be ejected: in a pool of two, 10 percent would otherwise mean never.
        if ejected > 0 && (ejected + 1) * 100 > usize::from(rule.max_ejected) * size {
            return None;
        }
        let slot = slots.iter_mut().find(|slot| slot.backend.id == id)?;
        let time = slot.status.eject(rule, now)?;
        self.publish(&slots, now);
        Some(time)
    }

    /// An operator takes a backend out, or puts it back. True if this changed anything; `None` without such a backend.
    pub fn set_draining(&self, id: u64, draining: bool, now: Instant) -> Option<bool> {
        self.find(id)?;
        Some(self.change(id, now, |status, _| {
            std::mem::replace(&mut status.draining, draining) != draining
        }))
    }

    /// An operator sets a weight, until the configuration's own weight for that backend changes. True if this changed
    /// anything; `None` without such a backend.
    pub fn set_weight(&self, id: u64, weight: u32, now: Instant) -> Option<bool> {
        self.find(id)?;
        Some(self.change(id, now, |status, _| status.weight.replace(weight) != Some(weight)))
    }

    /// Ends ejections whose time is over and goes on with slow starts. To be called at the time that it gave last, or
    /// after any change; gives the next one.
    pub fn advance(&self, now: Instant) -> Option<Instant> {
        let slow_start = self.config.slow_start;
        let mut slots = self.lock();
        let mut changed = false;
        for slot in slots.iter_mut() {
            if slot.status.ejected_until.is_some_and(|until| until <= now) {
                slot.status.readmit(slow_start, now);
                changed = true;
            }
        }
        let snapshot = self.snapshot.load();
        changed |= slots
            .iter()
            .zip(&snapshot.members)
            .any(|(slot, member)| slot.status.ramp(slow_start, now) != member.ramp);
        let next = slots
            .iter()
            .filter_map(|slot| slot.status.next_change(slow_start, now))
            .min();
        if changed {
            self.publish(&slots, now);
        }
        next
    }

    /// A backend answered well for as long as an ejection could last: its ejections no longer count.
    pub fn forgive(&self, id: u64) {
        if let Some(slot) = self.lock().iter_mut().find(|slot| slot.backend.id == id) {
            slot.status.ejections = 0;
        }
    }

    /// Whether a backend is known to have worked: it passed an active check, or served while nothing checked it. Kept over
    /// reloads. False without such a backend.
    pub fn is_proven(&self, id: u64) -> bool {
        self.lock()
            .iter()
            .any(|slot| slot.backend.id == id && slot.status.proven)
    }

    /// A backend passed an active check. Picks do not depend on it, so nothing is published.
    pub fn prove(&self, id: u64) {
        if let Some(slot) = self.lock().iter_mut().find(|slot| slot.backend.id == id) {
            slot.status.proven = true;
        }
    }

    fn find(&self, id: u64) -> Option<()> {
        self.lock().iter().any(|slot| slot.backend.id == id).then_some(())
    }

    fn change(&self, id: u64, now: Instant, change: impl FnOnce(&mut Status, Duration) -> bool) -> bool {
        let mut slots = self.lock();
        let Some(slot) = slots.iter_mut().find(|slot| slot.backend.id == id) else {
            return false;
        };
        let changed = change(&mut slot.status, self.config.slow_start);
        if changed {
            self.publish(&slots, now);
        }
        changed
    }

    fn publish(&self, slots: &[Slot], now: Instant) {
        let generation = self.generations.next();
        self.snapshot
            .store(Arc::new(take_snapshot(&self.config, slots, generation, now)));
        self.generation.store(generation, Ordering::Release);
    }

    /// A panic while the lock was held cannot leave a slot half changed, so poisoning says nothing here.
    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each backend's zone, as its number in order of first appearance.
fn number_zones(backends: &[config::Backend]) -> Vec<u16> {
    let mut zones: Vec<&Option<String>> = Vec::new();
    let mut numbers = Vec::with_capacity(backends.len());
    for config::Backend { zone, .. } in backends {
        let number = zones
            .iter()
            .position(|known| *known == zone)
            .unwrap_or(zones.len());
        if number == zones.len() {
            zones.push(zone);
        }
        numbers.push(number as u16);
    }
    numbers
}

fn take_snapshot(config: &config::Pool, slots: &[Slot], generation: u64, now: Instant) -> Snapshot {
    let members = slots.iter().map(|slot| Member {
        backend: slot.backend.clone(),
        configured: slot.weight(),
        weight: slot.weight(),
        ramp: slot.status.ramp(config.slow_start, now),
        zone: slot.zone,
        tier: slot.spec.tier,
        labels: slot.labels.clone(),
        state: slot.status.state(),
        usable: false,
    });
    let own = |slot: &&Slot| config.zone.is_some() && slot.spec.zone == config.zone;
    let rules = Rules {
        panic_threshold: config.panic_threshold,
        overflow: config.overflow,
        zone: slots.iter().find(own).map(|slot| slot.zone),
    };
    Snapshot::new(generation, members.collect(), rules)
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
