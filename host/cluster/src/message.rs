//! What members say to one another.

use crate::settings::MemberId;

/// One message. None needs to arrive, nor to arrive once, nor in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A node wants the lease, or goes on with it.
    Ask(Ask),
    /// A voter has voted for whoever asked in this round.
    Grant {
        /// Of the question.
        round: u64,
    },
    /// It has not.
    Refuse {
        /// Of the question.
        round: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A node gives back the votes that it has. Its gate is closed.
    Release {
        /// Of its lease, or of the one that it asked for.
        epoch: u64,
        /// Its last question. Votes for later ones stay.
        round: u64,
        /// Who is to follow it, and may ask at once.
        to: Option<MemberId>,
    },
    /// A sign of life.
    Beat(Beat),
    /// What a node serves with, told beside each sign of life. Members that do not know it ignore it.
    Serves(Serves),
}

/// What a node serves with, as digests: equal ones for equal things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    /// Of the configuration that all nodes should have.
    pub config: u64,
    /// Of the policies that decide, by pool.
    pub policies: u64,
}

/// A question for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Of the lease; higher than any before for a new one.
    pub epoch: u64,
    /// Counts the questions of one start of a node.
    pub round: u64,
    /// Whether the node has the lease already and goes on with it.
    pub holds: bool,
    /// How long the node takes a vote to hold.
    pub lease_us: u64,
}

/// Why a voter does not vote for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has voted for another.
    Busy {
        /// For whom.
        holder: MemberId,
        /// How long that vote holds if it is not renewed.
        wait_us: u64,
    },
    /// The epoch is not new.
    Stale {
        /// The highest that was voted for.
        seen: u64,
    },
    /// The node's lease is longer than the voter's: their configurations differ.
    Longer,
}

/// Whether a member's vote can be counted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It can. So it is with members that do not say it.
    #[default]
    Here,
    /// It has begun lately, and votes for nobody yet.
    Silent,
    /// It is about to begin anew in another process.
    Parting,
}

/// What a member tells of itself now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// It has the lease.
    pub active: bool,
    /// It could serve, and could have the lease at once.
    pub fit: bool,
    /// Whether its vote can be counted on.
    pub presence: Presence,
    /// The highest epoch that it knows of.
    pub epoch: u64,
}
