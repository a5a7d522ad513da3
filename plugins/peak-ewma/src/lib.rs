//! Draws two backends at random and sends the request to the cheaper: `latency * (active + 1)` for its weight.
//!
//! The latency is a moving average that jumps up to every peak and decays over `decay`, so a backend that slows down is
//! left at once and taken back carefully; without new answers it decays to nothing, and the backend is tried again. A
//! failed attempt never lowers it, or failing fast would look fast. A backend that has not answered yet is tried with
//! one request at a time.
//!
//! Cost: constant, two load readings. Choose it when latency shifts within seconds. Settings: `decay`, in seconds,
//! above 0 up to 3600, default 10. State: the averages. Source: Finagle's and linkerd's peak EWMA; Mitzenmacher (2001) for two choices.
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{Lottery, PerBackend, Stateful, decayed, prelude::*, state};

/// How long a peak is remembered.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    decay: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { decay: 10.0 }
    }
}

/// The cost per request of a backend that is busy with its first: above any latency (2^32 us), so that the other wins.
const UNKNOWN_US: f64 = 1e12;

/// A backend's average as of its last outcome; `None` before the first.
#[derive(Clone, Copy, Default)]
struct Peak {
    average_us: Option<f64>,
    at_us: u64,
}

#[derive(Default)]
struct PeakEwma {
    decay_us: u64,
    lottery: Lottery,
    peaks: PerBackend<Peak>,
}

impl PeakEwma {
    fn cost(&self, index: usize, request: &Request, pool: &Pool) -> f64 {
        let active = f64::from(pool.active(index));
        let Peak { average_us, at_us } = self.peaks[index];
        let latency_us = match average_us {
            Some(average) => average * decayed(request.now_us().saturating_sub(at_us), self.decay_us),
            None if active == 0.0 => 0.0,
            None => UNKNOWN_US,
        };
        latency_us * (active + 1.0) / f64::from(pool.capacities()[index])
    }
}

impl Policy for PeakEwma {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        let written = settings.written("decay");
        let Config { decay } = settings.read()?;
        self.decay_us = (decay * 1e6) as u64;
        let known = self.decay_us > 0 && decay <= 3600.0;
        if known {
            Ok(())
        } else {
            Err(format!(
                "`decay` is {written}, but must be above 0 and up to 3600 seconds"
            ))
        }
    }

    fn update(&mut self, pool: &Pool) {
        self.lottery = Lottery::new(pool);
        self.peaks.follow(pool);
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let Some((first, second)) = self.lottery.draw_two(request, pool) else {
            return Pick::NoOpinion;
        };
        let Some(second) = second else { return first.into() };
        let (a, b) = (self.cost(first, request, pool), self.cost(second, request, pool));
        if a <= b { first.into() } else { second.into() }
    }
}

impl Observer for PeakEwma {
    fn outcomes(&mut self, outcomes: &[Outcome], _pool: &Pool, now_us: u64) {
        for outcome in outcomes {
            let Some(peak) = self.peaks.get_mut(outcome.index) else {
                continue;
            };
            let latency_us = f64::from(outcome.latency_us);
            let old = peak.average_us.unwrap_or(0.0);
            let keep = decayed(now_us.saturating_sub(peak.at_us), self.decay_us);
            let average = if latency_us > old {
                latency_us
            } else {
                old * keep + latency_us * (1.0 - keep)
            };
            let average = if outcome.failed() {
                average.max(old)
            } else {
                average
            };
            *peak = Peak {
                average_us: Some(average),
                at_us: now_us,
            };
        }
    }
}

impl Stateful for PeakEwma {
    const SCHEMA: &'static str = "peaks/1";

    /// For each backend that has answered its id, its average, and as of when.
    fn export_state(&self) -> Vec<u8> {
        state::write(self.peaks.by_id().flat_map(|(id, peak)| {
            let average = peak.average_us.map(|average| [id, average.to_bits(), peak.at_us]);
            average.into_iter().flatten()
        }))
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        let numbers = state::read(bytes)?;
        let (peaks, rest) = numbers.as_chunks();
        let is_average = |bits: u64| (0.0..=UNKNOWN_US).contains(&f64::from_bits(bits));
        if !rest.is_empty() || peaks.iter().any(|&[_, bits, _]| !is_average(bits)) {
            return Err("these are no averages".into());
        }
        for &[id, bits, at_us] in peaks {
            if let Some(peak) = self.peaks.of_id(id) {
                let average_us = Some(f64::from_bits(bits));
                *peak = Peak { average_us, at_us };
            }
        }
        Ok(())
    }
}

