//! The host's own versions of the built-in policies.
//!
//! Serves as the named step of a pool's fallback chain and as `pool.delegate-to`. Owns the algorithms by name. It must
//! not need anything that can fail: no guest, no deadline; it allocates only after the pool has changed.
//!
//! Invariant: total. Some backend comes out exactly if one of the given is usable and untried.
//! Read next: `native/turns.rs`, which decides what scanning algorithms decide.

mod rendezvous;
#[cfg(test)]
mod tests;
mod turns;

use xxhash_rust::xxh3::xxh3_64;

use super::{Facts, Tried, fallback};
use crate::{
    http1::Head,
    pool::{Member, Snapshot, View},
};
use rendezvous::nearest;
use turns::Turns;

/// An algorithm of the host, called like the built-in policy that does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Turns, whatever the weight.
    RoundRobin,
    /// Turns by weight.
    WeightedRoundRobin,
    /// The fewest requests in flight for its weight; ties take turns.
    LeastConnections,
    /// The smallest `(active + 1) * latency` for its weight; ties take turns.
    LeastResponseTime,
    /// Of two at random the one that moves fewer bytes for its weight: a figure over seconds, followed blindly, would
    /// send everything to one backend until it shows.
    LeastBandwidth,
    /// Of two at random the one with fewer requests in flight for its weight.
    RandomTwoChoices,
    /// Of two at random the one with the smaller `(active + 1) * latency` for its weight.
    PeakEwma,
    /// By the client's address.
    IpHash,
    /// By the key of the request.
    ConsistentHash,
    /// By the path.
    ContentHash,
}

/// The request being decided, and the backends it may go to.
pub(super) struct Ground<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) view: &'a View,
    pub(super) tried: &'a Tried,
    pub(super) facts: &'a Facts,
    pub(super) head: &'a Head,
    /// Indices, in any order and perhaps out of range; `None` for all.
    pub(super) among: Option<&'a [u32]>,
}

/// The algorithms with what they remember from choice to choice.
#[derive(Debug, Default)]
pub(super) struct Native {
    turns: Turns,
}

impl Algorithm {
    /// The one with the name of this built-in policy; `None` for `chaos`, which helps nobody who needs help.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "round-robin" => Self::RoundRobin,
            "weighted-round-robin" => Self::WeightedRoundRobin,
            "least-connections" => Self::LeastConnections,
            "least-response-time" => Self::LeastResponseTime,
            "least-bandwidth" => Self::LeastBandwidth,
            "random-two-choices" => Self::RandomTwoChoices,
            "peak-ewma" => Self::PeakEwma,
            "ip-hash" => Self::IpHash,
            "consistent-hash" => Self::ConsistentHash,
            "content-hash" => Self::ContentHash,
            _ => return None,
        })
    }
}

impl<'a> Ground<'a> {
    pub(super) fn places(&self) -> usize {
        self.among.map_or(self.snapshot.members.len(), <[u32]>::len)
    }

    /// The index at this place, if that backend may be chosen.
    #[inline]
    pub(super) fn eligible(&self, place: usize) -> Option<usize> {
        let index = match self.among {
            None => place,
            Some(among) => *among.get(place)? as usize,
        };
        let member = self.snapshot.members.get(index)?;
        (member.usable && !self.tried.contains(member.backend.id)).then_some(index)
    }

    /// All that may be chosen.
    fn indices(&self) -> impl Iterator<Item = usize> {
        (0..self.places()).filter_map(|place| self.eligible(place))
    }

    fn member(&self, index: usize) -> &'a Member {
        &self.snapshot.members[index]
    }

    fn capacity(&self, index: usize) -> f64 {
        f64::from(capacity(self.member(index)).max(1))
    }
}

/// What a backend may take relative to the others: 0 while it is not usable.
fn capacity(member: &Member) -> u32 {
    if member.usable {
        member.weight * u32::from(member.ramp)
    } else {
        0
    }
}

impl Native {
    /// The pool has changed.
    pub(super) fn forget_pool(&mut self) {
        self.turns.forget_pool();
    }

    /// A usable backend that was not tried, of those given; `None` when there is none.
    pub(super) fn choose(&mut self, algorithm: Algorithm, ground: &Ground<'_>) -> Option<usize> {
        let view = ground.view;
        match algorithm {
            Algorithm::RoundRobin => self.turns.next(ground, false),
            Algorithm::WeightedRoundRobin => self.turns.next(ground, true),
            // Through a signed number, as the built-in does it: machines convert that in one instruction.
            Algorithm::LeastConnections => self.turns.least(ground, |index| view.active(index) as i32 as f32),
            Algorithm::LeastResponseTime => self.least_response_time(ground),
            Algorithm::LeastBandwidth => fallback::two_of(ground, |index| {
                (view.throughput(index) as f64 + f64::from(view.active(index))) / ground.capacity(index)
            }),
            Algorithm::RandomTwoChoices => fallback::choose_among(ground),
            Algorithm::PeakEwma => fallback::two_of(ground, |index| {
                let waiting = f64::from(view.active(index));
                let latency = match view.latency_us(index) {
                    // One that has not answered yet is tried with one request at a time.
                    0 if waiting > 0.0 => f64::from(u32::MAX),
                    us => f64::from(us),
                };
                latency * (waiting + 1.0) / ground.capacity(index)
            }),
            Algorithm::IpHash => nearest(ground, xxh3_64(&ground.facts.client.to_be_bytes())),
            Algorithm::ConsistentHash => nearest(ground, ground.facts.key),
            Algorithm::ContentHash => nearest(ground, xxh3_64(ground.head.path().as_bytes())),
        }
    }

    /// A backend without a measurement counts as being as fast as the fastest that has one.
    fn least_response_time(&mut self, ground: &Ground<'_>) -> Option<usize> {
        let view = ground.view;
        let usable = |index: &usize| ground.snapshot.members.get(*index).is_some_and(|m| m.usable);
        let all = (0..ground.places()).map(|place| match ground.among {
            None => place,
            Some(among) => among[place] as usize,
        });
        let measured = all.filter(usable).map(|index| view.latency_us(index));
        let fastest = measured.filter(|us| *us > 0).min().unwrap_or(1);
        self.turns.least(ground, |index| {
            let us = match view.latency_us(index) {
                0 => fastest,
                us => us,
            };
            (view.active(index) as f32 + 1.0) * us as f32
        })
    }
}
