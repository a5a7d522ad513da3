//! What a worker looks at now and then: who has waited for too long, and what is kept for nobody.
//!
//! Owns how often. It must not know what follows for a connection.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use super::WorkerState;

/// Longest and shortest pause between two looks at what waits for too long. Time-outs are that much late at most.
pub(super) const EVERY_MAX: Duration = Duration::from_millis(100);
pub(super) const EVERY_MIN: Duration = Duration::from_millis(5);
/// Unused upstream connections, and spare buffers, are looked at this often.
pub(in crate::proxy) const SWEEP_EVERY_MS: u64 = 1000;

/// Looks for what waits too long, again and again.
pub(super) async fn run(state: Rc<WorkerState>) {
    let mut swept_ms = 0;
    loop {
        tokio::time::sleep(state.watch_every.get()).await;
        let now_us = state.tick();
        let now_ms = now_us / 1000;
        state.metrics().ticked_us.store(now_us, Relaxed);
        for (watch, listener) in state.connections.borrow().values() {
            if watch.check(&listener.rules().config.limits) {
                state.metrics().count(|metrics| &metrics.connections_expired);
            }
        }
        let pools = state.pools.borrow();
        pools.values().for_each(|pool| pool.relieve(state.id));
        if now_ms >= swept_ms + SWEEP_EVERY_MS {
            swept_ms = now_ms;
            pools.values().for_each(|pool| pool.sweep(now_ms));
            state.scratch.sweep();
        }
    }
}

impl WorkerState {
    /// Short time-outs need closer watching.
    pub(super) fn set_watch_pace(&self) {
        let listeners = self.listeners.borrow();
        let pools = self.pools.borrow();
        let client = listeners.values().flat_map(|listener| {
            let limits = &listener.rules().config.limits;
            [limits.header_timeout, limits.idle_timeout, limits.body_timeout]
        });
        let backend = pools.values().flat_map(|pool| {
            let config = &pool.settings().config;
            let retried = config.retry.try_timeout.unwrap_or(config.response_timeout);
            let queued = config
                .limits
                .as_ref()
                .map_or(retried, |limits| limits.queue_timeout);
            let whole = config.request_timeout.unwrap_or(config.response_timeout);
            [
                config.response_timeout,
                config.body_timeout,
                retried,
                queued,
                whole,
            ]
        });
        let shortest = client.chain(backend).min().unwrap_or(EVERY_MAX);
        self.watch_every.set((shortest / 4).clamp(EVERY_MIN, EVERY_MAX));
    }
}
