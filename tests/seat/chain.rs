//! Who decides when the policy does not: every fault with every state of the steps after it.

use trimtab::policy::{Chooser, Decision, FaultKind, Reason, Step};

use super::*;

/// What a guest does in place of an answer, and what that is.
const FAILURES: [(&str, &str, Option<FaultKind>); 6] = [
    ("trap", "unreachable", Some(FaultKind::Trap)),
    ("deadline", LOOP, Some(FaultKind::Deadline)),
    ("memory", HOG, Some(FaultKind::Memory)),
    (
        "bad index",
        "(return (call $some (i32.const 4000000000)))",
        Some(FaultKind::BadIndex),
    ),
    (
        "not usable",
        "(return (call $some (i32.const 0)))",
        Some(FaultKind::Unusable),
    ),
    ("no opinion", "(return (call $none))", None),
];

/// The last good version when its turn comes.
enum LastGood {
    Absent,
    Good,
    Fails(Arc<Candidate>),
}

/// A policy that fails from its second decision on, before it one that was good, on whatever it is now; backend 0 drains.
fn stage(failing: &Arc<Candidate>, last_good: &LastGood, good: &Arc<Candidate>) -> Stage {
    let first = match last_good {
        LastGood::Absent => failing,
        LastGood::Good => good,
        LastGood::Fails(candidate) => candidate,
    };
    let mut stage = Stage::new("round-robin", first);
    stage.drain(0);
    if !matches!(last_good, LastGood::Absent) {
        assert_eq!(stage.chooser("/"), Chooser::Policy);
        stage.swap(failing);
    }
    stage
}

#[test]
fn a_decision_comes_out_whatever_fails_at_whatever_step() {
    let good = guest(&turning(u32::MAX, "unreachable"));
    // As last good versions they serve once before they are swapped out.
    let compiled = FAILURES.map(|(_, bad, _)| (guest(&turning(1, bad)), guest(&turning(2, bad))));
    let mut last_goods = vec![("none", LastGood::Absent), ("good", LastGood::Good)];
    for ((name, ..), (_, later)) in FAILURES.iter().zip(&compiled) {
        last_goods.push((name, LastGood::Fails(later.clone())));
    }
    for ((name, _, kind), (failing, _)) in FAILURES.iter().zip(&compiled) {
        for (last, last_good) in &last_goods {
            for tried in [&[][..], &[1, 2]] {
                let mut stage = stage(failing, last_good, &good);
                let choice = stage.choice("/", tried);
                let told = format!("{name}, last good {last}, tried {tried:?}: {choice:?}");
                assert!([1, 2].contains(&choice.index), "it is usable; {told}");
                let reason = if kind.is_some() {
                    Reason::Fault
                } else {
                    Reason::Abstained
                };
                let step = match (last_good, kind) {
                    (LastGood::Good, Some(_)) => Step::LastGood,
                    _ if tried.is_empty() => Step::BuiltIn,
                    _ => Step::Any,
                };
                assert_eq!(choice.chooser, Chooser::Chain(reason, step), "{told}");
                let deployment = stage.seat.deployment().clone();
                assert_eq!(deployment.faults(), u64::from(kind.is_some()), "{told}");
                if let Some(kind) = kind {
                    assert_eq!(deployment.total(|stats| stats.faults(*kind)), 1, "{told}");
                }
                assert_eq!(deployment.total(|stats| stats.host(reason)), 1, "{told}");
                assert_eq!(deployment.total(|stats| stats.step(step)), 1, "{told}");
                // And the same for the next request, whether there is an instance or not.
                assert!([1, 2].contains(&stage.choice("/next", tried).index), "{told}");
            }
        }
    }
}

