//! Guests that trap, and guests whose answers and arguments are wrong.

use trimtab::policy::{FaultKind, Reason};
use trimtab_tests::{Client, DEADLINE, Load, get, guest::Guest, wait_until};

use super::{Stage, picking};

#[tokio::test]
async fn an_honest_guest_chooses_and_counts_no_fault() {
    let stage = Stage::with(&Guest::default()).await;
    stage.expect_good(200).await;
    for reason in Reason::ALL {
        assert_eq!(stage.host(reason), 0, "{reason:?}");
    }
}

#[tokio::test]
async fn p10_a_guest_that_traps_at_every_call_is_rebuilt_ever_more_seldom() {
    let guest = Guest {
        pick: Guest::after_admission("unreachable"),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    stage.expect_only(FaultKind::Trap).await;
    let built = stage.main().deployment.total(|stats| &stats.rebuilds);
    let waited = stage.host(Reason::Rebuilding);
    assert!(
        built > 0 && waited > built,
        "{built} rebuilt, {waited} chosen meanwhile"
    );
}

#[tokio::test]
async fn p10_a_guest_that_traps_now_and_then_serves_again() {
    let stage = Stage::with(&picking("unreachable")).await;
    stage.expect_only(FaultKind::Trap).await;
    wait_until("it is built again", DEADLINE, || {
        stage.main().deployment.total(|stats| &stats.rebuilds) > 0
    })
    .await;
}

#[tokio::test]
async fn p11_a_guest_that_names_no_backend_is_corrected() {
    let stage = Stage::with(&picking("(return (call $some (i32.const 4000000000)))")).await;
    stage.expect_only(FaultKind::BadIndex).await;
}

#[tokio::test]
async fn p11_an_answer_that_is_no_option_is_a_fault() {
    let stage = Stage::with(&picking(
        "(i32.store8 (i32.const 64) (i32.const 77)) (return (i32.const 64))",
    ))
    .await;
    stage.expect_only(FaultKind::Trap).await;
}

#[tokio::test]
async fn p12_a_guest_that_answers_with_a_wild_pointer_is_stopped() {
    for pointer in ["(i32.const -4)", "(i32.const 2147483644)", "(i32.const 3)"] {
        let stage = Stage::with(&picking(&format!("(return {pointer})"))).await;
        stage.expect_only(FaultKind::Trap).await;
    }
}

#[tokio::test]
async fn p12_a_guest_that_passes_wild_strings_and_lists_is_stopped() {
    for call in [
        "(call $note (i32.const 0) (i32.const -1))",
        "(call $note (i32.const -1) (i32.const 10))",
        "(call $note (i32.const 1024) (i32.const 3000000000))",
        "(call $delegate (i32.const 0) (i32.const -1) (i32.const 32))",
        "(call $delegate (i32.const 1) (i32.const 1) (i32.const 32))",
        "(call $header (i32.const 1024) (i32.const 4) (i32.const -4))",
    ] {
        let stage = Stage::with(&picking(call)).await;
        stage.expect_only(FaultKind::Trap).await;
    }
}

#[tokio::test]
async fn p12_a_guest_that_says_what_is_no_text_is_stopped() {
    let guest = Guest {
        text: "\\ff\\fe\\80".into(),
        ..picking("(call $note (i32.const 1024) (i32.const 3))")
    };
    Stage::with(&guest).await.expect_only(FaultKind::Trap).await;
}

#[tokio::test]
async fn p13_a_guest_that_passes_more_than_a_call_may_copy_is_stopped() {
    // All of it is in its memory: it is the bound of 1 MiB that stops it.
    for call in [
        "(call $log (i32.const 1) (i32.const 1024) (i32.const 2000000))",
        "(call $note (i32.const 1024) (i32.const 2000000))",
        "(call $header (i32.const 1024) (i32.const 2000000) (i32.const 32))",
        "(call $delegate (i32.const 1024) (i32.const 500000) (i32.const 32))",
    ] {
        let stage = Stage::with(&picking(call)).await;
        stage.expect_only(FaultKind::Trap).await;
    }
}

#[tokio::test]
async fn p19_a_guest_that_picks_a_drained_backend_is_corrected() {
    let stage = Stage::chaos("fault = \"unusable\", every = 2").await;
    let pool = stage.main().pool;
    pool.set_draining(stage.balancer.id(0), true, std::time::Instant::now());
    let mut client = Client::connect(stage.balancer.address).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "b");
    }
    stage.expect_only(FaultKind::Unusable).await;
    assert_eq!(stage.origins[0].hits(), 0, "the host does not follow");
}

