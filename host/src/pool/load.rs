//! What one worker knows of the load on one backend.
//!
//! Owns the counters. Each worker has a [`Load`] of its own for each backend and is the only one that writes it, so an
//! update is a plain load and store without a locked instruction; everyone may read. It must not know which algorithm
//! reads it.
//!
//! Invariant: single writer. A second writer would lose counts, not memory safety.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The sliding window of [`Load::throughput`]: 16 buckets of 250 ms are 4 s, long enough to smooth single large
/// responses and short enough to follow a shift of load.
const BUCKETS: usize = 16;
const BUCKET_MS: u64 = 250;
const WINDOW_MS: u64 = BUCKETS as u64 * BUCKET_MS;

/// Weight of a latency sample falls to 1/e in this time.
const LATENCY_DECAY_US: f64 = 5_000_000.0;
/// The average of a backend without requests falls to 1/e in this time, so that it is tried again.
const LATENCY_FADE_US: f64 = 10_000_000.0;

/// Adds to a counter that only the caller writes.
#[inline]
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// Counters of one worker for one backend. In this order a request needs three cache lines of them, and of many backends
/// none is at hand.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Load {
    active: AtomicU32,
    connections: AtomicU32,
    failures_in_a_row: AtomicU32,
    /// Times this backend was picked.
    pub picks: AtomicU64,
    /// Body bytes towards the backend.
    pub bytes_sent: AtomicU64,
    /// Body bytes from the backend.
    pub bytes_received: AtomicU64,
    window_tick: AtomicU64,
    latency_at_us: AtomicU64,
    latency_sum: AtomicU64,
    latency_weight: AtomicU64,
    /// Responses by hundreds of their status: index 1 is 1xx.
    pub responses: [AtomicU64; 6],
    /// Attempts that ended without a response head.
    pub failures: AtomicU64,
    window: [AtomicU64; BUCKETS],
}

/// A decayed sum of latencies; sums of several workers can be added.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatencySum {
    sum: f64,
    weight: f64,
    last_us: u64,
}

impl Load {
    /// Requests in flight.
    #[inline]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Connections to it, used and unused.
    #[inline]
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// A connection is being opened.
    pub fn connection_opened(&self) {
        self.connections
            .store(self.connections().wrapping_add(1), Relaxed);
    }

    /// A connection is closed, or did not come about.
    pub fn connection_closed(&self) {
        debug_assert!(self.connections() > 0, "a connection is closed once");
        self.connections
            .store(self.connections().saturating_sub(1), Relaxed);
    }

    /// A request begins.
    #[inline]
    pub fn begin(&self) {
        self.active.store(self.active().wrapping_add(1), Relaxed);
        add(&self.picks, 1);
    }

    /// The request that began has ended, however it did.
    #[inline]
    pub fn end(&self) {
        debug_assert!(self.active() > 0, "a request ends once, and only after it began");
        self.active.store(self.active().saturating_sub(1), Relaxed);
    }

    /// Counts an answer or, with `None`, the lack of one, and gives the number of failures in a row up to now. A backend
    /// fails when it does not answer, or answers 502, 503 or 504: it cannot serve, whatever was asked.
    #[inline]
    pub fn record_status(&self, status: Option<u16>) -> u32 {
        match status {
            Some(status) => {
                let class = usize::from(status / 100).min(5);
                add(&self.responses[class], 1);
            }
            None => add(&self.failures, 1),
        }
        let failed = matches!(status, None | Some(502..=504));
        let in_a_row = if failed {
            self.failures_in_a_row.load(Relaxed).saturating_add(1)
        } else {
            0
        };
        self.failures_in_a_row.store(in_a_row, Relaxed);
        in_a_row
    }

    /// Counts body bytes at a coarse time in milliseconds.
    #[inline]
    pub fn record_bytes(&self, sent: u64, received: u64, now_ms: u64) {
        add(&self.bytes_sent, sent);
        add(&self.bytes_received, received);
        let tick = now_ms / BUCKET_MS;
        let last = self.window_tick.load(Relaxed);
        if tick > last {
            for old in (last + 1..=tick).take(BUCKETS) {
                self.window[old as usize % BUCKETS].store(0, Relaxed);
            }
            // Zeroing stops after one round, which covers every bucket; the current one is among them.
            self.window[tick as usize % BUCKETS].store(0, Relaxed);
            self.window_tick.store(tick, Relaxed);
        }
        add(&self.window[tick.max(last) as usize % BUCKETS], sent + received);
    }

