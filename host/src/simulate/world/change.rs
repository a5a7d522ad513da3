//! What changes besides requests: conditions, membership, checks, replaced instances, news of other balancers.

use super::{
    super::{
        agenda::{Event, Ns, ns},
        draw::Purpose,
        fleet::{Changed, Scaling},
        flight::{Outcome, Place},
    },
    World,
};
use crate::config::HealthKind;

/// The host builds the next instance at once after the breaker's pause; one that cannot be built is tried again then.
const REBUILD_AGAIN: Ns = 10_000_000_000;
const SECOND: Ns = 1_000_000_000;

/// An instance that is being built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    node: u32,
    worker: usize,
}

impl World<'_> {
    /// What is known beforehand.
    pub(super) fn plan_changes(&mut self) {
        for (place, event) in self.scenario.events.iter().enumerate() {
            let happening = place as u32;
            self.agenda
                .plan(ns(event.at.as_secs_f64()), Event::Begin { happening });
            if let Some(until) = event.until {
                self.agenda
                    .plan(ns(until.as_secs_f64()), Event::End { happening });
            }
        }
        if let Some(rule) = &self.scenario.autoscale {
            self.agenda.plan(ns(rule.every.as_secs_f64()), Event::Scale);
        }
        if let Some(digest) = self.scenario.balancers.digest {
            self.agenda.plan(ns(digest.as_secs_f64()), Event::Digest);
        }
        self.agenda.plan(SECOND, Event::Sweep);
        let nodes = 0..self.nodes.len() as u32;
        if self.scenario.pool.health.is_some() {
            for server in self.fleet.may_fail_checks() {
                nodes.clone().for_each(|node| self.plan_check(node, server, 0));
            }
        }
    }

    pub(super) fn change(&mut self, event: Event) {
        match event {
            Event::Check { node, server, count } => self.check(node, server, count),
            Event::Checked { node, server, ok } => {
                let now = self.agenda.now();
                if self.nodes[node as usize].checked(server, ok, now) {
                    self.look(node);
                }
            }
            Event::Look { node } => {
                if self.looks[node as usize] == Some(self.agenda.now()) {
                    self.look(node);
                }
            }
            Event::Begin { happening } => self.happen(happening, true),
            Event::End { happening } => self.happen(happening, false),
            Event::Scale => self.scale(),
            Event::Scaled { count } => {
                if let Some(rule) = self.scenario.autoscale {
                    self.fleet.arrive(&rule, count);
                    self.reload();
                }
            }
            Event::Rebuilt { order } => self.rebuild(order),
            Event::Digest => self.digest(),
            Event::Sweep => {
                let now = self.agenda.now();
                self.nodes.iter_mut().for_each(|node| node.sweep(now));
                self.agenda.plan(now + SECOND, Event::Sweep);
            }
            Event::Arrival | Event::Served { .. } | Event::Answered { .. } => {}
        }
    }

    fn happen(&mut self, happening: u32, begins: bool) {
        let Changed {
            membership,
            died,
            drained,
        } = self.fleet.happen(happening, begins);
        for server in died {
            self.cut(server);
        }
        if membership {
            self.reload();
        }
        let now = self.agenda.now();
        for (server, drains) in drained {
            self.nodes
                .iter_mut()
                .for_each(|node| node.drain(server, drains, now));
        }
        (0..self.nodes.len() as u32).for_each(|node| self.look(node));
    }

    /// A backend dies with everything that it works on.
    fn cut(&mut self, server: u32) {
        let now = self.agenda.now();
        self.fleet.servers[server as usize].cut(now);
        for number in self.flights.at(server) {
            let Some(flight) = self.flights.get(number) else {
                continue;
            };
            flight.place = Place::Nowhere;
            // What was planned for it is void.
            flight.epoch += 1;
            match &mut flight.attempt {
                Some(attempt) => {
                    attempt.outcome = Outcome::Broken;
                    self.return_answer(number);
                }
                None => self.flights.free(number),
            }
        }
    }

    fn reload(&mut self) {
        let now = self.agenda.now();
        for node in &mut self.nodes {
            node.reload(self.scenario, &self.fleet, now);
        }
        (0..self.nodes.len() as u32).for_each(|node| self.look(node));
    }

    fn scale(&mut self) {
        let Some(rule) = self.scenario.autoscale else {
            return;
        };
        let now = self.agenda.now();
        match self.fleet.scale(&rule, now) {
            Scaling::Enough => {}
            Scaling::Order(count) => {
                let delay = ns(rule.delay.as_secs_f64());
                self.agenda.plan(now + delay, Event::Scaled { count });
            }
            Scaling::Shrunk => self.reload(),
        }
        let every = ns(rule.every.as_secs_f64());
        self.agenda.plan(now + every, Event::Scale);
    }

    /// The pool does what is due, and says when there is something again.
    pub(super) fn look(&mut self, node: u32) {
        let now = self.agenda.now();
        let next = self.nodes[node as usize].look(now);
        // Rounded down, a time may be over; then nothing would be due yet, over and over.
        let next = next.map(|next| next.max(now + 1000));
        self.looks[node as usize] = next;
        if let Some(next) = next {
            self.agenda.plan(next, Event::Look { node });
        }
    }

    fn plan_check(&mut self, node: u32, server: u32, count: u32) {
        let Some(rule) = &self.scenario.pool.health else {
            return;
        };
        let number = check_number(node, server, count);
        let unit = self.draw.unit(Purpose::Check, number);
        // The first within an interval, the others each moved by up to a tenth of it, as the host does.
        let parts = if count == 0 { unit } else { 0.9 + 0.2 * unit };
        let at = self.agenda.now() + ns(rule.interval.as_secs_f64() * parts);
        self.agenda.plan(at, Event::Check { node, server, count });
    }

    fn check(&mut self, node: u32, server: u32, count: u32) {
        self.plan_check(node, server, count + 1);
        let Some(rule) = &self.scenario.pool.health else {
            return;
        };
        let now = self.agenda.now();
        let state = &self.fleet.servers[server as usize];
        if !state.is_present {
            return;
        }
        let is_http = matches!(rule.kind, HealthKind::Http { .. });
        let condition = state.condition;
        let number = check_number(node, server, count);
        let fails = condition
            .fail
            .is_some_and(|(rate, _)| self.draw.unit(Purpose::CheckFailure, number) < rate);
        let hangs = is_http && condition.hangs && !condition.is_dead;
        let ok = !(condition.is_dead || hangs || (is_http && fails));
        let wait = if hangs { ns(rule.timeout.as_secs_f64()) } else { 0 };
        self.agenda.plan(now + wait, Event::Checked { node, server, ok });
    }

    /// Has new instances built for those that failed.
    pub(super) fn take_orders(&mut self, node: u32) {
        while let Some(order) = self.nodes[node as usize].next_order() {
            self.orders.push(Order {
                node,
                worker: order.worker,
            });
            let at = self.agenda.now() + order.pause.as_nanos() as Ns;
            let order = self.orders.len() as u32 - 1;
            self.agenda.plan(at, Event::Rebuilt { order });
        }
    }

    fn rebuild(&mut self, number: u32) {
        let Order { node, worker } = self.orders[number as usize];
        let now = self.agenda.now();
        if self.nodes[node as usize].rebuild(worker, now, self.draw) {
            self.take_orders(node);
        } else {
            self.agenda
                .plan(now + REBUILD_AGAIN, Event::Rebuilt { order: number });
        }
    }

    /// Balancers tell each other what they have in flight.
    fn digest(&mut self) {
        let mut sums = vec![0; self.fleet.servers.len()];
        self.nodes.iter().for_each(|node| node.add_in_flight(&mut sums));
        let now = self.agenda.now();
        self.nodes.iter().for_each(|node| node.learn(&sums, now));
        if let Some(digest) = self.scenario.balancers.digest {
            let at = self.agenda.now() + ns(digest.as_secs_f64());
            self.agenda.plan(at, Event::Digest);
        }
    }
}

fn check_number(node: u32, server: u32, count: u32) -> u64 {
    u64::from(node) << 48 | u64::from(server) << 28 | u64::from(count)
}
