//! A node's way to the lease and away from it.
//!
//! Owns what a node remembers of its questions: when each was sent, and who said yes. The decisions are in `core.rs`, which has
//! the voter and the peers too.

use crate::{
    core::Closing,
    settings::{MEMBERS_MAX, MemberId, Mutation, Settings},
};

/// Questions whose sending time is remembered. Four a heartbeat is the fastest pace, and an answer to one that is older than a lease
/// is worth nothing; leases of more than eight heartbeats lose only answers that are very late.
const ROUNDS_KEPT: usize = 32;

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Listening. Exits: `Asking`, when its own vote is free.
    Standby,
    /// Collecting votes. Exits: `Active` with a majority, `Standby` when that cannot be had soon.
    Asking { epoch: u64, since_us: u64 },
    /// Serving. Exits: `Leaving`.
    Active { epoch: u64, until_us: u64 },
    /// The gate is being closed. Exits: `Standby`, when it is.
    Leaving {
        epoch: u64,
        to: Option<MemberId>,
        why: Closing,
    },
}

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) state: State,
    pub(crate) is_fit: bool,
    /// When to ask next.
    pub(crate) next_us: u64,
    /// When it became active last.
    pub(crate) active_since_us: u64,
    /// Campaigns in a row that led nowhere.
    pub(crate) failures: u32,
    last_round: u64,
    /// Round and sending time of the last questions.
    sent: [(u64, u64); ROUNDS_KEPT],
    /// By member, the sending time of the latest question that it said yes to; 0 for none.
    granted_us: [u64; MEMBERS_MAX],
    refused: u16,
}

impl Candidate {
    pub(crate) fn new(now_us: u64, first_us: u64) -> Self {
        Self {
            state: State::Standby,
            is_fit: true,
            next_us: first_us,
            active_since_us: 0,
            failures: 0,
            // After a restart on the same machine the clock has gone on, so rounds have too.
            last_round: now_us,
            sent: [(0, 0); ROUNDS_KEPT],
            granted_us: [0; MEMBERS_MAX],
            refused: 0,
        }
    }

    pub(crate) fn last_round(&self) -> u64 {
        self.last_round
    }

    /// Forgets all answers: those that still come belong to nothing.
    pub(crate) fn begin(&mut self) {
        self.sent = [(0, 0); ROUNDS_KEPT];
        self.granted_us = [0; MEMBERS_MAX];
        self.refused = 0;
    }

    /// A new round, sent now.
    pub(crate) fn send(&mut self, now_us: u64) -> u64 {
        self.last_round += 1;
        self.sent[self.last_round as usize % ROUNDS_KEPT] = (self.last_round, now_us);
        self.last_round
    }

    fn sent_us(&self, round: u64) -> Option<u64> {
        let (kept, at_us) = self.sent[round as usize % ROUNDS_KEPT];
        (kept == round && round != 0).then_some(at_us)
    }

    /// Notes a yes; answers whether it was to a question that is still remembered.
    pub(crate) fn granted(&mut self, now_us: u64, from: MemberId, round: u64, settings: &Settings) -> bool {
        let Some(mut at_us) = self.sent_us(round) else {
            return false;
        };
        if settings.mutation == Some(Mutation::FromReceipt) {
            at_us = now_us;
        }
        let known = &mut self.granted_us[usize::from(from)];
        *known = at_us.max(*known);
        true
    }

    /// Notes a no; answers how many there were in this campaign.
    pub(crate) fn refused(&mut self, from: MemberId, round: u64) -> usize {
        if self.sent_us(round).is_some() {
            self.refused |= 1 << from;
        }
        self.refused.count_ones() as usize
    }

    /// The sending time of the latest question to which `needed` members said yes.
    pub(crate) fn agreed_us(&self, needed: usize) -> Option<u64> {
        let mut granted_us = self.granted_us;
        granted_us.sort_unstable_by(|one, other| other.cmp(one));
        granted_us
            .get(needed.checked_sub(1)?)
            .copied()
            .filter(|at_us| *at_us > 0)
    }

    /// The sending time of the last question.
    pub(crate) fn last_sent_us(&self) -> u64 {
        self.sent_us(self.last_round).unwrap_or(0)
    }
}
