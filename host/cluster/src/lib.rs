//! Which node of a cluster is active: majority leases, as a pure state machine.
//!
//! Owns the protocol between members: who asks whom for how long, when a node may answer for the cluster's address, and how all
//! that is written and sealed in datagrams.
//! It has no socket, no clock and no thread: [`Core::step`] takes the time and what happened, and answers with what is to
//! be done. So a simulation can try a million seconds of bad luck in one of good (`tests/simulation`).
//!
//! Times are microseconds of a clock that goes on while the machine is suspended, and that nobody sets. Members' clocks
//! need not agree on the time, only on its pace, within what the margin covers.
//!
//! Invariant: at no instant do two nodes have an open gate, as long as timers fire and clocks run within the margin. It
//! rests on three rules: a voter votes for one node at a time, for a lease counted from the *receipt* of the question; a holder
//! counts the same lease from its *sending*, less the margin; and a voter that has begun anew says nothing for a lease and a margin.
//! (Two nodes that were told to serve when alone gave up the invariant: [`WhenAlone::Serve`].)
//! Read next: `voter.rs` (50 lines that safety rests on), `core.rs` (the doors), `candidate.rs` (the life of a node), `handover.rs`,
//! `likeness.rs` (who is ready to follow), `parting.rs` (how a member is replaced by the next process).

#![warn(missing_docs)]

mod candidate;
mod core;
mod handover;
mod likeness;
mod message;
mod parting;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod voter;
pub mod wire;

pub use core::{Action, Closing, Core, Event, PeerView, Standing};
pub use message::{Ask, Beat, Message, Presence, Refusal, Serves};
pub use session::{Acquaintance, Session, Stamp, Verdict};
pub use settings::{MEMBERS_MAX, Member, MemberId, Mutation, Role, Settings, Unlike, WhenAlone};
