//! What a worker knows that a node which takes this one's place would lack; and going on with what such a node knew.
//!
//! Owns the collecting. What it is made of, and what is believed of it, is the business of policies and rates.

use std::collections::BTreeMap;

use super::WorkerState;
use crate::{
    clock,
    warm::{PolicyState, Warm, WorkerWarm},
};

impl WorkerState {
    /// All of it; what policies have learned only if it is asked for.
    pub(super) fn tell(&self, with_states: bool) -> WorkerWarm {
        let now_us = clock::now_us();
        let mut states = BTreeMap::new();
        for (name, pool) in self.pools.borrow().iter().filter(|_| with_states) {
            if let Some((schema, bytes)) = pool.seat().carry(now_us) {
                states.insert(name.clone(), PolicyState { schema, bytes });
            }
        }
        let mut rates = BTreeMap::new();
        for listener in self.listeners.borrow().values() {
            let rules = listener.rules();
            if let Some(limiter) = &rules.rates {
                rates.insert(rules.config.name.clone(), limiter.carry(now_us));
            }
        }
        WorkerWarm { states, rates }
    }

    /// Goes on with it, as it was at that time on this process's clock.
    pub(super) fn go_on(&self, warm: &Warm, told_us: u64, with_states: bool) {
        let now_us = clock::now_us();
        for listener in self.listeners.borrow().values() {
            let rules = listener.rules();
            if let (Some(limiter), Some(carried)) = (&rules.rates, warm.listeners.get(&rules.config.name)) {
                limiter.go_on_with(carried, told_us, now_us);
            }
        }
        for (name, pool) in self.pools.borrow().iter().filter(|_| with_states) {
            let Some(state) = warm.state(name, self.id) else {
                continue;
            };
            if !pool.seat().go_on_with(&state.schema, state.bytes.clone(), now_us) {
                tracing::warn!(
                    pool = name,
                    worker = self.id,
                    schema = state.schema,
                    "the policy does not go on with what it learned at the other node"
                );
            }
        }
    }
}
