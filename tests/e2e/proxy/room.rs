//! A full listener: who makes room, and who is turned away.

use std::time::Duration;

use trimtab_tests::{
    Balancer, Client, DEADLINE, Origin, RawOrigin, Setup,
    frames::{Framed, kind},
    get, ok, wait_until,
};

fn evicted(balancer: &Balancer) -> u64 {
    balancer.handle().listener_views()[0]
        .counters
        .total(|worker| &worker.connections_evicted)
}

fn refused(balancer: &Balancer) -> u64 {
    balancer.handle().listener_views()[0]
        .counters
        .total(|worker| &worker.connections_refused)
}

fn open(balancer: &Balancer) -> u64 {
    balancer.handle().listener_views()[0].counters.open()
}

/// A client whose connection waits for its next request, for longer than those that come after it.
async fn idle(balancer: &Balancer) -> Client {
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 200);
    // The worker counts in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    client
}

/// What has not been used for so long is idle.
async fn a_second() {
    tokio::time::sleep(Duration::from_millis(1200)).await;
}

#[tokio::test]
async fn i6_the_connection_that_is_idle_for_longest_makes_room() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { connections = 3 }")
        .start()
        .await;
    let mut first = idle(&balancer).await;
    let mut second = idle(&balancer).await;
    let mut third = idle(&balancer).await;
    a_second().await;
    let mut fourth = idle(&balancer).await;
    assert_eq!(first.until_closed().await, "", "closed without a word");
    for client in [&mut second, &mut third, &mut fourth] {
        assert_eq!(client.get("/").await.status, 200, "the others go on");
    }
    assert_eq!((evicted(&balancer), refused(&balancer)), (1, 0));
    wait_until("it is counted as closed", DEADLINE, || open(&balancer) == 3).await;
}

#[tokio::test]
async fn i6_a_used_connection_is_kept_and_the_new_one_turned_away() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { connections = 2 }")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(balancer.address).await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        held.push(client);
    }
    wait_until("both are with the origin", DEADLINE, || origin.in_flight() == 2).await;
    assert_eq!(Client::connect(balancer.address).await.until_closed().await, "");
    assert_eq!((evicted(&balancer), refused(&balancer)), (0, 1));
    origin.release();
    for client in &mut held {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(
        Client::connect(balancer.address).await.until_closed().await,
        "",
        "they have been used just now"
    );
    a_second().await;
    assert_eq!(
        get(balancer.address, "/").await.status,
        200,
        "one of them makes room"
    );
}

#[tokio::test]
async fn i6_what_has_said_nothing_goes_before_what_was_used() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { connections = 2 }")
        .start()
        .await;
    let mut used = idle(&balancer).await;
    let mut silent = Client::connect(balancer.address).await;
    wait_until("both are in", DEADLINE, || open(&balancer) == 2).await;
    a_second().await;
    let mut new = idle(&balancer).await;
    assert_eq!(silent.until_closed().await, "");
    assert_eq!(used.get("/").await.status, 200);
    assert_eq!(new.get("/").await.status, 200);
}

#[tokio::test]
async fn i6_a_quiet_connection_of_http2_makes_room_and_is_told() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { connections = 1 }")
        .start()
        .await;
    let mut framed = Framed::connect(balancer.address).await;
    framed.get(1, &[]).await;
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    a_second().await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 200);
    let goaway = framed.until(kind::GOAWAY).await.unwrap();
    assert_eq!(goaway.error(), Some(0));
}

#[tokio::test]
async fn the_limit_holds_over_all_workers() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .workers(2)
        .listener("limits = { connections = 8 }")
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = Client::connect(balancer.address).await;
        client.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        clients.push(client);
    }
    wait_until("all are let in or turned away", DEADLINE, || {
        open(&balancer) + refused(&balancer) == 24
    })
    .await;
    assert!((8..=9).contains(&open(&balancer)), "{} are open", open(&balancer));
    origin.release();
}

#[tokio::test]
async fn a_reload_changes_the_limit_and_keeps_the_count() {
    let origin = RawOrigin::answering(ok("")).await;
    let setup = |limit: &str| Setup::to(origin.address()).listener(limit);
    let balancer = setup("").start().await;
    let _clients = [idle(&balancer).await, idle(&balancer).await];
    balancer
        .replace(&setup("limits = { connections = 2 }"))
        .await
        .unwrap();
    assert_eq!(open(&balancer), 2);
    a_second().await;
    let _new = idle(&balancer).await;
    assert_eq!(evicted(&balancer), 1);
}
