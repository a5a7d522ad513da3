//! What full means: the limits of a pool, and decisions within them.
//!
//! Owns which backends have room, and that none without is chosen. The policy decides as ever, on the one snapshot that
//! it knows; a backend that it names and that is full is put before it as tried, and after a few such answers the host
//! chooses. It must not know who waits, nor for how long.
//!
//! Invariant: with limits of N, no more than N are in flight, but for what workers begin in the same instant.

use super::{
    pool::{Decided, Decider, WorkerPool},
    upstream::Upstream,
};
use crate::{
    config::PoolLimits,
    http1::Head,
    policy::{Decision, Facts, Tried},
    pool::Counts,
};

/// So many times the policy is asked for one attempt. Then nearly everything is full, and looking is cheaper.
const ASKED_MAX: usize = 3;

impl WorkerPool {
    /// As [`WorkerPool::decide`], among the backends that have room. `None` while there is none.
    pub(super) fn decide_within(
        &self,
        (limits, worker): (&PoolLimits, usize),
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Option<Decided> {
        self.sync(facts.now_us);
        if !self.has_room(limits, worker) {
            return None;
        }
        let mut avoided = *tried;
        for _ in 0..ASKED_MAX {
            let decided = self.decide(facts, &avoided, head);
            let Some(target) = &decided.2 else {
                return Some(decided);
            };
            if has_room(limits, &target.upstream) {
                return Some(decided);
            }
            let id = target.upstream.backend.id;
            if avoided.contains(id) {
                break;
            }
            avoided.push(id);
        }
        self.decide_among(limits, facts, tried, head)
    }

    /// The host's choice. One that was tried before is better than to wait for one that was not.
    fn decide_among(
        &self,
        limits: &PoolLimits,
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Option<Decided> {
        let mut seat = self.seat();
        let with_room = |tried: &Tried| -> Vec<u32> {
            let upstreams = self.upstreams();
            let members = (0..).zip(seat.snapshot().members.iter().zip(&*upstreams));
            let may_be = members.filter(|(_, (member, upstream))| {
                member.usable && !tried.contains(member.backend.id) && has_room(limits, upstream)
            });
            may_be.map(|(index, _)| index).collect()
        };
        let untried = with_room(tried);
        let (among, tried) = match untried.is_empty() {
            true => (with_room(&Tried::default()), Tried::default()),
            false => (untried, *tried),
        };
        let decision = seat.choose_among(&among, facts, &tried, head);
        let Decision::Send(choice) = &decision else {
            return None;
        };
        let generation = seat.snapshot().generation;
        let target = self.target((generation, choice.index), Decider::Active);
        Some((decision, Decider::Active, target))
    }

    /// Whether requests wait in other workers.
    pub(super) fn do_others_wait(&self, worker: usize) -> bool {
        let seat = self.seat();
        let pool = seat.pool();
        (0..pool.workers()).any(|other| other != worker && pool.counts(other).waiting() > 0)
    }

    /// Closes unused connections if other workers wait for what they count as.
    pub(super) fn relieve(&self, worker: usize) {
        if self.settings().dialing.most.is_some() && self.do_others_wait(worker) {
            let upstreams = self.upstreams();
            upstreams.iter().for_each(|upstream| upstream.close_all_unused());
        }
    }

    /// Whether the pool may have one more request. A worker that has more of them than another in which requests wait
    /// leaves it what becomes free, or those would wait in vain. Without usable backends there is nothing to wait for.
    fn has_room(&self, limits: &PoolLimits, worker: usize) -> bool {
        let seat = self.seat();
        let pool = seat.pool();
        let all = || (0..pool.workers()).map(|worker| pool.counts(worker));
        let total: u64 = all().map(Counts::in_flight).sum();
        let own = pool.counts(worker).in_flight();
        let has_some = limits.requests.is_none_or(|max| total < u64::from(max.get()));
        let is_fair = !all().any(|other| other.waiting() > 0 && other.in_flight() < own);
        (has_some && is_fair) || seat.snapshot().usable == 0
    }
}

/// Whether a backend may get one more request.
pub(super) fn has_room(limits: &PoolLimits, upstream: &Upstream) -> bool {
    let active = || upstream.backend.active();
    limits.backend_requests.is_none_or(|most| active() < most.get())
        && limits
            .connections
            .is_none_or(|most| upstream.has_connection(most))
}
