//! The backends of a pool at one moment, immutable.
//!
//! Owns the rule which backends are usable (tiers, panic threshold). It must not know how a backend got into its state.
//! A pick, its fallback and the policy's last `update` all look at the same snapshot, so an index means one thing.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use super::{Backend, State};

mod overflow;
mod zones;

/// The largest weight that the configuration knows, and so the largest that policies are told.
const WEIGHT_MAX: f64 = 65_535.0;

/// The backends of a pool as picks see them.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with every change of the pool.
    pub generation: u64,
    /// In the configuration's order; the index is what policies answer.
    pub members: Box<[Member]>,
    /// How many members are usable.
    pub usable: usize,
    /// Too few backends are healthy, so health is ignored.
    pub in_panic: bool,
}

/// One backend in a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Member {
    /// Identity and live counters.
    pub backend: Arc<Backend>,
    /// As configured or set by an operator; 0 receives nothing new.
    pub configured: u32,
    /// What policies weigh by: the same, unless tiers or zones share the load; 0 exactly if that is.
    pub weight: u32,
    /// Slow start, 1 to 100 percent of the weight.
    pub ramp: u8,
    /// Number of the zone, in order of first appearance.
    pub zone: u16,
    /// Priority tier, 0 first.
    pub tier: u8,
    /// What the configuration says of it.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The state that led to `usable`.
    pub state: State,
    /// Whether it may be picked.
    pub usable: bool,
}

/// What the configuration says of who is usable, and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) panic_threshold: u8,
    pub(super) overflow: Option<NonZeroU32>,
    /// The number of the zone that comes first, if there is one and a backend is in it.
    pub(super) zone: Option<u16>,
}

impl Member {
    /// Could serve if it were healthy.
    fn is_candidate(&self) -> bool {
        self.configured > 0 && self.state != State::Draining
    }

    fn is_ready(&self) -> bool {
        self.is_candidate() && self.state == State::Ready
    }
}

impl Snapshot {
    /// Decides who is usable. Of several tiers the first whose ready share reaches the panic threshold serves alone. When
    /// none does, the first tier with a ready backend serves and its health is ignored (panic), since sending everything
    /// to the few that are left would take them down too; without any ready backend, the first tier with a candidate.
    /// With a threshold of 0 there is no panic: the first tier with a ready backend serves, with its ready ones.
    ///
    /// With `overflow`, tiers that are not healthy enough share with later ones before any of this (`snapshot/overflow.rs`).
    /// After it, backends in the balancer's own zone may come first (`snapshot/zones.rs`).
    pub(super) fn new(generation: u64, mut members: Vec<Member>, rules: Rules) -> Self {
        let Rules {
            panic_threshold,
            overflow,
            zone,
        } = rules;
        let is_shared = overflow.is_some_and(|factor| overflow::share(&mut members, factor, panic_threshold));
        let in_panic = !is_shared && Self::choose_tier(&mut members, panic_threshold);
        // In a panic nobody knows who can serve.
        if let Some(zone) = zone.filter(|_| !in_panic) {
            zones::prefer(&mut members, zone);
        }
        let usable = members.iter().filter(|member| member.usable).count();
        Self {
            generation,
            members: members.into(),
            usable,
            in_panic,
        }
    }

    /// One tier takes all. True if its health is ignored.
    fn choose_tier(members: &mut [Member], panic_threshold: u8) -> bool {
        let mut tiers: Vec<u8> = members.iter().map(|member| member.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let counts = |tier: u8| {
            let of_tier = || members.iter().filter(move |member| member.tier == tier);
            let ready = of_tier().filter(|member| member.is_ready()).count();
            (ready, of_tier().filter(|member| member.is_candidate()).count())
        };
        let healthy = tiers.iter().copied().find(|tier| {
            let (ready, candidates) = counts(*tier);
            ready > 0 && ready * 100 >= usize::from(panic_threshold) * candidates
        });
        // A tier that is wholly dead is no refuge as long as a later one has anything alive.
        let alive = tiers.iter().copied().find(|tier| counts(*tier).0 > 0);
        let panic = alive.or_else(|| tiers.iter().copied().find(|tier| counts(*tier).1 > 0));
        let panic = panic.filter(|_| panic_threshold > 0);
        let in_panic = healthy.is_none() && panic.is_some();
        for member in &mut *members {
            member.usable = match (healthy, panic) {
                (Some(tier), _) => member.tier == tier && member.is_ready(),
                (None, Some(tier)) => member.tier == tier && member.is_candidate(),
                (None, None) => false,
            };
        }
        in_panic
    }

    /// The index of a backend, if sessions that began there stay there: while it serves, or could if others did not come
    /// first, and while it drains, which is for sessions to end by themselves.
    pub fn keeping(&self, id: u64) -> Option<usize> {
        let index = self.position(id)?;
        let member = &self.members[index];
        let keeps = member.usable || matches!(member.state, State::Ready | State::Draining);
        keeps.then_some(index)
    }

    /// The index of a backend.
    pub fn position(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.backend.id == id)
    }
}
