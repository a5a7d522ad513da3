//! How a lease goes from one node to another.
//!
//! Owns why and to whom a node gives its lease up, and what the others do then. The gate is closed first, the votes are given
//! back when it is, and only then may another ask.

use crate::{
    candidate::State,
    core::{Action, BEAT_EVERY, Closing, Core, Standing},
    message::Ask,
    settings::{MemberId, Role, Unlike},
};

/// A peer that was not heard for so many signs of life is taken to be away, where that is no question of safety.
const BEATS_MISSED: u64 = 3;

impl Core {
    pub(crate) fn leave(&mut self, to: Option<MemberId>, why: Closing) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if let State::Active { epoch, .. } = candidate.state {
            candidate.state = State::Leaving { epoch, to, why };
            self.actions.push(Action::Close(why));
        }
    }

    pub(crate) fn closed(&mut self, now_us: u64) {
        let settings = &self.settings;
        let pause_us = settings.heartbeat_us + settings.stagger_us(None);
        let rest_us = 2 * settings.lease_us;
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        let State::Leaving { epoch, to, why } = candidate.state else {
            return;
        };
        candidate.state = State::Standby;
        candidate.begin();
        // Whoever was to go lets the other come first.
        candidate.next_us = now_us
            + match why {
                Closing::Lapsed => pause_us,
                _ => rest_us,
            };
        self.release(epoch, to);
    }

    pub(crate) fn set_fit(&mut self, now_us: u64, is_fit: bool) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if candidate.is_fit == is_fit {
            return;
        }
        candidate.is_fit = is_fit;
        self.next_beat_us = now_us;
        match candidate.state {
            State::Active { .. } if !is_fit => {
                let to = self.successor(now_us);
                self.leave(to, Closing::Unfit);
            }
            State::Asking { .. } if !is_fit => self.give_up(now_us, 0),
            _ => {}
        }
    }

    pub(crate) fn transfer(&mut self, now_us: u64, to: Option<MemberId>) {
        let suits = |to: &MemberId| self.could_follow(now_us, *to);
        let to = match to {
            Some(to) => Some(to).filter(suits),
            None => self.successor(now_us).filter(|to| !self.is_unlike(*to)),
        };
        match self.standing() {
            Standing::Active { .. } if to.is_some() => self.leave(to, Closing::Transferred),
            _ => self.actions.push(Action::NoSuccessor),
        }
    }

    /// Who would follow this node: one that serves with the same, if there is one.
    pub fn successor(&self, now_us: u64) -> Option<MemberId> {
        let priority = |id: &MemberId| self.settings.members[usize::from(*id)].priority;
        let others = self.settings.others().filter(|id| self.could_follow(now_us, *id));
        others.max_by_key(|id| (!self.is_unlike(*id), priority(id), std::cmp::Reverse(*id)))
    }

    /// For so long a peer may be silent that is there.
    pub(crate) fn silence_us(&self) -> u64 {
        BEATS_MISSED * BEAT_EVERY * self.settings.heartbeat_us
    }

    /// Who should be active instead of this node: one with a higher priority that serves with the same and has been ready for so long.
    pub fn preferred(&self, now_us: u64, after_us: u64) -> Option<MemberId> {
        let priority = |id: MemberId| self.settings.members[usize::from(id)].priority;
        let to = self.successor(now_us)?;
        let fit_since_us = self.peers[usize::from(to)].fit_since_us;
        let is_active = matches!(self.standing(), Standing::Active { .. });
        let is_better = priority(to) > priority(self.settings.me) && !self.is_unlike(to);
        let is_lasting = fit_since_us > 0 && now_us >= fit_since_us + after_us;
        (is_active && is_better && is_lasting).then_some(to)
    }

    fn could_follow(&self, now_us: u64, id: MemberId) -> bool {
        if self.keeps_its_lease(now_us) {
            return false;
        }
        let index = usize::from(id);
        let (Some(member), Some(peer)) = (self.settings.members.get(index), self.peers.get(index)) else {
            return false;
        };
        let silence_us = self.silence_us();
        let is_heard = peer.heard_us > 0 && now_us < peer.heard_us + silence_us;
        let may_be = self.settings.unlike != Unlike::Never || !self.is_unlike(id);
        member.role == Role::Node && id != self.settings.me && is_heard && peer.beat.fit && may_be
    }

    // === What others give up, or have ===

    /// A vote is free again.
    pub(crate) fn follow(&mut self, now_us: u64, from: MemberId, to: Option<MemberId>) {
        let heartbeat_us = self.settings.heartbeat_us;
        let Some(patience_us) = self.patience_us() else {
            return;
        };
        let stagger_us = self.settings.stagger_us(Some(from)) + patience_us;
        let me = self.settings.me;
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if candidate.state == State::Standby {
            let at_us = match to {
                Some(to) if to == me => now_us,
                Some(_) => now_us + 2 * heartbeat_us + stagger_us,
                None => now_us + stagger_us,
            };
            candidate.next_us = at_us.min(candidate.next_us);
        }
    }

    /// Closes this gate if another has a newer lease: possible only between nodes that serve when alone.
    pub(crate) fn yield_to(&mut self, from: MemberId, ask: &Ask) {
        if let Standing::Active { epoch, .. } = self.standing() {
            let theirs = (ask.epoch, std::cmp::Reverse(from));
            if ask.holds && theirs > (epoch, std::cmp::Reverse(self.settings.me)) {
                self.leave(None, Closing::Superseded);
            }
        }
    }
}
