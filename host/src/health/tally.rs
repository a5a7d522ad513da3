//! When checks of one backend add up to a verdict.
//!
//! Pure: it owns two counts and knows neither time nor sockets. A verdict is given at the check that completes the
//! count, once; `Pool` ignores one that tells it nothing new.

use std::num::NonZeroU32;

use crate::config;

/// Whether a backend is known to have worked before its first check here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// Nothing is known: the first bad check takes it down.
    Unknown,
    /// It did: it takes `fall` bad checks.
    Proven,
}

/// What the checks so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `rise` good checks in a row.
    Up,
    /// `fall` bad checks in a row, or the first of all.
    Down,
}

/// Checks of one backend, counted.
///
/// Before a backend's very first good check a single bad one takes it down, since nothing says that it ever worked and
/// requests would be the ones to find out. Later it takes `fall` bad ones in a row, and `rise` good ones to come back.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    rise: NonZeroU32,
    fall: NonZeroU32,
    past: Past,
    good: u32,
    bad: u32,
}

impl Tally {
    pub(crate) fn new(rule: &config::Health, past: Past) -> Self {
        Self {
            rise: rule.rise,
            fall: rule.fall,
            past,
            good: 0,
            bad: 0,
        }
    }

    pub(crate) fn past(&self) -> Past {
        self.past
    }

    /// A check was good.
    pub(crate) fn good(&mut self) -> Option<Verdict> {
        self.past = Past::Proven;
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        (self.good == self.rise.get()).then_some(Verdict::Up)
    }

    /// A check was bad.
    pub(crate) fn bad(&mut self) -> Option<Verdict> {
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        let limit = match self.past {
            Past::Unknown => 1,
            Past::Proven => self.fall.get(),
        };
        (self.bad == limit).then_some(Verdict::Down)
    }

    /// Real requests failed although checks were good: good checks count from here, so that it takes `rise` new ones to
    /// end the ejection early.
    pub(crate) fn forget_good(&mut self) {
        self.good = 0;
    }
}
