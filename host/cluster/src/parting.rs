//! How a member ends so that the next process can be the same member: not before the others can do without it.
//!
//! Owns when that is. The next process remembers nothing, so it votes for nobody at first, as after any start; until then a lease
//! has to have its majority without this member. So it asks nobody, it looks: it tells that it is about to part, waits until the
//! others have heard it, and parts if enough of them are there. Of two that tell it at once the one with the lower place goes first.
//!
//! Invariant: a member that parts has no lease, asks for none, and says nothing any more. That two nodes never have a lease does not
//! depend on any of this: it is a start like any other.

use crate::{
    candidate::{Candidate, State},
    core::{Action, BEAT_EVERY, Core},
    message::Presence,
    settings::{MemberId, Mutation, WhenAlone},
};

/// Heartbeats that the others have to hear of it. It is told twice in each.
const TOLD_FOR: u64 = 3;
/// Where nobody has been active by this member's vote for so many leases, there is nothing to lose. Longer than a node rests that has handed over.
const LEASES_FREE: u64 = 4;

/// How far a member is that is to part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parting {
    stage: Stage,
    /// Since when nobody is active by its vote.
    free_since_us: Option<u64>,
    /// When to look next.
    next_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The others cannot do without it, and it is a member like any other. Exits: `Told`.
    Waiting,
    /// It has said that it parts, and asks for no lease. Exits: `Waiting`, when it is needed after all; `Parted`.
    Told { since_us: u64 },
    /// It is over.
    Parted,
}

impl Core {
    pub(crate) fn set_parting(&mut self, now_us: u64, is_meant: bool) {
        if is_meant == self.parting.is_some() {
            return;
        }
        self.parting = is_meant.then_some(Parting {
            stage: Stage::Waiting,
            free_since_us: None,
            next_us: now_us,
        });
        // Told at once.
        self.next_beat_us = now_us;
    }

    pub(crate) fn has_parted(&self) -> bool {
        self.parting.is_some_and(|parting| parting.stage == Stage::Parted)
    }

    /// Whether this member, which is to part, would give its lease away for nothing: it could not part then, and whoever got the lease may
    /// be to part too and give it back. So it is if the others cannot do without it yet, or if it has its lease so lately that
    /// whoever gave it cannot have told.
    pub(crate) fn keeps_its_lease(&self, now_us: u64) -> bool {
        let time_to_tell_us = self.settings.lease_us + self.told_for_us();
        let is_new = |candidate: &Candidate| now_us < candidate.active_since_us + time_to_tell_us;
        let would_give = self.parting.is_some() && self.settings.mutation != Some(Mutation::PartsAtOnce);
        would_give
            && (self.candidate.as_ref().is_some_and(is_new) || self.need_of_others(now_us) != Need::None)
    }

    fn told_for_us(&self) -> u64 {
        TOLD_FOR * self.settings.heartbeat_us
    }

    /// When to look again at whether the others can do without this member.
    pub(crate) fn next_look_us(&self) -> u64 {
        self.parting.map_or(u64::MAX, |parting| parting.next_us)
    }

    /// Until when this member asks for no lease, since it has said that it parts.
    pub(crate) fn told_until_us(&self, now_us: u64) -> Option<u64> {
        let Stage::Told { .. } = self.parting?.stage else {
            return None;
        };
        Some(now_us + self.settings.heartbeat_us)
    }

    /// Whether this member's vote can be counted on.
    pub fn presence(&self, now_us: u64) -> Presence {
        if self.told_until_us(now_us).is_some() {
            Presence::Parting
        } else if now_us < self.voter.silent_until_us() {
            Presence::Silent
        } else {
            Presence::Here
        }
    }

    /// When the next sign of life is due: whatever changes by time is told at once.
    pub(crate) fn next_beat_after(&self, now_us: u64) -> u64 {
        let heartbeat_us = self.settings.heartbeat_us;
        match self.presence(now_us) {
            Presence::Here => now_us + BEAT_EVERY * heartbeat_us,
            Presence::Silent => (now_us + BEAT_EVERY * heartbeat_us).min(self.voter.silent_until_us()),
            Presence::Parting => now_us + heartbeat_us / 2,
        }
    }

