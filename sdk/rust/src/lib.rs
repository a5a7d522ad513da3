#![doc = include_str!("../README.md")]
//! # The modules
//!
//! [`Policy`] is what a plugin implements and [`policy!`] what exports it. [`Pool`] and [`Request`] are what a pick
//! may look at. [`hash`], [`Lottery`], [`Turns`], [`PerBackend`] and [`state`] are the parts that more than one algorithm needs; [`Algorithm`] names those of the host.
//! Off wasm the host's functions go to [`testing`], so the same code runs under `cargo test`.
//!
//! Not here: any particular algorithm (`plugins/`), and the contract itself (`wit/`).
//!
//! Invariant: a policy sees nothing but its arguments and the host's answers, so equal inputs give equal picks,
//! natively and as a component.

mod algorithm;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
pub mod hash;
mod host;
mod json;
mod lottery;
mod per_backend;
mod policy;
mod pool;
mod request;
#[doc(hidden)]
pub mod runtime;
mod settings;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod turns;

pub use algorithm::Algorithm;
pub use host::{Level, log};
pub use lottery::Lottery;
pub use per_backend::PerBackend;
pub use policy::{Observer, Outcome, Pick, Policy, Stateful};
pub use pool::{Backend, Pool, Snapshot};
pub use request::{Facts, Request};
pub use settings::Settings;
pub use turns::Turns;

/// What nearly every policy names.
pub mod prelude {
    pub use crate::{Algorithm, Backend, Observer, Outcome, Pick, Policy, Pool, Request, Settings, policy};
}

/// What remains of an exponentially decaying value after `elapsed`, as a factor of 0 to 1: about `e^(-elapsed/decay)`,
/// both in the same unit.
///
/// Computed as `(1 + x/1024)^-1024` by ten squarings, within 0.05 % of the exponential up to x = 1: `f64::exp` comes
/// from another library on each platform and may differ in its last bit, which would make a replay diverge.
#[must_use]
pub fn decayed(elapsed: u64, decay: u64) -> f64 {
    if decay == 0 {
        return 0.0;
    }
    let mut factor = 1.0 / (1.0 + elapsed as f64 / decay as f64 / 1024.0);
    for _ in 0..10 {
        factor *= factor;
    }
    factor
}

#[cfg(test)]
mod tests {
    use super::decayed;

    #[test]
    fn decay_follows_the_exponential() {
        assert_eq!(decayed(0, 10), 1.0);
        assert_eq!(decayed(1, 0), 0.0);
        for x in [0.1_f64, 0.5, 1.0] {
            let got = decayed((x * 1e6) as u64, 1_000_000);
            assert!((got / (-x).exp() - 1.0).abs() < 5e-4, "{x}: {got}");
        }
    }
}
