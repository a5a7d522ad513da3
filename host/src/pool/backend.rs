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

use super::Load;

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
}

impl Backend {
    /// A backend without load.
    pub fn new(address: &str, socket: SocketAddr, workers: usize) -> Self {
        Self {
            id: xxh3_64(address.as_bytes()),
            address: address.into(),
            socket,
            loads: (0..workers).map(|_| CachePadded::new(Load::default())).collect(),
        }
    }

    /// The counters that this worker writes.
    #[inline]
    pub fn load(&self, worker: usize) -> &Load {
        &self.loads[worker]
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
    pub(super) ejected_until: Option<Instant>,
    /// Ejections in a row; the next one lasts this much longer.
    pub(super) ejections: u32,
    /// Set by an operator instead of the configured weight.
    pub(super) weight: Option<u32>,
    /// Start of the slow start.
    pub(super) ramp_since: Option<Instant>,
}

/// Slow start goes in steps of this many percent, so that a ramp causes at most ten updates of the policies.
const RAMP_STEP: u8 = 10;

impl Status {
    pub(super) fn state(&self) -> State {
        match self.ejected_until {
            _ if self.draining => State::Draining,
            _ if self.down => State::Down,
            Some(until) => State::Ejected { until },
            None => State::Ready,
        }
    }

    /// Percent of the weight at `now`: 10, 20, ... 100.
    pub(super) fn ramp(&self, slow_start: Duration, now: Instant) -> u8 {
        let Some(since) = self.ramp_since.filter(|_| !slow_start.is_zero()) else { return 100 };
        let share = now.saturating_duration_since(since).as_secs_f64() / slow_start.as_secs_f64();
        let percent = (share.min(1.0) * 100.0) as u8;
        (percent / RAMP_STEP * RAMP_STEP + RAMP_STEP).min(100)
    }

    /// When `state` or `ramp` next change by themselves.
    pub(super) fn next_change(&self, slow_start: Duration, now: Instant) -> Option<Instant> {
        let ramp = self.ramp_since.filter(|_| self.ramp(slow_start, now) < 100).map(|since| {
            since + slow_start.mul_f64(f64::from(self.ramp(slow_start, now)) / 100.0)
        });
        [self.ejected_until, ramp].into_iter().flatten().min()
    }
}
