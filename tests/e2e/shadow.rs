//! A candidate beside the version in service: compared, and never followed.

use std::sync::Arc;

use trimtab::{
    control::{Denial, NewComponent, ShadowOrder},
    policy::Sought,
    rollout::ShadowReport,
};
use trimtab_tests::{Balancer, DEADLINE, Directory, Load, Origin, Setup, guest::Guest, wait_until, within};

struct Stage {
    _directory: Directory,
    origins: Vec<Origin>,
    balancer: Balancer,
}

fn picking(pick: &str) -> Guest {
    Guest {
        pick: pick.to_owned(),
        ..Guest::default()
    }
}

impl Stage {
    async fn start(active: &Guest) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", active.build());
        let origins = Origin::start_all(["a", "b"]).await;
        let setup = Setup::new()
            .workers(2)
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"mine\"")
            .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
        let started = Balancer::start(setup.text(), directory.path()).await;
        Self {
            _directory: directory,
            origins,
            balancer: started.unwrap_or_else(|error| panic!("{error}")),
        }
    }

    async fn begin(&self, candidate: &Guest, share: u64) -> Result<ShadowReport, Denial> {
        let component = NewComponent {
            wasm: Arc::from(candidate.build()),
            pool: None,
        };
        let handle = self.balancer.handle();
        let uploaded = within("uploading", DEADLINE, handle.upload(component)).await?;
        let order = ShadowOrder {
            pool: "main".into(),
            sought: Sought::Digest(uploaded.digest),
            config_json: None,
            share,
        };
        within("beginning", DEADLINE, handle.shadow(order)).await
    }

    fn report(&self) -> ShadowReport {
        self.balancer.handle().shadow_report("main").expect("a shadow")
    }

    /// Loads until the report says so.
    async fn until(&self, what: &str, is_there: impl Fn(&ShadowReport) -> bool) -> ShadowReport {
        let load = Load::start(self.balancer.address, 8);
        wait_until(what, DEADLINE, || is_there(&self.report())).await;
        load.stop().await.expect_no_failure();
        self.report()
    }
}

#[tokio::test]
async fn a_policy_agrees_with_itself_and_moves_nothing() {
    let stage = Stage::start(&Guest::default()).await;
    let same = Guest {
        text: "the same by another name".into(),
        ..Guest::default()
    };
    stage.begin(&same, 1000).await.unwrap();
    let report = stage
        .until("enough decisions", |report| report.compared >= 300)
        .await;
    assert!(report.agreement <= 1.0 && report.agreement > 0.99, "{report:?}");
    // The last one may be under way.
    let is_equal = || (stage.report().agreement - 1.0).abs() < 1e-9;
    wait_until("all decisions agree", DEADLINE, is_equal).await;
    assert_eq!((report.faults, report.abstained), (0, 0), "{report:?}");
    let is_level = || stage.report().drift.iter().all(|drift| drift.abs() < 1e-9);
    wait_until("no backend gets another share", DEADLINE, is_level).await;
    assert!(report.decision_ns > 0.0);
}

#[tokio::test]
async fn what_another_policy_would_change_is_told_and_not_done() {
    let stage = Stage::start(&picking(&Guest::always(0))).await;
    stage.begin(&picking(&Guest::always(1)), 1000).await.unwrap();
    let report = stage
        .until("enough decisions", |report| report.compared >= 100)
        .await;
    assert!(report.agreement < 1e-9, "{report:?}");
    assert!(
        (report.drift[0] + 1.0).abs() < 1e-9 && (report.drift[1] - 1.0).abs() < 1e-9,
        "{report:?}"
    );
    assert_eq!(stage.origins[1].hits(), 0, "nothing is routed by it");
    let ended = stage.balancer.handle().end_shadow("main").await.unwrap();
    assert!(ended.compared >= report.compared);
    assert!(stage.balancer.handle().shadow_report("main").is_none());
}

#[tokio::test]
async fn a_sample_is_what_was_asked_for() {
    let stage = Stage::start(&Guest::default()).await;
    stage.begin(&picking(&Guest::always(0)), 100).await.unwrap();
    let load = Load::run(stage.balancer.address, 8, 4000).await;
    load.expect_no_failure();
    wait_until("all are compared", DEADLINE, || {
        let report = stage.report();
        report.compared + report.dropped > 250
    })
    .await;
    let report = stage.report();
    assert!(
        report.compared + report.dropped < 550,
        "a tenth of 4000 was wanted: {report:?}"
    );
}

#[tokio::test]
async fn a_shadow_that_fails_harms_nobody_and_rests() {
    for bad in ["unreachable", "(loop $for_ever (br $for_ever))"] {
        let stage = Stage::start(&Guest::default()).await;
        stage
            .begin(&picking(&Guest::after_admission(bad)), 1000)
            .await
            .unwrap();
        let report = stage
            .until("it failed and rested", |report| {
                report.rests >= 2 && report.dropped > 0
            })
            .await;
        assert!(report.faults >= 2, "{report:?}");
        let active = stage.balancer.view().deployment;
        assert_eq!(active.faults(), 0, "the version in service has none of it");
    }
}

#[tokio::test]
async fn what_cannot_be_a_shadow_is_refused() {
    let stage = Stage::start(&Guest::default()).await;
    let refuses = Guest {
        configure: picking("").refuse(),
        ..Guest::default()
    };
    assert!(stage.begin(&refuses, 100).await.is_err());
    assert!(stage.balancer.handle().shadow_report("main").is_none());
    let none = stage.balancer.handle().end_shadow("main").await;
    assert!(none.unwrap_err().to_string().contains("has no shadow"));
}
