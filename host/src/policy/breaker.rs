//! When a policy that fails again and again is not asked any more, and when it is tried again.
//!
//! Owns the count of its faults (strikes) and the pauses that follow from it. It must not know instances: an open breaker
//! means that the seat has none, so that a decision looks at one thing only.
//!
//! Invariant: no pause is shorter than [`PAUSE_MIN`], so whatever a policy does, it is rebuilt at most 100 times a second,
//! and in the long run once in 10 s. One that loops has its worker for a few of its deadlines each time, so it waits 500 of
//! them at least: others find the worker busy with it for less than 1 % of their requests from the start.

use std::time::Duration;

/// The pause after a strike, doubled with every further one, up to the maximum. A policy that fails once an hour is back
/// at once; one that fails always costs a rebuild (30 us) every 10 s.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The pause after a missed deadline is at least so many deadlines.
const PAUSE_DEADLINES: u32 = 500;
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Strikes that open the breaker. Fewer are a pause for building the next instance.
const STRIKES_OPEN: u32 = 5;
/// More are not counted: the pause is the longest by then.
const STRIKES_MAX: u32 = 12;
/// A strike is forgiven for each such time without a fault.
const STRIKE_FORGIVEN_US: u64 = 10_000_000;
/// A bad answer harms nobody and leaves the instance sound, so it is a strike only if the last fault is fewer decisions
/// away than this: a policy that errs in less than 1 % of its picks goes on.
const ANSWERS_PER_STRIKE: u64 = 100;
/// Good picks of the one instance on trial that close the breaker.
const TRIAL_PICKS: u32 = 16;

/// Whether the policy is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// It is. Ends by repeated faults.
    #[default]
    Closed,
    /// It is, on trial: ends with its first fault, or after some good picks.
    HalfOpen,
    /// It is not. Ends when the pause is over and a new instance is built.
    Open,
}

impl BreakerState {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// The word used in logs, metrics and the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// The breaker of one seat.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: BreakerState,
    strikes: u32,
    struck_us: u64,
    /// Decisions made when the last fault happened.
    fault_at: u64,
    trials: u32,
}

/// When a fault happened, and how bad it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blow {
    /// The instance gave an answer, if a bad one.
    pub(super) is_survivable: bool,
    /// The deadline that was missed, if it was that.
    pub(super) missed: Option<Duration>,
    /// Decisions made so far.
    pub(super) decisions: u64,
    pub(super) now_us: u64,
}

impl Breaker {
    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether nothing happened for long enough to call the policy good.
    pub(super) fn is_calm(&self, now_us: u64) -> bool {
        let was_struck = self.struck_us > 0;
        self.state == BreakerState::Closed && (!was_struck || self.forgiven(now_us) >= self.strikes.max(1))
    }

    /// A fault. `Some` if the instance has to go: how long to wait before the next one.
    pub(super) fn strike(&mut self, blow: Blow) -> Option<Duration> {
        let Blow {
            is_survivable,
            missed,
            decisions,
            now_us,
        } = blow;
        let since = decisions.saturating_sub(self.fault_at);
        let is_first = self.struck_us == 0;
        self.strikes = self.strikes.saturating_sub(self.forgiven(now_us));
        (self.struck_us, self.fault_at) = (now_us, decisions);
        let is_rare = is_survivable && (is_first || since >= ANSWERS_PER_STRIKE);
        if is_rare && self.state == BreakerState::Closed {
            return None;
        }
        let first = missed.map_or(PAUSE_MIN, |deadline| PAUSE_MIN.max(deadline * PAUSE_DEADLINES));
        let pause = first.saturating_mul(1 << self.strikes).min(PAUSE_MAX);
        self.strikes = (self.strikes + 1).min(STRIKES_MAX);
        if self.state != BreakerState::Closed || self.strikes >= STRIKES_OPEN {
            self.state = BreakerState::Open;
            return Some(pause);
        }
        (!is_survivable).then_some(pause)
    }

