//! Backends in the balancer's own zone come first.

use std::time::Instant;

use super::{Asker, WAYS, Way};
use trimtab_tests::{Origin, Setup};

/// Backends in these zones, none of which is checked soon, seen from zone `a`.
fn setup(origins: &[Origin], zones: &[&str], policy: &str) -> Setup {
    let setup = Setup::new()
        .top("zone = \"a\"")
        .pool(&format!("zone_aware = true\npolicy = \"{policy}\""))
        .pool("health = { kind = \"tcp\", interval = \"1h\" }\npanic_threshold = 0");
    let backends = origins.iter().zip(zones);
    backends.fold(setup, |setup, (origin, zone)| {
        setup.backend_with(&origin.address(), &format!("zone = \"{zone}\""))
    })
}

#[tokio::test]
async fn what_a_zone_cannot_take_leaves_it_and_no_more() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = setup(&origins, &["a", "b", "b"], "weighted-round-robin")
        .start()
        .await;
    let mut asker = Asker::new(&balancer, Way::Own).await;
    let mut before = [0; 3];
    let mut hits = || {
        let now = [0, 1, 2].map(|at: usize| origins[at].hits());
        let got = [0, 1, 2].map(|at| now[at] - before[at]);
        before = now;
        got
    };
    for _ in 0..120 {
        assert_eq!(asker.ask("GET", "/").await.0, 200);
    }
    // A third of what serves is two thirds of a zone's part: 80, 20 and 20, and turns begin anywhere.
    let got = hits();
    assert!((78..=82).contains(&got[0]), "{got:?}");
    assert!(got[1..].iter().all(|hits| (18..=22).contains(hits)), "{got:?}");

    // Without one of the others, half of what serves is here.
    let pool = balancer.view().pool;
    pool.set_down(balancer.id(2), true, Instant::now());
    for _ in 0..120 {
        assert_eq!(asker.ask("GET", "/").await.0, 200);
    }
    let got = hits();
    assert!(got[0] >= 119 && got[2] == 0, "all but a trace stays: {got:?}");

    pool.set_down(balancer.id(0), true, Instant::now());
    for _ in 0..20 {
        assert_eq!(asker.ask("GET", "/").await.0, 200);
    }
    assert_eq!(hits(), [0, 20, 0], "a zone without backends is served by another");
}

#[tokio::test]
async fn a_zone_that_can_serves_itself_whatever_the_policy() {
    for policy in [
        "least-connections",
        "round-robin",
        "ip-hash",
        "random-two-choices",
    ] {
        let origins = Origin::start_all(["a", "b", "c", "d"]).await;
        let setup = setup(&origins, &["a", "b", "a", "b"], policy);
        let balancer = setup.start().await;
        for way in WAYS {
            let mut asker = Asker::new(&balancer, way).await;
            for _ in 0..10 {
                assert_eq!(asker.ask("GET", "/").await.0, 200);
            }
        }
        let hits: Vec<u64> = origins.iter().map(Origin::hits).collect();
        assert_eq!((hits[0] + hits[2], hits[1], hits[3]), (30, 0, 0), "{policy}");
    }
}

#[tokio::test]
async fn an_attempt_that_failed_in_the_zone_is_made_again_outside_of_it() {
    for way in WAYS {
        let origins = Origin::start_all(["a", "b"]).await;
        let setup = setup(&origins, &["a", "b"], "weighted-round-robin");
        let balancer = setup.start().await;
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..20 {
            assert_eq!(asker.ask("GET", "/").await.0, 200);
        }
        assert!(origins[0].hits() >= 19, "{way:?}: {}", origins[0].hits());
        origins[0].kill();
        assert_eq!(asker.ask("GET", "/").await, (200, "b".to_owned()), "{way:?}");
    }
}
