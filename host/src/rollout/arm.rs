//! What is measured of one arm of a canary.
//!
//! Owns the counters, a block for each worker that only this worker writes, and their sum.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use crate::pool::add;

/// Latencies are counted in buckets that grow by an eighth: a quantile is at most 12.5 % too high.
const STEPS: usize = 8;
/// Up to 2^26 us, which is a minute and more.
const BUCKETS: usize = STEPS * 24;

/// The counters of one arm, of all workers.
#[derive(Debug)]
pub struct Arm {
    workers: Box<[CachePadded<Counters>]>,
}

#[derive(Debug)]
struct Counters {
    answers: AtomicU64,
    errors: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
    picks: Box<[AtomicU64]>,
}

/// The sum of an arm's counters, with what was counted of its policy.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Measure {
    /// Decisions the policy was asked for.
    pub decisions: u64,
    /// Faults of the policy.
    pub faults: u64,
    /// Mean time of a decision in nanoseconds, of which each counts 200 us at most; 0 while too few were timed.
    pub decision_ns: f64,
    /// Attempts that ended.
    pub answers: u64,
    /// Attempts without a response, or with a status of 500 and above.
    pub errors: u64,
    /// 99th percentile of the time to the response head, in microseconds.
    pub p99_us: u64,
    /// Attempts by backend, as in the pool's configuration.
    pub picks: Vec<u64>,
}

impl Arm {
    /// All zero, for a pool of so many backends.
    pub fn new(workers: usize, backends: usize) -> Self {
        let counters = |_| {
            CachePadded::new(Counters {
                answers: AtomicU64::new(0),
                errors: AtomicU64::new(0),
                latencies: std::array::from_fn(|_| AtomicU64::new(0)),
                picks: (0..backends).map(|_| AtomicU64::new(0)).collect(),
            })
        };
        Self {
            workers: (0..workers).map(counters).collect(),
        }
    }

    /// An attempt has ended. Only the worker itself may call this.
    pub fn record(&self, worker: usize, backend: usize, status: Option<u16>, latency_us: u64) {
        let Some(counters) = self.workers.get(worker) else {
            return;
        };
        add(&counters.answers, 1);
        if status.is_none_or(|status| status >= 500) {
            add(&counters.errors, 1);
        }
        add(&counters.latencies[bucket(latency_us)], 1);
        if let Some(picks) = counters.picks.get(backend) {
            add(picks, 1);
        }
    }

    /// The sum of what was recorded. Of the policy nothing is known here.
    pub fn measure(&self) -> Measure {
        let sum =
            |read: &dyn Fn(&Counters) -> u64| self.workers.iter().map(|worker| read(worker)).sum::<u64>();
        let latencies: Vec<u64> = (0..BUCKETS)
            .map(|bucket| sum(&|worker| worker.latencies[bucket].load(Relaxed)))
            .collect();
        let backends = self.workers.first().map_or(0, |worker| worker.picks.len());
        Measure {
            answers: sum(&|worker| worker.answers.load(Relaxed)),
            errors: sum(&|worker| worker.errors.load(Relaxed)),
            p99_us: quantile(&latencies, 99),
            picks: (0..backends)
                .map(|backend| sum(&|worker| worker.picks[backend].load(Relaxed)))
                .collect(),
            ..Measure::default()
        }
    }
}

/// The bucket of a latency: the power of two, and the eighth of the way to the next.
fn bucket(latency_us: u64) -> usize {
    let value = latency_us.max(STEPS as u64);
    let power = value.ilog2() as usize;
    let eighth = (value >> (power - 3)) as usize - STEPS;
    ((power - 3) * STEPS + eighth).min(BUCKETS - 1)
}

/// The upper bound of a bucket.
fn bound(bucket: usize) -> u64 {
    let (power, eighth) = (bucket / STEPS, bucket % STEPS);
    (((STEPS + eighth + 1) as u64) << power) - 1
}

fn quantile(buckets: &[u64], percent: u64) -> u64 {
    let all: u64 = buckets.iter().sum();
    let rank = (all * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let found = buckets.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    found.map_or(0, bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_an_eighth_too_high() {
        let mut random = fastrand::Rng::with_seed(1);
        let arm = Arm::new(2, 1);
        let mut latency = |_| {
            let top = 1 << random.u64(4..22);
            random.u64(8..top)
        };
        let mut all: Vec<u64> = (0..10_000).map(&mut latency).collect();
        for (turn, latency) in all.iter().enumerate() {
            arm.record(turn % 2, 0, Some(200), *latency);
        }
        all.sort_unstable();
        let (exact, found) = (all[9899], arm.measure().p99_us);
        assert!(
            found >= exact && found <= exact + exact / 8 + 1,
            "{found} for {exact}"
        );
    }

    #[test]
    fn any_latency_has_a_bucket_and_lies_below_its_bound() {
        for latency in [0, 1, 7, 8, 9, 1000, 65_535, 65_536, 10_000_000] {
            assert!(bound(bucket(latency)) >= latency, "{latency}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(bound(BUCKETS - 1) > 60_000_000, "a minute");
    }

    #[test]
    fn workers_are_summed() {
        let arm = Arm::new(2, 3);
        arm.record(0, 0, Some(200), 10);
        arm.record(1, 2, Some(503), 10);
        arm.record(1, 2, None, 10);
        arm.record(7, 9, None, 10);
        let measure = arm.measure();
        assert_eq!((measure.answers, measure.errors), (3, 2));
        assert_eq!(measure.picks, [1, 0, 2]);
        assert_eq!(Arm::new(1, 0).measure(), Measure::default());
    }
}
