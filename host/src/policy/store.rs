//! What an instance lives in: its store, with the limits of what it may use.
//!
//! Owns the limits on memory, tables and handles, and the judgement whether a late guest is to blame for it. It must not
//! call the guest.
//!
//! Invariant: a limit that said no is remembered, since the trap that follows does not tell.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::{
    Candidate, Facts, Tried,
    changes::Known,
    engine::TICK,
    grants::Restrictions,
    imports::{Guest, Log},
    lent::Column,
    native::Native,
};
use crate::{
    config::HashOn,
    http1::Head,
    pool::{Pool, Snapshot, View},
    tenant::Tenant,
};

/// Bytes that one call may copy out of the guest. The largest honest ones are lists of backends.
pub(super) const HOSTCALL_BYTES_MAX: usize = 1 << 20;
/// CPython's component has 38 core instances; each has a memory and some tables.
const CORE_INSTANCES_MAX: usize = 64;

/// Whom an instance works for.
pub(super) struct Owner<'a> {
    pub(super) pool: &'a str,
    pub(super) hash_on: &'a [HashOn],
    pub(super) tenant: Option<&'a Arc<Tenant>>,
    /// The requests are those of a log.
    pub(super) is_recorded: bool,
}

impl<'a> Owner<'a> {
    pub(super) fn of(pool: &'a Pool) -> Self {
        Self {
            pool: pool.name(),
            hash_on: &pool.config.hash_on,
            tenant: pool.tenant(),
            is_recorded: false,
        }
    }

    /// For an instance that nobody's requests go through.
    pub(super) fn nobody(name: &'a str) -> Self {
        Self {
            pool: name,
            hash_on: &[],
            tenant: None,
            is_recorded: false,
        }
    }
}

/// A store for an instance that works for this owner.
pub(super) fn new_store(
    candidate: &Candidate,
    owner: &Owner<'_>,
    snapshot: &Arc<Snapshot>,
    view: &Arc<View>,
) -> Store<Guest> {
    let spec = &candidate.spec;
    let guest = Guest {
        snapshot: snapshot.clone(),
        view: view.clone(),
        limits: Limits::new(spec.memory_bytes, owner.tenant.cloned()),
        restrictions: if owner.is_recorded {
            Restrictions::of_recorded(spec)
        } else {
            Restrictions::of(spec, owner.hash_on)
        },
        overtime: Overtime::default(),
        head: Head::default(),
        is_picking: false,
        tried: Tried::default(),
        facts: Facts::default(),
        native: Native::default(),
        rejected: None,
        note: None,
        reads: None,
        known: Known::default(),
        column: Column::default(),
        log: Log::new(owner, spec.name.as_str().into(), candidate.version.clone()),
        wasi: None,
    };
    let mut store = Store::new(candidate.pre.engine(), guest);
    store.limiter(|guest| &mut guest.limits);
    store.epoch_deadline_callback(|mut late| Ok(late.data_mut().overtime.judge()));
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(1024);
    // An error without effect on an engine that does not count, which is every balancer's.
    let _ = store.set_fuel(u64::MAX);
    store
}

/// Memory limits that remember whether they ever said no, so that the trap that follows can be called by its name. They
/// are for all memories and tables of a store together: a component may have many.
pub(super) struct Limits {
    bytes_max: usize,
    bytes: usize,
    /// Of `bytes`, what was granted last; the engine may find that it cannot be had.
    last: usize,
    tenant: Option<Arc<Tenant>>,
    /// By whom more was denied.
    pub(super) denied: Option<&'static str>,
}

impl Limits {
    fn new(bytes_max: usize, tenant: Option<Arc<Tenant>>) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            last: 0,
            tenant,
            denied: None,
        }
    }

    /// Memory and tables in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn grow(&mut self, more: usize) -> bool {
        let fits = self
            .bytes
            .checked_add(more)
            .is_some_and(|sum| sum <= self.bytes_max);
        if !fits {
            self.denied = Some("its limit");
            return false;
        }
        if !self
            .tenant
            .as_ref()
            .is_none_or(|tenant| tenant.claim(more as u64))
        {
            self.denied = Some("its tenant has left");
            return false;
        }
        self.bytes += more;
        self.last = more;
        true
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(tenant) = &self.tenant {
            tenant.release(bytes as u64);
        }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let last = std::mem::take(&mut self.last);
        self.give_back(last);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        Ok(self.grow(elements.saturating_mul(size_of::<usize>())))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_grow_failed(error)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        CORE_INSTANCES_MAX
    }
}

/// What a guest did since its deadline, or up to one tick before it. Deadlines count time, since counting work would cost
/// every call; but on a busy machine a worker may lose its core in the middle of a pick that needs 100 ns, and that is not
/// the guest's fault. So a late guest gets one tick more, and another, and is cut off only once it has spent half of its
/// deadline running, or nine tenths of a tick if that is more: all of a deadline of 2 ms and above, and at least 0.9 ms of
/// one of 1 ms.
#[derive(Default)]
pub(super) struct Overtime {
    allowed: Duration,
    /// The thread's CPU time at the first judgement.
    began: Option<Duration>,
    ticks: u32,
}

impl Overtime {
    /// A guest that is not let run for this many ticks is cut off anyway: its worker has waited long enough.
    const TICKS_MAX: u32 = 100;

    /// For a call with a deadline of so many ticks, the first of which may be as good as over.
    #[inline]
    pub(super) fn after(ticks: u64) -> Self {
        Self {
            allowed: (TICK * ticks as u32 / 2).max(TICK * 9 / 10),
            ..Self::default()
        }
    }

    fn judge(&mut self) -> UpdateDeadline {
        let now = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
        let began = *self.began.get_or_insert(now);
        self.ticks += 1;
        if now.saturating_sub(began) >= self.allowed || self.ticks > Self::TICKS_MAX {
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(time: Duration) {
        let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let end = now() + time;
        while now() < end {
            std::hint::black_box(0);
        }
    }

    #[test]
    fn a_guest_that_runs_on_is_cut_off_at_the_next_tick() {
        let mut overtime = Overtime::after(1);
        assert!(matches!(overtime.judge(), UpdateDeadline::Continue(1)));
        burn(Duration::from_micros(900));
        assert!(matches!(overtime.judge(), UpdateDeadline::Interrupt));
    }

    #[test]
    fn a_guest_that_was_not_let_run_is_given_time_but_not_for_ever() {
        let mut overtime = Overtime::after(1000);
        let granted = std::iter::repeat_with(|| overtime.judge());
        let granted = granted
            .take_while(|judgement| matches!(judgement, UpdateDeadline::Continue(1)))
            .count();
        assert!(
            granted > 1 && granted <= Overtime::TICKS_MAX as usize,
            "{granted}"
        );
    }
}
