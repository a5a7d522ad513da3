//! What the active node of a cluster knows and a standby does not, so that one that takes its place does not begin cold.
//!
//! Owns the form, how it is sealed, and the two sides of asking for it. What it is made of belongs to `pool`, `policy` and `rate`; when it
//! is asked for and applied, to `server/warm.rs`.
//!
//! Invariants: nothing of it is on the way of a request; it is bounded; and what cannot be read changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{pool::Standing, rate::Carried};

mod talk;

pub use talk::{Key, TalkError, answer, ask};

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Warm {
    /// By pool.
    pub pools: BTreeMap<String, PoolWarm>,
    /// The rates of listeners, by listener.
    pub listeners: BTreeMap<String, Carried>,
}

/// Of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolWarm {
    /// Of its backends.
    pub standings: Vec<Standing>,
    /// What its policy has learned, as each worker's instance tells.
    pub states: Vec<PolicyState>,
}

/// What an instance exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyState {
    /// The name of its layout.
    pub schema: String,
    /// The state.
    pub bytes: Vec<u8>,
}

/// What one worker has to say.
#[derive(Clone, Debug, Default)]
pub struct WorkerWarm {
    /// By pool.
    pub states: BTreeMap<String, PolicyState>,
    /// By listener.
    pub rates: BTreeMap<String, Carried>,
}

impl Warm {
    /// Adds what a worker says. States beyond so many bytes are left out, and their number is the answer.
    pub fn add(&mut self, worker: WorkerWarm, states_bytes_max: usize) -> usize {
        for (listener, rates) in worker.rates {
            let known = self.listeners.remove(&listener).unwrap_or_default();
            self.listeners.insert(listener, known.merge(rates));
        }
        let states = self.pools.values().flat_map(|pool| &pool.states);
        let mut sum: usize = states.map(|state| state.bytes.len()).sum();
        let mut left_out = 0;
        for (pool, state) in worker.states {
            if sum + state.bytes.len() > states_bytes_max {
                left_out += 1;
                continue;
            }
            sum += state.bytes.len();
            self.pools.entry(pool).or_default().states.push(state);
        }
        left_out
    }

    /// The state for one of this node's workers, of which there may be more or fewer than at the other.
    pub fn state(&self, pool: &str, worker: usize) -> Option<&PolicyState> {
        let states = &self.pools.get(pool)?.states;
        states.get(worker.checked_rem(states.len())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pool: &str, bytes: usize) -> WorkerWarm {
        let state = PolicyState {
            schema: "cursor/1".to_owned(),
            bytes: vec![bytes as u8; bytes],
        };
        WorkerWarm {
            states: BTreeMap::from([(pool.to_owned(), state)]),
            ..WorkerWarm::default()
        }
    }

    #[test]
    fn each_worker_has_a_state_whoever_has_more_of_them() {
        let mut warm = Warm::default();
        assert_eq!(warm.state("shop", 0), None);
        for bytes in [1, 2] {
            assert_eq!(warm.add(said("shop", bytes), 100), 0);
        }
        let sizes = [0, 1, 2, 3].map(|worker| warm.state("shop", worker).unwrap().bytes.len());
        assert_eq!(sizes, [1, 2, 1, 2]);
        assert_eq!(warm.state("blog", 0), None);
    }

    #[test]
    fn states_that_are_too_large_together_are_left_out_and_told() {
        let mut warm = Warm::default();
        assert_eq!(warm.add(said("shop", 60), 100), 0);
        assert_eq!(warm.add(said("shop", 60), 100), 1);
        assert_eq!(warm.add(said("blog", 40), 100), 0);
        assert_eq!(warm.pools["shop"].states.len(), 1);
    }
}
