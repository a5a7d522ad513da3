//! A version on trial with a part of the traffic: promoted when it is as good, taken back when it is worse in any way.

use std::{sync::Arc, time::Duration};

use trimtab::{
    control::{CanaryOrder, Denial, NewComponent},
    policy::Sought,
    rollout::{Outcome, Report as CanaryReport, Rules},
};
use trimtab_tests::{
    Balancer, DEADLINE, Directory, Load, Origin, RawOrigin, Setup, guest::Guest, ok, wait_until, within,
};

/// A balancer whose policy always picks the first of two backends.
struct Stage {
    _directory: Directory,
    first: Origin,
    second: RawOrigin,
    balancer: Balancer,
    load: Load,
}

/// A second backend like the first.
async fn good() -> RawOrigin {
    RawOrigin::answering(ok("second")).await
}

fn picking(pick: &str) -> Guest {
    Guest {
        pick: pick.to_owned(),
        ..Guest::default()
    }
}

impl Stage {
    /// Requests have a key of their own each, so that a share of them is a share of one client's.
    async fn start(active: &Guest, second: RawOrigin) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", active.build());
        let first = Origin::start("first").await;
        let setup = Setup::new()
            .workers(2)
            .backends([first.address(), second.address()])
            .pool("policy = \"mine\"\nhash_on = \"header:x-none\"")
            .rest("[policy.mine]\ncomponent = \"policy.wasm\"\ndeadline = \"20ms\"");
        let started = Balancer::start(setup.text(), directory.path()).await;
        let balancer = started.unwrap_or_else(|error| panic!("{error}"));
        let load = Load::start(balancer.address, 16);
        Self {
            _directory: directory,
            first,
            second,
            balancer,
            load,
        }
    }

    async fn begin(&self, candidate: &Guest, share: u64, rules: Rules) -> Result<CanaryReport, Denial> {
        let component = NewComponent {
            wasm: Arc::from(candidate.build()),
            pool: None,
        };
        let handle = self.balancer.handle();
        let uploaded = within("uploading", DEADLINE, handle.upload(component)).await?;
        let order = CanaryOrder {
            pool: "main".into(),
            sought: Sought::Digest(uploaded.digest),
            config_json: None,
            share,
            rules,
        };
        within("beginning", DEADLINE, handle.canary(order)).await
    }

    fn report(&self) -> CanaryReport {
        self.balancer.handle().canaries().remove(0)
    }

    /// How the canary ended.
    async fn end(&self) -> CanaryReport {
        wait_until("the canary is over", DEADLINE, || {
            self.report().outcome != Outcome::Running
        })
        .await;
        self.report()
    }

    fn serving(&self) -> String {
        self.balancer.view().deployment.candidate.digest.to_string()
    }

    /// The canary is taken back for this rule, once, and the version that served goes on to.
    async fn expect_breach(&self, candidate: &Guest, rules: Rules, rule: &str) -> CanaryReport {
        let before = self.serving();
        self.begin(candidate, 500, rules).await.unwrap();
        let report = self.end().await;
        assert_eq!(report.outcome, Outcome::RolledBack, "{report:?}");
        assert_eq!(
            report.breach.as_ref().map(|breach| breach.rule),
            Some(rule),
            "{report:?}"
        );
        assert_eq!(self.serving(), before);
        let decided = report.canary.decisions;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let reports = self.balancer.handle().canaries();
        assert_eq!(reports.len(), 1, "one end: {reports:?}");
        assert_eq!(
            reports[0].canary.decisions, decided,
            "it decides nothing any more"
        );
        report
    }
}

