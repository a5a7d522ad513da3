//! The last good version of a policy, kept while its successor proves itself.
//!
//! Owns for how long and at what price. It is shown the backends only when it is asked, and learns no outcomes. It must
//! not know when it is asked; `seat/chain.rs` does.
//!
//! Invariant: at most one for each seat, never one that failed, never a large one.

use std::sync::Arc;

use super::{Deployment, Facts, Fault, Instance, Tried, instance::Verdict};
use crate::{
    http1::Head,
    pool::{Snapshot, View},
};

/// How long the version in service has to go without a fault until the last good one is let go. Faults come with real
/// requests, and within a minute those have been seen that are not rare.
const PROBATION_US: u64 = 60_000_000;
/// An instance with more memory is not kept: a pool would hold twice as much for a minute after each swap.
const MEMORY_BYTES_MAX: usize = 8 << 20;

/// An instance of the last good version.
pub(super) struct Standby {
    pub(super) deployment: Arc<Deployment>,
    pub(super) instance: Instance,
    until_us: u64,
}

impl Standby {
    /// Keeps an instance that served well.
    pub(super) fn new(deployment: Arc<Deployment>, instance: Instance, now_us: u64) -> Self {
        Self {
            deployment,
            instance,
            until_us: now_us + PROBATION_US,
        }
    }

    /// Whether an instance is small enough to be kept.
    pub(super) fn has_room_for(instance: &Instance) -> bool {
        instance.memory_bytes() <= MEMORY_BYTES_MAX
    }

    /// The version in service failed, or is another one now.
    pub(super) fn extend(&mut self, now_us: u64) {
        self.until_us = now_us + PROBATION_US;
    }

    pub(super) fn is_over(&self, now_us: u64) -> bool {
        now_us >= self.until_us
    }

    /// Its answer to a request that the version in service does not answer.
    pub(super) fn ask(
        &mut self,
        snapshot: &Arc<Snapshot>,
        view: &Arc<View>,
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Result<Verdict, Fault> {
        self.instance.update(snapshot, view)?;
        self.instance.answer(facts, tried, head)
    }
}
