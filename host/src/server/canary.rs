//! Canaries: begun by an operator, judged by rules, ended once.
//!
//! Owns which candidates are on trial and what became of the last ones. It must not judge: `rollout` does.
//!
//! Invariant: a canary is taken out of the list before anything is done about its end, so that there is one end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    Control, prepare,
    rollout::{no_pool, told, with_settings},
};
use crate::{
    control::{CanaryOrder, Denial},
    policy::{Candidate, Code, Deployment, Version},
    proxy::{CanaryPlan, Message},
    rollout::{Breach, Canary, Judgement, Outcome, Report, Split},
};

/// Canaries are judged this often.
pub(super) const JUDGE_EVERY: Duration = Duration::from_millis(100);
/// Reports of canaries that are over.
const REPORTS_MAX: usize = 100;

/// The candidates on trial, by pool.
#[derive(Default)]
pub(super) struct Canaries {
    running: BTreeMap<String, Trial>,
    /// The newest first.
    over: Vec<Report>,
}

struct Trial {
    canary: Arc<Canary>,
    version: Version,
    code: Arc<Code>,
}

/// How a canary ends.
struct End {
    outcome: Outcome,
    breach: Option<Breach>,
    reason: Option<String>,
}

impl End {
    fn with(outcome: Outcome) -> Self {
        Self {
            outcome,
            breach: None,
            reason: None,
        }
    }
}

impl Canaries {
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

impl Control {
    /// Puts a candidate on trial, in place of any other of the pool. Its code is there.
    pub(super) async fn begin_canary(
        &mut self,
        order: CanaryOrder,
        version: Version,
        code: Arc<Code>,
    ) -> Result<Report, Denial> {
        let CanaryOrder {
            pool, share, rules, ..
        } = order;
        let missing = || no_pool(&pool);
        let views = self.handle.pools();
        let view = views
            .iter()
            .find(|view| view.pool.name() == pool)
            .ok_or_else(missing)?;
        let spec = with_settings(self.file_policy(&pool).ok_or_else(missing)?, &version.config_json);
        let current = &view.deployment.candidate;
        if current.digest == code.digest && current.spec.config_json == spec.config_json {
            return Err(told(&version, &pool, "it serves already".into()));
        }
        let candidate = Candidate::admit(self.loader.engine(), spec, &code);
        let candidate = Arc::new(candidate.map_err(|refusal| told(&version, &pool, refusal.to_string()))?);
        let workers = self.workers.len();
        let built = prepare::build(&view.pool, &candidate, workers).await;
        let instances = built.map_err(|error| told(&version, &pool, super::rollout::reason(error)))?;
        self.end_canary(
            &pool,
            &End {
                reason: Some("another canary was begun".into()),
                ..End::with(Outcome::Cancelled)
            },
        );
        let deployment = Arc::new(Deployment::new(candidate, &pool, workers));
        let split = Arc::new(Split::new(share, workers, view.pool.config.backends.len()));
        let canary = Canary::new(deployment.clone(), view.deployment.clone(), split.clone(), rules);
        let canary = Arc::new(canary);
        let report = canary.report(Outcome::Running, None, None);
        let version_name = report.version.clone();
        let trial = Trial {
            canary,
            version,
            code,
        };
        self.canaries.running.insert(pool.clone(), trial);
        self.publish_canaries();
        for (worker, instance) in self.workers.iter().zip(instances) {
            let plan = CanaryPlan {
                deployment: deployment.clone(),
                instance,
                split: split.clone(),
            };
            // A worker that is gone has logged why.
            let _ = worker.messages.send(Message::Canary {
                pool: pool.clone(),
                canary: Some(Box::new(plan)),
            });
        }
        tracing::info!(
            pool,
            version = version_name,
            share = split.share(),
            "canary begun"
        );
        Ok(report)
    }

    /// Ends a canary because an operator says so.
    pub(super) fn cancel_canary(&mut self, pool: &str) -> Result<Report, Denial> {
        let end = End {
            reason: Some("an operator ended it".into()),
            ..End::with(Outcome::Cancelled)
        };
        self.end_canary(pool, &end)
            .ok_or_else(|| Denial::Unknown(format!("pool {pool:?} has no canary")))
    }

    /// Looks how each canary stands.
    pub(super) async fn judge_canaries(&mut self) {
        let pools: Vec<String> = self.canaries.running.keys().cloned().collect();
        for pool in pools {
            let Some(trial) = self.canaries.running.get(&pool) else {
                continue;
            };
            let views = self.handle.pools();
            let active = views.iter().find(|view| view.pool.name() == pool);
            if !active.is_some_and(|view| trial.canary.is_against(&view.deployment)) {
                let reason = "another version went into service, or the pool is gone";
                self.end_canary(
                    &pool,
                    &End {
                        reason: Some(reason.into()),
                        ..End::with(Outcome::Cancelled)
                    },
                );
                continue;
            }
            match trial.canary.judge() {
                Judgement::Wait => {}
                Judgement::Promote => self.promote_canary(&pool).await,
                Judgement::RollBack(breach) => {
                    let end = End {
                        breach: Some(breach),
                        ..End::with(Outcome::RolledBack)
                    };
                    self.end_canary(&pool, &end);
                }
            }
        }
    }

    async fn promote_canary(&mut self, pool: &str) {
        let Some(trial) = self.canaries.running.remove(pool) else {
            return;
        };
        let put = self.put_version(pool, trial.version.clone(), &trial.code).await;
        let end = match put {
            Ok(_) => End::with(Outcome::Promoted),
            Err(denial) => End {
                reason: Some(denial.to_string()),
                ..End::with(Outcome::Failed)
            },
        };
        self.conclude(pool, &trial, &end);
    }

    /// The report of the canary that was; `None` if there was none.
    fn end_canary(&mut self, pool: &str, end: &End) -> Option<Report> {
        let trial = self.canaries.running.remove(pool)?;
        Some(self.conclude(pool, &trial, end))
    }

    fn conclude(&mut self, pool: &str, trial: &Trial, end: &End) -> Report {
        for worker in &self.workers {
            let _ = worker.messages.send(Message::Canary {
                pool: pool.to_owned(),
                canary: None,
            });
        }
        let report = trial
            .canary
            .report(end.outcome, end.breach.clone(), end.reason.clone());
        let evidence = serde_json::to_string(&report).unwrap_or_default();
        if matches!(end.outcome, Outcome::Promoted | Outcome::Cancelled) {
            tracing::info!(pool, version = report.version, outcome = ?end.outcome, evidence, "canary over");
        } else {
            tracing::warn!(pool, version = report.version, outcome = ?end.outcome, evidence, "canary over");
        }
        self.canaries.over.insert(0, report.clone());
        self.canaries.over.truncate(REPORTS_MAX);
        self.publish_canaries();
        report
    }

    fn publish_canaries(&self) {
        let running = self.canaries.running.values().map(|trial| trial.canary.clone());
        self.handle
            .set_canaries(running.collect(), self.canaries.over.clone());
    }

    /// Finds and compiles the candidate, in a task of its own.
    pub(super) fn find_canary(&mut self, order: CanaryOrder, done: oneshot::Sender<Result<Report, Denial>>) {
        let found = self.find_version(&order.pool, &order.sought, order.config_json.clone());
        match found {
            Ok(version) => {
                let load = self.loading(version.clone());
                self.steps.spawn(async move {
                    super::rollout::Step::Canary {
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
}
