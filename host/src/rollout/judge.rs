//! The comparison of a canary with the version in service.
//!
//! Owns the rules. Each compares a rate or a time, needs enough of both arms to mean anything, and has room for chance.
//! Faults need no comparison: a policy that works has none.

use serde::Serialize;

use super::Measure;

/// When a canary is promoted, and when it is taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Promoted after so many decisions.
    pub decisions: u64,
    /// Share of decisions that may be faults.
    pub faults: f64,
    /// Times the mean decision time of the version in service; below 50 us it never counts.
    pub decision_time: f64,
    /// How much higher the share of errors may be.
    pub errors: f64,
    /// Times the 99th percentile of the version in service.
    pub p99: f64,
    /// How much higher the largest share of one backend may be.
    pub skew: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            decisions: 10_000,
            faults: 0.001,
            decision_time: 10.0,
            errors: 0.01,
            p99: 1.5,
            skew: 0.25,
        }
    }
}

/// Decisions before faults count: one in a hundred is not one in a thousand by chance.
const FAULTS_MIN: u64 = 3;
/// Answers of each arm before shares and times are compared.
const ANSWERS_MIN: u64 = 200;
/// Answers of each arm before their 99th percentiles are: ten above it.
const P99_MIN: u64 = 1000;
/// Faster decisions than this are never too slow.
const DECISION_NS_FREE: f64 = 50_000.0;
/// Percentiles less than this apart are equal.
const P99_FREE_US: u64 = 2_000;

/// What comes of a canary.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Not enough is known.
    Wait,
    /// It is as good as the version in service.
    Promote,
    /// It is worse.
    RollBack(Breach),
}

/// The rule that a canary broke, with the evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breach {
    /// `faults`, `decision-time`, `errors`, `p99` or `skew`.
    pub rule: &'static str,
    /// The canary's figure.
    pub canary: f64,
    /// That of the version in service.
    pub active: f64,
    /// What it was allowed to be.
    pub limit: f64,
}

/// Judges by what is known so far.
pub fn judge(rules: &Rules, active: &Measure, canary: &Measure) -> Judgement {
    let breach = faults(rules, active, canary)
        .or_else(|| decision_time(rules, active, canary))
        .or_else(|| errors(rules, active, canary))
        .or_else(|| p99(rules, active, canary))
        .or_else(|| skew(rules, active, canary));
    match breach {
        Some(breach) => Judgement::RollBack(breach),
        None if canary.decisions >= rules.decisions => Judgement::Promote,
        None => Judgement::Wait,
    }
}

fn breach(rule: &'static str, canary: f64, active: f64, limit: f64) -> Option<Breach> {
    (canary > limit).then_some(Breach {
        rule,
        canary,
        active,
        limit,
    })
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

fn faults(rules: &Rules, active: &Measure, canary: &Measure) -> Option<Breach> {
    if canary.faults < FAULTS_MIN {
        return None;
    }
    let of = |arm: &Measure| share(arm.faults, arm.decisions);
    breach("faults", of(canary), of(active), rules.faults)
}

fn decision_time(rules: &Rules, active: &Measure, canary: &Measure) -> Option<Breach> {
    let limit = (active.decision_ns * rules.decision_time).max(DECISION_NS_FREE);
    breach("decision-time", canary.decision_ns, active.decision_ns, limit)
}

fn have(active: &Measure, canary: &Measure, answers: u64) -> bool {
    active.answers >= answers && canary.answers >= answers
}

fn errors(rules: &Rules, active: &Measure, canary: &Measure) -> Option<Breach> {
    if !have(active, canary, ANSWERS_MIN) {
        return None;
    }
    let of = |arm: &Measure| share(arm.errors, arm.answers);
    breach("errors", of(canary), of(active), of(active) + rules.errors)
}

fn p99(rules: &Rules, active: &Measure, canary: &Measure) -> Option<Breach> {
    if !have(active, canary, P99_MIN) {
        return None;
    }
    let limit = (active.p99_us as f64 * rules.p99).max((active.p99_us + P99_FREE_US) as f64);
    breach("p99", canary.p99_us as f64, active.p99_us as f64, limit)
}

fn skew(rules: &Rules, active: &Measure, canary: &Measure) -> Option<Breach> {
    if !have(active, canary, ANSWERS_MIN) {
        return None;
    }
    let of = |arm: &Measure| {
        let all = arm.picks.iter().sum();
        share(arm.picks.iter().copied().max().unwrap_or(0), all)
    };
    breach("skew", of(canary), of(active), of(active) + rules.skew)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Measure {
        Measure {
            decisions: 20_000,
            faults: 0,
            decision_ns: 150.0,
            answers: 20_000,
            errors: 20,
            p99_us: 4000,
            picks: vec![5000, 5000, 5000, 5000],
        }
    }

    fn rule(canary: &Measure) -> Option<&'static str> {
        match judge(&Rules::default(), &good(), canary) {
            Judgement::RollBack(breach) => Some(breach.rule),
            _ => None,
        }
    }

    #[test]
    fn each_rule_takes_back_by_itself() {
        assert_eq!(rule(&good()), None);
        assert_eq!(rule(&Measure { faults: 30, ..good() }), Some("faults"));
        assert_eq!(
            rule(&Measure {
                decision_ns: 60_000.0,
                ..good()
            }),
            Some("decision-time")
        );
        assert_eq!(
            rule(&Measure {
                errors: 400,
                ..good()
            }),
            Some("errors")
        );
        assert_eq!(
            rule(&Measure {
                p99_us: 7000,
                ..good()
            }),
            Some("p99")
        );
        assert_eq!(
            rule(&Measure {
                picks: vec![12_000, 4000, 4000, 0],
                ..good()
            }),
            Some("skew")
        );
    }

    #[test]
    fn chance_takes_nothing_back() {
        let young = Measure {
            answers: 100,
            errors: 50,
            decisions: 100,
            faults: 2,
            ..good()
        };
        assert_eq!(judge(&Rules::default(), &good(), &young), Judgement::Wait);
        for canary in [
            Measure {
                decision_ns: 1800.0,
                ..good()
            },
            Measure {
                errors: 100,
                ..good()
            },
            Measure {
                p99_us: 5900,
                ..good()
            },
            Measure {
                picks: vec![8000, 4000, 4000, 4000],
                ..good()
            },
        ] {
            assert_eq!(rule(&canary), None, "{canary:?}");
        }
    }

    #[test]
    fn faults_need_no_other_arm_to_compare_with() {
        let canary = Measure {
            decisions: 10,
            faults: 3,
            ..Measure::default()
        };
        let judged = judge(&Rules::default(), &Measure::default(), &canary);
        assert!(
            matches!(judged, Judgement::RollBack(breach) if breach.rule == "faults" && breach.canary == 0.3)
        );
    }

    #[test]
    fn it_is_promoted_after_enough_decisions_and_not_before() {
        let rules = Rules::default();
        let canary = |decisions| Measure { decisions, ..good() };
        assert_eq!(judge(&rules, &good(), &canary(9_999)), Judgement::Wait);
        assert_eq!(judge(&rules, &good(), &canary(10_000)), Judgement::Promote);
    }
}
