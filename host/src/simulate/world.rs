//! The simulated world: clients, balancers, backends, and the time that they share.
//!
//! Owns the loop over events, and the way of a request through it. What changes besides requests is in
//! `world/change.rs`. It must not know what the figures are good for.
//!
//! Invariant: every request ends once (`open` counts them), and nothing depends on the time of the machine.

mod change;

use std::collections::VecDeque;

use super::{
    SimulateError,
    agenda::{Agenda, Event, Ns, ns},
    arrivals::ArrivalTimes,
    cast::Actor,
    draw::{Draw, Purpose},
    figures::{Ending, Figures, Sent},
    fleet::Fleet,
    flight::{Attempt, Flights, Outcome, Place},
    node::{Clock, Decided, Node, now_us},
    server::Received,
    traffic::Traffic,
};
use crate::{config::Scenario, policy::Facts};

/// The world of one policy.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    draw: Draw,
    agenda: Agenda,
    arrivals: ArrivalTimes,
    traffic: Traffic<'a>,
    pub(super) fleet: Fleet<'a>,
    pub(super) nodes: Vec<Node>,
    flights: Flights,
    /// When attempts are given up, in order, since all may last as long.
    timeouts: VecDeque<(Ns, u32, u32)>,
    orders: Vec<change::Order>,
    /// When each balancer's pool is looked at next, if that is planned.
    looks: Vec<Option<Ns>>,
    pub(super) figures: Figures,
    warm_up: Ns,
    requests: u64,
    arrived: u64,
    /// Requests whose clients wait.
    open: u64,
}

impl<'a> World<'a> {
    /// Nothing has happened yet. `span`: when the last request arrives.
    pub(super) fn new(scenario: &'a Scenario, actor: &Actor, span: Ns) -> Result<Self, SimulateError> {
        let (draw, clock) = (Draw::new(scenario.seed), Clock::new());
        let fleet = Fleet::new(scenario);
        let numbers = 0..scenario.balancers.count;
        let nodes: Result<Vec<Node>, _> = numbers
            .map(|number| Node::new((scenario, &fleet), number, actor, (clock, draw)))
            .collect();
        let keys = scenario.keys.as_ref().map_or(0, |keys| keys.count);
        let mut world = Self {
            scenario,
            draw,
            agenda: Agenda::default(),
            arrivals: ArrivalTimes::new(scenario.arrivals, draw),
            traffic: Traffic::new(scenario, draw),
            fleet,
            looks: vec![None; scenario.balancers.count as usize],
            nodes: nodes?,
            flights: Flights::default(),
            timeouts: VecDeque::new(),
            orders: Vec::new(),
            figures: Figures::new(span, keys),
            warm_up: ns(scenario.warm_up.as_secs_f64()),
            requests: scenario.requests,
            arrived: 0,
            open: 0,
        };
        world.plan_arrival();
        world.plan_changes();
        Ok(world)
    }

    /// Runs until every request has ended. `tell` hears of every so many arrivals.
    pub(super) fn run(&mut self, tell: &dyn Fn(u64)) {
        /// Often enough for a bar that moves, and rare enough to cost nothing.
        const TELL_EVERY: u64 = 4096;
        while self.arrived < self.requests || self.open > 0 {
            if self.give_up_late() {
                continue;
            }
            let Some(event) = self.agenda.next() else { break };
            self.close_buckets(self.agenda.now());
            match event {
                Event::Arrival => {
                    self.arrive();
                    if self.arrived.is_multiple_of(TELL_EVERY) {
                        tell(self.arrived);
                    }
                }
                Event::Served { flight, epoch } => self.served(flight, epoch),
                Event::Answered { flight, epoch } => self.answered(flight, epoch),
                other => self.change(other),
            }
        }
        self.close_buckets(Ns::MAX);
        tell(self.arrived);
    }

    /// Closes the buckets that end until then. To be called before anything changes.
    fn close_buckets(&mut self, now: Ns) {
        while let Some(end) = self.figures.bucket_end().filter(|end| *end <= now) {
            self.figures.close_bucket(end, &mut self.fleet.servers);
        }
    }

    fn plan_arrival(&mut self) {
        if self.arrived < self.requests
            && let Some(at_s) = self.arrivals.next()
        {
            self.agenda.plan(ns(at_s), Event::Arrival);
        }
    }

