//! What listeners keep over reloads: their counters, and what their workers tell each other.
//!
//! Owns which of it goes on, by the listener's key. It must not know what is counted.

use std::{collections::BTreeMap, sync::Arc};

use super::prepare::Service;
use crate::{config, control::ListenerView, metrics, rate};

impl Service {
    /// The listeners as the rest of the process sees them.
    pub(super) fn listener_views(&self) -> Vec<ListenerView> {
        let view = |listener: &Arc<config::Listener>| {
            let key = listener.key();
            Some(ListenerView {
                config: listener.clone(),
                address: self.addresses.get(&key).copied().unwrap_or(listener.listen),
                counters: self.counters.get(&key)?.clone(),
            })
        };
        self.listeners.iter().filter_map(view).collect()
    }

    /// The listeners' counters; those in service go on counting.
    pub(super) fn counters(
        &self,
        listeners: &[Arc<config::Listener>],
        workers: usize,
    ) -> BTreeMap<String, Arc<metrics::Listener>> {
        let of = |listener: &Arc<config::Listener>| {
            let key = listener.key();
            let known = self.counters.get(&key).cloned();
            (
                key,
                known.unwrap_or_else(|| Arc::new(metrics::Listener::new(workers))),
            )
        };
        listeners.iter().map(of).collect()
    }

    /// What keeps the listeners' rates; those whose rates are the same go on with what they have.
    pub(super) fn rates(
        &self,
        listeners: &[Arc<config::Listener>],
        workers: usize,
    ) -> BTreeMap<String, Arc<rate::Shared>> {
        let of = |listener: &Arc<config::Listener>| {
            let (key, rates) = (listener.key(), listener.rates.as_ref()?);
            let old = self.listeners.iter().find(|old| old.key() == key);
            let is_same = old.is_some_and(|old| old.rates.as_ref() == Some(rates));
            let known = self.rates.get(&key).filter(|_| is_same).cloned();
            Some((
                key,
                known.unwrap_or_else(|| Arc::new(rate::Shared::new(rates, workers))),
            ))
        };
        listeners.iter().filter_map(of).collect()
    }
}
