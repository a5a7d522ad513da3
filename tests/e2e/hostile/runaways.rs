//! Guests that take their time: in picks, at load, in the host, in bulk instructions.

use trimtab::policy::{FaultKind, Reason};
use trimtab_tests::{DEADLINE, Load, guest::Guest, wait_until};

use super::{LOOP, Stage, Wants, picking};

#[tokio::test]
async fn p01_an_endless_loop_is_cut_off() {
    let stage = Stage::with(&picking(LOOP)).await;
    stage.expect_only(FaultKind::Deadline).await;
}

#[tokio::test]
async fn p02_an_endless_loop_of_short_host_calls_is_cut_off() {
    let call = "(loop $forever (drop (call $active (i32.const 0))) (br $forever))";
    Stage::with(&picking(call))
        .await
        .expect_only(FaultKind::Deadline)
        .await;
}

#[tokio::test]
async fn p03_an_endless_loop_at_load_is_refused_and_the_old_version_stays() {
    let stage = Stage::with(&Guest::default()).await;
    let cases = [
        (
            Guest {
                start: LOOP.into(),
                ..Guest::default()
            },
            "instantiate: did not answer within its deadline",
        ),
        (
            Guest {
                configure: format!("{LOOP} {}", Guest::accept()),
                ..Guest::default()
            },
            "configure: did not answer within its deadline",
        ),
        (
            Guest {
                update: LOOP.into(),
                ..Guest::default()
            },
            "update: did not answer within its deadline",
        ),
        (
            Guest {
                pick: format!("{LOOP} {}", Guest::any()),
                ..Guest::default()
            },
            "pick: did not answer within its deadline",
        ),
    ];
    for (guest, reason) in cases {
        let refusal = stage.refusal(&guest.build()).await;
        assert!(refusal.contains(reason), "{refusal}");
        assert!(
            refusal.contains("policy.hostile.component"),
            "it says whose it is: {refusal}"
        );
    }
}

/// Iterations that take some 10 ms in the dev profile and less in others; the limit is 500 ms.
const SLOWLY: &str = "(local $left i32) (local.set $left (i32.const 10000000))
    (loop $on (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $on (local.get $left)))";

#[tokio::test]
async fn p04_a_hundred_slow_starts_in_a_row_keep_nobody_waiting() {
    let guest = Guest {
        configure: format!("{SLOWLY} {}", Guest::accept()),
        ..Guest::default()
    };
    let stage = Stage::want(
        &guest,
        Wants {
            workers: 1,
            ..Wants::default()
        },
    )
    .await;
    let mallory = Load::start(stage.balancer.address, 2);
    let alice = Load::start_at(stage.balancer.address, 2, super::ALICE);
    for round in 0..100 {
        let setup = stage
            .setup
            .clone()
            .rest(&format!("[policy.hostile.config]\nround = {round}"));
        stage.balancer.replace(&setup).await.unwrap();
    }
    mallory.more(20).await;
    alice.more(20).await;
    mallory.stop().await.expect_no_failure();
    alice.stop().await.expect_no_failure();
    stage.expect_alice_undisturbed();
    assert_eq!(stage.main().deployment.faults(), 0);
    assert!(
        stage.main().deployment.candidate.spec.config_json.contains("99"),
        "the last one serves"
    );
}

#[tokio::test]
async fn p20_a_flood_of_every_import_is_cut_off() {
    // Answers are always written to the same place, or the guest would run out of memory first.
    let flood = "(loop $forever
        (global.set $heap (i32.const 1048576))
        (call $active_all (i32.const 32)) (call $latency_us_all (i32.const 32)) (call $throughput_all (i32.const 32))
        (call $header (i32.const 1024) (i32.const 4) (i32.const 32))
        (call $header_hash (i32.const 1024) (i32.const 4) (i32.const 32))
        (call $cookie (i32.const 1024) (i32.const 4) (i32.const 32))
        (call $delegate (i32.const 0) (i32.const 1000) (i32.const 32))
        (call $path (i32.const 32)) (call $query (i32.const 32)) (call $authority (i32.const 32))
        (call $note (i32.const 1024) (i32.const 4))
        (call $log (i32.const 1) (i32.const 1024) (i32.const 4))
        (br $forever))";
    let guest = Guest {
        text: "host".into(),
        ..picking(flood)
    };
    Stage::with(&guest).await.expect_only(FaultKind::Deadline).await;
}

#[tokio::test]
async fn p27_bulk_instructions_over_the_deadline_end_cleanly() {
    for bulk in [
        "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 4000000))",
        "(memory.copy (i32.const 65536) (i32.const 131072) (i32.const 4000000))",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 100000))",
    ] {
        let guest = Guest {
            more: "(table $t 100000 funcref)".into(),
            ..picking(&format!("(loop $forever {bulk} (br $forever))"))
        };
        Stage::with(&guest).await.expect_only(FaultKind::Deadline).await;
    }
}

#[tokio::test]
async fn p23_a_guest_that_fails_in_an_update_of_a_live_instance_is_replaced() {
    for (bad, kind) in [("unreachable", FaultKind::Trap), (LOOP, FaultKind::Deadline)] {
        let guest = Guest {
            update: format!("(if (global.get $updates) (then {bad}))"),
            ..Guest::default()
        };
        // One worker: with two, both could be waiting for their replacements when the next update comes.
        let wants = Wants {
            workers: 1,
            ..Wants::default()
        };
        let stage = Stage::want(&guest, wants).await;
        let load = Load::start(stage.balancer.address, 4);
        let alice = Load::start_at(stage.balancer.address, 2, super::ALICE);
        load.more(20).await;
        for weight in 2..5 {
            let faults = stage.balancer.faults(kind);
            let pool = stage.main().pool;
            pool.set_weight(stage.balancer.id(0), weight, std::time::Instant::now());
            wait_until(kind.name(), DEADLINE, || stage.balancer.faults(kind) > faults).await;
            // The replacement has to be there before it can fail.
            wait_until("built again", DEADLINE, || {
                stage.main().deployment.total(|stats| &stats.rebuilds) >= u64::from(weight) - 1
            })
            .await;
            assert!(stage.host(Reason::Rebuilding) > 0);
        }
        load.stop().await.expect_no_failure();
        alice.more(20).await;
        alice.stop().await.expect_no_failure();
        stage.expect_alice_undisturbed();
    }
}
