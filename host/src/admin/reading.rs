//! One look at a pool, that metrics and JSON share.
//!
//! Owns the joining of what a pool, its workers and its configuration know of each backend. It must not know how any of
//! it is shown.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Context;
use crate::{
    config,
    control::PoolView,
    pool::{Elsewhere, Load, Member, Snapshot, View},
};

/// A pool at one moment.
pub(super) struct PoolReading {
    pub(super) view: PoolView,
    pub(super) snapshot: Arc<Snapshot>,
    columns: View,
    now_us: u64,
}

/// One of its backends.
pub(super) struct BackendReading<'a> {
    pub(super) member: &'a Member,
    pub(super) spec: &'a config::Backend,
    /// Of this node alone, so that the sum over nodes is true.
    pub(super) active: u32,
    pub(super) others: Option<Elsewhere>,
    pub(super) latency_us: u32,
    pub(super) bytes_per_second: u64,
}

/// Every pool in service.
pub(super) fn read_all(context: &Context) -> Vec<PoolReading> {
    let pools = context.handle.pools();
    pools.iter().map(|view| PoolReading::read(view.clone())).collect()
}

impl PoolReading {
    pub(super) fn read(view: PoolView) -> Self {
        let snapshot = view.pool.snapshot();
        let now_us = crate::clock::now_us();
        let columns = View::new(&snapshot, now_us);
        Self {
            view,
            snapshot,
            columns,
            now_us,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.view.pool.name()
    }

    /// In the order of the configuration, as the members of every snapshot are.
    pub(super) fn backends(&self) -> impl Iterator<Item = BackendReading<'_>> {
        let members = self.snapshot.members.iter().enumerate();
        let specs = &self.view.pool.config.backends;
        members.zip(specs).map(|((index, member), spec)| BackendReading {
            member,
            spec,
            active: member.backend.active(),
            others: member.backend.others.at(self.now_us / 1000),
            latency_us: self.columns.latency_us(index),
            bytes_per_second: self.columns.throughput(index),
        })
    }
}

impl BackendReading<'_> {
    pub(super) fn address(&self) -> &str {
        &self.member.backend.address
    }

    /// The sum over all workers.
    pub(super) fn total(&self, read: impl Fn(&Load) -> &AtomicU64) -> u64 {
        self.member
            .backend
            .loads()
            .map(|load| read(load).load(Relaxed))
            .sum()
    }
}
