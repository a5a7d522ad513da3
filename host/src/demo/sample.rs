//! The balancer at one moment, and what happened between two of them.
//!
//! Owns reading: the balancer's counters through its handle, the clients' through the load. It must not know how any of
//! it is shown.
//!
//! Invariant: counters only grow, so an interval is a difference of two samples.

use std::{sync::Arc, time::Instant};

use super::{
    backends::COUNT,
    load::{Counts, Load},
};
use crate::{
    clock,
    config::{self, PolicySource},
    control::{Handle, PoolView},
    policy::Reason,
    pool::{LatencySum, Load as BackendLoad, Member, State},
};

/// The balancer at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) counts: Counts,
    /// In the configuration's order, which is that of the cast.
    pub(super) backends: [BackendSample; COUNT],
    pub(super) policy: Arc<str>,
    pub(super) version: Arc<str>,
    /// Of the policy in service, since it is.
    pub(super) faults: u64,
    /// Decisions that the host made instead of that policy.
    pub(super) by_host: u64,
}

/// One backend at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendSample {
    pub(super) state: State,
    pub(super) weight: u32,
    pub(super) active: u32,
    pub(super) picks: u64,
    pub(super) latency_us: u32,
}

impl Sample {
    /// Reads everything; `None` while the pool is not there with all its backends, which a demo's always is.
    pub(super) fn take(handle: &Handle, load: &Load) -> Option<Self> {
        let pools = handle.pools();
        let PoolView { pool, deployment, .. } = pools.first()?;
        let snapshot = pool.snapshot();
        let members: &[Member; COUNT] = snapshot.members.as_ref().try_into().ok()?;
        let by_host = Reason::ALL.map(|reason| deployment.total(|stats| stats.host(reason)));
        Some(Self {
            at: Instant::now(),
            counts: load.counts(),
            backends: members.each_ref().map(BackendSample::of),
            policy: component(&deployment.candidate.spec),
            version: deployment.candidate.version.clone(),
            faults: deployment.faults(),
            by_host: by_host.iter().sum(),
        })
    }
}

/// What runs, in the words of the documentation; the configuration's name for it says less.
fn component(policy: &config::Policy) -> Arc<str> {
    match &policy.source {
        PolicySource::Builtin(name) => name.as_str().into(),
        PolicySource::File(path) => path.display().to_string().into(),
        PolicySource::Registry(artifact) => artifact.to_string().into(),
    }
}

impl BackendSample {
    fn of(member: &Member) -> Self {
        let Member { backend, .. } = member;
        let now_us = clock::now_us();
        let latency = backend.loads().map(|load| load.latency(now_us));
        let latency = latency.fold(LatencySum::default(), LatencySum::merge);
        let picks = backend
            .loads()
            .map(|load| load.picks.load(std::sync::atomic::Ordering::Relaxed));
        Self {
            state: member.state,
            weight: member.configured,
            active: backend.loads().map(BackendLoad::active).sum(),
            picks: picks.sum(),
            latency_us: latency.average_us(now_us),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }
}

/// From one sample to a later one.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) from: &'a Sample,
    pub(super) to: &'a Sample,
}

impl Span<'_> {
    pub(super) fn seconds(&self) -> f64 {
        self.to.at.saturating_duration_since(self.from.at).as_secs_f64()
    }

    pub(super) fn requests(&self) -> u64 {
        self.to.counts.requests.saturating_sub(self.from.counts.requests)
    }

    pub(super) fn failed(&self) -> u64 {
        self.to.counts.failed.saturating_sub(self.from.counts.failed)
    }

    /// Median and 99th percentile in microseconds.
    pub(super) fn percentiles(&self) -> [Option<u64>; 2] {
        let latency = self.to.counts.latency.since(&self.from.counts.latency);
        [50, 99].map(|percent| latency.percentile(percent))
    }

    /// How often the balancer picked each backend, retries included.
    pub(super) fn picks(&self) -> [u64; COUNT] {
        std::array::from_fn(|index| {
            let picks = |sample: &Sample| sample.backends[index].picks;
            picks(self.to).saturating_sub(picks(self.from))
        })
    }

    /// How many good answers each backend gave, by what the clients saw.
    pub(super) fn answers(&self) -> [u64; COUNT] {
        std::array::from_fn(|index| {
            self.to.counts.answers[index].saturating_sub(self.from.counts.answers[index])
        })
    }

    /// A count as a rate.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        // Two samples are never closer than a tick; this is about the first one, which is its own predecessor.
        count as f64 / self.seconds().max(0.001)
    }
}

/// Parts of a whole in percent; all 0 of nothing.
pub(super) fn shares(counts: [u64; COUNT]) -> [f64; COUNT] {
    let total: u64 = counts.iter().sum();
    counts.map(|count| 100.0 * count as f64 / total.max(1) as f64)
}