#[test]
fn a_rejection_is_no_fault_and_nobody_else_is_asked() {
    let rejecting = turning(1, "(call $reject (i32.const 429)) (return (call $none))");
    let mut stage = Stage::new("round-robin", &guest(&turning(u32::MAX, "")));
    stage.ask("/", &[]);
    stage.swap(&guest(&rejecting));
    for _ in 0..10 {
        let decision = stage.ask("/", &[]);
        assert!(matches!(decision, Decision::Reject(429)), "{decision:?}");
    }
    assert_eq!(stage.faults(), 0);
}

#[test]
fn the_built_in_that_the_pool_names_decides() {
    let trapping = guest(&turning(1, "unreachable"));
    let mut turns = Stage::new("round-robin", &trapping);
    let mut picks: Vec<_> = (0..30).map(|_| turns.choice("/", &[]).index).collect();
    picks.sort_unstable();
    assert_eq!(
        picks.chunk_by(|a, b| a == b).map(<[_]>::len).collect::<Vec<_>>(),
        [10, 10, 10]
    );
    let mut hashing = Stage::new("ip-hash", &trapping);
    let first = hashing.choice("/", &[]).index;
    assert!((0..30).all(|_| hashing.choice("/", &[]).index == first));
}

#[test]
fn the_last_good_version_is_let_go_after_a_minute_without_faults() {
    let mut stage = Stage::new("round-robin", &builtin("round-robin"));
    stage.chooser("/");
    stage.swap(&guest(&dying_of_queries()));
    let now_us = clock::now_us();
    assert!(stage.seat.sweep(now_us + 59_000_000).is_none());
    assert_eq!(
        stage.chooser("/1?"),
        Chooser::Chain(Reason::Fault, Step::LastGood)
    );
    // The fault was an hour later, since the stage's time is, so now it is kept until a minute after.
    assert!(stage.seat.sweep(now_us + 120_000_000).is_none());
    assert!(stage.seat.sweep(stage.now_us + 61_000_000).is_some());
    assert_eq!(
        stage.chooser("/2?"),
        Chooser::Chain(Reason::Rebuilding, Step::BuiltIn)
    );
}

#[test]
fn a_version_that_failed_does_not_become_the_last_good_one() {
    let mut stage = Stage::new("round-robin", &guest(&turning(u32::MAX, "")));
    stage.chooser("/");
    // Backend 1 is what the good one picks; those that turn bad would pick 2.
    let bad = |text: &str, failure: &str| Guest {
        pick: format!(
            "(if (i32.ge_u (global.get $picks) (i32.const 1)) (then {failure})) {}",
            Guest::always(2)
        ),
        text: text.into(),
        ..Guest::default()
    };
    // The second one's instance survives its faults.
    let failures = [
        "unreachable",
        "(return (call $some (i32.const 9)))",
        "unreachable",
    ];
    for (text, failure) in ["one", "two", "three"].into_iter().zip(failures) {
        stage.swap(&guest(&bad(text, failure)));
        for _ in 0..4 {
            let choice = stage.choice("/", &[]);
            assert_eq!(
                (choice.index, choice.chooser.name()),
                (1, "last-good"),
                "{choice:?}"
            );
        }
    }
}

#[test]
fn the_last_good_version_is_shown_the_backends_as_they_are_now() {
    let mut stage = Stage::new("random-two-choices", &builtin("round-robin"));
    stage.chooser("/");
    stage.swap(&guest(&turning(1, "unreachable")));
    for gone in [0, 1] {
        stage.drain(gone);
        for _ in 0..10 {
            let choice = stage.choice("/", &[]);
            assert!(choice.index > gone, "{choice:?}");
            assert_eq!(choice.chooser.name(), "last-good");
        }
    }
}

#[test]
fn a_large_instance_is_not_kept() {
    let large = Guest {
        pages: 200,
        ..turning(u32::MAX, "")
    };
    let mut stage = Stage::new("round-robin", &guest(&large));
    stage.chooser("/");
    stage.swap(&guest(&turning(1, "unreachable")));
    assert_eq!(stage.chooser("/"), Chooser::Chain(Reason::Fault, Step::BuiltIn));
}
