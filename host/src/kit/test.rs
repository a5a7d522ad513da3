//! `policy test`: the rules, what a policy claims, and its author's cases.
//!
//! Owns the run: which situations each rule is tried in, by a seed, and what is reported.

use serde::Serialize;

use super::{
    KitError, Subject, cases,
    lab::{Lab, mix},
    rules::{RULES, Rule},
    shrink::shrink,
};
use crate::config::author::load_cases;

/// What `test` finds.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// The policy's name.
    pub name: String,
    /// What the situations were made of; the same seed makes the same ones.
    pub seed: u64,
    /// Every rule, in order.
    pub rules: Vec<RuleResult>,
    /// Cases that the author wrote, and how many of them hold.
    pub cases: usize,
    /// What is wrong, rules first.
    pub failures: Vec<Failure>,
}

/// How it stands with a rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleResult {
    /// Its name.
    pub rule: &'static str,
    /// What it says.
    pub says: &'static str,
    /// Situations in which it was tried; 0 if it is not claimed.
    pub situations: u64,
    /// Whether it held in all of them.
    pub holds: bool,
}

/// A broken rule, or a case that does not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The rule's name, or the case's with file and line.
    pub rule: String,
    /// What happened.
    pub what: String,
    /// The smallest situation that was found, in words; empty for a case.
    pub situation: String,
}

impl TestReport {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Tries everything that a policy can be held to.
///
/// # Errors
/// Why no balancer would take it, or what is wrong with the file of cases.
pub fn test(subject: &Subject, seed: u64) -> Result<TestReport, KitError> {
    let written = match &subject.tests {
        Some(path) => load_cases(path).map_err(|mistakes| KitError(mistakes.to_string()))?,
        None => Vec::new(),
    };
    let lab = Lab::open(subject)?;
    let mut report = TestReport {
        name: subject.name.clone(),
        seed,
        rules: Vec::new(),
        cases: written.len(),
        failures: Vec::new(),
    };
    for rule in &RULES {
        let applies = (rule.applies)(&subject.claims);
        let broken = if applies {
            try_rule(&lab, subject, rule, seed)
        } else {
            None
        };
        report.rules.push(RuleResult {
            rule: rule.name,
            says: rule.says,
            situations: if applies { rule.scenes } else { 0 },
            holds: broken.is_none(),
        });
        report.failures.extend(broken);
    }
    let file = subject.tests.as_ref().map(|path| path.display().to_string());
    for case in &written {
        if let Err(what) = cases::run(&lab, case) {
            report.failures.push(Failure {
                rule: format!(
                    "{}:{}: {}",
                    file.clone().unwrap_or_default(),
                    case.line,
                    case.name
                ),
                what,
                situation: String::new(),
            });
        }
    }
    Ok(report)
}

fn try_rule(lab: &Lab, subject: &Subject, rule: &Rule, seed: u64) -> Option<Failure> {
    let check = |scene: &_| (rule.check)(lab, &subject.claims, scene);
    for number in 0..rule.scenes {
        let salt = rule
            .name
            .bytes()
            .fold(seed, |salt, byte| mix(salt ^ u64::from(byte)));
        let mut dice = fastrand::Rng::with_seed(mix(salt ^ number));
        let scene = (rule.scene)(&mut dice, number);
        if check(&scene).is_err() {
            let small = shrink(scene, rule.is_delicate, |scene| check(scene).is_err());
            return Some(Failure {
                rule: rule.name.to_owned(),
                what: check(&small).err().unwrap_or_default(),
                situation: small.to_string(),
            });
        }
    }
    None
}
