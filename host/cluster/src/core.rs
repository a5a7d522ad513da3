//! The doors of the state machine, and the decisions of a node.
//!
//! Owns what follows from an event. Whatever is to happen outside leaves as an [`Action`], in order: a gate is closed
//! before its lease is given back.

use crate::{
    candidate::{Candidate, State},
    message::{Ask, Beat, Message, Presence, Refusal, Serves},
    parting::Parting,
    settings::{MemberId, Role, Settings, WhenAlone},
    voter::Voter,
};

/// Heartbeats between two signs of life.
pub(crate) const BEAT_EVERY: u64 = 5;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The time that [`Core::wake_us`] told has come.
    Tick,
    /// A member said something, and it really was this member, and it was said after all that it said before its last start.
    Received(MemberId, Message),
    /// A member with another list of members asked for its lease or goes on with it.
    Foreign(MemberId, Ask),
    /// Whether this node could serve.
    Fit(bool),
    /// What it serves with from now on.
    Serves(Serves),
    /// Give the lease to this node, or to the best of those that serve with the same.
    Transfer(Option<MemberId>),
    /// The gate is closed, as [`Action::Close`] wanted.
    Closed,
    /// This member is to begin anew in another process: it is to end as soon as the others can do without it. Or it is not any more.
    Part(bool),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(MemberId, Message),
    /// Open the gate, or keep it open, until then and no longer, whatever becomes of this process.
    Open {
        /// Of the lease: a token that is higher than that of any lease before.
        epoch: u64,
        /// By this member's clock.
        until_us: u64,
    },
    /// Close the gate at once, then tell [`Event::Closed`].
    Close(Closing),
    /// A transfer was asked for, and there is nobody to follow, or nothing to give.
    NoSuccessor,
    /// The others can do without this member: it has ended, and nothing follows from any event any more.
    Part,
}

/// Why a gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The majority was not heard in time.
    Lapsed,
    /// The node cannot serve.
    Unfit,
    /// An operator wanted another node.
    Transferred,
    /// Another node has a lease with a higher epoch. Between nodes that serve when alone.
    Superseded,
}

/// Where a member is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It votes, and nothing else.
    Witness,
    /// It would follow.
    Standby,
    /// It has the lease.
    Active {
        /// The lease's token.
        epoch: u64,
        /// Until when, if nobody answers any more.
        until_us: u64,
    },
    /// It is closing its gate.
    Leaving,
}

/// What is known of another member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// When it was heard last; 0 for never.
    pub heard_us: u64,
    /// Its last sign of life.
    pub beat: Beat,
    /// What it serves with, if it said so.
    pub serves: Option<Serves>,
    /// Since when it has said without a break that it could serve; 0 if it does not.
    pub fit_since_us: u64,
}

/// A member.
#[derive(Debug)]
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) voter: Voter,
    pub(crate) peers: Vec<PeerView>,
    /// What this node serves with, if it was told.
    pub(crate) serves: Option<Serves>,
    /// The last other node that was heard to have the lease.
    pub(crate) holder: Option<MemberId>,
    /// When another node asked for a new lease last.
    pub(crate) campaigned_us: u64,
    started_us: u64,
    pub(crate) next_beat_us: u64,
    /// `None` for a witness.
    pub(crate) candidate: Option<Candidate>,
    pub(crate) parting: Option<Parting>,
    pub(crate) actions: Vec<Action>,
}

impl Core {
    /// A member that starts now, and remembers nothing.
    pub fn new(settings: Settings, now_us: u64) -> Self {
        let voter = Voter::new(&settings, now_us);
        let first_us = now_us + settings.lease_us + settings.margin_us + settings.stagger_us(None);
        let is_node = settings.my_role() == Role::Node;
        Self {
            voter,
            peers: vec![PeerView::default(); settings.members.len()],
            serves: None,
            holder: None,
            campaigned_us: 0,
            started_us: now_us,
            next_beat_us: now_us,
            candidate: is_node.then(|| Candidate::new(now_us, first_us)),
            parting: None,
            actions: Vec::new(),
            settings,
        }
    }

