//! A voter: for whom it votes, and until when.
//!
//! Owns its one vote. It must not know whether its own node wants the lease: that asks like any other.
//!
//! Invariant: between the first vote for a node and the vote for another lies a lease of silence from the former, or its own word
//! that it has closed its gate.

use crate::{
    message::{Ask, Message, Refusal},
    settings::{MemberId, Mutation, Settings},
};

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) to: MemberId,
    pub(crate) epoch: u64,
    pub(crate) round: u64,
    /// Counted from the receipt of the question, so it never ends before the holder thinks.
    pub(crate) until_us: u64,
    /// Whether the node was told. During the silence it is only noted whom others may have voted for.
    pub(crate) is_given: bool,
}

#[derive(Debug)]
pub(crate) struct Voter {
    lease_us: u64,
    /// It does not remember what it voted for before this start, so it waits until that no longer counts.
    silent_until_us: u64,
    /// The highest epoch that it voted for or heard of.
    seen: u64,
    vote: Option<Vote>,
}

impl Voter {
    pub(crate) fn new(settings: &Settings, now_us: u64) -> Self {
        let silence_us = match settings.mutation {
            Some(Mutation::NoSilence) => 0,
            _ => settings.lease_us + settings.margin_us,
        };
        Self {
            lease_us: settings.lease_us,
            silent_until_us: now_us + silence_us,
            seen: 0,
            vote: None,
        }
    }

    pub(crate) fn silent_until_us(&self) -> u64 {
        self.silent_until_us
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// An epoch that another member knows of.
    pub(crate) fn learn(&mut self, epoch: u64) {
        self.seen = self.seen.max(epoch);
    }

    /// The vote that holds now.
    pub(crate) fn vote_at(&self, now_us: u64) -> Option<Vote> {
        self.vote.filter(|vote| now_us < vote.until_us)
    }

    /// Answers a question; says nothing during the silence, and to a question that is older than one answered.
    pub(crate) fn answer(&mut self, now_us: u64, from: MemberId, ask: &Ask) -> Option<Message> {
        let round = ask.round;
        let refuse = |refusal| Some(Message::Refuse { round, refusal });
        let last = self.vote.filter(|vote| vote.to == from);
        let known = last.filter(|vote| vote.epoch == ask.epoch);
        // Overtaken by a later question. It must not bring back a lease that the node has given up since.
        let is_before = |vote: Vote| ask.holds && ask.epoch < vote.epoch;
        if known.is_some_and(|vote| round < vote.round) || last.is_some_and(is_before) {
            return None;
        }
        let holding = self.vote_at(now_us).filter(|vote| vote.to != from);
        if now_us < self.silent_until_us {
            if holding.is_none() {
                self.keep_for(now_us, from, ask);
            }
            return None;
        }
        if let Some(vote) = holding {
            return refuse(Refusal::Busy {
                holder: vote.to,
                wait_us: vote.until_us - now_us,
            });
        }
        if ask.lease_us > self.lease_us {
            self.keep_for(now_us, from, ask);
            return refuse(Refusal::Longer);
        }
        let is_new = ask.epoch > self.seen || known.is_some();
        if !ask.holds && !is_new {
            return refuse(Refusal::Stale { seen: self.seen });
        }
        self.learn(ask.epoch);
        // The same question once more is no reason for a longer vote.
        if known.is_none_or(|vote| round > vote.round || !vote.is_given) {
            self.vote = Some(Vote {
                to: from,
                epoch: ask.epoch,
                round,
                until_us: now_us + self.lease_us,
                is_given: true,
            });
        }
        Some(Message::Grant { round })
    }

    /// Votes for nobody else while this node may have the lease by the votes of others.
    pub(crate) fn keep_for(&mut self, now_us: u64, from: MemberId, ask: &Ask) {
        if self.vote_at(now_us).is_some_and(|vote| vote.to != from) {
            return;
        }
        self.vote = Some(Vote {
            to: from,
            epoch: ask.epoch,
            round: ask.round,
            until_us: now_us + self.lease_us,
            is_given: false,
        });
    }

    /// The node has given it back; answers whether it had it.
    pub(crate) fn release(&mut self, from: MemberId, epoch: u64, round: u64) -> bool {
        let is_meant = |vote: &Vote| vote.to == from && vote.epoch == epoch && vote.round <= round;
        let had = self.vote.as_ref().is_some_and(is_meant);
        if had {
            self.vote = None;
        }
        had
    }
}
