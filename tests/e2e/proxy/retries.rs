//! When a request is sent again, and when it must not be.

use trimtab_tests::{Client, DEADLINE, Origin, Port, RawOrigin, Setup, get, ok, wait_until};

/// An origin that answers the first request of its first connection and closes that one when the second arrives.
async fn closing_when_reused() -> RawOrigin {
    RawOrigin::start(|mut peer| async move {
        peer.request().await;
        peer.send(ok("fine")).await;
        if peer.number == 0 {
            // Closed with a request unanswered: exactly what a keep-alive time-out in the wrong moment looks like.
            peer.more().await;
            return;
        }
        while peer.request().await.is_some() {
            peer.send(ok("fine")).await;
        }
    })
    .await
}

#[tokio::test]
async fn connections_to_origins_are_used_again() {
    let origin = RawOrigin::answering(ok("fine")).await;
    let balancer = Setup::to(origin.address()).start().await;
    for _ in 0..10 {
        assert_eq!(get(balancer.address, "/").await.text(), "fine");
    }
    assert_eq!((origin.connections(), origin.requests()), (1, 10));
}

#[tokio::test]
async fn connections_that_may_not_be_kept_are_not() {
    let origin = RawOrigin::answering(ok("fine")).await;
    let balancer = Setup::to(origin.address())
        .pool("idle_connections = 0")
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(get(balancer.address, "/").await.text(), "fine");
    }
    assert_eq!(origin.connections(), 3);
}

#[tokio::test]
async fn a_connection_closed_just_when_reused_is_invisible_to_a_get() {
    let origin = closing_when_reused().await;
    let balancer = Setup::to(origin.address())
        .pool("retry = { attempts = 1 }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..3 {
        let response = client.get("/").await;
        assert_eq!((response.status, response.text()), (200, "fine".into()));
    }
    assert_eq!(origin.connections(), 2);
    assert_eq!(balancer.count(|worker| &worker.retries), 1);
}

#[tokio::test]
async fn a_post_is_not_sent_again_once_bytes_were_written() {
    let origin = closing_when_reused().await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 200);
    let post = "POST /once HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(client.ask(post).await.status, 502);
    assert_eq!(origin.received().matches("POST /once").count(), 1);
}

#[tokio::test]
async fn a_closed_connection_that_was_noticed_is_no_reason_to_fail_a_post() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.request().await;
        peer.send(ok("fine")).await;
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    for number in 1..5 {
        // The close of the one before arrives at an unknown moment, so it is waited for.
        wait_until("the origin accepted", DEADLINE, || {
            origin.connections() >= number - 1
        })
        .await;
        let response = client
            .ask("POST / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi")
            .await;
        assert!(
            response.status == 200 || response.status == 502,
            "{}",
            response.status
        );
    }
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_elsewhere_for_any_method() {
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        let dead = Port::new();
        let origin = RawOrigin::answering(ok("alive")).await;
        let balancer = Setup::to(dead.address().to_string())
            .backend(origin.address())
            .pool("policy = \"round-robin\"\noutlier = \"off\"")
            .start()
            .await;
        let mut client = Client::connect(balancer.address).await;
        for _ in 0..6 {
            let response = client.ask(request).await;
            assert_eq!((response.status, response.text()), (200, "alive".into()));
        }
        assert_eq!(origin.requests(), 6);
        assert!(
            balancer.count(|worker| &worker.retries) > 0,
            "the dead one was tried too"
        );
    }
}

#[tokio::test]
async fn a_get_whose_origin_breaks_before_answering_is_tried_elsewhere() {
    let broken = RawOrigin::start(|mut peer| async move {
        peer.request().await;
    })
    .await;
    let origin = RawOrigin::answering(ok("alive")).await;
    let balancer = Setup::to(broken.address())
        .backend(origin.address())
        .pool("policy = \"round-robin\"\noutlier = \"off\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await.text(), "alive");
    }
    assert!(broken.requests() > 0);
}

#[tokio::test]
async fn attempts_are_limited() {
    let broken: Vec<_> = {
        let mut broken = Vec::new();
        for _ in 0..4 {
            broken.push(
                RawOrigin::start(|mut peer| async move {
                    peer.request().await;
                })
                .await,
            );
        }
        broken
    };
    for attempts in [1, 2, 3] {
        let balancer = Setup::new()
            .backends(broken.iter().map(RawOrigin::address))
            .pool(&format!("retry = {{ attempts = {attempts} }}\noutlier = \"off\""))
            .start()
            .await;
        let before: usize = broken.iter().map(RawOrigin::requests).sum();
        assert_eq!(get(balancer.address, "/").await.status, 502);
        let after: usize = broken.iter().map(RawOrigin::requests).sum();
        assert_eq!(after - before, attempts);
    }
}

#[tokio::test]
async fn with_all_backends_dead_the_answer_is_502() {
    let dead = [Port::new(), Port::new()];
    let setup = Setup::new().backends(dead.iter().map(|port| port.address().to_string()));
    let balancer = setup.start().await;
    assert_eq!(get(balancer.address, "/").await.status, 502);
}

#[tokio::test]
async fn with_all_backends_drained_the_answer_is_503() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let view = balancer.view();
    view.pool
        .set_draining(balancer.id(0), true, std::time::Instant::now());
    assert_eq!(get(balancer.address, "/").await.status, 503);
    assert_eq!(origin.hits(), 0);
}
