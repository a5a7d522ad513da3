//! A member's own clock: begins anywhere, and runs a little fast or slow.

/// Most that a clock deviates, in millionths: far worse than any quartz, and still within the margin.
const DRIFT_MAX_PPM: i64 = 20_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start_us: i64,
    ppm: i64,
}

impl Clock {
    pub(crate) fn new(random: &mut fastrand::Rng) -> Self {
        Self {
            start_us: random.i64(1_000_000..1_000_000_000_000),
            ppm: random.i64(-DRIFT_MAX_PPM..=DRIFT_MAX_PPM),
        }
    }

    /// What it shows at a moment.
    pub(crate) fn local(self, true_us: u64) -> u64 {
        let true_us = true_us as i64;
        (self.start_us + true_us + true_us * self.ppm / 1_000_000) as u64
    }

    /// The first moment at which it shows this.
    pub(crate) fn moment(self, local_us: u64) -> u64 {
        let since = local_us.min(i64::MAX as u64 / 2) as i64 - self.start_us;
        if since > 1 << 42 {
            return u64::MAX;
        }
        let about = since * 1_000_000 / (1_000_000 + self.ppm);
        let mut moment = about.max(2) as u64 - 2;
        while self.local(moment) < local_us {
            moment += 1;
        }
        moment
    }
}
