//! The acts: what happens in which order, for how long, and what there is to see.
//!
//! Owns the words and the times. It must not do anything: `stage.rs` does.

use std::time::Duration;

use super::{
    backends::{MORTAL, SPARE},
    sample::Span,
};

/// A walk-through shorter than this would be over before health checks have noticed anything.
pub(super) const SECONDS_MIN: u64 = 6;
/// Longer ones only repeat themselves; the bound keeps a typing error from running for a year.
pub(super) const SECONDS_MAX: u64 = 3_600;
/// Long enough to read along, short enough to watch to the end.
pub(super) const SECONDS_DEFAULT: u64 = 24;

/// A part of the walk-through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    RoundRobin,
    Swap,
    Death,
    Return,
    Trap,
    Calm,
}

impl Act {
    pub(super) const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::Swap,
        Self::Death,
        Self::Return,
        Self::Trap,
        Self::Calm,
    ];

    /// The number in headings.
    pub(super) fn number(self) -> usize {
        self as usize + 1
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::RoundRobin => "round robin",
            Self::Swap => "swap under load",
            Self::Death => "a backend dies",
            Self::Return => "it returns",
            Self::Trap => "a trapping policy",
            Self::Calm => "calm again",
        }
    }

    /// What to look at.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::RoundRobin => "Everybody gets the same share, however slow. `spare` has weight 0: nothing.",
            Self::Swap => "To least response time: the share of `slow` shrinks, p50 falls; `spare` joins.",
            Self::Death => "`swift` refuses connections. Watch its state, and that nothing fails.",
            Self::Return => "`swift` answers again; two good health checks put it back.",
            Self::Trap => "Where the policy fails, the host chooses. Nothing fails for the clients.",
            Self::Calm => "Least connections: a policy that works, and all four serve.",
        }
    }

    /// Its part of the walk-through, in percent. The swap and the death have the most to see.
    fn percent(self) -> u32 {
        match self {
            Self::RoundRobin => 15,
            Self::Swap => 23,
            Self::Death => 20,
            Self::Return => 15,
            Self::Trap => 16,
            Self::Calm => 11,
        }
    }

    /// How long it lasts in a walk-through of this length.
    pub(super) fn lasts(self, total: Duration) -> Duration {
        total * self.percent() / 100
    }

    /// Whether what this act is about can be seen. On a slow machine an act waits for it beyond its time.
    pub(super) fn is_shown(self, act: Span<'_>) -> bool {
        let (mortal, picks) = (&act.to.backends[MORTAL], act.picks());
        match self {
            Self::RoundRobin | Self::Calm => picks.iter().sum::<u64>() > 0,
            Self::Swap => picks[SPARE] > 0,
            Self::Death => !mortal.is_ready(),
            Self::Return => mortal.is_ready() && picks[MORTAL] > 0,
            Self::Trap => act.to.faults > 0,
        }
    }
}

/// What was asked for, as a length that makes sense.
pub(super) fn total(seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT).clamp(SECONDS_MIN, SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_fill_the_walk_through_and_none_is_too_short_for_two_health_checks() {
        for seconds in 6..=60 {
            let total = total(Some(seconds));
            let lasts = Act::ALL.map(|act| act.lasts(total));
            assert_eq!(lasts.iter().sum::<Duration>(), total);
            let shortest = lasts.iter().min().unwrap();
            assert!(*shortest >= Duration::from_millis(600), "{seconds}: {shortest:?}");
        }
    }

    #[test]
    fn the_length_is_24_seconds_unless_asked_for_and_within_bounds() {
        let asked = [None, Some(0), Some(7), Some(u64::MAX)];
        assert_eq!(asked.map(|seconds| total(seconds).as_secs()), [24, 6, 7, 3_600]);
    }

    #[test]
    fn acts_are_numbered_and_their_words_fit_the_terminal() {
        for (index, act) in Act::ALL.iter().enumerate() {
            assert_eq!(act.number(), index + 1);
            assert!(act.title().len() <= 17, "{}", act.title());
            assert!(act.sentence().len() <= 78, "{}", act.sentence());
        }
    }
}
