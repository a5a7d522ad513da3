//! A policy that fails again and again is not asked for a while, and neither is one about a request that it cannot stand.

use trimtab::policy::{BreakerState, Chooser, Reason, Step};

use super::*;

fn breaker(stage: &Stage) -> BreakerState {
    let deployment = stage.seat.deployment();
    let states = BreakerState::ALL.into_iter();
    let mut states = states.filter(|state| deployment.breakers(*state) == 1);
    states.next().expect("each worker's is in one state")
}

/// Requests that have nothing in common, each of which the policy dies of.
fn kill(stage: &mut Stage, number: &mut u32) -> Chooser {
    *number += 1;
    stage.chooser(&format!("/{number}?"))
}

#[test]
fn repeated_faults_open_the_breaker_and_a_good_trial_closes_it() {
    let mut stage = Stage::new("round-robin", &guest(&dying_of_queries()));
    let mut number = 0;
    for strike in 1..=5 {
        assert_eq!(breaker(&stage), BreakerState::Closed, "before strike {strike}");
        assert_eq!(
            kill(&mut stage, &mut number),
            Chooser::Chain(Reason::Fault, Step::BuiltIn)
        );
        if strike < 5 {
            assert_eq!(
                stage.chooser("/good"),
                Chooser::Chain(Reason::Rebuilding, Step::BuiltIn)
            );
            assert_eq!(stage.rebuild(), Some(Duration::from_millis(5 << strike)));
        }
    }
    assert_eq!(breaker(&stage), BreakerState::Open);
    for _ in 0..100 {
        assert_eq!(
            stage.chooser("/good"),
            Chooser::Chain(Reason::BreakerOpen, Step::BuiltIn)
        );
    }
    assert_eq!(stage.faults(), 5);
    assert_eq!(stage.rebuild(), Some(Duration::from_millis(160)));
    assert_eq!(stage.rebuild(), None, "one order at a time");
    assert_eq!(breaker(&stage), BreakerState::HalfOpen);
    // On trial the first fault is enough, and the pause is longer.
    kill(&mut stage, &mut number);
    assert_eq!(breaker(&stage), BreakerState::Open);
    assert_eq!(stage.rebuild(), Some(Duration::from_millis(320)));
    for _ in 0..16 {
        assert_eq!(breaker(&stage), BreakerState::HalfOpen);
        assert_eq!(stage.chooser("/good"), Chooser::Policy);
    }
    assert_eq!(breaker(&stage), BreakerState::Closed);
    assert_eq!(stage.seat.deployment().total(|stats| &stats.breaker_opens), 2);
}

#[test]
fn bad_answers_open_the_breaker_too() {
    let liar = turning(1, "(return (call $some (i32.const 9)))");
    let mut stage = Stage::new("round-robin", &guest(&liar));
    for number in 0..100 {
        stage.chooser(&format!("/{number}"));
    }
    assert_eq!(breaker(&stage), BreakerState::Open);
    // The first may be chance; then five.
    assert_eq!(stage.faults(), 6);
}

#[test]
fn another_version_begins_with_a_clean_record() {
    let mut stage = Stage::new("round-robin", &guest(&dying_of_queries()));
    let mut number = 0;
    for _ in 0..5 {
        kill(&mut stage, &mut number);
        stage.rebuild();
    }
    stage.swap(&builtin("round-robin"));
    assert_eq!(breaker(&stage), BreakerState::Closed);
    assert_eq!(stage.chooser("/?"), Chooser::Policy);
}

#[test]
fn a_query_of_death_at_half_of_the_load_leaves_the_other_half_to_the_policy() {
    let mut stage = Stage::new("round-robin", &guest(&dying_of_queries()));
    let mut orders = 0;
    for number in 0..1000 {
        let chooser = stage.chooser("/poisoned?now");
        let reason = if number < 3 {
            Reason::Fault
        } else {
            Reason::Quarantined
        };
        assert_eq!(chooser, Chooser::Chain(reason, Step::BuiltIn), "request {number}");
        orders += u32::from(stage.rebuild().is_some());
        assert_eq!(stage.chooser("/poisoned"), Chooser::Policy);
        assert_eq!(stage.chooser(&format!("/{number}")), Chooser::Policy);
    }
    assert_eq!(orders, 3);
    assert_eq!(breaker(&stage), BreakerState::Closed);
    assert_eq!(stage.seat.deployment().total(|stats| &stats.quarantined), 1);
    // It is tried once in a while, and costs one instance each time.
    stage.now_us += 31_000_000;
    stage.seat.sweep(stage.now_us);
    for _ in 0..100 {
        stage.chooser("/poisoned?now");
        orders += u32::from(stage.rebuild().is_some());
        assert_eq!(stage.chooser("/"), Chooser::Policy);
    }
    assert_eq!(orders, 4);
}

#[test]
fn a_request_that_is_answered_now_and_then_is_not_held() {
    let moody = Guest {
        pick: format!(
            "(if (i32.and (global.get $picks) (i32.const 1)) (then (return (call $some (i32.const 9))))) {}",
            Guest::always(1)
        ),
        ..Guest::default()
    };
    let mut stage = Stage::new("round-robin", &guest(&moody));
    for _ in 0..8 {
        stage.chooser("/");
    }
    assert_eq!(stage.seat.deployment().total(|stats| &stats.quarantined), 0);
    assert_eq!(stage.faults(), 4);
}