    fn forgiven(&self, now_us: u64) -> u32 {
        let quiet_us = now_us.saturating_sub(self.struck_us);
        u32::try_from(quiet_us / STRIKE_FORGIVEN_US).unwrap_or(u32::MAX)
    }

    /// So many strikes turned out to be the doing of a request.
    pub(super) fn pardon(&mut self, strikes: u32) {
        self.strikes = self.strikes.saturating_sub(strikes);
    }

    /// The pause is over and there is an instance again.
    pub(super) fn rebuilt(&mut self) {
        if self.state == BreakerState::Open {
            (self.state, self.trials) = (BreakerState::HalfOpen, 0);
        }
    }

    /// A good pick. True if it was the one that closes the breaker.
    pub(super) fn passed(&mut self) -> bool {
        if self.state != BreakerState::HalfOpen {
            return false;
        }
        self.trials += 1;
        let closes = self.trials >= TRIAL_PICKS;
        if closes {
            self.state = BreakerState::Closed;
        }
        closes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap(now_us: u64) -> Blow {
        Blow {
            is_survivable: false,
            missed: None,
            decisions: 0,
            now_us,
        }
    }

    fn answer(decisions: u64) -> Blow {
        Blow {
            is_survivable: true,
            missed: None,
            decisions,
            now_us: 1_000_000,
        }
    }

    #[test]
    fn it_opens_after_five_strikes_each_with_a_longer_pause() {
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for strike in 1..=12 {
            let pause = breaker.strike(trap(strike)).expect("the instance is lost");
            pauses.push(pause.as_millis());
            let is_open = breaker.state() == BreakerState::Open;
            assert_eq!(is_open, strike >= 5, "after {strike}");
        }
        assert_eq!(
            pauses,
            [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_000, 10_000]
        );
    }

    #[test]
    fn a_missed_deadline_is_paid_for_by_a_pause_in_proportion() {
        let mut breaker = Breaker::default();
        let late = |now_us, deadline_ms| Blow {
            missed: Some(Duration::from_millis(deadline_ms)),
            ..trap(now_us)
        };
        let blows = [late(1, 1), late(2, 1), trap(3), late(4, 2), late(5, 1000)];
        let pauses = blows.map(|blow| breaker.strike(blow).map(|pause| pause.as_millis()));
        assert_eq!(
            pauses,
            [Some(500), Some(1000), Some(40), Some(8000), Some(10_000)]
        );
    }

    #[test]
    fn a_trial_closes_it_after_good_picks_and_opens_it_at_the_first_fault() {
        let mut breaker = Breaker::default();
        assert!((1..=5).all(|now_us| breaker.strike(trap(now_us)).is_some()));
        breaker.rebuilt();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!((1..TRIAL_PICKS).all(|_| !breaker.passed()));
        assert_eq!(breaker.strike(trap(6)).map(|pause| pause.as_millis()), Some(320));
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.rebuilt();
        assert!((1..TRIAL_PICKS).all(|_| !breaker.passed()));
        assert!(breaker.passed());
        assert_eq!(breaker.state(), BreakerState::Closed);
        // It is closed and not forgotten: the next fault opens it again.
        breaker.strike(trap(7));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn a_quiet_time_forgives_a_strike() {
        let mut breaker = Breaker::default();
        for number in 0..100 {
            let pause = breaker.strike(trap(1 + number * 2 * STRIKE_FORGIVEN_US));
            assert_eq!(pause, Some(PAUSE_MIN));
        }
    }

    #[test]
    fn rare_bad_answers_are_no_strikes_and_frequent_ones_are() {
        let mut breaker = Breaker::default();
        for number in 1..1000 {
            assert_eq!(breaker.strike(answer(number * ANSWERS_PER_STRIKE)), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        let last = 999 * ANSWERS_PER_STRIKE;
        assert!((1..5).all(|number| breaker.strike(answer(last + number)).is_none()));
        assert!(breaker.strike(answer(last + 5)).is_some());
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}
