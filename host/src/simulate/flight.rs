//! Requests under way.
//!
//! Owns their records, which are used again when a request is over. It must not know what happens to them.
//!
//! Invariant: a record is freed once, when the client has its answer and no backend works on it any more.

use super::{agenda::Ns, node::Target, traffic::Asked};
use crate::policy::Tried;

/// A request from its arrival to its end.
pub(super) struct Flight {
    pub(super) asked: Asked,
    pub(super) arrived: Ns,
    /// It came after the warm-up.
    pub(super) is_counted: bool,
    pub(super) tried: Tried,
    /// Grows with every attempt, so that what was planned for an earlier one is void.
    pub(super) epoch: u32,
    /// The attempt under way, as the balancer knows it.
    pub(super) attempt: Option<Attempt>,
    /// The backend that has it, which may be working for nobody.
    pub(super) place: Place,
}

/// An attempt.
pub(super) struct Attempt {
    pub(super) target: Target,
    pub(super) began: Ns,
    /// What comes back: a status, or none if the connection is refused or breaks.
    pub(super) outcome: Outcome,
}

/// What comes back from a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer.
    Status(u16),
    /// No connection: nothing was sent.
    Refused,
    /// The connection broke.
    Broken,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At no backend.
    Nowhere,
    /// Waiting at this backend.
    Waiting(u32),
    /// Worked on by it.
    Working(u32),
    /// Taken by it, and never to be answered.
    Held(u32),
}

/// All of them.
#[derive(Default)]
pub(super) struct Flights {
    records: Vec<Option<Flight>>,
    /// The epoch that the next user of a record begins with.
    epochs: Vec<u32>,
    free: Vec<u32>,
}

impl Flights {
    pub(super) fn add(&mut self, asked: Asked, arrived: Ns, is_counted: bool) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.records.push(None);
            self.epochs.push(0);
            (self.records.len() - 1) as u32
        });
        self.records[place as usize] = Some(Flight {
            asked,
            arrived,
            is_counted,
            tried: Tried::default(),
            epoch: self.epochs[place as usize],
            attempt: None,
            place: Place::Nowhere,
        });
        place
    }

    pub(super) fn get(&mut self, place: u32) -> Option<&mut Flight> {
        self.records.get_mut(place as usize)?.as_mut()
    }

    /// The record, if it is still at this epoch.
    pub(super) fn at_epoch(&mut self, place: u32, epoch: u32) -> Option<&mut Flight> {
        self.get(place).filter(|flight| flight.epoch == epoch)
    }

    /// Forgets a request that is over.
    pub(super) fn free(&mut self, place: u32) {
        if let Some(flight) = self.records[place as usize].take() {
            self.epochs[place as usize] = flight.epoch.wrapping_add(1);
            self.free.push(place);
        }
    }

    /// Those that a backend has.
    pub(super) fn at(&self, server: u32) -> Vec<u32> {
        let all = self.records.iter().enumerate();
        let here = all.filter(|(_, flight)| {
            flight
                .as_ref()
                .is_some_and(|flight| flight.place.server() == Some(server))
        });
        here.map(|(place, _)| place as u32).collect()
    }
}

impl Place {
    fn server(self) -> Option<u32> {
        match self {
            Self::Nowhere => None,
            Self::Waiting(server) | Self::Working(server) | Self::Held(server) => Some(server),
        }
    }
}
