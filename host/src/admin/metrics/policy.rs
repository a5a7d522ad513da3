//! What is counted about each pool's policy.

use std::sync::atomic::AtomicU64;

use super::{
    super::text::{
        Kind::{Counter, Gauge, Summary},
        Text,
    },
    PoolReading, seconds,
};
use crate::policy::{BreakerState, Deployment, FaultKind, Reason, Stats, Step};

type Labels<'a> = [(&'a str, &'a str); 3];

fn labels(pool: &PoolReading) -> Labels<'_> {
    let candidate = &pool.view.deployment.candidate;
    [
        ("pool", pool.name()),
        ("policy", &candidate.spec.name),
        ("version", &candidate.version),
    ]
}

pub(super) fn families(text: &mut Text, pools: &[PoolReading]) {
    counters(text, pools);
    chain(text, pools);
    let help = "Fingerprints of requests that are not shown to the policy, over all workers.";
    let mut family = text.family("trimtab_policy_quarantined", Gauge, help);
    for pool in pools {
        let held = pool.view.deployment.total(|stats| &stats.quarantined);
        family.sample(&labels(pool), held);
    }
    let help = "Time of the decisions that were timed, which are a sample of all.";
    let mut family = text.family("trimtab_policy_decision_seconds", Summary, help);
    for pool in pools {
        let (labels, deployment) = (labels(pool), &pool.view.deployment);
        let timed_ns = deployment.total(|stats| &stats.timed_ns);
        family.part("_sum", &labels, seconds(timed_ns, 1e9));
        family.part("_count", &labels, deployment.total(|stats| &stats.timed));
    }
}

fn counters(text: &mut Text, pools: &[PoolReading]) {
    let mut counter = |name, help, read: fn(&Stats) -> &AtomicU64| {
        let mut family = text.family(name, Counter, help);
        for pool in pools {
            family.sample(&labels(pool), pool.view.deployment.total(read));
        }
    };
    let help = "Decisions the policy was asked for, or should have been.";
    counter("trimtab_policy_decisions_total", help, |stats| &stats.decisions);
    let help = "Requests the policy refused.";
    counter("trimtab_policy_rejected_total", help, |stats| &stats.rejected);
    let help = "Instances built to replace one that failed.";
    counter("trimtab_policy_rebuilds_total", help, |stats| &stats.rebuilds);
    let help = "Times a worker stopped asking the policy because it failed again and again.";
    counter("trimtab_policy_breaker_opens_total", help, |stats| {
        &stats.breaker_opens
    });
    let help = "Times a worker kept the old version because the new one did not take its state.";
    counter("trimtab_policy_state_refusals_total", help, |stats| {
        &stats.state_refusals
    });
}

/// Faults and what served instead, by the words for them.
fn chain(text: &mut Text, pools: &[PoolReading]) {
    let mut by_word = |name, kind, help, label, words: &[Word]| {
        let mut family = text.family(name, kind, help);
        for pool in pools {
            for (word, read) in words {
                let [one, two, three] = labels(pool);
                family.sample(&[one, two, three, (label, *word)], read(&pool.view.deployment));
            }
        }
    };
    let reasons = Reason::ALL.map(|reason| word(reason.name(), move |stats| stats.host(reason)));
    let help = "Decisions that the policy did not make, by reason.";
    by_word(
        "trimtab_policy_host_choices_total",
        Counter,
        help,
        "reason",
        &reasons,
    );
    let steps = Step::ALL.map(|step| word(step.name(), move |stats| stats.step(step)));
    let help = "The same decisions, by the step of the fallback chain that made them.";
    by_word("trimtab_policy_fallbacks_total", Counter, help, "step", &steps);
    let kinds = FaultKind::ALL.map(|kind| word(kind.name(), move |stats| stats.faults(kind)));
    let help = "Faults of the policy, by kind.";
    by_word("trimtab_policy_faults_total", Counter, help, "kind", &kinds);
    let states = BreakerState::ALL.map(|state| -> Word {
        (
            state.name(),
            Box::new(move |deployment| deployment.breakers(state) as u64),
        )
    });
    let help = "Workers whose breaker for the policy is in this state.";
    by_word("trimtab_policy_breaker", Gauge, help, "state", &states);
}

/// A label's value, and the number that belongs to it.
type Word = (&'static str, Box<dyn Fn(&Deployment) -> u64>);

fn word(name: &'static str, read: impl Fn(&Stats) -> &AtomicU64 + 'static) -> Word {
    (name, Box::new(move |deployment| deployment.total(&read)))
}
