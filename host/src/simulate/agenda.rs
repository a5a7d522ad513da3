//! What happens when: the queue of a discrete-event simulation.
//!
//! Owns the virtual clock and the order of events. Events of the same moment happen in the order in which they were
//! planned, so that a run is the same each time. It must not know what events do.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Nanoseconds since the simulation began. Microseconds, which policies are told, would be too coarse for the gaps
/// between a million requests a second.
pub(super) type Ns = u64;

/// Something that is to happen. Numbers are those of flights, servers, balancers and happenings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The next request.
    Arrival,
    /// A backend has finished its work on a flight, if the flight is still at this epoch.
    Served { flight: u32, epoch: u32 },
    /// An answer, or the lack of one, reaches the balancer.
    Answered { flight: u32, epoch: u32 },
    /// A balancer checks a backend.
    Check { node: u32, server: u32, count: u32 },
    /// The check's result is there.
    Checked { node: u32, server: u32, ok: bool },
    /// A pool may have something to do: an ejection ends, a slow start goes on.
    Look { node: u32 },
    /// Something of the scenario begins.
    Begin { happening: u32 },
    /// And ends.
    End { happening: u32 },
    /// The autoscaler looks.
    Scale,
    /// Backends that were ordered are there.
    Scaled { count: u32 },
    /// A new instance is built in place of one that failed.
    Rebuilt { order: u32 },
    /// Balancers tell each other what they have in flight.
    Digest,
    /// A second is over.
    Sweep,
}

/// The events to come.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    waiting: BinaryHeap<Reverse<(Ns, u64, Event)>>,
    planned: u64,
    now: Ns,
}

impl Agenda {
    pub(super) fn now(&self) -> Ns {
        self.now
    }

    /// At this time, or now if that is over.
    pub(super) fn plan(&mut self, at: Ns, event: Event) {
        self.planned += 1;
        self.waiting
            .push(Reverse((at.max(self.now), self.planned, event)));
    }

    /// Goes on to the next event, unless there is none.
    pub(super) fn next(&mut self) -> Option<Event> {
        let Reverse((at, _, event)) = self.waiting.pop()?;
        self.now = at;
        Some(event)
    }

    /// When the next event is.
    pub(super) fn next_at(&self) -> Option<Ns> {
        self.waiting.peek().map(|Reverse((at, ..))| *at)
    }

    /// Time passes without an event.
    pub(super) fn pass(&mut self, at: Ns) {
        debug_assert!(at >= self.now && self.next_at().is_none_or(|next| next >= at));
        self.now = at;
    }
}

/// Seconds as nanoseconds; what does not fit lasts for ever.
pub(super) fn ns(seconds: f64) -> Ns {
    (seconds * 1e9).round() as Ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_planning() {
        let mut agenda = Agenda::default();
        agenda.plan(5, Event::Sweep);
        agenda.plan(3, Event::Digest);
        agenda.plan(5, Event::Arrival);
        agenda.plan(3, Event::Scale);
        let order: Vec<_> = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!(order, [Event::Digest, Event::Scale, Event::Sweep, Event::Arrival]);
        assert_eq!(agenda.now(), 5);
        agenda.plan(1, Event::Sweep);
        agenda.next();
        assert_eq!(agenda.now(), 5);
    }
}
