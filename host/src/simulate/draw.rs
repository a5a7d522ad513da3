//! Random numbers that belong to a request, not to the moment that they are drawn in.
//!
//! Owns the way from a seed, a number and a purpose to a random value. Every policy of a run meets the same arrivals and
//! the same costs, whatever it decides and in whatever order (common random numbers), so that what differs between two
//! policies is their doing. It must not keep state.

use crate::config::Distribution;

/// What a value is for. Values of different purposes have nothing to do with each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Arrival,
    Thinning,
    Phase,
    Balancer,
    Worker,
    Class,
    Key,
    Client,
    Service,
    ServiceAngle,
    KeyOfKeyless,
    /// Of this attempt.
    Pick(u32),
    Failure(u32),
    Check,
    CheckFailure,
    Trial,
}

impl Purpose {
    fn salt(self) -> u64 {
        match self {
            Self::Arrival => 1,
            Self::Thinning => 2,
            Self::Phase => 3,
            Self::Balancer => 4,
            Self::Worker => 5,
            Self::Class => 6,
            Self::Key => 7,
            Self::Client => 8,
            Self::Service => 9,
            Self::ServiceAngle => 10,
            Self::KeyOfKeyless => 11,
            Self::Check => 12,
            Self::CheckFailure => 13,
            Self::Trial => 14,
            Self::Pick(attempt) => 1 << 8 | u64::from(attempt),
            Self::Failure(attempt) => 1 << 16 | u64::from(attempt),
        }
    }
}

/// Draws of one seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    seed: u64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed: mix(seed) }
    }

    /// 64 random bits.
    pub(super) fn bits(self, purpose: Purpose, number: u64) -> u64 {
        mix(mix(self.seed ^ purpose.salt().wrapping_mul(0xa076_1d64_78bd_642f)).wrapping_add(number))
    }

    /// Above 0 and below 1.
    pub(super) fn unit(self, purpose: Purpose, number: u64) -> f64 {
        ((self.bits(purpose, number) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Below `count`.
    pub(super) fn below(self, purpose: Purpose, number: u64, count: usize) -> usize {
        ((u128::from(self.bits(purpose, number)) * count as u128) >> 64) as usize
    }

    /// Exponentially distributed, of mean 1.
    pub(super) fn exponential(self, purpose: Purpose, number: u64) -> f64 {
        -self.unit(purpose, number).ln()
    }

    /// Seconds that request `number` costs.
    pub(super) fn service_s(self, distribution: &Distribution, number: u64) -> f64 {
        let unit = || self.unit(Purpose::Service, number);
        match distribution {
            Distribution::Constant { mean } => mean.as_secs_f64(),
            Distribution::Exponential { mean } => mean.as_secs_f64() * -unit().ln(),
            Distribution::Lognormal { mean, sigma } => {
                // Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
                let angle = std::f64::consts::TAU * self.unit(Purpose::ServiceAngle, number);
                let normal = (-2.0 * unit().ln()).sqrt() * angle.cos();
                mean.as_secs_f64() * (sigma * normal - sigma * sigma / 2.0).exp()
            }
            Distribution::Pareto { mean, shape } => {
                let least = mean.as_secs_f64() * (shape - 1.0) / shape;
                least / unit().powf(1.0 / shape)
            }
            Distribution::Bimodal {
                fast,
                slow,
                slow_share,
            } => {
                let time = if unit() < *slow_share { slow } else { fast };
                time.as_secs_f64()
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const COUNT: u64 = 200_000;

    fn mean_of(value: impl Fn(u64) -> f64) -> f64 {
        (0..COUNT).map(value).sum::<f64>() / COUNT as f64
    }

    #[test]
    fn every_distribution_has_the_mean_that_it_is_given() {
        let mean = Duration::from_millis(10);
        let (fast, slow) = (Duration::from_millis(5), Duration::from_millis(505));
        let distributions = [
            Distribution::Constant { mean },
            Distribution::Exponential { mean },
            Distribution::Lognormal { mean, sigma: 1.0 },
            Distribution::Pareto { mean, shape: 3.0 },
            Distribution::Bimodal {
                fast,
                slow,
                slow_share: 0.01,
            },
        ];
        for distribution in distributions {
            let drawn = mean_of(|number| Draw::new(7).service_s(&distribution, number));
            assert!((drawn - 0.01).abs() < 0.0003, "{distribution:?}: {drawn}");
            assert!((distribution.mean_s() - 0.01).abs() < 1e-9, "{distribution:?}");
        }
    }

    #[test]
    fn values_of_different_purposes_and_seeds_are_independent() {
        let product = |one: Draw, other: Draw, purpose| {
            let centred = |draw: Draw, purpose, number| draw.unit(purpose, number) - 0.5;
            mean_of(|number| centred(one, Purpose::Key, number) * centred(other, purpose, number)) * 12.0
        };
        let (one, other) = (Draw::new(1), Draw::new(2));
        assert!(product(one, one, Purpose::Client).abs() < 0.01);
        assert!(product(one, other, Purpose::Key).abs() < 0.01);
        assert!(product(one, one, Purpose::Key) > 0.99);
    }
}
