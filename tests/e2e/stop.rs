//! A graceful stop: what is under way ends well, and nothing new begins.

use trimtab_tests::{
    Balancer, Client, DEADLINE, Load, Origin, Port, RawOrigin, Setup, ask_admin, get, wait_until,
};

/// Starts a request that the origin holds back.
async fn hold(balancer: &Balancer, origin: &Origin) -> Client {
    let mut client = Client::connect(balancer.address).await;
    client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    wait_until("it is with the origin", DEADLINE, || origin.in_flight() == 1).await;
    client
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_then_the_balancer_ends() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .workers(2)
        .top("drain = \"1h\"")
        .start()
        .await;
    let mut held = hold(&balancer, &origin).await;
    balancer.handle().stop().await;
    wait_until("it is not ready any more", DEADLINE, || {
        !balancer.handle().is_ready()
    })
    .await;
    origin.release();
    let response = held.response().await;
    assert_eq!((response.status, response.text()), (200, "a".into()));
    assert_eq!(
        response.field("connection"),
        Some("close"),
        "the client is told: {}",
        response.head
    );
    assert_eq!(held.until_closed().await, "");
    balancer.join().await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_new_ones_refused() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .workers(2)
        .top("drain = \"1h\"")
        .start()
        .await;
    let mut idle = Client::connect(balancer.address).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut fresh = Client::connect(balancer.address).await;
    let mut held = hold(&balancer, &origin).await;
    let _port = Port::of(balancer.address);
    balancer.handle().stop().await;
    assert_eq!(idle.until_closed().await, "", "without a word");
    assert_eq!(fresh.until_closed().await, "", "without a word");
    let mut refused = false;
    while !refused {
        refused = Client::try_connect(balancer.address).await.is_err();
    }
    origin.release();
    assert_eq!(held.response().await.status, 200);
    balancer.join().await;
}

#[tokio::test]
async fn a_response_that_flows_is_finished() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let origin = RawOrigin::start(move |mut peer| {
        let mut wait = wait.clone();
        async move {
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
                .await;
            wait.wait_for(|go| *go).await.unwrap();
            peer.send("other").await;
            peer.until_closed().await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).top("drain = \"1h\"").start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    origin.wait_for("GET /").await;
    balancer.handle().stop().await;
    wait_until("it is not ready any more", DEADLINE, || {
        !balancer.handle().is_ready()
    })
    .await;
    go.send_replace(true);
    let response = client.response().await;
    assert!(response.is_complete);
    assert_eq!(response.text(), "firstother");
    balancer.join().await;
}

#[tokio::test]
async fn when_the_drain_time_is_over_connections_are_cut() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).top("drain = \"200ms\"").start().await;
    let mut held = hold(&balancer, &origin).await;
    balancer.stop().await;
    assert!(held.try_response().await.is_err(), "no answer");
    wait_until("the origin is told", DEADLINE, || origin.in_flight() == 0).await;
}

#[tokio::test]
async fn without_drain_time_the_end_comes_at_once() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).top("drain = \"0s\"").start().await;
    let _held = hold(&balancer, &origin).await;
    balancer.stop().await;
}

#[tokio::test]
async fn for_the_delay_it_says_that_it_is_not_ready_and_serves() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .with_admin()
        .top("drain_delay = \"1h\"")
        .start()
        .await;
    let mut kept = Client::connect(balancer.address).await;
    assert_eq!(kept.get("/").await.status, 200);
    balancer.handle().stop().await;
    wait_until("it is not ready any more", DEADLINE, || {
        !balancer.handle().is_ready()
    })
    .await;
    let admin = balancer.handle().admin().unwrap();
    assert_eq!(ask_admin(admin, "/readyz").await.status, 503);
    for _ in 0..20 {
        assert_eq!(kept.get("/").await.status, 200, "who is there stays");
        assert_eq!(
            get(balancer.address, "/").await.status,
            200,
            "who comes is served"
        );
    }
}

#[tokio::test]
async fn after_the_delay_it_ends() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .top("drain_delay = \"50ms\"")
        .start()
        .await;
    assert_eq!(get(balancer.address, "/").await.status, 200);
    balancer.stop().await;
}

#[tokio::test]
async fn under_load_every_request_that_was_accepted_is_answered() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .workers(2)
        .top("drain = \"1h\"")
        .start()
        .await;
    // Clients go on after its end, and what they meet then must not be another test's.
    let _port = Port::of(balancer.address);
    let load = Load::start(balancer.address, 32);
    load.more(500).await;
    balancer.stop().await;
    let outcome = load.stop().await;
    // What fails is to connect to a balancer that is gone, or to have a connection closed that carried nothing yet: an
    // idle one, or one that the kernel took in the moment in which the socket was closed. Never an answer that had begun.
    for failure in &outcome.failures {
        let had_not_begun = failure.contains("unexpected end of file") || failure.contains("reset by peer");
        assert!(failure.starts_with("connecting") || had_not_begun, "{outcome:?}");
    }
}

#[tokio::test]
async fn asking_a_balancer_that_has_stopped_is_answered() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let handle = balancer.handle().clone();
    balancer.stop().await;
    assert_eq!(handle.reload().await, Err("the balancer is stopping".to_owned()));
    handle.stop().await;
}