#[tokio::test]
async fn p23_a_guest_that_traps_while_it_is_put_into_service_is_refused() {
    let stage = Stage::with(&Guest::default()).await;
    let refuse = Guest {
        text: "I do not like this".into(),
        ..Guest::default()
    };
    let honest = Guest::default;
    let cases = [
        (
            Guest {
                start: "unreachable".into(),
                ..honest()
            },
            "instantiate: ",
        ),
        (
            Guest {
                configure: "unreachable".into(),
                ..honest()
            },
            "configure: ",
        ),
        (
            Guest {
                update: "unreachable".into(),
                ..honest()
            },
            "update: ",
        ),
        (
            Guest {
                pick: "unreachable".into(),
                ..honest()
            },
            "pick: ",
        ),
        (
            Guest {
                pick: "(call $some (i32.const 2))".into(),
                ..honest()
            },
            "picked index 2 of 2 backends",
        ),
        (
            Guest {
                configure: refuse.refuse(),
                ..refuse.clone()
            },
            "configure: I do not like this",
        ),
    ];
    for (guest, reason) in cases {
        let refusal = stage.refusal(&guest.build()).await;
        assert!(refusal.contains(reason), "{reason}: {refusal}");
    }
}

#[tokio::test]
async fn every_fault_of_the_chaos_policy_costs_no_request() {
    for (fault, kind) in [
        ("trap", FaultKind::Trap),
        ("spin", FaultKind::Deadline),
        ("memory", FaultKind::Memory),
        ("bad-index", FaultKind::BadIndex),
    ] {
        let stage = Stage::chaos(&format!("fault = {fault:?}, every = 3")).await;
        stage.expect_only(kind).await;
    }
}

#[tokio::test]
async fn a_guest_may_refuse_a_request_and_only_with_an_error() {
    for (said, answered) in [(429, 429), (503, 503), (200, 503), (9, 503), (600, 503)] {
        let guest = Guest {
            pick: format!("(call $reject (i32.const {said})) (call $none)"),
            ..Guest::default()
        };
        let stage = Stage::with(&guest).await;
        assert_eq!(get(stage.balancer.address, "/").await.status, answered);
        let deployment = stage.main().deployment;
        assert_eq!(
            (deployment.faults(), deployment.total(|stats| &stats.rejected)),
            (0, 1)
        );
    }
}

#[tokio::test]
async fn a_guest_without_opinion_leaves_it_to_the_host() {
    let guest = Guest {
        pick: "(call $none)".into(),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    Load::run(stage.balancer.address, 2, 50).await.expect_no_failure();
    assert_eq!(stage.host(Reason::Abstained), 50);
    assert_eq!(stage.main().deployment.faults(), 0);
}

#[tokio::test]
async fn a_guest_that_asks_for_headers_that_cannot_exist_gets_none() {
    // Traps if it is given anything.
    let expect_none = "(call $header (i32.const 1024) (i32.const 6) (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then unreachable))
        (call $header_hash (i32.const 1024) (i32.const 0) (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then unreachable))
        (call $header (i32.const 1024) (i32.const 100000) (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then unreachable))";
    let guest = Guest {
        text: "a b:\\0d\\0a".into(),
        pick: format!("{expect_none} {}", Guest::any()),
        ..Guest::default()
    };
    Stage::with(&guest).await.expect_good(100).await;
}

#[tokio::test]
async fn a_guest_that_asks_about_the_request_outside_of_pick_gets_nothing() {
    // `$none_there` traps if there is an answer.
    let more = "(func $none_there
        (call $header (i32.const 1024) (i32.const 4) (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then unreachable))
        (call $query (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then unreachable))
        (call $authority (i32.const 32))
        (if (i32.load (i32.const 36)) (then unreachable))
        (if (call $tried (i32.const 0)) (then unreachable))
        (call $delegate (i32.const 1024) (i32.const 1) (i32.const 32))
        (if (i32.load8_u (i32.const 32)) (then unreachable))
        (call $reject (i32.const 500)))";
    let guest = Guest {
        text: "host".into(),
        more: more.into(),
        configure: format!("(call $none_there) {}", Guest::accept()),
        update: "(call $none_there)".into(),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    let pool = stage.main().pool;
    for weight in 2..6 {
        pool.set_weight(stage.balancer.id(0), weight, std::time::Instant::now());
        Load::run(stage.balancer.address, 4, 20).await.expect_no_failure();
    }
    assert_eq!(stage.main().deployment.faults(), 0);
}