#[tokio::test]
async fn a_canary_that_is_as_good_is_promoted_by_itself() {
    let stage = Stage::start(&Guest::default(), good().await).await;
    let candidate = Guest {
        text: "another".into(),
        ..Guest::default()
    };
    let rules = Rules {
        decisions: 500,
        p99: 1000.0,
        ..Rules::default()
    };
    let begun = stage.begin(&candidate, 300, rules).await.unwrap();
    let report = stage.end().await;
    assert_eq!(report.outcome, Outcome::Promoted, "{report:?}");
    assert_eq!(stage.serving(), begun.digest);
    assert!(stage.balancer.handle().versions().is_pinned("main"));
    assert!(
        report.canary.decisions >= 500 && report.canary.faults == 0,
        "{report:?}"
    );
    assert!(
        (0.2..0.4).contains(&report.exposed),
        "a share of 0.3 was wanted: {report:?}"
    );
    stage.load.more(50).await;
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_canary_that_faults_is_taken_back_and_nobody_notices() {
    let stage = Stage::start(&Guest::default(), good().await).await;
    let candidate = picking(&Guest::after_admission("unreachable"));
    let report = stage.expect_breach(&candidate, Rules::default(), "faults").await;
    assert!(report.canary.faults >= 3, "{report:?}");
    assert_eq!(
        report.canary.answers, 0,
        "what it did not decide is not its: {report:?}"
    );
    stage.load.more(50).await;
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_canary_that_thinks_too_long_is_taken_back() {
    let stage = Stage::start(&Guest::default(), good().await).await;
    let spin = "(local $left i32) (local.set $left (i32.const 600000))
        (loop $again
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $again (local.get $left)))";
    let candidate = picking(&format!("{spin} {}", Guest::any()));
    let report = stage
        .expect_breach(&candidate, Rules::default(), "decision-time")
        .await;
    assert!(report.canary.decision_ns > 50_000.0, "{report:?}");
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_canary_that_picks_backends_with_errors_is_taken_back() {
    let broken = RawOrigin::answering("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    let stage = Stage::start(&picking(&Guest::always(0)), broken).await;
    let report = stage
        .expect_breach(&picking(&Guest::always(1)), Rules::default(), "errors")
        .await;
    assert_eq!(report.active.errors, 0, "{report:?}");
    assert_eq!(report.canary.errors, report.canary.answers, "{report:?}");
    assert!(stage.load.failed() > 0);
}

#[tokio::test]
async fn a_canary_that_picks_slow_backends_is_taken_back() {
    let slow = RawOrigin::start(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(40)).await;
            peer.send(ok("slow")).await;
        }
    })
    .await;
    let stage = Stage::start(&picking(&Guest::always(0)), slow).await;
    let report = stage
        .expect_breach(&picking(&Guest::always(1)), Rules::default(), "p99")
        .await;
    assert!(report.canary.p99_us >= 40_000, "{report:?}");
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_canary_that_piles_everything_on_one_backend_is_taken_back() {
    let stage = Stage::start(&Guest::default(), good().await).await;
    let report = stage
        .expect_breach(&picking(&Guest::always(0)), Rules::default(), "skew")
        .await;
    assert_eq!(report.canary.picks[1], 0, "{report:?}");
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_canary_decides_its_share_and_no_more() {
    let stage = Stage::start(&picking(&Guest::always(0)), good().await).await;
    let patient = Rules {
        decisions: u64::MAX,
        skew: 1.0,
        p99: 1e6,
        ..Rules::default()
    };
    stage
        .begin(&picking(&Guest::always(1)), 100, patient)
        .await
        .unwrap();
    wait_until("enough answers", DEADLINE, || {
        let report = stage.report();
        report.active.answers + report.canary.answers >= 3000
    })
    .await;
    let report = stage.balancer.handle().cancel_canary("main").await.unwrap();
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert!((0.07..0.13).contains(&report.exposed), "{report:?}");
    assert_eq!(
        (report.active.picks[1], report.canary.picks[0]),
        (0, 0),
        "{report:?}"
    );
    stage.load.more(50).await;
    let hits = (stage.first.hits(), stage.second.received().len());
    stage.load.more(50).await;
    assert!(stage.first.hits() > hits.0);
    assert_eq!(stage.second.received().len(), hits.1, "it is over");
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn what_cannot_be_a_canary_is_refused() {
    let stage = Stage::start(&Guest::default(), good().await).await;
    let serving = stage.begin(&Guest::default(), 50, Rules::default()).await;
    assert!(serving.unwrap_err().to_string().contains("it serves already"));
    let refuses = Guest {
        configure: picking("").refuse(),
        ..Guest::default()
    };
    assert!(stage.begin(&refuses, 50, Rules::default()).await.is_err());
    let none = stage.balancer.handle().cancel_canary("main").await;
    assert!(none.unwrap_err().to_string().contains("has no canary"));
    assert!(stage.balancer.handle().canaries().is_empty());
    stage.load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_canary_ends_when_another_version_goes_into_service() {
    let stage = Stage::start(&Guest::default(), good().await).await;
    let patient = Rules {
        decisions: u64::MAX,
        ..Rules::default()
    };
    stage
        .begin(&picking(&Guest::every_other("")), 200, patient)
        .await
        .unwrap();
    let other = Guest {
        text: "other".into(),
        ..Guest::default()
    };
    stage._directory.replace("policy.wasm", other.build());
    let report = stage.balancer.handle().reload().await.unwrap();
    assert!(report.changed);
    let report = stage.end().await;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:?}");
    stage.load.stop().await.expect_no_failure();
}
