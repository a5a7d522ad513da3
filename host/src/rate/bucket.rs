//! A token bucket.
//!
//! Owns the arithmetic. It must not know who takes.

use crate::config::Rate;

/// A bucket. What was taken elsewhere may leave it in debt, of as much as it can hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    level: f64,
    pub(super) at_us: u64,
}

impl Bucket {
    /// One that has never been asked.
    pub(super) fn full(rate: &Rate) -> Self {
        Self {
            level: f64::from(rate.burst.get()),
            at_us: 0,
        }
    }

    /// What has come since the last time.
    pub(super) fn fill(&mut self, rate: &Rate, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.at_us);
        self.at_us = self.at_us.max(now_us);
        let came = passed_us as f64 * rate.per_us();
        self.level = (self.level + came).min(f64::from(rate.burst.get()));
    }

    /// What will be left then, if nobody takes; `None` of a full one.
    pub(super) fn level_at(mut self, rate: &Rate, now_us: u64) -> Option<f32> {
        self.fill(rate, now_us);
        (self.level < f64::from(rate.burst.get())).then_some(self.level as f32)
    }

    /// Another bucket for the same had that much left at that time: whichever has less now counts.
    pub(super) fn lower(&mut self, rate: &Rate, (level, told_us): (f32, u64), now_us: u64) {
        let mut other = Self {
            level: f64::from(level).max(-f64::from(rate.burst.get())),
            at_us: told_us,
        };
        other.fill(rate, now_us);
        self.fill(rate, now_us);
        if other.level < self.level {
            *self = other;
        }
    }

    /// So much was taken elsewhere.
    pub(super) fn owe(&mut self, rate: &Rate, taken: u64) {
        self.level = (self.level - taken as f64).max(-f64::from(rate.burst.get()));
    }

    /// Takes one, or says in how many microseconds there will be one.
    pub(super) fn take(&mut self, rate: &Rate) -> Result<(), u64> {
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.level) / rate.per_us()).ceil() as u64)
    }
}
