//! One server, and what the control plane knows of its condition.
//!
//! Owns identity (`Backend`, shared with the workers) and condition (`Status`, control plane only). It must not know
//! who decided a change: probes, outlier detection and operators all go through `Pool`.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_utils::CachePadded;
use xxhash_rust::xxh3::xxh3_64;

use super::{Load, Others};
use crate::config;

/// One server. Lives as long as anyone uses it: a request in flight keeps the backend it was sent to.
#[derive(Debug)]
pub struct Backend {
    /// Hash of the address: the same over reloads, restarts and balancers.
    pub id: u64,
    /// As configured.
    pub address: Arc<str>,
    /// Where to connect.
    pub socket: SocketAddr,
    /// One for each worker, on cache lines of their own.
    loads: Box<[CachePadded<Load>]>,
    /// What other nodes say of it, where they do.
    pub others: CachePadded<Others>,
}

impl Backend {
    /// A backend without load.
    pub fn new(address: &str, socket: SocketAddr, workers: usize) -> Self {
        Self {
            id: xxh3_64(address.as_bytes()),
            address: address.into(),
            socket,
            loads: (0..workers).map(|_| CachePadded::new(Load::default())).collect(),
            others: CachePadded::default(),
        }
    }

    /// The counters that this worker writes.
    #[inline]
    pub fn load(&self, worker: usize) -> &Load {
        &self.loads[worker]
    }

    /// How many workers count here; only they may ask for their `load`.
    pub(super) fn workers(&self) -> usize {
        self.loads.len()
    }

    /// Requests in flight, of all workers.
    #[inline]
    pub fn active(&self) -> u32 {
        self.loads().map(Load::active).sum()
    }

    /// Connections, used and unused, of all workers.
    pub fn connections(&self) -> u32 {
        self.loads().map(Load::connections).sum()
    }

    /// The counters of all workers, to be summed.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        self.loads.iter().map(|load| &**load)
    }
}

/// Whether a backend serves, and when it will again. The order is that of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Taken out by an operator; requests in flight finish. Ends when the operator says so.
    Draining,
    /// Active checks fail. Ends after `rise` good ones.
    Down,
    /// Real requests failed. Ends at this time, or earlier after `rise` good active checks.
    Ejected {
        /// When it returns by itself.
        until: Instant,
    },
    /// Serves.
    Ready,
}

impl State {
    /// The word used in logs, metrics and the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Ejected { .. } => "ejected",
            Self::Ready => "ready",
        }
    }
}

/// Everything that decides a backend's [`State`]. Several causes may hold at once, and each ends on its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) draining: bool,
    pub(super) down: bool,
    /// It passed an active check once, or served where nothing checked it: a failing check is news, not a first look.
    pub(super) proven: bool,
    pub(super) ejected_until: Option<Instant>,
    /// Ejections in a row; the next one lasts this much longer.
    pub(super) ejections: u32,
    /// Set by an operator instead of the configured weight.
    pub(super) weight: Option<u32>,
    /// Start of the slow start.
    pub(super) ramp_since: Option<Instant>,
}

/// Slow start goes in this many steps of equal length, so that a ramp causes at most ten updates of the policies.
const RAMP_STEPS: u32 = 10;

impl Status {
    pub(super) fn state(&self) -> State {
        match self.ejected_until {
            _ if self.draining => State::Draining,
            _ if self.down => State::Down,
            Some(until) => State::Ejected { until },
            None => State::Ready,
        }
    }

    /// Whether an ejection holds. One whose time is over, and that `Pool::advance` has not ended yet, does not.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| until > now)
    }

    /// Takes the backend out for a time that grows with each ejection in a row. `None` when it is out already: a backend
    /// that drains or is down gets nothing new, and what fails there on the way out says nothing about its return.
    pub(super) fn eject(&mut self, rule: &config::Outlier, now: Instant) -> Option<Duration> {
        if self.draining || self.down || self.is_ejected(now) {
            return None;
        }
        self.ejections = self.ejections.saturating_add(1);
        let time = rule
            .base_ejection
            .saturating_mul(self.ejections)
            .min(rule.max_ejection);
        self.ejected_until = Some(now + time);
        Some(time)
    }

    /// Ends an ejection, and lets the slow start begin.
    pub(super) fn readmit(&mut self, slow_start: Duration, now: Instant) {
        self.ejected_until = None;
        self.ramp_since = (!slow_start.is_zero()).then_some(now);
    }

    /// Percent of the weight at `now`: 10, 20, ... 100.
    pub(super) fn ramp(&self, slow_start: Duration, now: Instant) -> u8 {
        self.ramp_since.map_or(100, |since| {
            let elapsed = now.saturating_duration_since(since);
            // Compared with the very expression that `next_change` gives: were the two to round differently, a timer
            // set for the next step would find that the step is not there yet, over and over.
            let done = (1..RAMP_STEPS)
                .take_while(|step| elapsed >= slow_start * *step / RAMP_STEPS)
                .count();
            (done as u8 + 1) * (100 / RAMP_STEPS as u8)
        })
    }

    /// When `state` or `ramp` next change by themselves.
    pub(super) fn next_change(&self, slow_start: Duration, now: Instant) -> Option<Instant> {
        let step = u32::from(self.ramp(slow_start, now)) * RAMP_STEPS / 100;
        let ramp = self.ramp_since.filter(|_| step < RAMP_STEPS);
        let ramp = ramp.map(|since| since + slow_start * step / RAMP_STEPS);
        [self.ejected_until, ramp].into_iter().flatten().min()
    }

    /// What stays true of a backend whose pool is replaced by one with another configuration. What the new one has no
    /// rule for is dropped, because nothing would ever end it.
    pub(super) fn taken_over(&self, old: &config::Pool, new: &config::Pool) -> Self {
        let mut status = self.clone();
        status.proven |= old.health.is_none() && !status.down;
        status.down &= new.health.is_some();
        if new.outlier.is_none() {
            status.ejected_until = None;
            status.ejections = 0;
        }
        status
    }

    /// What stays true of a backend whose name now leads to another machine: only what an operator said of the name.
    pub(super) fn moved(&self) -> Self {
        Self {
            draining: self.draining,
            weight: self.weight,
            ..Self::default()
        }
    }
}