    /// What follows from an event. May be called at any time, also with an event that means nothing any more.
    pub fn step(&mut self, now_us: u64, event: Event) -> Vec<Action> {
        if self.has_parted() {
            return Vec::new();
        }
        // First of all: after a pause nothing that waited may count for a lease that is over.
        self.lapse(now_us);
        match event {
            Event::Tick => {}
            Event::Received(from, message) => self.receive(now_us, from, message),
            Event::Foreign(from, ask) => self.voter.keep_for(now_us, from, &ask),
            Event::Fit(is_fit) => self.set_fit(now_us, is_fit),
            Event::Serves(serves) => self.set_serves(now_us, serves),
            Event::Transfer(to) => self.transfer(now_us, to),
            Event::Closed => self.closed(now_us),
            Event::Part(is_meant) => self.set_parting(now_us, is_meant),
        }
        self.part(now_us);
        if !self.has_parted() {
            self.on_time(now_us);
        }
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Self::step`] with [`Event::Tick`] if nothing else happens.
    pub fn wake_us(&self) -> u64 {
        if self.has_parted() {
            return u64::MAX;
        }
        let next_us = match &self.candidate {
            Some(candidate) => match candidate.state {
                State::Standby if !candidate.is_fit => u64::MAX,
                State::Standby | State::Asking { .. } => candidate.next_us,
                State::Active { until_us, .. } => candidate.next_us.min(until_us),
                State::Leaving { .. } => u64::MAX,
            },
            None => u64::MAX,
        };
        next_us.min(self.next_beat_us).min(self.next_look_us())
    }

    /// Where this member is.
    pub fn standing(&self) -> Standing {
        match self.candidate.as_ref().map(|candidate| candidate.state) {
            None => Standing::Witness,
            Some(State::Standby | State::Asking { .. }) => Standing::Standby,
            Some(State::Active { epoch, until_us }) => Standing::Active { epoch, until_us },
            Some(State::Leaving { .. }) => Standing::Leaving,
        }
    }

    /// For whom this member votes, and until when.
    pub fn vote(&self, now_us: u64) -> Option<(MemberId, u64)> {
        let vote = self.voter.vote_at(now_us).filter(|vote| vote.is_given);
        vote.map(|vote| (vote.to, vote.until_us))
    }

    /// The highest epoch that this member knows of.
    pub fn epoch(&self) -> u64 {
        self.voter.seen()
    }

    /// What is known of the members, by their places; of this one, nothing.
    pub fn peers(&self) -> &[PeerView] {
        &self.peers
    }

    fn send_all(&mut self, message: Message) {
        let others = self.settings.others();
        self.actions.extend(others.map(|to| Action::Send(to, message)));
    }

    fn receive(&mut self, now_us: u64, from: MemberId, message: Message) {
        let is_other = from != self.settings.me;
        let silence_us = self.silence_us();
        let Some(peer) = self.peers.get_mut(usize::from(from)).filter(|_| is_other) else {
            return;
        };
        let was_away = now_us >= peer.heard_us + silence_us;
        peer.heard_us = now_us;
        match message {
            Message::Ask(ask) => {
                peer.beat.active = ask.holds;
                match ask.holds {
                    true => self.holder = Some(from),
                    false => self.campaigned_us = now_us,
                }
                self.yield_to(from, &ask);
                let answer = self.voter.answer(now_us, from, &ask);
                self.actions
                    .extend(answer.map(|answer| Action::Send(from, answer)));
            }
            Message::Grant { round } => self.granted(now_us, from, round),
            Message::Refuse { round, refusal } => self.refused(now_us, from, round, refusal),
            Message::Release { epoch, round, to } => {
                peer.beat.active = false;
                if self.voter.release(from, epoch, round) {
                    self.follow(now_us, from, to);
                }
            }
            Message::Beat(beat) => {
                peer.beat = beat;
                peer.fit_since_us = match (beat.fit, peer.fit_since_us) {
                    (false, _) => 0,
                    (true, since_us) if since_us > 0 && !was_away => since_us,
                    (true, _) => now_us,
                };
                self.voter.learn(beat.epoch);
            }
            Message::Serves(serves) => peer.serves = Some(serves),
        }
    }

    // === What time brings ===

    fn on_time(&mut self, now_us: u64) {
        if now_us >= self.next_beat_us {
            self.next_beat_us = self.next_beat_after(now_us);
            let presence = self.presence(now_us);
            let is_fit = self.candidate.as_ref().is_some_and(|candidate| candidate.is_fit);
            let beat = Message::Beat(Beat {
                active: matches!(self.standing(), Standing::Active { .. }),
                // Whoever would hand over to a node that cannot ask yet would leave a gap.
                fit: is_fit && presence == Presence::Here,
                presence,
                epoch: self.voter.seen(),
            });
            self.send_all(beat);
            if let Some(serves) = self.serves {
                self.send_all(Message::Serves(serves));
            }
        }
        let Some(candidate) = &self.candidate else { return };
        if now_us < candidate.next_us {
            return;
        }
        match candidate.state {
            State::Standby if candidate.is_fit => self.consider(now_us),
            State::Asking { epoch, since_us } => {
                if now_us >= since_us + 2 * self.settings.heartbeat_us {
                    self.give_up(now_us, 0);
                } else {
                    self.ask(now_us, epoch, false);
                }
            }
            State::Active { epoch, .. } => self.ask(now_us, epoch, true),
            State::Standby | State::Leaving { .. } => {}
        }
    }

    /// Ends a lease that is over.
    fn lapse(&mut self, now_us: u64) {
        if let Some(candidate) = &self.candidate
            && let State::Active { until_us, .. } = candidate.state
            && now_us >= until_us
        {
            self.leave(None, Closing::Lapsed);
        }
    }

    /// Asks for the lease if this member's own vote is free.
    fn consider(&mut self, now_us: u64) {
        if let Some(until_us) = self.told_until_us(now_us) {
            return self.wait_until(until_us);
        }
        let Some(patience_us) = self.patience_us() else {
            // What it serves with may become the same, which a sign of life tells.
            return self.wait_until(now_us + BEAT_EVERY * self.settings.heartbeat_us);
        };
        if let Some(vote) = self.voter.vote_at(now_us) {
            let stagger_us = self.settings.stagger_us(Some(vote.to));
            return self.wait_until(vote.until_us + stagger_us + patience_us);
        }
        let silent_until_us = self.voter.silent_until_us();
        if now_us < silent_until_us {
            return self.wait_until(silent_until_us);
        }
        self.campaign(now_us);
    }

    fn wait_until(&mut self, at_us: u64) {
        if let Some(candidate) = &mut self.candidate {
            candidate.next_us = at_us;
        }
    }

    fn campaign(&mut self, now_us: u64) {
        let epoch = self.voter.seen().max(self.settings.epoch_floor) + 1;
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        candidate.begin();
        candidate.state = State::Asking {
            epoch,
            since_us: now_us,
        };
        self.ask(now_us, epoch, false);
    }

    /// Asks all voters, this member's own first.
    fn ask(&mut self, now_us: u64, epoch: u64, holds: bool) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        let ask = Ask {
            epoch,
            round: candidate.send(now_us),
            holds,
            lease_us: self.settings.lease_us,
        };
        // Until a majority has answered, again soon: the network loses things.
        let pause_us = self.settings.heartbeat_us / if holds { 4 } else { 2 };
        candidate.next_us = now_us + pause_us;
        let me = self.settings.me;
        if let Some(Message::Grant { round }) = self.voter.answer(now_us, me, &ask) {
            candidate.granted(now_us, me, round, &self.settings);
        }
        self.send_all(Message::Ask(ask));
        self.settle(now_us);
    }

    // === Answers ===

    fn granted(&mut self, now_us: u64, from: MemberId, round: u64) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        if candidate.granted(now_us, from, round, &self.settings) {
            self.settle(now_us);
        }
    }

    /// Opens the gate for as long as the votes say.
    fn settle(&mut self, now_us: u64) {
        let needed = self.needed(now_us);
        let Self {
            settings,
            candidate: Some(candidate),
            actions,
            ..
        } = self
        else {
            return;
        };
        let Some(agreed_us) = candidate.agreed_us(needed) else {
            return;
        };
        let until_us = agreed_us + settings.lease_us - settings.margin_us;
        let epoch = match candidate.state {
            State::Asking { epoch, .. } if until_us > now_us => {
                candidate.active_since_us = now_us;
                epoch
            }
            State::Active { epoch, until_us: old } if until_us > old => epoch,
            _ => return,
        };
        candidate.state = State::Active { epoch, until_us };
        candidate.failures = 0;
        if agreed_us == candidate.last_sent_us() {
            candidate.next_us = agreed_us + settings.heartbeat_us;
        }
        actions.push(Action::Open { epoch, until_us });
    }

    fn refused(&mut self, now_us: u64, from: MemberId, round: u64, refusal: Refusal) {
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        let State::Asking { .. } = candidate.state else {
            return;
        };
        let refusals = candidate.refused(from, round);
        if refusals == 0 {
            return;
        }
        match refusal {
            Refusal::Stale { seen } => {
                self.voter.learn(seen);
                self.give_up(now_us, 0);
                self.wait_until(now_us);
            }
            // Of two that ask at once, each with its own vote, the second in rank gives way, and the first gets its vote at
            // its next question.
            Refusal::Busy { holder, .. } if self.settings.precedes(holder) => {}
            Refusal::Busy { wait_us, .. } => {
                self.give_way(now_us, refusals, wait_us);
                self.ask_again_in(now_us, wait_us);
            }
            Refusal::Longer => self.give_way(now_us, refusals, self.settings.lease_us),
        }
    }

    /// Asks when that vote is free: voters hear a holder's last question one after the other, so the last one's vote ends last.
    fn ask_again_in(&mut self, now_us: u64, wait_us: u64) {
        if let Some(candidate) = &mut self.candidate
            && matches!(candidate.state, State::Asking { .. })
        {
            candidate.next_us = candidate.next_us.min(now_us + wait_us);
        }
    }

    /// Gives up if no majority is left.
    fn give_way(&mut self, now_us: u64, refusals: usize, wait_us: u64) {
        if self.settings.members.len() - refusals < self.needed(now_us) {
            self.give_up(now_us, wait_us.min(self.settings.lease_us / 2));
        }
    }

    /// Gives back the votes of a campaign that led nowhere.
    pub(crate) fn give_up(&mut self, now_us: u64, wait_us: u64) {
        let stagger_us = self.settings.stagger_us(None);
        let Some(candidate) = &mut self.candidate else {
            return;
        };
        let State::Asking { epoch, .. } = candidate.state else {
            return;
        };
        candidate.failures += 1;
        // Longer from time to time, so that two that always meet part.
        let backoff_us = self.settings.heartbeat_us / 2 * u64::from(candidate.failures.min(4));
        candidate.state = State::Standby;
        candidate.begin();
        candidate.next_us = now_us + wait_us.max(1) + stagger_us + if wait_us == 0 { backoff_us } else { 0 };
        self.release(epoch, None);
    }

    pub(crate) fn release(&mut self, epoch: u64, to: Option<MemberId>) {
        let round = self.candidate.as_ref().map_or(0, Candidate::last_round);
        self.voter.release(self.settings.me, epoch, round);
        self.send_all(Message::Release { epoch, round, to });
    }

    /// How many votes a lease takes now.
    fn needed(&self, now_us: u64) -> usize {
        let majority = self.settings.majority();
        if self.settings.when_alone != WhenAlone::Serve || self.settings.members.len() != 2 {
            return majority;
        }
        let Some(peer) = self.settings.others().next() else {
            return majority;
        };
        let PeerView { heard_us, beat, .. } = self.peers[usize::from(peer)];
        let heard_us = heard_us.max(self.started_us);
        // Whoever serves decides before its lease ends; whoever does not, after the other's would have.
        let patience_us = match self.standing() {
            // One that has just begun anew, or is about to, neither votes nor wants the lease.
            Standing::Active { .. } if beat.presence != Presence::Here => 0,
            Standing::Active { .. } => self.settings.lease_us / 2,
            _ => self.settings.lease_us + self.settings.margin_us,
        };
        if now_us >= heard_us + patience_us {
            1
        } else {
            majority
        }
    }
}
