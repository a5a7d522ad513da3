//! Whether memory grows: a line through the least readings of short spans. What a load takes and gives back is above them.

use std::fmt;

/// What is allowed whatever the time, since an allocator gives memory back when it likes.
const ALLOWED_MIB: f64 = 4.0;
/// And for each minute.
const ALLOWED_MIB_PER_MINUTE: f64 = 0.1;
const MIB: f64 = 1048576.0;
/// A span of which the least reading counts: longer than a change of the configuration and what it takes for a moment.
const SPAN_S: f64 = 5.0;

/// Readings after the warm-up.
pub(crate) struct Memory {
    warm_up_s: f64,
    /// The least of each span: seconds and bytes.
    readings: Vec<(f64, f64)>,
    span: Option<u64>,
}

impl Memory {
    pub(crate) fn new(warm_up_s: f64) -> Self {
        Self {
            warm_up_s,
            readings: Vec::new(),
            span: None,
        }
    }

    pub(crate) fn sample(&mut self, at_s: f64, bytes: u64) {
        if at_s < self.warm_up_s {
            return;
        }
        let (span, bytes) = (Some((at_s / SPAN_S) as u64), bytes as f64);
        match self.readings.last_mut() {
            Some(least) if self.span == span => {
                if bytes < least.1 {
                    *least = (at_s, bytes);
                }
            }
            _ => self.readings.push((at_s, bytes)),
        }
        self.span = span;
    }

    /// Bytes a second, by least squares.
    fn slope(&self) -> f64 {
        let count = self.readings.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.readings.iter().map(of).sum::<f64>() / count;
        let (at, bytes) = (mean(|reading| reading.0), mean(|reading| reading.1));
        let (mut both, mut square) = (0.0, 0.0);
        for (x, y) in &self.readings {
            both += (x - at) * (y - bytes);
            square += (x - at) * (x - at);
        }
        if square > 0.0 { both / square } else { 0.0 }
    }

    fn minutes(&self) -> f64 {
        let ends = (self.readings.first(), self.readings.last());
        let (Some(first), Some(last)) = ends else {
            return 0.0;
        };
        (last.0 - first.0) / 60.0
    }

    fn growth_mib(&self) -> f64 {
        self.slope() * 60.0 * self.minutes() / MIB
    }

    fn allowed_mib(&self) -> f64 {
        ALLOWED_MIB + ALLOWED_MIB_PER_MINUTE * self.minutes()
    }

    /// What is wrong, if anything is.
    pub(crate) fn verdict(&self) -> Option<String> {
        let (growth, allowed) = (self.growth_mib(), self.allowed_mib());
        (growth > allowed).then(|| format!("memory grew by {growth:.1} MiB, allowed are {allowed:.1}"))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |reading: Option<&(f64, f64)>| reading.map_or(0.0, |(_, bytes)| bytes / MIB);
        write!(
            f,
            "memory: {:.1} MiB after the warm-up, {:.1} at the end, {:+.1} KiB a minute over {:.1} minutes ({:.1} of {:.1} MiB allowed)",
            mib(self.readings.first()),
            mib(self.readings.last()),
            self.slope() * 60.0 / 1024.0,
            self.minutes(),
            self.growth_mib(),
            self.allowed_mib()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(kib_per_s: f64, seconds: u32) -> Memory {
        let mut memory = Memory::new(60.0);
        for at in 0..seconds {
            // A sawtooth of 2 MiB on it, and a jump in the warm-up, which are no growth.
            let saw = f64::from(at % 10) / 10.0 * 2.0 * MIB;
            let jump = if at < 50 { 0.0 } else { 50.0 * MIB };
            let bytes = 50.0 * MIB + jump + saw + f64::from(at) * kib_per_s * 1024.0;
            memory.sample(f64::from(at), bytes as u64);
        }
        memory
    }

    #[test]
    fn memory_that_grows_is_noticed_and_a_sawtooth_is_not() {
        assert_eq!(grown(0.0, 120).verdict(), None);
        assert_eq!(grown(0.0, 1800).verdict(), None);
        assert_eq!(grown(1.0, 1800).verdict(), None, "60 KiB a minute");
        assert!(grown(6.0, 1800).verdict().is_some(), "360 KiB a minute");
        assert!(grown(100.0, 120).verdict().is_some(), "6 MiB a minute");
    }
}
