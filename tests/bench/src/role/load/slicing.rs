//! Slices of a window, for what is changed many times within it.
//!
//! Owns their clock. What is changed between them, the driver knows.

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Order;

/// A part of the window, without its first fifth: until then what was changed may not be in effect.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Slice {
    pub(crate) ok: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// The slice under way.
pub(super) struct Slicing {
    length: Duration,
    settled: Instant,
    end: Instant,
    times: Histogram<u64>,
}

impl Slicing {
    pub(super) fn new(order: &Order, begin: Instant) -> io::Result<Option<Self>> {
        let Some(seconds) = order.slice else {
            return Ok(None);
        };
        let mut slicing = Self {
            length: Duration::from_secs_f64(seconds),
            settled: begin,
            end: begin,
            times: histogram()?,
        };
        slicing.start(begin);
        Ok(Some(slicing))
    }

    fn start(&mut self, now: Instant) {
        self.times.reset();
        self.settled = now + self.length / 5;
        self.end = now + self.length;
    }

    pub(super) fn record(&mut self, due: Instant, took: u64) {
        if due >= self.settled {
            self.times.saturating_record(took);
        }
    }

    /// What came of it, if it is over. The next one begins.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Slice> {
        if now < self.end {
            return None;
        }
        let at = |quantile| self.times.value_at_quantile(quantile) as f64 / 1000.0;
        let slice = Slice {
            ok: self.times.len(),
            p50_us: at(0.5),
            p99_us: at(0.99),
        };
        self.start(now);
        Some(slice)
    }
}

pub(super) fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).map_err(io::Error::other)
}
