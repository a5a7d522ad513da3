//! Policies that fail, lie, loop and hoard. Whatever they do is counted, and no client notices.

use trimtab::policy::FaultKind;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Load, Origin, Setup, get, guest::Guest, wait_until,
};

mod admission;
mod components;

/// A balancer with this guest over two origins, under load when `hostile` is called.
struct Stage {
    directory: Directory,
    _origins: Vec<Origin>,
    setup: Setup,
    balancer: Balancer,
}

impl Stage {
    async fn with(guest: &Guest) -> Self {
        Self::with_workers(2, guest).await
    }

    async fn with_workers(workers: usize, guest: &Guest) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", guest.build());
        let origins = Origin::start_all(["a", "b"]).await;
        let setup = Setup::new()
            .workers(workers)
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"hostile\"")
            .rest("[policy.hostile]\ncomponent = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"5ms\"");
        let balancer = Balancer::start(setup.text(), directory.path())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self {
            directory,
            _origins: origins,
            setup,
            balancer,
        }
    }

    async fn chaos(config: &str) -> (Vec<Origin>, Balancer) {
        let origins = Origin::start_all(["a", "b"]).await;
        let balancer = Setup::new()
            .workers(2)
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"hostile\"")
            .rest(&format!(
                "[policy.hostile]\nbuiltin = \"chaos\"\nmemory = \"4MiB\"\ndeadline = \"50ms\"\nconfig = {{ {config} }}"
            ))
            .start()
            .await;
        (origins, balancer)
    }

    /// Every request is answered, while the counter of this kind, and no other, moves.
    async fn expect_only(&self, kind: FaultKind) {
        expect_only(&self.balancer, kind, 3).await;
    }

    /// Replaces the component by one that must be refused, under load; gives the refusal.
    async fn refusal(&self, component: &[u8]) -> String {
        let before = self.balancer.view().deployment;
        let load = Load::start(self.balancer.address, 4);
        self.directory.replace("policy.wasm", component);
        let refusal = self
            .balancer
            .replace(&self.setup)
            .await
            .expect_err("it is refused");
        load.more(20).await;
        load.stop().await.expect_no_failure();
        let after = self.balancer.view().deployment;
        assert!(
            std::sync::Arc::ptr_eq(&before, &after),
            "the old one keeps serving"
        );
        assert_eq!(after.faults(), 0);
        refusal
    }
}

/// Every request is answered, while the counter of this kind, and no other, moves.
async fn expect_only(balancer: &Balancer, kind: FaultKind, times: u64) {
    let load = Load::start(balancer.address, 4);
    wait_until(kind.name(), DEADLINE, || {
        balancer.faults(kind) >= times || load.failed() > 0
    })
    .await;
    load.more(20).await;
    load.stop().await.expect_no_failure();
    let faults = balancer.view().deployment.faults();
    assert_eq!(faults, balancer.faults(kind), "other faults were counted too");
}

/// A guest that answers its first pick, with which it is admitted, and then does this every other time.
fn picking(bad: &str) -> Guest {
    Guest {
        pick: Guest::every_other(bad),
        ..Guest::default()
    }
}

const LOOP: &str = "(loop $forever (br $forever))";

#[tokio::test]
async fn an_honest_guest_chooses_and_counts_no_fault() {
    let stage = Stage::with(&Guest::default()).await;
    Load::run(stage.balancer.address, 4, 200)
        .await
        .expect_no_failure();
    let deployment = stage.balancer.view().deployment;
    assert_eq!(deployment.faults(), 0);
    for reason in trimtab::policy::Reason::ALL {
        assert_eq!(deployment.total(|stats| stats.host(reason)), 0, "{reason:?}");
    }
}

#[tokio::test]
async fn a_guest_that_traps_costs_no_request() {
    let stage = Stage::with(&picking("unreachable")).await;
    stage.expect_only(FaultKind::Trap).await;
    wait_until("it is built again", DEADLINE, || {
        stage.balancer.view().deployment.total(|stats| &stats.rebuilds) > 0
    })
    .await;
}

#[tokio::test]
async fn a_guest_that_never_returns_is_cut_off() {
    let stage = Stage::with(&picking(LOOP)).await;
    stage.expect_only(FaultKind::Deadline).await;
}

#[tokio::test]
async fn a_guest_that_only_calls_the_host_is_cut_off() {
    let stage = Stage::with(&picking(
        "(loop $forever (drop (call $active (i32.const 0))) (br $forever))",
    ))
    .await;
    stage.expect_only(FaultKind::Deadline).await;
}

#[tokio::test]
async fn a_guest_that_fills_its_memory_over_and_over_is_cut_off() {
    let stage = Stage::with(&picking(
        "(loop $forever (memory.fill (i32.const 65536) (i32.const 7) (i32.const 4000000)) (br $forever))",
    ))
    .await;
    stage.expect_only(FaultKind::Deadline).await;
}

