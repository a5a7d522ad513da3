//! Backends that die, fall ill, recover, or are taken out: what clients notice of it, which is nothing.

use std::time::{Duration, Instant};

use trimtab::pool::State;
use trimtab_tests::{Client, DEADLINE, Load, Origin, Setup, get, wait_until};

const CHECKS: &str = "health = { kind = \"http\", path = \"/healthz\", interval = \"200ms\", timeout = \"200ms\", fall = 3, rise = 2 }";

fn is_ejected(state: State) -> bool {
    matches!(state, State::Ejected { .. })
}

#[tokio::test]
async fn a_backend_killed_under_load_fails_no_get_and_comes_back() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = Setup::new()
        .workers(2)
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"")
        .pool(CHECKS)
        .start()
        .await;
    let load = Load::start(balancer.address, 16);
    load.more(200).await;
    origins[1].kill();
    // Down, or ejected before that by what real requests saw; both take it out.
    wait_until("the dead one is down", DEADLINE, || {
        balancer.state(1) == State::Down
    })
    .await;
    let before = origins[1].hits();
    load.more(200).await;
    assert_eq!(origins[1].hits(), before, "nothing reaches the dead");
    origins[1].revive().await;
    wait_until("it is back", DEADLINE, || balancer.state(1) == State::Ready).await;
    wait_until("it serves again", DEADLINE, || origins[1].hits() > before).await;
    load.stop().await.expect_no_failure();
}

#[tokio::test]
async fn a_backend_whose_check_fails_gets_nothing_though_it_serves() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"\noutlier = \"off\"")
        .pool(CHECKS)
        .start()
        .await;
    origins[0].set_status(500);
    wait_until("it is down", DEADLINE, || balancer.state(0) == State::Down).await;
    let before = origins[0].hits();
    for _ in 0..10 {
        assert_eq!(get(balancer.address, "/").await.text(), "b");
    }
    assert_eq!(origins[0].hits(), before);
    origins[0].set_status(200);
    wait_until("it is back", DEADLINE, || balancer.state(0) == State::Ready).await;
}

#[tokio::test]
async fn a_tcp_check_finds_a_dead_backend_without_any_request() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("health = { kind = \"tcp\", interval = \"50ms\", timeout = \"50ms\" }")
        .start()
        .await;
    origins[0].kill();
    wait_until("it is down", DEADLINE, || balancer.state(0) == State::Down).await;
    assert_eq!(get(balancer.address, "/").await.text(), "b");
}

#[tokio::test]
async fn a_backend_that_answers_503_is_ejected_and_returns_after_its_time() {
    let origins = Origin::start_all(["good", "ill"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"\noutlier = { consecutive_failures = 3, base_ejection = \"1s\" }")
        .start()
        .await;
    origins[1].set_status(503);
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..6 {
        client.get("/").await;
    }
    wait_until("it is ejected", DEADLINE, || is_ejected(balancer.state(1))).await;
    let before = origins[1].hits();
    assert_eq!(before, 3, "as many as it takes");
    for _ in 0..6 {
        assert_eq!(get(balancer.address, "/").await.text(), "good");
    }
    origins[1].set_status(200);
    wait_until("it returns", DEADLINE, || balancer.state(1) == State::Ready).await;
    for _ in 0..4 {
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
    assert!(origins[1].hits() > before);
}

#[tokio::test]
async fn half_the_pool_at_most_is_ejected() {
    let origins = Origin::start_all(["a", "b", "c", "d"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"\noutlier = { consecutive_failures = 2, base_ejection = \"1m\" }")
        .start()
        .await;
    for origin in &origins {
        origin.set_status(503);
    }
    let ejected = || (0..4).filter(|index| is_ejected(balancer.state(*index))).count();
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..40 {
        assert_eq!(client.get("/").await.status, 503);
    }
    wait_until("two are ejected", DEADLINE, || ejected() == 2).await;
    for origin in &origins {
        origin.set_status(200);
    }
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200, "the others go on");
    }
}

#[tokio::test]
async fn with_too_few_healthy_backends_health_is_ignored() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"\noutlier = \"off\"\npanic_threshold = 50")
        .pool(CHECKS)
        .start()
        .await;
    for origin in &origins {
        origin.set_status(500);
    }
    for index in 0..3 {
        wait_until("all are down", DEADLINE, || balancer.state(index) == State::Down).await;
    }
    for origin in &origins {
        origin.set_status(200);
    }
    // Whether or not a check has brought one back meanwhile, every request is served.
    Load::run(balancer.address, 4, 60).await.expect_no_failure();
}