    fn arrive(&mut self) {
        let now = self.agenda.now();
        let asked = self.traffic.request(self.arrived);
        self.arrived += 1;
        self.open += 1;
        self.figures.arrived();
        let flight = self.flights.add(asked, now, now >= self.warm_up);
        self.attempt(flight);
        self.plan_arrival();
    }

    /// Has the policy decide an attempt, and sends the request there.
    fn attempt(&mut self, number: u32) {
        let now = self.agenda.now();
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        let (asked, tried) = (flight.asked, flight.tried);
        let (is_counted, epoch) = (flight.is_counted, flight.epoch);
        let node = &mut self.nodes[asked.balancer as usize];
        let decided = self.traffic.with_head(&asked, |key, head| {
            let facts = Facts {
                key,
                random: self.draw.bits(Purpose::Pick(tried.attempts()), asked.number),
                client: asked.client,
                now_us: now_us(now),
            };
            node.decide(asked.worker, &facts, &tried, head)
        });
        self.take_orders(asked.balancer);
        let target = match decided {
            Decided::Send(target) => target,
            Decided::Reject => return self.end(number, Ending::Rejected),
            Decided::NoBackend => return self.end(number, Ending::NoBackend),
        };
        let server = target.server;
        let is_retry = tried.attempts() > 0;
        self.figures.sent(&Sent {
            server,
            key: asked.key.filter(|_| !is_retry),
            is_local: self.is_local(asked.balancer, server),
            is_retry,
            is_counted,
        });
        if let Some(flight) = self.flights.get(number) {
            flight.attempt = Some(Attempt {
                target,
                began: now,
                outcome: Outcome::Status(200),
            });
        }
        let timeout = ns(self.scenario.pool.response_timeout.as_secs_f64());
        self.timeouts.push_back((now + timeout, number, epoch));
        self.reach(number, server);
    }

    /// A request reaches a backend.
    fn reach(&mut self, number: u32, place: u32) {
        let now = self.agenda.now();
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        let purpose = Purpose::Failure(flight.tried.attempts());
        let unit = self.draw.unit(purpose, flight.asked.number);
        let epoch = flight.epoch;
        let mut at_once = |outcome| {
            if let Some(attempt) = &mut flight.attempt {
                attempt.outcome = outcome;
            }
        };
        match self.fleet.servers[place as usize].receive(now, number, unit) {
            Received::Refused => at_once(Outcome::Refused),
            Received::Answered(status) => at_once(Outcome::Status(status)),
            Received::Held => return flight.place = Place::Held(place),
            Received::Queued => return flight.place = Place::Waiting(place),
            Received::Begun(slowness) => {
                flight.place = Place::Working(place);
                let done = now + ns(flight.asked.service_s * slowness);
                return self.agenda.plan(
                    done,
                    Event::Served {
                        flight: number,
                        epoch,
                    },
                );
            }
        }
        self.return_answer(number);
    }

    /// A backend has finished its work on a request, and goes on with the next.
    fn served(&mut self, number: u32, epoch: u32) {
        let now = self.agenda.now();
        let Some(flight) = self.flights.at_epoch(number, epoch) else {
            return;
        };
        let Place::Working(place) = flight.place else {
            return;
        };
        flight.place = Place::Nowhere;
        let is_given_up = flight.attempt.is_none();
        if is_given_up {
            self.flights.free(number);
        } else {
            self.return_answer(number);
        }
        if let Some((next, slowness)) = self.fleet.servers[place as usize].finish(now)
            && let Some(flight) = self.flights.get(next)
        {
            flight.place = Place::Working(place);
            let done = now + ns(flight.asked.service_s * slowness);
            let epoch = flight.epoch;
            self.agenda.plan(done, Event::Served { flight: next, epoch });
        }
    }

    /// Sends back what the attempt has come to.
    fn return_answer(&mut self, number: u32) {
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        let (epoch, balancer) = (flight.epoch, flight.asked.balancer);
        let Some(server) = flight.attempt.as_ref().map(|attempt| attempt.target.server) else {
            return;
        };
        let way = self.way(balancer, server);
        if way == 0 {
            return self.answered(number, epoch);
        }
        let at = self.agenda.now() + way;
        self.agenda.plan(
            at,
            Event::Answered {
                flight: number,
                epoch,
            },
        );
    }