#[tokio::test]
async fn a_guest_that_grows_beyond_its_memory_is_stopped() {
    let stage = Stage::with(&picking(
        "(if (i32.lt_s (memory.grow (i32.const 4096)) (i32.const 0)) (then unreachable))",
    ))
    .await;
    stage.expect_only(FaultKind::Memory).await;
}

#[tokio::test]
async fn a_guest_whose_memory_begins_too_large_is_refused() {
    let stage = Stage::with(&Guest::default()).await;
    let hog = Guest {
        pages: 60_000,
        ..Guest::default()
    };
    let refusal = stage.refusal(&hog.build()).await;
    assert!(refusal.contains("memory"), "{refusal}");
}

#[tokio::test]
async fn a_guest_that_names_no_backend_is_corrected() {
    let stage = Stage::with(&picking("(return (call $some (i32.const 4000000000)))")).await;
    stage.expect_only(FaultKind::BadIndex).await;
}

#[tokio::test]
async fn a_guest_that_calls_itself_forever_ends_only_itself() {
    let guest = Guest {
        more: "(func $deeper (param i64) (result i64)
            (i64.add (call $deeper (i64.add (local.get 0) (i64.const 1))) (local.get 0)))"
            .into(),
        ..picking("(drop (call $deeper (i64.const 0)))")
    };
    let stage = Stage::with(&guest).await;
    stage.expect_only(FaultKind::Trap).await;
}

#[tokio::test]
async fn a_guest_that_answers_with_a_wild_pointer_is_stopped() {
    for pointer in ["(i32.const -4)", "(i32.const 2147483644)", "(i32.const 3)"] {
        let stage = Stage::with(&picking(&format!("(return {pointer})"))).await;
        stage.expect_only(FaultKind::Trap).await;
    }
}

#[tokio::test]
async fn a_guest_that_passes_wild_strings_is_stopped() {
    for arguments in [
        "(i32.const 0) (i32.const -1)",
        "(i32.const -1) (i32.const 10)",
        "(i32.const 1024) (i32.const 3000000000)",
    ] {
        let stage = Stage::with(&picking(&format!("(call $note {arguments})"))).await;
        stage.expect_only(FaultKind::Trap).await;
    }
}

#[tokio::test]
async fn a_guest_that_says_what_is_no_text_is_stopped() {
    let guest = Guest {
        text: "\\ff\\fe\\80".into(),
        ..picking("(call $note (i32.const 1024) (i32.const 3))")
    };
    Stage::with(&guest).await.expect_only(FaultKind::Trap).await;
}

