//! All simulated backends, and which of them the balancers' configurations name.
//!
//! Owns membership (joining, leaving, autoscaling) and what the scenario's events do to conditions. It must not know
//! balancers.

use super::{
    agenda::Ns,
    server::{Condition, Server},
};
use crate::config::{Action, Autoscale, Scenario};

/// The backends.
pub(super) struct Fleet<'a> {
    scenario: &'a Scenario,
    pub(super) servers: Vec<Server>,
    /// For each happening, whether it is under way.
    under_way: Vec<bool>,
    /// What the autoscaler has ordered.
    ordered: u32,
    /// The utilisation's sum when it last looked, and when that was.
    looked: (u128, Ns),
}

/// What a change of conditions means for the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Backends come or go.
    pub(super) membership: bool,
    /// Now dead.
    pub(super) died: Vec<u32>,
    /// Drained, or put back.
    pub(super) drained: Vec<(u32, bool)>,
}

/// What the autoscaler wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scaling {
    Enough,
    /// So many more, in a while.
    Order(u32),
    /// Some have left.
    Shrunk,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut fleet = Self {
            scenario,
            servers: Vec::new(),
            under_way: vec![false; scenario.events.len()],
            ordered: 0,
            looked: (0, 0),
        };
        for (position, group) in scenario.groups.iter().enumerate() {
            fleet.join(position, group.count);
        }
        fleet
    }

    /// The members of the configuration, in its order.
    pub(super) fn members(&self) -> Vec<u32> {
        let present = self.servers.iter().enumerate();
        let present = present.filter(|(_, server)| server.is_present);
        let mut members: Vec<u32> = present.map(|(place, _)| place as u32).collect();
        members.sort_by_key(|place| self.order(*place));
        members
    }

    /// All that ever were, in the configuration's order.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut all: Vec<u32> = (0..self.servers.len() as u32).collect();
        all.sort_by_key(|place| self.order(*place));
        all
    }

    fn order(&self, place: u32) -> (usize, u32) {
        let server = &self.servers[place as usize];
        (server.group, server.ordinal)
    }

    fn group_size(&self, group: usize) -> u32 {
        let of_group = |server: &&Server| server.group == group && server.is_present;
        self.servers.iter().filter(of_group).count() as u32
    }

    /// More backends of a group: those that left come back first, under their names.
    fn join(&mut self, group: usize, count: u32) {
        for _ in 0..count {
            let gone = self.servers.iter_mut();
            let gone = gone.filter(|server| server.group == group && !server.is_present);
            if let Some(server) = gone.min_by_key(|server| server.ordinal) {
                server.is_present = true;
                continue;
            }
            let ordinal = self.servers.iter().filter(|server| server.group == group).count();
            let mut server = Server::new(&self.scenario.groups[group], group, ordinal as u32);
            server.is_present = true;
            self.servers.push(server);
        }
        self.set_conditions();
    }

    /// The last of a group leave.
    fn leave(&mut self, group: usize, count: u32) {
        for _ in 0..count {
            let here = self.servers.iter_mut();
            let here = here.filter(|server| server.group == group && server.is_present);
            if let Some(server) = here.max_by_key(|server| server.ordinal) {
                server.is_present = false;
            }
        }
    }

    /// An event of the scenario begins or ends.
    pub(super) fn happen(&mut self, happening: u32, begins: bool) -> Changed {
        let event = &self.scenario.events[happening as usize];
        let joins = match event.action {
            Action::Join => begins,
            Action::Leave => !begins,
            _ => {
                self.under_way[happening as usize] = begins;
                return self.set_conditions();
            }
        };
        let count = event.count.unwrap_or(1);
        if joins {
            self.join(event.group, count);
        } else {
            self.leave(event.group, count);
        }
        Changed {
            membership: true,
            ..Changed::default()
        }
    }

    /// What of the events under way concerns each backend.
    fn set_conditions(&mut self) -> Changed {
        let mut changed = Changed::default();
        for (place, server) in self.servers.iter_mut().enumerate() {
            let before = server.condition;
            let mut now = Condition::FINE;
            for (event, _) in self
                .scenario
                .events
                .iter()
                .zip(&self.under_way)
                .filter(|(_, on)| **on)
            {
                let count = event.count.unwrap_or(self.scenario.groups[event.group].count);
                if event.group != server.group || server.ordinal >= count {
                    continue;
                }
                match event.action {
                    Action::Slow { factor } => now.slow *= factor,
                    Action::Fail { rate, status } => now.fail = Some((rate, status)),
                    Action::Die => now.is_dead = true,
                    Action::Hang => now.hangs = true,
                    Action::Drain => now.drains = true,
                    Action::Join | Action::Leave => {}
                }
            }
            server.condition = now;
            if now.is_dead && !before.is_dead {
                changed.died.push(place as u32);
            }
            if now.drains != before.drains {
                changed.drained.push((place as u32, now.drains));
            }
        }
        changed
    }

    /// Backends that some event of the scenario may make fail a check: only those are checked.
    pub(super) fn may_fail_checks(&self) -> Vec<u32> {
        let concerns = |server: &Server| {
            self.scenario.events.iter().any(|event| {
                let count = event.count.unwrap_or(self.scenario.groups[event.group].count);
                let is_ill = matches!(event.action, Action::Die | Action::Hang | Action::Fail { .. });
                is_ill && event.group == server.group && server.ordinal < count
            })
        };
        let all = self.servers.iter().enumerate();
        all.filter(|(_, server)| concerns(server))
            .map(|(place, _)| place as u32)
            .collect()
    }

    /// The autoscaler looks at how busy its group was since it last did.
    pub(super) fn scale(&mut self, rule: &Autoscale, now: Ns) -> Scaling {
        let (before, since) = self.looked;
        let of_group = self
            .servers
            .iter_mut()
            .filter(|server| server.group == rule.group);
        let busy: u128 = of_group.map(|server| server.touch(now).busy).sum();
        self.looked = (busy, now);
        let size = self.group_size(rule.group);
        let slots = f64::from(size) * f64::from(self.scenario.groups[rule.group].concurrency);
        let utilisation = (busy - before) as f64 / ((now - since) as f64 * slots);
        if utilisation > rule.above {
            let room = rule.max.saturating_sub(size + self.ordered);
            let count = rule.step.min(room);
            self.ordered += count;
            return if count > 0 {
                Scaling::Order(count)
            } else {
                Scaling::Enough
            };
        }
        let spare = size.saturating_sub(rule.min).min(rule.step);
        if utilisation < rule.below && self.ordered == 0 && spare > 0 {
            self.leave(rule.group, spare);
            return Scaling::Shrunk;
        }
        Scaling::Enough
    }

    /// What was ordered is there.
    pub(super) fn arrive(&mut self, rule: &Autoscale, count: u32) {
        self.ordered -= count;
        self.join(rule.group, count);
    }
}