    /// Bytes per second over the window that ends at `now_ms`.
    pub fn throughput(&self, now_ms: u64) -> u64 {
        let now = now_ms / BUCKET_MS;
        let last = self.window_tick.load(Relaxed);
        let oldest = (now + 1).saturating_sub(BUCKETS as u64);
        let bytes: u64 = (oldest..=last)
            .take(BUCKETS)
            // Ticks after `last - BUCKETS` are in the buckets; nothing older is.
            .filter(|tick| tick + BUCKETS as u64 > last)
            .map(|tick| self.window[tick as usize % BUCKETS].load(Relaxed))
            .sum();
        bytes * 1000 / WINDOW_MS
    }

    /// Adds one latency sample.
    #[inline]
    pub fn record_latency(&self, latency_us: u64, now_us: u64) {
        let last = self.latency_at_us.load(Relaxed);
        let keep = (-(now_us.saturating_sub(last) as f64) / LATENCY_DECAY_US).exp();
        let sum = f64::from_bits(self.latency_sum.load(Relaxed)) * keep + latency_us as f64;
        let weight = f64::from_bits(self.latency_weight.load(Relaxed)) * keep + 1.0;
        self.latency_sum.store(sum.to_bits(), Relaxed);
        self.latency_weight.store(weight.to_bits(), Relaxed);
        self.latency_at_us.store(now_us.max(last), Relaxed);
    }

    /// This worker's part of the average, as of `now_us`.
    pub fn latency(&self, now_us: u64) -> LatencySum {
        let last_us = self.latency_at_us.load(Relaxed);
        let keep = (-(now_us.saturating_sub(last_us) as f64) / LATENCY_DECAY_US).exp();
        LatencySum {
            sum: f64::from_bits(self.latency_sum.load(Relaxed)) * keep,
            weight: f64::from_bits(self.latency_weight.load(Relaxed)) * keep,
            last_us,
        }
    }
}

impl LatencySum {
    /// Joins the parts of two workers.
    pub fn merge(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            weight: self.weight + other.weight,
            last_us: self.last_us.max(other.last_us),
        }
    }

    /// The average in microseconds, at least 1 once something was measured; 0 before.
    pub fn average_us(self, now_us: u64) -> u32 {
        // Below this the sums have decayed for minutes and their ratio is rounding noise.
        if self.weight < 1e-12 {
            return 0;
        }
        let idle_us = now_us.saturating_sub(self.last_us) as f64;
        // A pause shorter than the decay is ordinary; fading begins after it.
        let fade = (-(idle_us - LATENCY_DECAY_US).max(0.0) / LATENCY_FADE_US).exp();
        ((self.sum / self.weight * fade).round() as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_bytes_per_second_over_the_window_and_falls_back_to_zero() {
        let load = Load::default();
        for ms in (10_000..14_000).step_by(10) {
            load.record_bytes(400, 600, ms);
        }
        assert_eq!(load.throughput(13_999), 100_000);
        assert_eq!(load.throughput(15_999), 50_000);
        assert_eq!(load.throughput(18_000), 0);
    }

    #[test]
    fn a_long_pause_forgets_every_bucket() {
        let load = Load::default();
        load.record_bytes(4_000, 0, 1_000);
        load.record_bytes(4_000, 0, 1_000_000);
        assert_eq!(load.throughput(1_000_000), 1_000);
    }

    #[test]
    fn latency_follows_new_samples_and_merges_over_workers() {
        let (one, two) = (Load::default(), Load::default());
        for step in 0..100 {
            one.record_latency(1_000, step * 1_000);
            two.record_latency(3_000, step * 1_000);
        }
        let now = 100_000;
        let both = one.latency(now).merge(two.latency(now)).average_us(now);
        assert!((1_990..=2_010).contains(&both), "{both}");
        assert_eq!(Load::default().latency(now).average_us(now), 0);
    }

    #[test]
    fn latency_of_an_idle_backend_fades_but_stays_known() {
        let load = Load::default();
        load.record_latency(90_000, 0);
        assert_eq!(load.latency(4_000_000).average_us(4_000_000), 90_000);
        let later = load.latency(15_000_000).average_us(15_000_000);
        assert!((30_000..36_000).contains(&later), "{later}");
        assert!(load.latency(100_000_000).average_us(100_000_000) >= 1);
    }

    #[test]
    fn failures_in_a_row_end_with_an_answer() {
        let load = Load::default();
        assert_eq!(load.record_status(None), 1);
        assert_eq!(load.record_status(Some(503)), 2);
        assert_eq!(load.record_status(Some(500)), 0);
    }
}
