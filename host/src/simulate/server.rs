//! One simulated backend: so many requests at a time, the others wait in order.
//!
//! Owns its queue, its condition, and the time-weighted sums of both. It must not know balancers, nor who is waiting.
//!
//! Invariant: [`Server::touch`] is called with the time before anything changes, so the sums are exact.

use std::collections::VecDeque;

use super::agenda::Ns;

/// A backend as the machine that it is.
#[derive(Debug)]
pub(super) struct Server {
    /// Position of its group in the scenario, and its own in the group, from 0.
    pub(super) group: usize,
    pub(super) ordinal: u32,
    /// `NAME-1:80`
    pub(super) address: String,
    pub(super) concurrency: u32,
    queue_max: usize,
    factor: f64,
    pub(super) condition: Condition,
    /// It is in the balancers' configurations.
    pub(super) is_present: bool,
    busy: u32,
    /// Taken and never answered.
    held: u32,
    waiting: VecDeque<u32>,
    sums: Sums,
    touched: Ns,
}

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Condition {
    /// Service times are multiplied by it.
    pub(super) slow: f64,
    /// The share of requests that is answered with this status at once.
    pub(super) fail: Option<(f64, u16)>,
    pub(super) is_dead: bool,
    pub(super) hangs: bool,
    pub(super) drains: bool,
}

impl Condition {
    pub(super) const FINE: Self = Self {
        slow: 1.0,
        fail: None,
        is_dead: false,
        hangs: false,
        drains: false,
    };
}

/// Time-weighted, in requests times nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// At the backend, whether it works on them or not.
    pub(super) in_flight: u128,
    /// That it works on.
    pub(super) busy: u128,
}

/// What becomes of a request that reaches a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Received {
    /// Nobody listens.
    Refused,
    /// Answered at once.
    Answered(u16),
    /// Never answered.
    Held,
    /// Worked on, so many times longer than at a backend of factor 1.
    Begun(f64),
    /// Waits.
    Queued,
}

impl Server {
    pub(super) fn new(group: &crate::config::Group, position: usize, ordinal: u32) -> Self {
        Self {
            group: position,
            ordinal,
            address: format!("{}-{}:80", group.name, ordinal + 1),
            concurrency: group.concurrency,
            queue_max: group.queue as usize,
            factor: group.factor,
            condition: Condition::FINE,
            is_present: false,
            busy: 0,
            held: 0,
            waiting: VecDeque::new(),
            sums: Sums::default(),
            touched: 0,
        }
    }

    /// A request comes. `unit` decides whether it is one that fails.
    pub(super) fn receive(&mut self, now: Ns, flight: u32, unit: f64) -> Received {
        self.touch(now);
        let Condition {
            fail, is_dead, hangs, ..
        } = self.condition;
        if is_dead {
            return Received::Refused;
        }
        if hangs {
            self.held += 1;
            return Received::Held;
        }
        if let Some((rate, status)) = fail
            && unit < rate
        {
            return Received::Answered(status);
        }
        if self.busy < self.concurrency {
            self.busy += 1;
            return Received::Begun(self.slowness());
        }
        if self.waiting.len() >= self.queue_max {
            return Received::Answered(503);
        }
        self.waiting.push_back(flight);
        Received::Queued
    }

    /// The work on a request is done. Gives the next one, and how much longer it takes here.
    pub(super) fn finish(&mut self, now: Ns) -> Option<(u32, f64)> {
        self.touch(now);
        match self.waiting.pop_front() {
            Some(next) => Some((next, self.slowness())),
            None => {
                self.busy = self.busy.saturating_sub(1);
                None
            }
        }
    }

    /// One that would never have been answered was given up.
    pub(super) fn let_go(&mut self, now: Ns) {
        self.touch(now);
        self.held = self.held.saturating_sub(1);
    }

    /// Everything that it works on is cut off.
    pub(super) fn cut(&mut self, now: Ns) {
        self.touch(now);
        self.waiting.clear();
        (self.busy, self.held) = (0, 0);
    }

    pub(super) fn in_flight(&self) -> u64 {
        u64::from(self.busy) + u64::from(self.held) + self.waiting.len() as u64
    }

    /// The sums up to now.
    pub(super) fn touch(&mut self, now: Ns) -> Sums {
        let spent = u128::from(now - self.touched);
        self.sums.in_flight += u128::from(self.in_flight()) * spent;
        self.sums.busy += u128::from(self.busy) * spent;
        self.touched = now;
        self.sums
    }

    fn slowness(&self) -> f64 {
        self.factor * self.condition.slow
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Scenario;

    fn server(keys: &str) -> Server {
        let text = format!(
            "policies = [\"round-robin\"]\narrivals = {{ rate = 1 }}\nservice = {{ mean = \"1ms\" }}\n\
             backends = [{{ name = \"b\", {keys} }}]\n"
        );
        let scenario = Scenario::parse(&text, "test", Path::new(".")).unwrap();
        Server::new(&scenario.groups[0], 0, 0)
    }

    #[test]
    fn requests_wait_in_order_and_one_too_many_is_refused_with_503() {
        let mut server = server("concurrency = 1, queue = 2, factor = 2");
        assert_eq!(server.receive(0, 7, 0.5), Received::Begun(2.0));
        assert_eq!(server.receive(0, 8, 0.5), Received::Queued);
        assert_eq!(server.receive(0, 9, 0.5), Received::Queued);
        assert_eq!(server.receive(0, 10, 0.5), Received::Answered(503));
        assert_eq!(server.finish(10), Some((8, 2.0)));
        assert_eq!(server.finish(20), Some((9, 2.0)));
        assert_eq!(server.finish(30), None);
        let sums = server.touch(40);
        assert_eq!((sums.in_flight, sums.busy), (3 * 10 + 2 * 10 + 10, 30));
    }

    #[test]
    fn a_condition_decides_before_the_queue() {
        let mut server = server("concurrency = 1");
        server.condition.fail = Some((0.5, 500));
        assert_eq!(server.receive(0, 1, 0.4), Received::Answered(500));
        assert_eq!(server.receive(0, 1, 0.6), Received::Begun(1.0));
        server.condition.hangs = true;
        assert_eq!(server.receive(0, 2, 0.4), Received::Held);
        assert_eq!(server.in_flight(), 2);
        server.let_go(5);
        server.condition.is_dead = true;
        assert_eq!(server.receive(6, 3, 0.4), Received::Refused);
        server.cut(9);
        assert_eq!(server.in_flight(), 0);
    }
}
