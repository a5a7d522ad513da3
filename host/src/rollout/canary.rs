//! A canary from its beginning to its end, as the control plane sees it.
//!
//! Owns the evidence: what was measured of both arms since it began.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{Breach, Judgement, Measure, Rules, Split, judge};
use crate::policy::{Deployment, Stats};

/// A mean of fewer timed decisions says nothing.
const TIMED_MIN: u64 = 16;

/// A candidate on trial in one pool.
#[derive(Debug)]
pub struct Canary {
    /// The candidate.
    pub deployment: Arc<Deployment>,
    /// Its share, and what is measured.
    pub split: Arc<Split>,
    /// What it is judged by.
    pub rules: Rules,
    active: Arc<Deployment>,
    before: Counts,
    began: Instant,
    began_unix_s: f64,
}

/// How a canary stands, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is on trial.
    Running,
    /// It serves the pool now.
    Promoted,
    /// It broke a rule.
    RolledBack,
    /// An operator ended it, or a reload changed what it was compared with.
    Cancelled,
    /// It was as good, and yet could not be put into service.
    Failed,
}

/// The evidence.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The pool.
    pub pool: String,
    /// SHA-256 of the candidate's component, in hex.
    pub digest: String,
    /// The first 12 digits of it.
    pub version: String,
    /// How it stands.
    pub outcome: Outcome,
    /// The share that it was given.
    pub share: f64,
    /// The share of the attempts that it really decided.
    pub exposed: f64,
    /// When it began.
    pub began_unix_s: f64,
    /// How long it has been, or was, on trial.
    pub seconds: f64,
    /// The rule that it broke.
    pub breach: Option<Breach>,
    /// Why it was cancelled or failed.
    pub reason: Option<String>,
    /// The version in service.
    pub active: Measure,
    /// The candidate.
    pub canary: Measure,
}

/// What was counted of a policy up to a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    decisions: u64,
    faults: u64,
    timed: u64,
    timed_ns: u64,
}

impl Counts {
    fn of(deployment: &Deployment) -> Self {
        Self {
            decisions: deployment.total(|stats: &Stats| &stats.decisions),
            faults: deployment.faults(),
            timed: deployment.total(|stats: &Stats| &stats.timed),
            timed_ns: deployment.total(|stats: &Stats| &stats.bounded_ns),
        }
    }

    fn since(self, before: Self, measure: Measure) -> Measure {
        let timed = self.timed - before.timed;
        let mean = (self.timed_ns - before.timed_ns) as f64 / timed.max(1) as f64;
        Measure {
            decisions: self.decisions - before.decisions,
            faults: self.faults - before.faults,
            decision_ns: if timed < TIMED_MIN { 0.0 } else { mean },
            ..measure
        }
    }
}

impl Canary {
    /// Begins now.
    pub fn new(
        deployment: Arc<Deployment>,
        active: Arc<Deployment>,
        split: Arc<Split>,
        rules: Rules,
    ) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            deployment,
            split,
            rules,
            before: Counts::of(&active),
            active,
            began: Instant::now(),
            began_unix_s: unix.unwrap_or_default().as_secs_f64(),
        }
    }

    /// The version in service and the candidate.
    fn measures(&self) -> (Measure, Measure) {
        let active = Counts::of(&self.active).since(self.before, self.split.active.measure());
        let canary = Counts::of(&self.deployment).since(Counts::default(), self.split.canary.measure());
        (active, canary)
    }

    /// Judges by what is known now.
    pub fn judge(&self) -> Judgement {
        let (active, canary) = self.measures();
        judge(&self.rules, &active, &canary)
    }

    /// Whether it is compared with this version.
    pub fn is_against(&self, active: &Arc<Deployment>) -> bool {
        Arc::ptr_eq(&self.active, active)
    }

    /// The evidence so far.
    pub fn report(&self, outcome: Outcome, breach: Option<Breach>, reason: Option<String>) -> Report {
        let (active, canary) = self.measures();
        let answers = active.answers + canary.answers;
        Report {
            pool: self.deployment.pool.to_string(),
            digest: self.deployment.candidate.digest.to_string(),
            version: self.deployment.candidate.version.to_string(),
            outcome,
            share: self.split.share() as f64 / 1000.0,
            exposed: canary.answers as f64 / answers.max(1) as f64,
            began_unix_s: self.began_unix_s,
            seconds: self.began.elapsed().as_secs_f64(),
            breach,
            reason,
            active,
            canary,
        }
    }
}
