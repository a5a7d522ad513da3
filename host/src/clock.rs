//! Time for the data path: microseconds since the process started.
//!
//! Owns the one starting point that all workers share, so that times of different workers compare. It must not know who
//! measures what.

use std::{sync::OnceLock, time::Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first call of this function in the process, plus one second, so that 0 always lies in the
/// past. Costs one reading of the monotonic clock, about 25 ns.
#[inline]
pub fn now_us() -> u64 {
    START.get_or_init(Instant::now).elapsed().as_micros() as u64 + 1_000_000
}
