//! How fast a request's body comes, as the worker judges it now and then.
//!
//! Owns the sum of a body's bytes, and of the time that it was waited for. A body that nobody asks for, since its backend
//! is slow, costs its client nothing. It must not know when the worker looks.

use std::cell::Cell;

use crate::config::Limits;

/// The pace of one body. Times are in milliseconds of the worker's coarse clock, which moves on ten times a second: what
/// lies between two moves counts in full or not at all, which is right on average.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Of the window that is under way.
    bytes: Cell<u64>,
    /// Of the window, without the wait that is under way.
    waited_ms: Cell<u64>,
    /// Up to when that wait has been counted.
    counted_ms: Cell<u64>,
    is_free: Cell<bool>,
}

impl Pace {
    /// A request begins.
    #[inline]
    pub(super) fn begin(&self) {
        self.bytes.set(0);
        self.waited_ms.set(0);
        self.is_free.set(false);
    }

    /// No pace is asked for any more.
    #[inline]
    pub(super) fn free(&self) {
        self.is_free.set(true);
    }

    #[inline]
    pub(super) fn moved(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// The next piece is waited for.
    #[inline]
    pub(super) fn wait(&self, now_ms: u64) {
        self.counted_ms.set(now_ms);
    }

    /// Counts the wait up to now.
    #[inline]
    pub(super) fn settle(&self, now_ms: u64) {
        let waited = now_ms.saturating_sub(self.counted_ms.get());
        self.waited_ms.set(self.waited_ms.get() + waited);
        self.counted_ms.set(now_ms);
    }

    /// Judges each window when it is over; asked while a piece is waited for.
    pub(super) fn is_too_slow(&self, now_ms: u64, limits: &Limits) -> bool {
        if limits.body_rate_min == 0 || self.is_free.get() {
            return false;
        }
        self.settle(now_ms);
        let waited = self.waited_ms.get();
        if waited < limits.body_timeout.as_millis() as u64 {
            return false;
        }
        let is_too_slow = self.bytes.get() * 1000 < limits.body_rate_min * waited;
        self.bytes.set(0);
        self.waited_ms.set(0);
        is_too_slow
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    fn limits() -> Limits {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.limits]\nbody_timeout = \"10s\"\n\
            body_rate_min = \"100B\"\n[pool.main]\nbackends = [\"127.0.0.1:1\"]\n";
        let config = Config::parse(text, "test", std::path::Path::new("")).unwrap();
        config.listeners[0].limits.clone()
    }

    /// Waits `pause`, is looked at, gets `bytes`; for so long.
    fn drip(pace: &Pace, limits: &Limits, (pause, bytes): (u64, u64), within: Duration) -> bool {
        (0..within.as_millis() as u64 / pause).any(|round| {
            pace.wait(round * pause);
            let is_too_slow = pace.is_too_slow((round + 1) * pause, limits);
            pace.moved(bytes);
            is_too_slow
        })
    }

    #[test]
    fn a_drip_is_too_slow_and_what_keeps_the_rate_is_not() {
        let (limits, hour) = (limits(), Duration::from_secs(3600));
        for (slow, fair) in [
            ((1000, 99), (1000, 120)),
            ((100, 9), (100, 12)),
            ((9000, 1), (9000, 2000)),
        ] {
            let pace = Pace::default();
            assert!(drip(&pace, &limits, slow, Duration::from_secs(21)), "{slow:?}");
            pace.begin();
            assert!(!drip(&pace, &limits, fair, hour), "{fair:?}");
        }
    }

    #[test]
    fn a_window_is_forgotten_when_it_is_over() {
        let (limits, pace) = (limits(), Pace::default());
        pace.moved(1 << 30);
        assert!(
            drip(&pace, &limits, (1000, 1), Duration::from_secs(21)),
            "what came first pays for nothing"
        );
    }

    #[test]
    fn only_the_time_that_a_body_is_waited_for_counts() {
        let (limits, pace) = (limits(), Pace::default());
        for hour in 0..3 {
            let now = hour * 3_600_000;
            pace.wait(now);
            pace.settle(now + 1000);
        }
        pace.wait(10_800_000);
        assert!(
            !pace.is_too_slow(10_800_100, &limits),
            "the backend took the hours"
        );
    }

    #[test]
    fn a_body_that_is_free_may_take_its_time() {
        let (limits, pace) = (limits(), Pace::default());
        pace.free();
        assert!(!drip(&pace, &limits, (1000, 1), Duration::from_secs(3600)));
    }
}
