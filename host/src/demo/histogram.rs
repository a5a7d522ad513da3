//! Latencies, counted in buckets that are never wider than a sixteenth of their value.
//!
//! Owns the buckets and their percentiles. It must not know what was measured. Cumulative, so that any interval is the
//! difference of two copies.

/// Each doubling of the value is cut into this many buckets: an error of 6 % at most, too small to see in a table.
const PARTS: u64 = 16;
/// Up to 2^26 us, more than a minute. The load gives up on a request long before.
const BUCKETS: usize = 23 * PARTS as usize;

/// Counts of durations in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts one duration; longer ones than the last bucket's count there.
    pub(super) fn record(&mut self, us: u64) {
        self.counts[bucket(us).min(BUCKETS - 1)] += 1;
    }

    /// What was recorded after `earlier`, which is a copy of this one made before.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        Self { counts }
    }

    /// The duration that this percentage of the recorded ones does not exceed, to the precision of the buckets; `None`
    /// of an empty histogram.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.counts.iter().sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += count;
                seen >= rank
            })
            .map(longest)
    }
}

/// The first `PARTS` values have a bucket each; from there on the leading five bits say which.
fn bucket(us: u64) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let shift = us.ilog2() - PARTS.ilog2();
    ((u64::from(shift) + 1) * PARTS + (us >> shift) - PARTS) as usize
}

/// The longest duration in a bucket.
fn longest(bucket: usize) -> u64 {
    let (row, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    match row.checked_sub(1) {
        None => part,
        Some(shift) => ((PARTS + part + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_a_bucket_that_reaches_it_and_is_a_sixteenth_wide_at_most() {
        for us in (0..2_000).chain([4_095, 4_096, 65_537, (1 << 26) - 1]) {
            let longest = longest(bucket(us));
            assert!(longest >= us, "{us} is in a bucket up to {longest}");
            assert!(longest - us <= us / PARTS, "{us} is in a bucket up to {longest}");
            assert!(us == 0 || bucket(us - 1) <= bucket(us), "{us} is in order");
        }
        assert_eq!(bucket((1 << 26) - 1), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        (1..=10).for_each(|us| histogram.record(us));
        assert_eq!(histogram.percentile(50), Some(5));
        assert_eq!(histogram.percentile(99), Some(10));
        assert_eq!(histogram.percentile(0), Some(1));
        assert_eq!(Histogram::default().percentile(50), None);
    }

    #[test]
    fn an_absurd_duration_counts_in_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.percentile(50), Some(longest(BUCKETS - 1)));
    }

    #[test]
    fn an_interval_is_the_difference_of_two_copies() {
        let mut histogram = Histogram::default();
        histogram.record(15);
        let before = histogram.clone();
        histogram.record(3);
        assert_eq!(histogram.since(&before).percentile(99), Some(3));
    }
}
