//! What an instance lives in: its store, with the limits of what it may use.
//!
//! Owns the limits on memory, tables and handles, and the judgement whether a late guest is to blame for it. It must not
//! call the guest.
//!
//! Invariant: a limit that said no is remembered, since the trap that follows does not tell.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline};

use super::{
    Candidate, Tried,
    engine::TICK,
    imports::{Guest, Log},
};
use crate::{
    http1::Head,
    pool::{Snapshot, View},
};

/// Bytes that one call may copy out of the guest. The largest honest ones are lists of backends.
const HOSTCALL_BYTES_MAX: usize = 1 << 20;
/// CPython's component has 38 core instances; each has a memory and some tables.
const CORE_INSTANCES_MAX: usize = 64;

/// A store for an instance that decides for the pool of this name.
pub(super) fn new_store(
    candidate: &Candidate,
    pool: &str,
    snapshot: &Arc<Snapshot>,
    view: &Arc<View>,
) -> Store<Guest> {
    let spec = &candidate.spec;
    let limits = StoreLimitsBuilder::new()
        .memory_size(spec.memory_bytes)
        .instances(CORE_INSTANCES_MAX)
        .memories(CORE_INSTANCES_MAX)
        .tables(CORE_INSTANCES_MAX)
        .table_elements(1 << 20)
        .build();
    let guest = Guest {
        snapshot: snapshot.clone(),
        view: view.clone(),
        limits: Limits {
            inner: limits,
            denied: false,
        },
        overtime: Overtime::default(),
        head: Head::default(),
        is_picking: false,
        tried: Tried::default(),
        random: 0,
        rejected: None,
        note: None,
        reads: None,
        log: Log::new(pool.into(), spec.name.as_str().into(), candidate.version.clone()),
        wasi: None,
    };
    let mut store = Store::new(candidate.pre.engine(), guest);
    store.limiter(|guest| &mut guest.limits);
    store.epoch_deadline_callback(|mut late| Ok(late.data_mut().overtime.judge()));
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(1024);
    store
}

/// Memory limits that remember whether they ever said no, so that the trap that follows can be called by its name.
pub(super) struct Limits {
    inner: StoreLimits,
    pub(super) denied: bool,
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.inner.memory_growing(current, desired, maximum)?;
        self.denied |= !granted;
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.inner.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.inner.instances()
    }

    fn tables(&self) -> usize {
        self.inner.tables()
    }

    fn memories(&self) -> usize {
        self.inner.memories()
    }
}

/// What a guest did after its deadline. Deadlines count time, since counting work would cost every call; but on a busy
/// machine a worker may lose its core in the middle of a pick that needs 100 ns, and that is not the guest's fault. So a
/// late guest gets one tick more, and another, and is cut off only once it has spent half of its deadline running.
#[derive(Default)]
pub(super) struct Overtime {
    allowed: Duration,
    /// The thread's CPU time at the deadline.
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
            allowed: TICK * ticks.saturating_sub(1) as u32 / 2,
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
        let mut overtime = Overtime::after(2);
        assert!(matches!(overtime.judge(), UpdateDeadline::Continue(1)));
        burn(Duration::from_micros(500));
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