    /// The balancer has what the attempt has come to.
    fn answered(&mut self, number: u32, epoch: u32) {
        let Some(flight) = self.flights.at_epoch(number, epoch) else {
            return;
        };
        let Some(attempt) = flight.attempt.take() else {
            return;
        };
        let (server, outcome) = (attempt.target.server, attempt.outcome);
        let (is_counted, asked) = (flight.is_counted, flight.asked);
        let class = &self.scenario.classes[asked.class as usize];
        let status = match outcome {
            Outcome::Status(status) => Some(status),
            Outcome::Refused | Outcome::Broken => None,
        };
        // As the proxy does: what was not sent may be sent again, and what was, if that does no harm.
        let may_repeat = match outcome {
            Outcome::Status(_) => false,
            Outcome::Refused => true,
            Outcome::Broken => is_idempotent(&class.method),
        };
        flight.epoch += 1;
        flight.tried.push(attempt.target.backend.id);
        let is_another = may_repeat && flight.tried.attempts() < self.scenario.pool.retry.attempts.get();
        let bytes = if status.is_some() { class.body_bytes } else { 0 };
        self.close(asked, &attempt, (status, bytes));
        match status {
            Some(status) => {
                if status < 500 && is_counted {
                    self.figures.answered(server);
                }
                self.end(number, Ending::Answered(status));
            }
            None if is_another => self.attempt(number),
            None => self.end(number, Ending::Unreachable),
        }
    }

    /// The balancer's books on an attempt are closed.
    fn close(
        &mut self,
        asked: super::traffic::Asked,
        attempt: &Attempt,
        (status, bytes): (Option<u16>, u64),
    ) {
        let now = self.agenda.now();
        let node = &mut self.nodes[asked.balancer as usize];
        let times = (attempt.began, now);
        if node.end(asked.worker, &attempt.target, times, (status, bytes)) {
            self.look(asked.balancer);
        }
        self.take_orders(asked.balancer);
    }

    /// Ends the attempt that has waited longest, if it has for too long. The backend works on, for nobody.
    fn give_up_late(&mut self) -> bool {
        while let Some((at, number, epoch)) = self.timeouts.front().copied() {
            let flight = self.flights.at_epoch(number, epoch);
            let Some(flight) = flight.filter(|flight| flight.attempt.is_some()) else {
                self.timeouts.pop_front();
                continue;
            };
            if self.agenda.next_at().is_some_and(|next| next < at) {
                return false;
            }
            let (asked, place) = (flight.asked, flight.place);
            let attempt = flight.attempt.take();
            self.timeouts.pop_front();
            self.close_buckets(at);
            self.agenda.pass(at);
            if let Some(attempt) = attempt {
                self.close(asked, &attempt, (None, 0));
            }
            if let Place::Held(server) = place {
                self.fleet.servers[server as usize].let_go(at);
                if let Some(flight) = self.flights.get(number) {
                    flight.place = Place::Nowhere;
                }
            }
            self.end(number, Ending::TimedOut);
            return true;
        }
        false
    }

    /// The client has its answer.
    fn end(&mut self, number: u32, ending: Ending) {
        let now = self.agenda.now();
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        debug_assert!(
            flight.attempt.is_none(),
            "an attempt is closed before its request ends"
        );
        self.figures
            .ended(now - flight.arrived, ending, flight.is_counted);
        self.open -= 1;
        if flight.place == Place::Nowhere {
            self.flights.free(number);
        }
    }

    /// Time to a backend and back.
    fn way(&self, balancer: u32, server: u32) -> Ns {
        let network = &self.scenario.network;
        let between = match self.is_local(balancer, server) {
            Some(false) => network.between_zones,
            _ => std::time::Duration::ZERO,
        };
        ns((network.round_trip + between).as_secs_f64())
    }

    fn is_local(&self, balancer: u32, server: u32) -> Option<bool> {
        let own = self.nodes[balancer as usize].zone.as_ref()?;
        let group = self.fleet.servers[server as usize].group;
        let zone = self.scenario.groups[group].zone.as_ref()?;
        Some(own == zone)
    }
}

/// RFC 9110, 9.2.2, as the proxy has it.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}
