//! Tiers that share the load.

use super::{Asker, Way};
use std::time::Instant;
use trimtab_tests::{Origin, Setup};

#[tokio::test]
async fn a_tier_that_is_half_ill_keeps_its_part_of_the_requests() {
    let origins = Origin::start_all(["a", "b", "c", "d", "e"]).await;
    let setup = Setup::new()
        .backends(origins[..4].iter().map(Origin::address))
        .backend_with(&origins[4].address(), "tier = 1")
        .pool("policy = \"weighted-round-robin\"\noverflow = 140")
        .pool("health = { kind = \"tcp\", interval = \"1h\" }");
    let balancer = setup.start().await;
    let mut asker = Asker::new(&balancer, Way::Own).await;
    for _ in 0..40 {
        assert_eq!(asker.ask("GET", "/").await.0, 200);
    }
    assert_eq!(origins[4].hits(), 0);
    let pool = balancer.view().pool;
    for at in [0, 1] {
        pool.set_down(balancer.id(at), true, Instant::now());
    }
    let before: Vec<u64> = origins.iter().map(Origin::hits).collect();
    for _ in 0..200 {
        assert_eq!(asker.ask("GET", "/").await.0, 200);
    }
    let got: Vec<u64> = origins
        .iter()
        .zip(before)
        .map(|(origin, before)| origin.hits() - before)
        .collect();
    assert_eq!(got[..2], [0, 0]);
    // 70, 70 and 60 of 200 by weights, and turns begin anywhere.
    assert!(got[2..4].iter().all(|hits| (68..=72).contains(hits)), "{got:?}");
    assert!((58..=62).contains(&got[4]), "{got:?}");
}
