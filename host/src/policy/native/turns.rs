//! The smallest cost for its capacity, ties dealt out by turns: start-time fair queueing (Goyal, Vin, Cheng, 1996).
//!
//! The same rule as the SDK's `Turns`, one backend after the other instead of by blocks, and over any subset; the
//! conformance suite holds the two to each other. It must not know which load a cost is made of.
//!
//! Invariant: nobody is due before the clock, so whoever was not in a tie for long collects no burst.

use std::collections::BTreeMap;

use super::{Ground, capacity};

/// The stride of the lightest backend.
const STRIDE_MAX: u32 = 1 << 24;
/// Where due times are moved back to 0, long before they could overflow.
const CLOCK_MAX: u32 = 1 << 31;
/// Two scores are a tie if they differ by no more units in the last place: 3/300 must tie with 1/100.
const TOLERANCE: u32 = 4;
/// No score: that of infinity, and above it of what is not a number. The bits of positive floats order as they do.
const NEVER: u32 = f32::INFINITY.to_bits();

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The backends that `dues` is about.
    ids: Vec<u64>,
    dues: Vec<u32>,
    clock: u32,
    /// The smallest capacity of a usable backend: what due times are measured by.
    lightest: u32,
    knows_pool: bool,
    has_begun: bool,
}

/// A backend that could be next.
#[derive(Clone, Copy)]
struct Contender {
    index: usize,
    score: u32,
    due: u32,
}

impl Turns {
    pub(super) fn forget_pool(&mut self) {
        self.knows_pool = false;
    }

    /// The backend whose turn it is, by weight or not. The first turn is random, or all workers would go in step.
    pub(super) fn next(&mut self, ground: &Ground<'_>, by_weight: bool) -> Option<usize> {
        self.follow(ground);
        if !std::mem::replace(&mut self.has_begun, true) {
            let count = ground.indices().count().max(1) as u64;
            let skipped = (ground.facts.random >> 1) % count;
            // A trifle later than those whose turn comes first.
            ground
                .indices()
                .take(skipped as usize)
                .for_each(|index| self.dues[index] += 1);
        }
        let winner = self.find(ground, |_| 0.0)?;
        let stride = if by_weight {
            self.stride(ground, winner.index)
        } else {
            STRIDE_MAX
        };
        self.take(winner, stride);
        Some(winner.index)
    }

    /// The backend with the smallest `cost / capacity`; it takes its turn.
    pub(super) fn least(&mut self, ground: &Ground<'_>, cost: impl Fn(usize) -> f32) -> Option<usize> {
        self.follow(ground);
        let winner = self.find(ground, cost)?;
        self.take(winner, self.stride(ground, winner.index));
        Some(winner.index)
    }

    fn find(&self, ground: &Ground<'_>, cost: impl Fn(usize) -> f32) -> Option<Contender> {
        let contenders = || {
            ground.indices().map(|index| Contender {
                index,
                score: (cost(index) * (1.0 / capacity(ground.member(index)) as f32)).to_bits(),
                due: self.dues[index].max(self.clock),
            })
        };
        let lowest = contenders().map(|contender| contender.score).min()?;
        // A cost that is no number still means a backend: the first whose turn it is.
        let bound = if lowest < NEVER {
            (lowest + TOLERANCE).min(NEVER - 1)
        } else {
            u32::MAX
        };
        contenders()
            .filter(|contender| contender.score <= bound)
            .min_by_key(|contender| contender.due)
    }

    fn stride(&self, ground: &Ground<'_>, index: usize) -> u32 {
        let capacity = capacity(ground.member(index)).max(1);
        let stride = f64::from(STRIDE_MAX) * f64::from(self.lightest) / f64::from(capacity);
        (stride as u32).max(1)
    }

    fn take(&mut self, winner: Contender, stride: u32) {
        let Contender { index, due, .. } = winner;
        self.dues[index] = due + stride;
        self.clock = due;
        if due > CLOCK_MAX {
            self.dues
                .iter_mut()
                .for_each(|own| *own = own.saturating_sub(due));
            self.clock = 0;
        }
    }

    /// Carries what each backend still has to wait over to its new index.
    fn follow(&mut self, ground: &Ground<'_>) {
        if std::mem::replace(&mut self.knows_pool, true) {
            return;
        }
        let members = &ground.snapshot.members;
        let leads = self.dues.iter().map(|due| due.saturating_sub(self.clock));
        let leads: BTreeMap<u64, u32> = self.ids.drain(..).zip(leads).collect();
        self.clock = 0;
        let lightest = members
            .iter()
            .map(capacity)
            .filter(|capacity| *capacity > 0)
            .min();
        // Without a usable backend nothing is measured anew.
        let change = lightest.map_or(1.0, |lightest| {
            f64::from(lightest) / f64::from(self.lightest.max(1))
        });
        self.lightest = lightest.unwrap_or(self.lightest);
        self.ids.extend(members.iter().map(|member| member.backend.id));
        let lead = |id| leads.get(id).copied().unwrap_or(0);
        let due = |id| ((f64::from(lead(id)) * change) as u32).min(STRIDE_MAX);
        self.dues = self.ids.iter().map(due).collect();
    }
}