#[tokio::test]
async fn all_ejected_keeps_serving() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool(
            "policy = \"round-robin\"\n\
             outlier = { consecutive_failures = 1, base_ejection = \"1m\", max_ejected = 100 }",
        )
        .start()
        .await;
    for origin in &origins {
        origin.set_status(503);
    }
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..10 {
        assert_eq!(
            client.get("/").await.text().len(),
            origins[0].name().len(),
            "an origin answered, not we"
        );
    }
    wait_until("both are ejected", DEADLINE, || {
        is_ejected(balancer.state(0)) && is_ejected(balancer.state(1))
    })
    .await;
    for origin in &origins {
        origin.set_status(200);
    }
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn without_the_panic_threshold_no_healthy_backend_means_503() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .pool("panic_threshold = 0\noutlier = \"off\"")
        .pool(CHECKS)
        .start()
        .await;
    origin.kill();
    wait_until("it is down", DEADLINE, || balancer.state(0) == State::Down).await;
    assert_eq!(get(balancer.address, "/").await.status, 503);
}

#[tokio::test]
async fn a_draining_backend_finishes_what_it_has_and_gets_nothing_new() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(balancer.address).await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        held.push(client);
    }
    wait_until("one each", DEADLINE, || {
        origins.iter().all(|origin| origin.in_flight() == 1)
    })
    .await;
    let pool = balancer.view().pool;
    assert_eq!(
        pool.set_draining(balancer.id(0), true, Instant::now()),
        Some(true)
    );
    for _ in 0..10 {
        assert_eq!(get(balancer.address, "/").await.text(), "b");
    }
    assert_eq!(origins[0].hits(), 0);
    origins.iter().for_each(Origin::release);
    for client in &mut held {
        assert_eq!(client.response().await.status, 200);
    }
    pool.set_draining(balancer.id(0), false, Instant::now());
    for _ in 0..4 {
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
    assert!(origins[0].hits() > 1, "it serves again");
}

#[tokio::test]
async fn a_weight_set_by_an_operator_takes_effect_at_once() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"weighted-round-robin\"")
        .start()
        .await;
    let pool = balancer.view().pool;
    pool.set_weight(balancer.id(0), 0, Instant::now());
    for _ in 0..10 {
        assert_eq!(get(balancer.address, "/").await.text(), "b");
    }
    pool.set_weight(balancer.id(0), 3, Instant::now());
    for _ in 0..40 {
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
    assert_eq!((origins[0].hits(), origins[1].hits()), (30, 20));
}

#[tokio::test]
async fn a_backend_that_came_back_starts_slowly() {
    let origins = Origin::start_all(["a", "b"]).await;
    let balancer = Setup::new()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"weighted-round-robin\"\nslow_start = \"1h\"\noutlier = \"off\"")
        .start()
        .await;
    let pool = balancer.view().pool;
    pool.set_down(balancer.id(0), true, Instant::now());
    pool.set_down(balancer.id(0), false, Instant::now());
    assert_eq!(pool.snapshot().members[0].ramp, 10);
    for _ in 0..110 {
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
    assert_eq!((origins[0].hits(), origins[1].hits()), (10, 100));
    pool.advance(Instant::now() + Duration::from_secs(3600));
    assert_eq!(pool.snapshot().members[0].ramp, 100);
}
