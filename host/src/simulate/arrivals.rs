//! When requests arrive.
//!
//! Owns the arrival processes. Their times depend on the seed and the scenario alone, never on what a policy does: load
//! is open, and clients do not wait for each other. It must not know requests beyond their number.

use super::draw::{Draw, Purpose};
use crate::config::{Arrivals, Process};

/// Times of arrival in seconds, growing, without end.
#[derive(Clone, Debug)]
pub(super) struct ArrivalTimes {
    arrivals: Arrivals,
    draw: Draw,
    now_s: f64,
    number: u64,
    /// Candidates of a thinned process.
    candidates: u64,
    burst: Burst,
}

/// The state of a bursty process.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    is_on: bool,
    until_s: f64,
    phases: u64,
}

impl ArrivalTimes {
    pub(super) fn new(arrivals: Arrivals, draw: Draw) -> Self {
        Self {
            arrivals,
            draw,
            now_s: 0.0,
            number: 0,
            candidates: 0,
            // Ends at once, and a quiet time follows.
            burst: Burst {
                is_on: true,
                ..Burst::default()
            },
        }
    }

    /// With the unit exponential variable that the next arrival has, the integral of the rate up to it.
    fn after(&mut self, mut hazard: f64) -> f64 {
        let rate = self.arrivals.rate;
        match self.arrivals.process {
            Process::Constant => self.now_s + 1.0 / rate,
            Process::Poisson => self.now_s + hazard / rate,
            Process::Bursty {
                burst,
                burst_time,
                quiet_time,
            } => {
                let (on_s, off_s) = (burst_time.as_secs_f64(), quiet_time.as_secs_f64());
                let quiet = rate * (on_s + off_s) / (burst * on_s + off_s);
                let mut now_s = self.now_s;
                loop {
                    let rate = if self.burst.is_on { quiet * burst } else { quiet };
                    let left = (self.burst.until_s - now_s) * rate;
                    if hazard <= left {
                        return now_s + hazard / rate;
                    }
                    hazard -= left;
                    now_s = self.burst.until_s;
                    self.switch(on_s, off_s);
                }
            }
            Process::Ramp { to, over } => {
                let over_s = over.as_secs_f64();
                let slope = (to - rate) / over_s;
                if self.now_s < over_s {
                    let here = rate + slope * self.now_s;
                    let left = (here + to) / 2.0 * (over_s - self.now_s);
                    if hazard <= left {
                        // Solved in the form that also holds for a slope of 0.
                        let root = (here * here + 2.0 * slope * hazard).sqrt();
                        return self.now_s + 2.0 * hazard / (here + root);
                    }
                    return over_s + (hazard - left) / to;
                }
                self.now_s + hazard / to
            }
            Process::Diurnal { .. } => self.thinned(),
        }
    }

    fn switch(&mut self, on_s: f64, off_s: f64) {
        let burst = &mut self.burst;
        burst.is_on = !burst.is_on;
        let mean_s = if burst.is_on { on_s } else { off_s };
        burst.until_s += mean_s * self.draw.exponential(Purpose::Phase, burst.phases);
        burst.phases += 1;
    }

    /// Lewis and Shedler, "Simulation of Nonhomogeneous Poisson Processes by Thinning", 1979.
    fn thinned(&mut self) -> f64 {
        let most = self.arrivals.rate_max();
        let mut now_s = self.now_s;
        loop {
            now_s += self.draw.exponential(Purpose::Arrival, self.candidates) / most;
            let kept = self.draw.unit(Purpose::Thinning, self.candidates) * most;
            self.candidates += 1;
            if kept <= self.arrivals.rate_at(now_s) {
                return now_s;
            }
        }
    }
}

impl Iterator for ArrivalTimes {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let hazard = self.draw.exponential(Purpose::Arrival, self.number);
        self.number += 1;
        self.now_s = self.after(hazard);
        Some(self.now_s)
    }
}

impl Arrivals {
    /// Of a diurnal process: its rate at this time.
    fn rate_at(&self, now_s: f64) -> f64 {
        match self.process {
            Process::Diurnal { swing, period } => {
                let angle = std::f64::consts::TAU * now_s / period.as_secs_f64();
                self.rate * (1.0 + swing * angle.sin())
            }
            _ => self.rate,
        }
    }

    fn rate_max(&self) -> f64 {
        match self.process {
            Process::Diurnal { swing, .. } => self.rate * (1.0 + swing),
            _ => self.rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn times(process: Process, rate: f64, count: usize) -> Vec<f64> {
        let times = ArrivalTimes::new(Arrivals { process, rate }, Draw::new(3));
        times.take(count).collect()
    }

    fn between(times: &[f64], from_s: f64, to_s: f64) -> f64 {
        let inside = times.iter().filter(|time| (from_s..to_s).contains(*time));
        inside.count() as f64 / (to_s - from_s)
    }

    #[test]
    fn the_long_run_rate_is_the_one_that_is_asked_for() {
        let bursty = Process::Bursty {
            burst: 8.0,
            burst_time: Duration::from_millis(200),
            quiet_time: Duration::from_millis(800),
        };
        let diurnal = Process::Diurnal {
            swing: 0.9,
            period: Duration::from_secs(1),
        };
        for process in [Process::Constant, Process::Poisson, bursty, diurnal] {
            let times = times(process, 1000.0, 400_000);
            let rate = times.len() as f64 / times[times.len() - 1];
            assert!((rate - 1000.0).abs() < 25.0, "{process:?}: {rate}");
            assert!(times.is_sorted());
        }
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_they_last_and_constant_ones_not_at_all() {
        let deviation = |process| {
            let times = times(process, 1000.0, 100_000);
            let gaps = || times.windows(2).map(|pair| (pair[1] - pair[0]) * 1000.0);
            let count = gaps().count() as f64;
            (gaps().map(|gap| (gap - 1.0) * (gap - 1.0)).sum::<f64>() / count).sqrt()
        };
        assert!((deviation(Process::Poisson) - 1.0).abs() < 0.02);
        assert!(deviation(Process::Constant) < 1e-6);
    }

    #[test]
    fn a_ramp_rises_to_its_end_and_stays_there() {
        let process = Process::Ramp {
            to: 3000.0,
            over: Duration::from_secs(20),
        };
        let times = times(process, 1000.0, 100_000);
        for (from_s, to_s, rate) in [(0.0, 2.0, 1100.0), (9.0, 11.0, 2000.0), (20.0, 30.0, 3000.0)] {
            let found = between(&times, from_s, to_s);
            assert!((found - rate).abs() < rate * 0.05, "{from_s}: {found}");
        }
    }

    #[test]
    fn a_ramp_may_fall() {
        let process = Process::Ramp {
            to: 100.0,
            over: Duration::from_secs(10),
        };
        let times = times(process, 1000.0, 10_000);
        let found = between(&times, 20.0, 50.0);
        assert!((found - 100.0).abs() < 8.0, "{found}");
    }

    #[test]
    fn a_day_has_a_high_and_a_low() {
        let process = Process::Diurnal {
            swing: 0.8,
            period: Duration::from_secs(40),
        };
        let times = times(process, 1000.0, 80_000);
        let (high, low) = (between(&times, 9.0, 11.0), between(&times, 29.0, 31.0));
        assert!(
            (high - 1800.0).abs() < 90.0 && (low - 200.0).abs() < 40.0,
            "{high} {low}"
        );
    }
}
