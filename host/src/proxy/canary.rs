//! A candidate that decides for a part of a pool's requests in one worker.
//!
//! Owns the choice of those requests, and the measuring of both arms. It must not judge: `rollout` does, elsewhere.
//!
//! Invariant: a request that the candidate does not decide well goes to the version in service, as if there were no
//! candidate; nobody is served worse by a candidate that fails.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::{forward::Target, pool::Decider, worker::CanaryPlan};
use crate::{
    http1::Head,
    policy::{Chooser, Decision, Deployment, Ended, Facts, Instance, Rebuild, Seat, Tried},
    pool::Pool,
    rollout::Split,
};

/// A candidate on trial.
pub(super) struct Canary {
    worker: usize,
    seat: Seat,
    split: Arc<Split>,
}

impl Canary {
    pub(super) fn new(
        worker: usize,
        pool: Arc<Pool>,
        plan: CanaryPlan,
        rebuilds: UnboundedSender<Rebuild>,
    ) -> Self {
        Self {
            worker,
            seat: Seat::new(worker, pool, plan.deployment, plan.instance, rebuilds),
            split: plan.split,
        }
    }

    pub(super) fn deployment(&self) -> &Arc<Deployment> {
        self.seat.deployment()
    }

    pub(super) fn expects(&self, deployment: &Arc<Deployment>) -> bool {
        self.seat.expects(deployment)
    }

    pub(super) fn install(
        &mut self,
        deployment: Arc<Deployment>,
        instance: Instance,
    ) -> impl Send + 'static + use<> {
        self.seat.install(deployment, instance)
    }

    pub(super) fn set_pool(&mut self, pool: Arc<Pool>) {
        self.seat.set_pool(pool);
    }

    /// The candidate's own decision, if the request is among its share. `generation` is what indices mean to everyone
    /// else.
    #[inline]
    pub(super) fn decide(
        &mut self,
        generation: u64,
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Option<Decision> {
        self.seat.sync(facts.now_us);
        if self.seat.snapshot().generation != generation || !self.split.takes(facts.key) {
            return None;
        }
        let decision = self.seat.decide(facts, tried, head);
        match &decision {
            Decision::Send(choice) if choice.chooser == Chooser::Policy => Some(decision),
            Decision::Reject(_) => Some(decision),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn begin(&self, target: &Target) {
        self.seat.begin(target.generation, target.index);
    }

    pub(super) fn cancel(&mut self, ended: &Ended) {
        self.seat.cancel(ended);
    }

    pub(super) fn end(&mut self, ended: &Ended, decider: Decider) {
        let arm = match decider {
            Decider::Active => &self.split.active,
            Decider::Canary => &self.split.canary,
        };
        arm.record(self.worker, ended.index, ended.status, ended.latency_us);
        self.seat.end(ended);
    }
}
