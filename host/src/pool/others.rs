//! What other nodes have in flight to a backend, as they said last.
//!
//! Owns the figures and until when they count. It must not know how they came here.
//!
//! Invariant: written by one task only, and read by all workers; what is too old counts for nothing, even if nobody writes any more.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Whether anybody ever told anything in this process. Where nobody does, nobody need look.
static IS_ANY_TOLD: AtomicBool = AtomicBool::new(false);

/// What the static says.
pub(super) fn is_any_told() -> bool {
    IS_ANY_TOLD.load(Relaxed)
}

/// Figures of all other nodes together.
#[derive(Debug, Default)]
pub struct Others {
    active: AtomicU32,
    rate: AtomicU32,
    /// On the clock of `clock.rs`; of the oldest part of it.
    told_ms: AtomicU64,
    /// 0 before anybody told anything.
    until_ms: AtomicU64,
}

/// What other nodes do with a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Requests in flight.
    pub active: u32,
    /// Requests a second.
    pub rate: u32,
    /// When that was told; the oldest part of it, if several nodes did.
    pub told_ms: u64,
}

/// What of a worker's columns is other nodes'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Requests in flight.
    pub active: u32,
    /// When that was told, on the clock of `clock.rs`; the oldest part of it.
    pub told_ms: u64,
}

impl Told {
    /// Nobody told it.
    pub const NEVER_MS: u64 = u64::MAX;
    /// Nothing is known.
    pub const NOTHING: Self = Self {
        active: 0,
        told_ms: Self::NEVER_MS,
    };

    /// How old it is; `u32::MAX` if nobody told anything.
    pub fn age_ms(self, now_ms: u64) -> u32 {
        match self.told_ms {
            Self::NEVER_MS => u32::MAX,
            told_ms => u32::try_from(now_ms.saturating_sub(told_ms)).unwrap_or(u32::MAX),
        }
    }
}

impl Others {
    /// Replaces what was told; it counts until then.
    pub fn tell(&self, elsewhere: Elsewhere, until_ms: u64) {
        self.active.store(elsewhere.active, Relaxed);
        self.rate.store(elsewhere.rate, Relaxed);
        self.told_ms.store(elsewhere.told_ms, Relaxed);
        self.until_ms.store(until_ms, Relaxed);
        IS_ANY_TOLD.store(true, Relaxed);
    }

    /// What counts now; `None` if nothing does.
    pub fn at(&self, now_ms: u64) -> Option<Elsewhere> {
        (now_ms < self.until_ms.load(Relaxed)).then(|| Elsewhere {
            active: self.active.load(Relaxed),
            rate: self.rate.load(Relaxed),
            told_ms: self.told_ms.load(Relaxed),
        })
    }

    /// The same without the rate.
    #[inline]
    pub(super) fn told(&self, now_ms: u64) -> Told {
        if now_ms >= self.until_ms.load(Relaxed) {
            return Told::NOTHING;
        }
        Told {
            active: self.active.load(Relaxed),
            told_ms: self.told_ms.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_counts_until_its_time_and_no_longer_even_if_nobody_writes_any_more() {
        let others = Others::default();
        assert_eq!(
            (others.at(0), others.told(0)),
            (None, Told::NOTHING),
            "nobody told anything"
        );
        let elsewhere = Elsewhere {
            active: 7,
            rate: 70,
            told_ms: 100,
        };
        others.tell(elsewhere, 200);
        let told = Told {
            active: 7,
            told_ms: 100,
        };
        assert_eq!((others.at(199), others.told(199)), (Some(elsewhere), told));
        assert_eq!((others.at(200), others.told(200)), (None, Told::NOTHING));
    }

    #[test]
    fn what_nobody_told_is_older_than_anything() {
        let told = |told_ms| Told { active: 1, told_ms };
        assert_eq!(told(100).age_ms(130), 30);
        assert_eq!(told(100).age_ms(99), 0, "of this moment, and another clock read");
        assert_eq!(told(1).age_ms(u64::MAX), u32::MAX);
        assert_eq!(Told::NOTHING.age_ms(130), u32::MAX);
    }
}
