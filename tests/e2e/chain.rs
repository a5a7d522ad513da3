//! Policies that fail while requests come: the last good version serves, or the pool's built-in, and no client notices.

use trimtab::policy::{BreakerState, Reason, Step};
use trimtab_tests::{Balancer, Client, DEADLINE, Directory, Load, Origin, Setup, guest::Guest, wait_until};

/// What a guest does in place of an answer.
const FAILURES: [(&str, &str); 6] = [
    ("trap", "unreachable"),
    ("deadline", "(loop $forever (br $forever))"),
    (
        "memory",
        "(if (i32.lt_s (memory.grow (i32.const 4096)) (i32.const 0)) (then unreachable))",
    ),
    ("bad index", "(return (call $some (i32.const 4000000000)))"),
    ("not usable", "(return (call $some (i32.const 2)))"),
    ("no opinion", "(return (call $none))"),
];

struct Stage {
    directory: Directory,
    _origins: Vec<Origin>,
    setup: Setup,
    balancer: Balancer,
}

impl Stage {
    /// Two backends, and a third that drains.
    async fn new(workers: usize, policy: &Guest) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", policy.build());
        let origins = Origin::start_all(["a", "b", "c"]).await;
        let setup = Setup::new()
            .workers(workers)
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"mine\"\nfallback = \"round-robin\"")
            .rest("[policy.mine]\ncomponent = \"policy.wasm\"\nmemory = \"8MiB\"");
        let balancer = Balancer::start(setup.text(), directory.path())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        balancer
            .view()
            .pool
            .set_draining(balancer.id(2), true, std::time::Instant::now());
        Self {
            directory,
            _origins: origins,
            setup,
            balancer,
        }
    }

    async fn replace(&self, policy: &Guest) {
        self.directory.replace("policy.wasm", policy.build());
        self.balancer
            .replace(&self.setup)
            .await
            .unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    fn step(&self, step: Step) -> u64 {
        self.balancer.view().deployment.total(|stats| stats.step(step))
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.balancer.view().deployment.total(|stats| stats.host(reason))
    }
}

/// Picks the first backend. From this pick on, it fails like that; the first pick is that of its admission.
fn turning(pick: u32, bad: &str) -> Guest {
    Guest {
        pick: format!(
            "(if (i32.ge_u (global.get $picks) (i32.const {pick})) (then {bad})) {}",
            Guest::always(0)
        ),
        ..Guest::default()
    }
}

#[tokio::test]
async fn every_fault_at_every_step_of_the_chain_fails_no_request() {
    for (name, bad) in FAILURES {
        let stage = Stage::new(2, &turning(u32::MAX, "unreachable")).await;
        let load = Load::start(stage.balancer.address, 4);
        load.more(200).await;
        // First there is a good version to take over, ...
        stage.replace(&turning(1, bad)).await;
        let by_last_good = |stage: &Stage| stage.step(Step::LastGood) > 20;
        let by_built_in = |stage: &Stage| stage.step(Step::BuiltIn) > 20;
        wait_until(name, DEADLINE, || {
            by_last_good(&stage) || by_built_in(&stage) || load.failed() > 0
        })
        .await;
        assert_eq!(
            by_last_good(&stage),
            name != "no opinion",
            "who has no opinion does not ask for that of the version before: {name}"
        );
        load.stop().await.expect_no_failure();
        // ... and from the start there is none.
        let stage = Stage::new(2, &turning(1, bad)).await;
        let load = Load::start(stage.balancer.address, 4);
        wait_until(name, DEADLINE, || by_built_in(&stage) || load.failed() > 0).await;
        assert_eq!(stage.step(Step::LastGood), 0);
        load.stop().await.expect_no_failure();
    }
}

#[tokio::test]
async fn when_every_backend_was_tried_any_is_tried_again() {
    // Nobody listens there; three attempts at two backends, every other one decided badly.
    let balancer = Setup::to("127.0.0.1:1".into())
        .backend("127.0.0.1:2".into())
        .pool("policy = \"hostile\"\noutlier = \"off\"\nretry = { attempts = 3 }")
        .rest("[policy.hostile]\nbuiltin = \"chaos\"\nconfig = { fault = \"bad-index\", every = 2 }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 502);
    assert_eq!(client.get("/").await.status, 502);
    let any = balancer.view().deployment.total(|stats| stats.step(Step::Any));
    assert!(any > 0, "one of the bad decisions was about a third attempt");
}

#[tokio::test]
async fn a_policy_that_always_fails_is_left_alone_and_comes_back_when_it_is_well() {
    let dies_of_queries = Guest {
        pick: format!(
            "(call $query (i32.const 32)) (if (i32.load8_u (i32.const 32)) (then unreachable)) {}",
            Guest::always(0)
        ),
        ..Guest::default()
    };
    let stage = Stage::new(1, &dies_of_queries).await;
    let breakers = |state| stage.balancer.view().deployment.breakers(state);
    let mut client = Client::connect(stage.balancer.address).await;
    // Another path each time, or it would be the request's fault.
    let mut number = 0;
    while breakers(BreakerState::Open) == 0 {
        number += 1;
        assert_eq!(client.get(&format!("/{number}?")).await.status, 200);
    }
    let faults = stage.balancer.view().deployment.faults();
    assert!((5..=8).contains(&faults), "{faults}");
    while stage.reason(Reason::BreakerOpen) == 0 {
        assert_eq!(client.get("/").await.status, 200);
    }
    wait_until("it is tried", DEADLINE, || breakers(BreakerState::HalfOpen) == 1).await;
    for _ in 0..16 {
        assert_eq!(client.get("/").await.text(), "a", "the policy's choice");
    }
    assert_eq!(breakers(BreakerState::Closed), 1);
}

#[tokio::test]
async fn a_query_of_death_at_half_of_the_load_costs_three_instances_for_each_worker() {
    let guest = Guest {
        pick: format!(
            "(call $query (i32.const 32)) (if (i32.load8_u (i32.const 32)) (then unreachable)) {}",
            Guest::always(0)
        ),
        ..Guest::default()
    };
    let stage = Stage::new(1, &guest).await;
    let mut client = Client::connect(stage.balancer.address).await;
    // Until it is held, its faults leave the other requests without an instance for some milliseconds each.
    while stage.reason(Reason::Quarantined) == 0 {
        assert_eq!(client.get("/buy?poison").await.status, 200);
    }
    wait_until("there is an instance", DEADLINE, || {
        stage.balancer.view().deployment.total(|stats| &stats.rebuilds) == 3
    })
    .await;
    for number in 0..300 {
        assert_eq!(client.get("/buy?poison").await.status, 200);
        assert_eq!(client.get(&format!("/{number}")).await.text(), "a");
    }
    let deployment = stage.balancer.view().deployment;
    assert_eq!(
        (deployment.faults(), deployment.total(|stats| &stats.rebuilds)),
        (3, 3)
    );
    assert_eq!(deployment.total(|stats| &stats.quarantined), 1);
    assert!(stage.reason(Reason::Quarantined) > 300);
}
