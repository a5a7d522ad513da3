//! Most connections to a backend, whoever holds them.

use super::{Asker, WAYS, Way, count, until_quiet};
use trimtab_tests::{Balancer, DEADLINE, Origin, RawOrigin, Setup, ok, wait_until};

const ONE: &str = "limits = { connections = 1, queue_timeout = \"1h\" }\nidle_timeout = \"1h\"";

fn connections(balancer: &Balancer) -> u32 {
    balancer.view().pool.snapshot().members[0].backend.connections()
}

#[tokio::test]
async fn a_request_waits_for_the_connection_of_another() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let balancer = Setup::to(origin.address()).pool(ONE).start().await;
        let mut first = Asker::new(&balancer, way).await;
        let first = tokio::spawn(async move { first.ask("GET", "/held").await.0 });
        wait_until("the first is there", DEADLINE, || origin.in_flight() == 1).await;
        let mut second = Asker::new(&balancer, way).await;
        let second = tokio::spawn(async move { second.ask("GET", "/").await.0 });
        wait_until("the second waits", DEADLINE, || {
            count(&balancer, |counts| &counts.queued) == 1
        })
        .await;
        assert_eq!(connections(&balancer), 1, "{way:?}");
        origin.release();
        assert_eq!(
            [first.await.unwrap(), second.await.unwrap()],
            [200, 200],
            "{way:?}"
        );
        until_quiet(&balancer).await;
        assert_eq!(connections(&balancer), 1, "{way:?}: it is kept");
    }
}

#[tokio::test]
async fn an_unused_connection_of_the_other_way_makes_room() {
    let origin = RawOrigin::answering(ok("fine")).await;
    let balancer = Setup::to(origin.address()).pool(ONE).start().await;
    for (number, way) in [Way::Own, Way::Library, Way::Own].into_iter().enumerate() {
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..2 {
            assert_eq!(asker.ask("GET", "/").await.0, 200, "{way:?}");
        }
        until_quiet(&balancer).await;
        assert_eq!(origin.connections(), number + 1);
        wait_until("one is left", DEADLINE, || origin.open_connections() == 1).await;
        assert_eq!(connections(&balancer), 1);
    }
}

#[tokio::test]
async fn a_worker_gives_up_unused_connections_that_another_waits_for() {
    let origin = RawOrigin::answering(ok("fine")).await;
    let balancer = Setup::to(origin.address()).workers(2).pool(ONE).start().await;
    // The system deals connections out to the workers.
    for number in 0..24 {
        let mut asker = Asker::new(&balancer, Way::Own).await;
        assert_eq!(asker.ask("GET", "/").await.0, 200, "{number}");
    }
    let seen = balancer.handle().metrics().workers.iter();
    let seen = seen.filter(|worker| worker.connections.load(std::sync::atomic::Ordering::Relaxed) > 0);
    assert_eq!(seen.count(), 2, "24 connections, all to one worker");
    assert!(count(&balancer, |counts| &counts.queued) > 0);
}

#[tokio::test]
async fn connections_are_counted_until_they_are_closed() {
    for way in WAYS {
        let origin = RawOrigin::start(|mut peer| async move {
            while let Some(head) = peer.request().await {
                if head.starts_with("GET /broken") {
                    return;
                }
                peer.send(ok("fine")).await;
            }
        })
        .await;
        let balancer = Setup::to(origin.address())
            .pool("outlier = \"off\"\nretry = { attempts = 1 }\nidle_connections = 0")
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        assert_eq!(asker.ask("GET", "/").await.0, 200, "{way:?}");
        assert_eq!(asker.ask("GET", "/broken").await.0, 502, "{way:?}");
        wait_until("none is left", DEADLINE, || connections(&balancer) == 0).await;
    }
}

#[tokio::test]
async fn http2_needs_one_connection_for_many_requests() {
    let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let balancer = Setup::to(origin.address())
        .pool("protocol = \"h2\"\nresponse_timeout = \"1h\"")
        .pool("limits = { connections = 1, queue_timeout = \"1h\" }")
        .start()
        .await;
    let mut asked = Vec::new();
    for number in 1..=10 {
        let mut asker = Asker::new(&balancer, Way::Own).await;
        asked.push(tokio::spawn(async move { asker.ask("GET", "/").await }));
        wait_until("it is there", DEADLINE, || super::active(&balancer) == number).await;
    }
    assert_eq!((connections(&balancer), origin.connections()), (1, 1));
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    until_quiet(&balancer).await;
}
