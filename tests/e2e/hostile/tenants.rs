//! Budgets: what a tenant's guests use together, and that the others do not feel it.

use trimtab::policy::{FaultKind, Reason};
use trimtab_tests::{Balancer, DEADLINE, Load, guest::Guest, wait_until};

use super::{ALICE, Stage, Wants, picking};

/// Some two million iterations, which take a millisecond or a few.
const BURN: &str = "(local.set $left (i32.const 2000000))
    (loop $on (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $on (local.get $left)))";

fn burning(when: &str) -> Guest {
    Guest {
        pick: format!("(local $left i32) (if {when} (then {BURN})) {}", Guest::any()),
        ..Guest::default()
    }
}

fn with_cpu(cpu: &'static str) -> Wants<'static> {
    Wants {
        workers: 1,
        tenant: cpu,
        policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"100ms\"",
        ..Wants::default()
    }
}

#[tokio::test]
async fn a_tenant_over_its_cpu_share_leaves_its_picks_to_the_host() {
    for when in [
        "(i32.const 1)",
        "(i32.eqz (i32.rem_u (global.get $picks) (i32.const 10)))",
    ] {
        let stage = Stage::want(&burning(when), with_cpu("cpu = 1\ndeadline = \"100ms\"")).await;
        stage
            .until("it is throttled", || stage.host(Reason::Throttled) > 50)
            .await;
        let deployment = stage.main().deployment;
        assert_eq!(deployment.faults(), 0, "to be throttled is no fault");
        let tenant = stage.main().pool.tenant().unwrap().clone();
        assert_eq!(tenant.throttled(), stage.host(Reason::Throttled));
        let decided = |deployment: &trimtab::policy::Deployment| {
            deployment.total(|stats| &stats.decisions)
                - deployment.total(|stats| stats.host(Reason::Throttled))
        };
        let before = decided(&deployment);
        stage
            .until("it is back under its share", || decided(&deployment) > before + 1)
            .await;
    }
}

#[tokio::test]
async fn a_tenant_within_its_share_is_accounted_and_never_throttled() {
    let stage = Stage::want(&Guest::default(), with_cpu("cpu = 100\ndeadline = \"100ms\"")).await;
    stage.expect_good(500).await;
    assert_eq!(stage.host(Reason::Throttled), 0);
    let tenant = stage.main().pool.tenant().unwrap().clone();
    stage.until("its time is accounted", || tenant.cpu_us() > 0).await;
}

#[tokio::test]
async fn nothing_is_accounted_without_a_share() {
    let stage = Stage::want(&burning("(i32.const 1)"), with_cpu("deadline = \"100ms\"")).await;
    stage.expect_good(20).await;
    let tenant = stage.main().pool.tenant().unwrap().clone();
    assert_eq!((tenant.cpu_us(), tenant.throttled()), (0, 0));
}

#[tokio::test]
async fn a_share_is_taken_away_and_given_back_by_a_reload() {
    let guest = burning("(i32.const 1)");
    let stage = Stage::want(&guest, with_cpu("deadline = \"100ms\"")).await;
    stage.expect_good(10).await;
    let deployment = stage.main().deployment;
    let text = stage.setup.text();
    let limited = text.replace("[tenant.mallory]", "[tenant.mallory]\ncpu = 1");
    stage.balancer.handle().replace(limited).await.unwrap();
    assert!(
        std::sync::Arc::ptr_eq(&deployment, &stage.main().deployment),
        "the instances live on"
    );
    stage
        .until("it is throttled", || stage.host(Reason::Throttled) > 0)
        .await;
    stage.balancer.handle().replace(text).await.unwrap();
    let throttled = stage.host(Reason::Throttled);
    stage.expect_good(20).await;
    assert_eq!(stage.host(Reason::Throttled), throttled);
}

fn memory(stage: &Stage) -> u64 {
    stage.main().pool.tenant().map_or(0, |tenant| tenant.memory())
}

#[tokio::test]
async fn all_guests_of_a_tenant_share_its_memory() {
    // Two workers begin with 4 MiB each, so that one may grow to 7. The policy's own limit is never met.
    let grow = "(if (i32.lt_s (memory.grow (i32.const 48)) (i32.const 0)) (then unreachable))";
    let wants = Wants {
        tenant: "memory = \"12MiB\"",
        policy: "component = \"policy.wasm\"\nmemory = \"12MiB\"\ndeadline = \"5ms\"",
        ..Wants::default()
    };
    let stage = Stage::want(&picking(grow), wants).await;
    stage.expect_only(FaultKind::Memory).await;
    let tenant = stage.main().pool.tenant().unwrap().clone();
    assert!(tenant.memory_denied() > 0);
    assert!(tenant.memory() <= 12 << 20, "{}", tenant.memory());
}

#[tokio::test]
async fn memory_is_given_back_with_the_instance() {
    let stage = Stage::with(&Guest::default()).await;
    assert!(memory(&stage) >= 8 << 20, "{}", memory(&stage));
    for _ in 0..3 {
        let text = stage
            .setup
            .text()
            .replace("policy = \"hostile\"", "policy = \"round-robin\"");
        let without = &text[..text.find("[policy.hostile]").unwrap()];
        let tenants = &text[text.find("[tenant.mallory]").unwrap()..];
        let text = format!("{without}{tenants}");
        stage.balancer.handle().replace(text).await.unwrap();
        wait_until("the old instances are gone", DEADLINE, || {
            memory(&stage) < 4 << 20
        })
        .await;
        stage.balancer.replace(&stage.setup).await.unwrap();
        wait_until("the new ones are alone", DEADLINE, || {
            (8 << 20..9 << 20).contains(&memory(&stage))
        })
        .await;
    }
}

#[tokio::test]
async fn a_version_that_finds_no_room_is_refused_and_says_whose() {
    let wants = Wants {
        tenant: "memory = \"14MiB\"",
        ..Wants::default()
    };
    let stage = Stage::want(&Guest::default(), wants).await;
    let larger = Guest {
        pages: 100,
        ..Guest::default()
    };
    let refusal = stage.refusal(&larger.build()).await;
    assert!(
        refusal.contains("asked for more memory than its tenant has left"),
        "{refusal}"
    );
    assert!(
        (8 << 20..9 << 20).contains(&memory(&stage)),
        "nothing of it is left"
    );
    // With a larger budget in the same reload there is room at once.
    let text = stage.setup.text().replace("14MiB", "32MiB");
    stage.balancer.handle().replace(text).await.unwrap();
}

#[tokio::test]
async fn a_guest_sees_the_backends_of_its_own_pool_only() {
    // Traps unless there are two, whatever index is asked for.
    let look = "(if (i32.ne (call $len) (i32.const 2)) (then unreachable))
        (if (i32.or (call $latency_us (i32.const 2)) (call $active (i32.const 2))) (then unreachable))
        (if (i32.or (call $latency_us (i32.const -1)) (call $active (i32.const -1))) (then unreachable))
        (call $active_all (i32.const 32))
        (if (i32.ne (i32.load (i32.const 36)) (i32.const 2)) (then unreachable))
        (if (i32.ne (call $active_total)
          (i32.add (call $active (i32.const 0)) (call $active (i32.const 1)))) (then unreachable))";
    let guest = Guest {
        pick: format!("{look} {}", Guest::any()),
        ..Guest::default()
    };
    let stage = Stage::with(&guest).await;
    // Alice's backend is busy, which mallory's guest must not see in any of its numbers.
    let alice = Load::start_at(stage.balancer.address, 4, ALICE);
    stage.expect_good(300).await;
    alice.stop().await.expect_no_failure();
    assert_eq!(stage.main().pool.snapshot().members.len(), 2);
}

#[tokio::test]
async fn a_pool_that_changes_hands_takes_no_instance_along() {
    let stage = Stage::with(&Guest::default()).await;
    let text = stage.setup.text();
    let tail = &text[text.find("[tenant.mallory]").unwrap()..];
    let head = text[..text.find("[policy.hostile]").unwrap()].replace("\"hostile\"", "\"round-robin\"");
    let of_mallory = format!("{head}{tail}");
    stage.balancer.handle().replace(of_mallory.clone()).await.unwrap();
    let before = stage.main();
    // The pool is alice's now; mallory keeps one, or it would be a mistake to name it.
    let moved = of_mallory
        .replace("tenant = \"mallory\"\npolicy", "tenant = \"alice\"\npolicy")
        .replace(
            "hosts = [\"alice\"]",
            "hosts = [\"test\", \"*.mallory\", \"alice\"]",
        )
        .replace("hosts = [\"test\", \"*.mallory\"]\n", "hosts = [\"m\"]\n")
        .replace("route = [", "route = [{ host = \"m\", pool = \"m\" }, ")
        + "\n[pool.m]\ntenant = \"mallory\"\nbackends = [\"127.0.0.1:1\"]";
    replace(&stage.balancer, moved).await;
    let after = stage.main();
    assert_eq!(after.pool.tenant().unwrap().budgets().name, "alice");
    assert!(!std::sync::Arc::ptr_eq(&before.deployment, &after.deployment));
}

async fn replace(balancer: &Balancer, text: String) {
    if let Err(refusal) = balancer.handle().replace(text.clone()).await {
        panic!("{refusal}\n{text}");
    }
}
