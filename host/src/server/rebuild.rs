//! New instances in place of those that failed.
//!
//! Owns the pause before each try. It must not choose versions.

use std::{sync::Arc, time::Duration};

use super::Control;
use crate::{
    control::PoolView,
    policy::{Instance, Rebuild},
    proxy::Message,
};

/// Longest pause before another try to build an instance.
const REBUILD_PAUSE_MAX: Duration = Duration::from_secs(10);

impl Control {
    /// Builds an instance in place of one that failed, without keeping anybody waiting.
    pub(super) fn rebuild(&self, order: Rebuild) {
        let Rebuild {
            worker,
            pool,
            deployment,
            mut pause,
            fallen,
        } = order;
        tokio::task::spawn_blocking(|| drop(fallen));
        let Some(messages) = self.workers.get(worker).map(|worker| worker.messages.clone()) else {
            return;
        };
        let handle = self.handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                // By now the pool may have been reloaded, or have another policy.
                let view = handle
                    .pools()
                    .iter()
                    .find(|view| view.pool.name() == pool.name())
                    .cloned();
                let is_wanted = |view: &PoolView| {
                    Arc::ptr_eq(&view.deployment, &deployment) || handle.is_on_trial(&deployment)
                };
                let Some(view) = view.filter(is_wanted) else {
                    return;
                };
                let candidate = deployment.candidate.clone();
                let built =
                    tokio::task::spawn_blocking(move || Instance::build(&candidate, &view.pool)).await;
                match built {
                    Ok(Ok(instance)) => {
                        let pool = pool.name().to_owned();
                        let instance = Box::new(instance);
                        let _ = messages.send(Message::Install {
                            pool,
                            deployment,
                            instance,
                        });
                        return;
                    }
                    Ok(Err(fault)) => {
                        pause = (pause * 2).min(REBUILD_PAUSE_MAX);
                        tracing::warn!(pool = pool.name(), worker, %fault, "policy cannot be rebuilt, the host chooses");
                    }
                    Err(error) => {
                        tracing::error!(pool = pool.name(), worker, %error, "bug: building an instance panicked");
                        return;
                    }
                }
            }
        });
    }
}
