//! What other nodes have in flight to a backend, as they said last.
//!
//! Owns the figures and until when they count. It must not know how they came here.
//!
//! Invariant: written by one task only, and read by all workers; what is too old counts for nothing, even if nobody writes any more.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

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

impl Others {
    /// Replaces what was told; it counts until then.
    pub fn tell(&self, elsewhere: Elsewhere, until_ms: u64) {
        self.active.store(elsewhere.active, Relaxed);
        self.rate.store(elsewhere.rate, Relaxed);
        self.told_ms.store(elsewhere.told_ms, Relaxed);
        self.until_ms.store(until_ms, Relaxed);
    }

    /// What counts now; `None` if nothing does.
    pub fn at(&self, now_ms: u64) -> Option<Elsewhere> {
        (now_ms < self.until_ms.load(Relaxed)).then(|| Elsewhere {
            active: self.active.load(Relaxed),
            rate: self.rate.load(Relaxed),
            told_ms: self.told_ms.load(Relaxed),
        })
    }

    /// Requests in flight that count now.
    #[inline]
    pub(super) fn active(&self, now_ms: u64) -> u32 {
        match now_ms < self.until_ms.load(Relaxed) {
            true => self.active.load(Relaxed),
            false => 0,
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
            (others.at(0), others.active(0)),
            (None, 0),
            "nobody told anything"
        );
        let elsewhere = Elsewhere {
            active: 7,
            rate: 70,
            told_ms: 100,
        };
        others.tell(elsewhere, 200);
        assert_eq!((others.at(199), others.active(199)), (Some(elsewhere), 7));
        assert_eq!((others.at(200), others.active(200)), (None, 0));
    }
}
