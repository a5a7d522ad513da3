//! Shadows: begun and ended by an operator.
//!
//! Owns which candidates decide beside the versions in service. It must not compare: `rollout` does.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Control, prepare,
    rollout::{Step, no_pool, reason, told, with_settings},
};
use crate::{
    control::{Denial, ShadowOrder},
    policy::{Candidate, Code, Version},
    proxy::Message,
    rollout::{Shadow, ShadowReport},
};

/// The candidates, by pool.
pub(super) type Shadows = BTreeMap<String, Arc<Shadow>>;

impl Control {
    /// Finds and compiles the candidate, in a task of its own.
    pub(super) fn find_shadow(
        &mut self,
        order: ShadowOrder,
        done: oneshot::Sender<Result<ShadowReport, Denial>>,
    ) {
        match self.find_version(&order.pool, &order.sought, order.config_json.clone()) {
            Ok(version) => {
                let load = self.loading(version.clone());
                self.steps.spawn(async move {
                    Step::Shadow {
                        code: load.await,
                        order,
                        version,
                        done,
                    }
                });
            }
            // Whoever asked may have gone.
            Err(denial) => drop(done.send(Err(denial))),
        }
    }

    /// Has a candidate decide beside the version in service, in place of any other. Its code is there.
    pub(super) async fn begin_shadow(
        &mut self,
        order: ShadowOrder,
        version: Version,
        code: Arc<Code>,
    ) -> Result<ShadowReport, Denial> {
        let ShadowOrder { pool, share, .. } = order;
        let missing = || no_pool(&pool);
        let views = self.handle.pools();
        let view = views
            .iter()
            .find(|view| view.pool.name() == pool)
            .ok_or_else(missing)?;
        let spec = with_settings(self.file_policy(&pool).ok_or_else(missing)?, &version.config_json);
        let candidate = Candidate::admit(self.loader.engine(), spec, &code);
        let candidate = Arc::new(candidate.map_err(|refusal| told(&version, &pool, refusal.to_string()))?);
        // Settings that it does not take are better told now than counted as faults.
        let tried = prepare::build(&view.pool, &candidate, 1).await;
        tried.map_err(|error| told(&version, &pool, reason(error)))?;
        let size = (view.pool.config.backends.len(), self.workers.len());
        let shadow = Shadow::start(candidate, &pool, size, share);
        let shadow = Arc::new(shadow.map_err(|error| Denial::Refused(format!("no thread for it: {error}")))?);
        let report = shadow.report();
        tracing::info!(pool, version = report.version, share, "shadow begun");
        self.tell_shadow(&pool, Some(&shadow));
        self.shadows.insert(pool, shadow);
        self.handle.set_shadows(self.shadows.clone());
        Ok(report)
    }

    /// The comparison up to now, which is its end.
    pub(super) fn end_shadow(&mut self, pool: &str) -> Result<ShadowReport, Denial> {
        let shadow = self
            .shadows
            .remove(pool)
            .ok_or_else(|| Denial::Unknown(format!("pool {pool:?} has no shadow")))?;
        self.tell_shadow(pool, None);
        self.handle.set_shadows(self.shadows.clone());
        let report = shadow.report();
        tracing::info!(pool, version = report.version, "shadow ended");
        Ok(report)
    }

    fn tell_shadow(&self, pool: &str, shadow: Option<&Arc<Shadow>>) {
        for worker in &self.workers {
            // A worker that is gone has logged why.
            let _ = worker.messages.send(Message::Shadow {
                pool: pool.to_owned(),
                shadow: shadow.cloned(),
            });
        }
    }
}
