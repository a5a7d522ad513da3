//! What an instance lives in: its store, with the limits of what it may use.
//!
//! Owns the limits on memory, tables and handles. It must not call the guest.
//!
//! Invariant: a limit that said no is remembered, since the trap that follows does not tell.

use std::sync::Arc;

use http::request::Parts;
use wasmtime::{ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder};

use super::{
    Candidate, Tried,
    imports::{Guest, Log},
};
use crate::pool::{Snapshot, View};

/// Bytes that one call may copy out of the guest. The largest honest ones are lists of backends.
const HOSTCALL_BYTES_MAX: usize = 1 << 20;
/// CPython's component has 38 core instances; each has a memory and some tables.
const CORE_INSTANCES_MAX: usize = 64;

/// No request: what the imports see outside of a pick.
pub(super) fn empty_head() -> Parts {
    http::Request::new(()).into_parts().0
}

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
        head: empty_head(),
        is_picking: false,
        tried: Tried::default(),
        random: 0,
        rejected: None,
        note: None,
        log: Log::new(pool.into(), spec.name.as_str().into(), candidate.version.clone()),
        wasi: None,
    };
    let mut store = Store::new(candidate.pre.engine(), guest);
    store.limiter(|guest| &mut guest.limits);
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
