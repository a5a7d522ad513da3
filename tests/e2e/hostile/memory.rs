//! Guests that hoard: memory, tables, stack, and what others left there.

use trimtab::policy::FaultKind;
use trimtab_tests::{Balancer, guest::Guest};

use super::{Stage, Wants, picking};

/// Traps when it is not granted so many more pages.
fn grow(memory: &str, pages: u32) -> String {
    format!("(if (i32.lt_s (memory.grow {memory} (i32.const {pages})) (i32.const 0)) (then unreachable))")
}

#[tokio::test]
async fn p05_a_guest_that_grows_beyond_its_memory_is_stopped() {
    // To 4 GiB less a page, which no 32-bit memory exceeds.
    let stage = Stage::with(&picking(&grow("", 65_535 - 64))).await;
    stage.expect_only(FaultKind::Memory).await;
}

#[tokio::test]
async fn p05_all_memories_of_a_guest_count_together() {
    let guest = Guest {
        more: "(memory $second 60)".into(),
        ..picking(&grow("$second", 8))
    };
    let stage = Stage::with(&guest).await;
    stage.expect_only(FaultKind::Memory).await;
    let guest = Guest {
        more: "(memory $second 65)".into(),
        ..Guest::default()
    };
    let refusal = stage_refusal(&guest).await;
    assert!(refusal.contains("instantiate"), "{refusal}");
}

async fn stage_refusal(guest: &Guest) -> String {
    Stage::with(&Guest::default()).await.refusal(&guest.build()).await
}

#[tokio::test]
async fn p05_a_guest_whose_memory_begins_too_large_is_refused() {
    let hog = Guest {
        pages: 60_000,
        ..Guest::default()
    };
    let refusal = stage_refusal(&hog).await;
    assert!(
        refusal.contains("asked for more memory than its limit"),
        "{refusal}"
    );
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a count of pages") * 4096
}

#[tokio::test]
async fn p06_a_guest_that_touches_all_its_memory_each_time_keeps_to_its_limit() {
    let touch = "(local $at i32) (local.set $at (i32.const 65536))
        (loop $on (i32.store (local.get $at) (local.get $at))
          (local.set $at (i32.add (local.get $at) (i32.const 4096)))
          (br_if $on (i32.lt_u (local.get $at) (i32.const 8323072))))";
    let guest = Guest {
        // All but a page: a component has a few small tables besides.
        pages: 127,
        pick: format!("{touch} {}", Guest::any()),
        ..Guest::default()
    };
    // Two thousand page faults are within the deadline on a busy machine too.
    let stage = Stage::want(
        &guest,
        Wants {
            policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"50ms\"",
            tenant: "deadline = \"50ms\"",
            ..Wants::default()
        },
    )
    .await;
    stage.expect_good(100).await;
    let before = resident_bytes();
    stage.expect_good(1000).await;
    let memory = stage.main().pool.tenant().unwrap().memory();
    assert!((15 << 20..16 << 20).contains(&memory), "two workers: {memory}");
    let grown = resident_bytes().saturating_sub(before);
    // Once it has touched all, it can touch no more; the rest is for what else the process does.
    assert!(grown < 32 << 20, "{grown} bytes more are resident");
}

#[tokio::test]
async fn p07_a_guest_that_grows_its_tables_is_stopped() {
    let guest = Guest {
        more: "(table $t 1 funcref)".into(),
        ..picking(
            "(if (i32.lt_s (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const 0)) (then unreachable))",
        )
    };
    let stage = Stage::with(&guest).await;
    stage.expect_only(FaultKind::Memory).await;
}

#[tokio::test]
async fn p08_a_guest_that_calls_itself_forever_ends_only_itself() {
    let guest = Guest {
        more: "(func $deeper (param i64) (result i64)
            (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1))) (local.get 0)))"
            .into(),
        ..picking("(drop (call $deeper (i64.const 0)))")
    };
    Stage::with(&guest).await.expect_only(FaultKind::Trap).await;
}

#[tokio::test]
async fn p09_a_guest_that_calls_the_host_at_the_end_of_its_stack_ends_only_itself() {
    // The host calls back to allocate, so that both sides come to the end in turn.
    let guest = Guest {
        text: "host".into(),
        more: "(func $deeper (param i64) (result i64)
            (drop (call $active (i32.const 0)))
            (global.set $heap (i32.const 1048576))
            (call $header (i32.const 1024) (i32.const 4) (i32.const 32))
            (call $active_all (i32.const 32))
            (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1))) (local.get 0)))"
            .into(),
        ..picking("(drop (call $deeper (i64.const 0)))")
    };
    // A slow host must not end it by its deadline first.
    let wants = Wants {
        tenant: "deadline = \"1s\"",
        policy: "component = \"policy.wasm\"\ndeadline = \"1s\"",
        ..Wants::default()
    };
    let stage = Stage::want(&guest, wants).await;
    stage.expect_only(FaultKind::Trap).await;
}

/// Traps at start if a byte of its memory is not zero, its own data and the place of answers aside.
fn scanner(dirt: &str) -> Guest {
    Guest {
        start: format!(
            "(local $at i32) {dirt} (local.set $at (i32.const 4096))
             (loop $on
               (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if $on (i32.lt_u (local.get $at) (i32.const 4194304))))"
        ),
        ..Guest::default()
    }
}

#[tokio::test]
async fn p28_a_guest_finds_nothing_in_its_memory_that_another_left() {
    let secret = "(memory.fill (i32.const 4096) (i32.const 0x5a) (i32.const 4190208)) unreachable";
    let stage = Stage::with(&picking(secret)).await;
    let with_scanner = |name: &str, round: usize| {
        let policies = format!(
            "[policy.scanner]\ntenant = \"alice\"\ncomponent = \"{name}\"\ngrants = {{ {} }}\nconfig = {{ round = {round} }}",
            super::EVERYTHING
        );
        let text = stage.setup.text().replace(
            "tenant = \"alice\"\npolicy = \"round-robin\"",
            "tenant = \"alice\"\npolicy = \"scanner\"",
        );
        assert!(text.contains("policy = \"scanner\""));
        format!("{text}{policies}")
    };
    stage.directory.write("clean.wasm", scanner("").build());
    let dirt = "(i32.store8 (i32.const 4000000) (i32.const 1))";
    stage.directory.write("dirty.wasm", scanner(dirt).build());
    let replace = async |balancer: &Balancer, text: String| balancer.handle().replace(text).await;
    for round in 0..10 {
        stage
            .until("instances come and go", || {
                stage.balancer.faults(FaultKind::Trap) > round
            })
            .await;
        replace(&stage.balancer, with_scanner("clean.wasm", round as usize))
            .await
            .unwrap();
    }
    let refusal = replace(&stage.balancer, with_scanner("dirty.wasm", 0)).await;
    assert!(refusal.is_err(), "it would have found a single byte");
}
