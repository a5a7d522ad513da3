//! What one version of a policy leaves to the next.

use trimtab::policy::{Chooser, Decision, Ended, Reason};
use trimtab_tests::guest::State;

use super::*;

fn keeping(state: State) -> Guest {
    Guest {
        state: Some(state),
        ..turning(u32::MAX, "")
    }
}

fn refusals(deployment: &Deployment) -> u64 {
    deployment.total(|stats| &stats.state_refusals)
}

#[test]
fn a_round_robin_goes_on_where_it_was() {
    for (name, picks) in [("round-robin", 7), ("weighted-round-robin", 8)] {
        let policy = builtin(name);
        let mut stage = Stage::new("round-robin", &policy);
        let mut sequence = Vec::new();
        for _ in 0..10 {
            sequence.extend((0..picks).map(|_| stage.choice("/", &[]).index));
            stage.swap(&policy);
        }
        for (at, window) in sequence.windows(4).enumerate() {
            assert!(
                window[0] == window[3] && window[0] != window[1] && window[1] != window[2],
                "{name} jumps at {at}: {sequence:?}"
            );
        }
    }
}

#[test]
fn averages_go_on() {
    let policy = builtin("peak-ewma");
    let mut stage = Stage::new("round-robin", &policy);
    let finish = |stage: &mut Stage, index: usize, latency_us: u64| {
        let snapshot = stage.seat.snapshot().clone();
        stage.seat.end(&Ended {
            generation: snapshot.generation,
            index,
            backend: snapshot.members[index].backend.id,
            latency_us,
            bytes: 0,
            status: Some(200),
            now_us: stage.now_us,
        });
    };
    // Without the averages, the backends are unknown, and all are tried.
    finish(&mut stage, 0, 1_000);
    finish(&mut stage, 1, 900_000);
    finish(&mut stage, 2, 1_100_000);
    for _ in 0..5 {
        stage.swap(&policy);
        for _ in 0..20 {
            let choice = stage.choice("/", &[]);
            assert_ne!(
                choice.index, 2,
                "the slowest of all loses every draw but against itself"
            );
            assert_eq!(choice.chooser, Chooser::Policy);
        }
    }
}

#[test]
fn a_version_that_does_not_take_the_state_leaves_the_old_one_serving() {
    let refusing = Guest {
        text: "too old for me".into(),
        ..Guest::default()
    };
    let imports = [
        (refusing.refuse(), "too old for me"),
        ("unreachable".into(), "unreachable"),
        (format!("{LOOP} {}", Guest::accept()), "did not answer"),
    ];
    for (import, _) in imports {
        let old = keeping(State::of("a/1", 8));
        let mut stage = Stage::new("round-robin", &guest(&old));
        let serving = stage.seat.deployment().clone();
        assert_eq!(stage.chooser("/"), Chooser::Policy);
        let new = guest(&Guest {
            text: refusing.text.clone(),
            ..keeping(State {
                import: import.clone(),
                ..State::of("a/1", 8)
            })
        });
        let refused = stage.swap(&new);
        assert!(Arc::ptr_eq(stage.seat.deployment(), &serving), "after {import}");
        assert_eq!(stage.chooser("/"), Chooser::Policy);
        assert_eq!((refusals(&refused), stage.faults()), (1, 0));
        assert!(stage.seat.expects(&refused));
    }
}

#[test]
fn a_refused_version_gets_its_turn_when_the_old_one_fails() {
    let old = Guest {
        state: Some(State::of("a/1", 8)),
        ..turning(3, "unreachable")
    };
    let mut stage = Stage::new("round-robin", &guest(&old));
    stage.chooser("/");
    let refused = stage.swap(&guest(&keeping(State {
        import: "unreachable".into(),
        ..State::of("a/1", 8)
    })));
    stage.chooser("/");
    assert!(matches!(stage.chooser("/"), Chooser::Chain(Reason::Fault, _)));
    stage.rebuild().expect("an order");
    // State is never that of an instance that failed, so there is nothing left to refuse.
    assert!(Arc::ptr_eq(stage.seat.deployment(), &refused));
    assert_eq!(stage.chooser("/"), Chooser::Policy);
}

#[test]
fn state_that_cannot_be_had_is_lost_and_nothing_else() {
    let traps = State {
        export: "unreachable".into(),
        ..State::of("a/1", 8)
    };
    let loops = State {
        export: format!("{LOOP} (i32.const 0)"),
        ..State::of("a/1", 8)
    };
    let wild = State::of("a/1", u32::MAX);
    for (state, faults) in [
        (State::of("a/1", 1 << 20), 0),
        (State::of("a/1", (1 << 20) + 1), 1),
        (State::of("a/1", 3 << 20), 1),
        (wild, 1),
        (traps, 1),
        (loops, 1),
    ] {
        let mut stage = Stage::new("round-robin", &guest(&keeping(state)));
        let old = stage.seat.deployment().clone();
        stage.chooser("/");
        let new = stage.swap(&guest(&keeping(State::of("a/1", 8))));
        assert!(Arc::ptr_eq(stage.seat.deployment(), &new));
        assert_eq!((old.faults(), refusals(&new)), (faults, 0));
        let decision = stage.ask("/", &[]);
        assert!(
            matches!(&decision, Decision::Send(choice) if choice.chooser == Chooser::Policy),
            "{decision:?}"
        );
    }
}

#[test]
fn versions_of_one_policy_have_one_schema_or_none() {
    let versions = ["a/1", "a/2"].map(|schema| guest(&keeping(State::of(schema, 8))));
    let stateless = guest(&turning(u32::MAX, ""));
    // The schema is known when a version has been built.
    let stage = Stage::new("round-robin", &versions[0]);
    for candidate in [&versions[1], &stateless] {
        Instance::build(candidate, &stage.pool).expect("it is admitted");
    }
    let [one, two] = &versions;
    let refusal = two.check_follows(one).expect_err("another schema").to_string();
    assert!(
        refusal.contains("\"a/1\"") && refusal.contains("\"a/2\"") && refusal.contains("another name"),
        "{refusal}"
    );
    for (old, new) in [(one, one), (one, &stateless), (&stateless, two)] {
        new.check_follows(old).expect("nothing is lost by mistake");
    }
}

#[test]
fn backends_are_shown_again_only_by_another_pool() {
    let mut stage = Stage::new("round-robin", &builtin("round-robin"));
    let now_us = stage.now_us;
    let same = stage.pool.clone();
    stage.seat.set_pool(same);
    assert!(!stage.seat.sync(now_us));
    stage.seat.set_pool(Arc::new(pool("round-robin")));
    assert!(stage.seat.sync(now_us));
    assert!(!stage.seat.sync(now_us));
}