    /// Goes a step further, or back.
    pub(crate) fn part(&mut self, now_us: u64) {
        let Some(mut parting) = self.parting else { return };
        let heartbeat_us = self.settings.heartbeat_us;
        parting.next_us = now_us + heartbeat_us / 4;
        let is_free = !self.follows_somebody(now_us);
        parting.free_since_us = is_free.then(|| parting.free_since_us.unwrap_or(now_us));
        let free_us = parting.free_since_us.map_or(0, |since_us| now_us - since_us);
        let need = self.need(now_us, is_free, free_us >= LEASES_FREE * self.settings.lease_us);
        let before = parting.stage;
        parting.stage = match (before, need) {
            (Stage::Waiting, Need::None) => Stage::Told { since_us: now_us },
            (Stage::Told { since_us }, Need::None) if now_us >= since_us + self.told_for_us() => {
                self.actions.push(Action::Part);
                Stage::Parted
            }
            (Stage::Told { .. }, Need::Now) => Stage::Waiting,
            (stage, _) => stage,
        };
        self.parting = Some(parting);
        if before != parting.stage {
            self.next_beat_us = now_us;
        }
    }

    /// Whether another node has the lease by this member's vote too. A vote for one that only asks says little, and a sign of life that tells
    /// the new epoch would overtake that node's question to others.
    fn follows_somebody(&self, now_us: u64) -> bool {
        let vote = self
            .voter
            .vote_at(now_us)
            .filter(|vote| vote.to != self.settings.me);
        let peer = vote.and_then(|vote| self.peers.get(usize::from(vote.to)));
        peer.is_some_and(|peer| peer.beat.active)
    }

    fn need(&self, now_us: u64, is_free: bool, is_free_long: bool) -> Need {
        let state = self.candidate.as_ref().map(|candidate| candidate.state);
        if !matches!(state, None | Some(State::Standby)) {
            return Need::Now;
        }
        if is_free_long || self.settings.mutation == Some(Mutation::PartsAtOnce) {
            return Need::None;
        }
        // Where nobody has the lease, a node that could is the one that is needed.
        let could_have_it = self.candidate.as_ref().is_some_and(|candidate| candidate.is_fit);
        if is_free && could_have_it {
            return Need::Now;
        }
        self.need_of_others(now_us)
    }

    /// Whether the others have no majority without this member.
    fn need_of_others(&self, now_us: u64) -> Need {
        // Whoever asks for a new lease refuses its vote to the holder, which may have it by this very one.
        let is_unsettled = self.campaigned_us > 0 && now_us < self.campaigned_us + self.settings.lease_us;
        if is_unsettled {
            return Need::Now;
        }
        let alone = self.settings.when_alone == WhenAlone::Serve && self.settings.members.len() == 2;
        let needed = if alone { 1 } else { self.settings.majority() };
        let present = |presence: Presence, from: MemberId| {
            let others = self.settings.others().filter(|id| *id >= from);
            others.filter(|id| self.is_present(now_us, *id, presence)).count()
        };
        let here = present(Presence::Here, 0);
        // These step back when they hear of it.
        let parting = present(Presence::Parting, self.settings.me);
        match () {
            () if here >= needed => Need::None,
            () if here + parting >= needed => Need::Perhaps,
            () => Need::Now,
        }
    }

    fn is_present(&self, now_us: u64, id: MemberId, presence: Presence) -> bool {
        let peer = &self.peers[usize::from(id)];
        peer.heard_us > 0 && now_us < peer.heard_us + self.silence_us() && peer.beat.presence == presence
    }
}

/// Whether a member is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    None,
    /// Somebody else is about to part too, and may step back.
    Perhaps,
    Now,
}

#[cfg(test)]
mod tests;
