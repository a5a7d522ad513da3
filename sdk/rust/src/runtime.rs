//! Drives a policy by the contract's calls: the component's exports and the native tests both go through [`Runner`].
//! Hidden, because plugins only reach it through `policy!`.

use crate::policy::{Observer, Outcome, Policy, Stateful};
use crate::pool::{Pool, Snapshot};
use crate::request::{Facts, Request};
use crate::settings::Settings;

/// A policy with the pool it was last told about.
#[derive(Default)]
pub struct Runner<P> {
    policy: P,
    pool: Pool,
}

impl<P: Policy> Runner<P> {
    /// A policy that has been told nothing yet.
    #[must_use]
    pub fn new() -> Self {
        #[cfg(target_arch = "wasm32")]
        report_panics();
        Self {
            policy: P::default(),
            pool: Pool::default(),
        }
    }

    /// The contract's `configure`.
    ///
    /// # Errors
    /// The policy's own.
    pub fn configure(&mut self, json: &str) -> Result<(), String> {
        self.policy.configure(Settings::parse(json)?)
    }

    /// The contract's `update`.
    pub fn update(&mut self, snapshot: Snapshot) {
        self.pool = Pool::new(snapshot);
        self.policy.update(&self.pool);
    }

    /// The contract's `pick`.
    pub fn pick(&mut self, facts: Facts) -> Option<u32> {
        self.pool.begin(facts.attempt);
        self.policy.pick(&Request::new(facts), &self.pool).into()
    }
}

impl<P: Observer> Runner<P> {
    /// The contract's `outcomes`.
    pub fn outcomes(&mut self, outcomes: &[Outcome], now_us: u64) {
        self.pool.begin(0);
        self.policy.outcomes(outcomes, &self.pool, now_us);
    }
}

impl<P: Stateful> Runner<P> {
    /// The contract's `export-state`.
    #[must_use]
    pub fn export_state(&self) -> Vec<u8> {
        self.policy.export_state()
    }

    /// The contract's `import-state`.
    ///
    /// # Errors
    /// The policy's own.
    pub fn import_state(&mut self, state: &[u8]) -> Result<(), String> {
        self.policy.import_state(state)
    }
}

/// Fails to compile unless `P` is an observer.
pub fn is_observer<P: Observer>() {}

/// Fails to compile unless `P` is stateful.
pub fn is_stateful<P: Stateful>() {}

/// Where a component keeps its one policy.
pub trait Slot {
    /// The policy.
    type Policy: Policy;

    /// Works on it.
    fn with<R>(work: impl FnOnce(&mut Runner<Self::Policy>) -> R) -> R;
}

/// A panic ends the instance with a bare trap; the log line says where it was.
#[cfg(target_arch = "wasm32")]
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        crate::log(crate::Level::Error, &panic.to_string())
    }));
}

#[cfg(target_arch = "wasm32")]
mod exports {
    use super::{Facts, Observer, Outcome, Slot, Snapshot, Stateful};
    use crate::bindings::keeping::exports::trimtab::policy::stateful;
    use crate::bindings::observing::exports::trimtab::policy::observer;
    use crate::bindings::policy::exports::trimtab::policy::picker;

    impl<S: Slot> picker::Guest for S {
        fn configure(config_json: String) -> Result<(), String> {
            S::with(|runner| runner.configure(&config_json))
        }

        fn update(told: picker::Snapshot) {
            let picker::Snapshot {
                generation,
                ids,
                addresses,
                weights,
                ramps,
                zones,
                tiers,
                usable,
                labels,
            } = told;
            let snapshot = Snapshot {
                generation,
                ids,
                addresses,
                weights,
                ramps,
                zones,
                tiers,
                usable,
                labels,
            };
            S::with(|runner| runner.update(snapshot));
        }

        fn pick(
            key: u64,
            random: u64,
            client_hi: u64,
            client_lo: u64,
            attempt: u32,
            now_us: u64,
        ) -> Option<u32> {
            S::with(|runner| {
                runner.pick(Facts {
                    key,
                    random,
                    client_hi,
                    client_lo,
                    attempt,
                    now_us,
                })
            })
        }
    }

    impl<S: Slot<Policy: Observer>> observer::Guest for S {
        fn outcomes(index: Vec<u32>, latency_us: Vec<u32>, bytes: Vec<u64>, status: Vec<u16>, now_us: u64) {
            let outcomes: Vec<Outcome> = (index.iter().zip(&latency_us).zip(&bytes).zip(&status))
                .map(|(((&index, &latency_us), &bytes), &status)| Outcome {
                    index: index as usize,
                    latency_us,
                    bytes,
                    status,
                })
                .collect();
            S::with(|runner| runner.outcomes(&outcomes, now_us));
        }
    }

    impl<S: Slot<Policy: Stateful>> stateful::Guest for S {
        fn schema() -> String {
            S::Policy::SCHEMA.to_owned()
        }

        fn export_state() -> Vec<u8> {
            S::with(|runner| runner.export_state())
        }

        fn import_state(state: Vec<u8>) -> Result<(), String> {
            S::with(|runner| runner.import_state(&state))
        }
    }
}