#[tokio::test]
async fn a_guest_that_logs_without_end_is_cut_off() {
    let stage = Stage::with(&picking(
        "(loop $forever (call $log (i32.const 0) (i32.const 1024) (i32.const 100000)) (br $forever))",
    ))
    .await;
    let load = Load::start(stage.balancer.address, 4);
    // Deadline or the bound on what one call may copy, whichever comes first.
    wait_until("it is stopped", DEADLINE, || {
        stage.balancer.view().deployment.faults() >= 3 || load.failed() > 0
    })
    .await;
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_guest_that_logs_much_at_every_pick_goes_on() {
    let stage = Stage::with(&Guest {
        pick: format!(
            "(call $log (i32.const 0) (i32.const 1024) (i32.const 100000)) {}",
            Guest::any()
        ),
        ..Guest::default()
    })
    .await;
    Load::run(stage.balancer.address, 4, 400)
        .await
        .expect_no_failure();
    assert_eq!(stage.balancer.view().deployment.faults(), 0);
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
    let stage = Stage::with(&guest).await;
    Load::run(stage.balancer.address, 4, 100)
        .await
        .expect_no_failure();
    assert_eq!(stage.balancer.view().deployment.faults(), 0);
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
    let pool = stage.balancer.view().pool;
    for weight in 2..6 {
        pool.set_weight(stage.balancer.id(0), weight, std::time::Instant::now());
        Load::run(stage.balancer.address, 4, 20).await.expect_no_failure();
    }
    assert_eq!(stage.balancer.view().deployment.faults(), 0);
}

#[tokio::test]
async fn a_guest_that_fails_in_an_update_of_a_live_instance_is_replaced() {
    for (bad, kind) in [("unreachable", FaultKind::Trap), (LOOP, FaultKind::Deadline)] {
        let guest = Guest {
            update: format!("(if (global.get $updates) (then {bad}))"),
            ..Guest::default()
        };
        // One worker: with two, both could be waiting for their replacements when the next update comes.
        let stage = Stage::with_workers(1, &guest).await;
        let load = Load::start(stage.balancer.address, 4);
        load.more(20).await;
        let pool = stage.balancer.view().pool;
        for weight in 2..5 {
            let faults = stage.balancer.faults(kind);
            pool.set_weight(stage.balancer.id(0), weight, std::time::Instant::now());
            wait_until(kind.name(), DEADLINE, || stage.balancer.faults(kind) > faults).await;
            // The replacement has to be there before it can fail.
            let decided = |reason| stage.balancer.view().deployment.total(|stats| stats.host(reason));
            wait_until("built again", DEADLINE, || {
                stage.balancer.view().deployment.total(|stats| &stats.rebuilds) >= u64::from(weight) - 1
            })
            .await;
            assert!(decided(trimtab::policy::Reason::Rebuilding) > 0);
        }
        load.stop().await.expect_no_failure();
    }
}

#[tokio::test]
async fn a_guest_that_fails_while_it_is_put_into_service_is_refused() {
    let stage = Stage::with(&Guest::default()).await;
    let refuse = Guest {
        text: "I do not like this".into(),
        ..Guest::default()
    };
    let cases = [
        (
            "endless configure",
            Guest {
                configure: format!("{LOOP} {}", Guest::accept()),
                ..Guest::default()
            },
            "configure: did not answer within its deadline",
        ),
        (
            "endless update",
            Guest {
                update: LOOP.into(),
                ..Guest::default()
            },
            "update: did not answer within its deadline",
        ),
        (
            "endless start",
            Guest {
                start: LOOP.into(),
                ..Guest::default()
            },
            "instantiate: did not answer within its deadline",
        ),
        (
            "endless pick",
            Guest {
                pick: format!("{LOOP} {}", Guest::any()),
                ..Guest::default()
            },
            "pick: did not answer within its deadline",
        ),
        (
            "trap at start",
            Guest {
                start: "unreachable".into(),
                ..Guest::default()
            },
            "instantiate: ",
        ),
        (
            "trap in pick",
            Guest {
                pick: "unreachable".into(),
                ..Guest::default()
            },
            "pick: ",
        ),
        (
            "bad index",
            Guest {
                pick: "(call $some (i32.const 2))".into(),
                ..Guest::default()
            },
            "picked index 2 of 2 backends",
        ),
        (
            "refusal",
            Guest {
                configure: refuse.refuse(),
                ..refuse.clone()
            },
            "configure: I do not like this",
        ),
    ];
    for (name, guest, reason) in cases {
        let refusal = stage.refusal(&guest.build()).await;
        assert!(refusal.contains(reason), "{name}: {refusal}");
        assert!(
            refusal.contains("policy.hostile.component"),
            "it says whose it is: {refusal}"
        );
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
        let deployment = stage.balancer.view().deployment;
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
    let deployment = stage.balancer.view().deployment;
    assert_eq!(
        deployment.total(|stats| stats.host(trimtab::policy::Reason::Abstained)),
        50
    );
    assert_eq!(deployment.faults(), 0);
}

#[tokio::test]
async fn a_guest_that_picks_what_is_not_usable_is_corrected() {
    let (origins, balancer) = Stage::chaos("fault = \"unusable\", every = 2").await;
    balancer
        .view()
        .pool
        .set_draining(balancer.id(0), true, std::time::Instant::now());
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "b");
    }
    assert_eq!(origins[0].hits(), 0, "the host does not follow");
    assert!(balancer.faults(FaultKind::Unusable) >= 4);
    assert_eq!(
        balancer.view().deployment.faults(),
        balancer.faults(FaultKind::Unusable)
    );
}

#[tokio::test]
async fn every_fault_of_the_chaos_policy_costs_no_request() {
    for (fault, kind) in [
        ("trap", FaultKind::Trap),
        ("spin", FaultKind::Deadline),
        ("memory", FaultKind::Memory),
        ("bad-index", FaultKind::BadIndex),
    ] {
        let (_origins, balancer) = Stage::chaos(&format!("fault = {fault:?}, every = 3")).await;
        expect_only(&balancer, kind, 2).await;
    }
}

#[tokio::test]
async fn a_pool_is_not_disturbed_by_the_policy_of_another() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::to(origins[0].address())
        .pool("policy = \"round-robin\"")
        .listener("route = [{ path_prefix = \"/spin\", pool = \"spin\" }, { pool = \"main\" }]")
        .rest(&format!(
            "[pool.spin]\nbackends = [{:?}]\npolicy = \"hostile\"\n\
             [policy.hostile]\nbuiltin = \"chaos\"\nconfig = {{ fault = \"spin\", every = 2 }}",
            origins[1].address()
        ))
        .start()
        .await;
    let load = Load::start(balancer.address, 4);
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..50 {
        assert_eq!(client.get("/spin").await.text(), "b");
    }
    load.stop().await.expect_no_failure();
    assert_eq!(balancer.view().deployment.faults(), 0);
}