policy!(PeakEwma, observer, stateful);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::Outcome;
    use trimtab_policy::testing::{Trial, pool, with_host};

    fn took(index: usize, latency_us: u32) -> Outcome {
        Outcome {
            index,
            latency_us,
            bytes: 0,
            status: 200,
        }
    }

    fn two(a_us: u32, b_us: u32) -> Trial {
        let mut trial = Trial::new(native(), pool(["a", "b"]));
        trial.observe(&[took(0, a_us), took(1, b_us)]);
        trial
    }

    #[test]
    fn the_faster_backend_is_picked_until_it_is_busy() {
        let mut trial = two(1000, 3500);
        assert_eq!(trial.pick(), Some("a"));
        with_host(|host| host.active = vec![3, 0]);
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn one_peak_counts_at_once_and_is_forgotten_slowly() {
        let mut trial = two(1000, 2000);
        trial.observe(&[took(0, 100_000)]);
        assert_eq!(trial.pick(), Some("b"));
        trial.observe(&[took(0, 1000)]);
        assert_eq!(trial.pick(), Some("b"));
        for _ in 0..100 {
            trial.wait_us(1_000_000);
            trial.observe(&[took(0, 1000), took(1, 2000)]);
        }
        assert_eq!(trial.pick(), Some("a"));
    }

    #[test]
    fn a_slow_backend_is_tried_again_in_the_end() {
        let mut trial = two(1000, 1_000_000);
        for _ in 0..12 {
            trial.wait_us(10_000_000);
            trial.observe(&[took(0, 1000)]);
        }
        assert_eq!(trial.pick(), Some("b"));
    }

    #[test]
    fn failing_fast_does_not_attract() {
        let mut trial = two(1000, 2000);
        trial.wait_us(1_000_000);
        trial.observe(&[Outcome {
            status: 503,
            ..took(1, 10)
        }]);
        assert_eq!(trial.pick(), Some("a"));
    }

    #[test]
    fn a_new_backend_is_tried_with_one_request_at_a_time() {
        let mut trial = two(1000, 1000);
        trial.update(pool(["a", "b", "c"]).down("b"));
        assert_eq!(trial.pick(), Some("c"));
        with_host(|host| host.active = vec![50, 0, 1]);
        assert_eq!(trial.pick(), Some("a"));
    }

    #[test]
    fn a_backend_keeps_its_average_through_a_reload() {
        let mut trial = two(1000, 90_000);
        trial.update(pool(["b", "a"]));
        assert_eq!(trial.pick(), Some("a"));
    }

    #[test]
    fn the_next_version_knows_the_averages() {
        let old = two(1000, 90_000);
        let mut new = Trial::new(native(), pool(["b", "c", "a"]).down("c"));
        new.take_over(&old).unwrap();
        assert_eq!(new.run(100).count("a"), 100);
    }

    #[test]
    fn what_are_no_averages_is_refused() {
        let mut policy = native();
        policy.update(pool(["a"]).snapshot());
        for average in [f64::NAN, -1.0, f64::INFINITY] {
            let bytes = trimtab_policy::state::write([7, average.to_bits(), 0]);
            assert!(policy.import_state(&bytes).is_err(), "{average}");
        }
        assert!(policy.import_state(&[0; 8]).is_err());
    }

    #[test]
    fn neither_a_down_nor_a_tried_backend_is_picked() {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]).down("a"));
        with_host(|host| host.tried = vec![false, true, false]);
        let mut facts = trial.facts();
        facts.attempt = 1;
        assert_eq!(trial.ask(facts), Some("c"));
    }

    #[test]
    fn an_impossible_decay_is_refused() {
        assert!(
            native()
                .configure(r#"{"decay": 0}"#)
                .unwrap_err()
                .contains("`decay`")
        );
        assert!(native().configure(r#"{"decay": 4000}"#).is_err());
    }
}
