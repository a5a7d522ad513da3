//! What a full backend and a full pool mean: who waits, in which order, and who is refused.

use super::{Asker, WAYS, Way, active, count, until_quiet, waiting};
use tokio::task::JoinHandle;
use trimtab_tests::{Balancer, Client, DEADLINE, Origin, RawOrigin, Setup, get, ok, wait_until};

/// Asks on a connection of its own, in the background.
async fn begin(balancer: &Balancer, way: Way, path: &'static str) -> JoinHandle<(u16, String)> {
    let mut asker = Asker::new(balancer, way).await;
    tokio::spawn(async move { asker.ask("GET", path).await })
}

async fn until_waiting(balancer: &Balancer, number: u64) {
    let what = format!("{number} wait");
    wait_until(&what, DEADLINE, || waiting(balancer) == number).await;
}

#[tokio::test]
async fn who_finds_no_room_waits_and_is_served() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let setup = Setup::to(origin.address())
            .pool("limits = { backend_requests = 1, queue_timeout = \"1h\" }")
            .start()
            .await;
        let mut asked = vec![begin(&setup, way, "/held").await];
        wait_until("the first is there", DEADLINE, || origin.in_flight() == 1).await;
        for (path, number) in [("/1", 1), ("/2", 2), ("/3", 3)] {
            asked.push(begin(&setup, way, path).await);
            until_waiting(&setup, number).await;
        }
        assert_eq!((origin.in_flight(), active(&setup)), (1, 1), "{way:?}");
        origin.release();
        for asked in asked {
            assert_eq!(asked.await.unwrap().0, 200, "{way:?}");
        }
        assert_eq!(count(&setup, |counts| &counts.queued), 3, "{way:?}");
        until_quiet(&setup).await;
    }
}

#[tokio::test]
async fn nobody_overtakes() {
    for way in WAYS {
        // The first is held until all others wait.
        let (go, gone) = tokio::sync::watch::channel(false);
        let origin = RawOrigin::start(move |mut peer| {
            let mut gone = gone.clone();
            async move {
                while let Some(head) = peer.request().await {
                    if head.starts_with("GET /first") {
                        let _ = gone.wait_for(|gone| *gone).await;
                    }
                    peer.send(ok("fine")).await;
                }
            }
        })
        .await;
        let balancer = Setup::to(origin.address())
            .pool("limits = { requests = 1, queue_timeout = \"1h\" }")
            .start()
            .await;
        let mut asked = vec![begin(&balancer, way, "/first").await];
        origin.wait_for("/first").await;
        for (number, path) in ["/1", "/2", "/3", "/4", "/5"].into_iter().enumerate() {
            asked.push(begin(&balancer, way, path).await);
            until_waiting(&balancer, number as u64 + 1).await;
        }
        go.send_replace(true);
        for asked in asked {
            assert_eq!(asked.await.unwrap().0, 200, "{way:?}");
        }
        let received = origin.received_by_connection().concat();
        let received = String::from_utf8_lossy(&received).into_owned();
        let order: Vec<_> = received
            .split("GET /")
            .skip(1)
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        // The limit is one request, so one connection carries all of them in turn.
        assert_eq!(order, ["first", "1", "2", "3", "4", "5"], "{way:?}");
    }
}

#[tokio::test]
async fn a_full_queue_means_503_at_once_and_when_to_come_back() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let balancer = Setup::to(origin.address())
            .pool("limits = { backend_requests = 1, queue = 1, queue_timeout = \"1h\" }")
            .start()
            .await;
        let asked = [
            begin(&balancer, way, "/held").await,
            begin(&balancer, way, "/held").await,
        ];
        until_waiting(&balancer, 1).await;
        let (status, text) = begin(&balancer, way, "/").await.await.unwrap();
        assert_eq!(status, 503, "{way:?}");
        assert_eq!(text, "all backends are busy, and too many requests wait\n");
        assert_eq!(count(&balancer, |counts| &counts.queue_full), 1);
        let refused = get(balancer.address, "/").await;
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
        origin.release();
        for asked in asked {
            assert_eq!(asked.await.unwrap().0, 200, "{way:?}");
        }
    }
}

#[tokio::test]
async fn who_waits_for_too_long_gets_503_and_the_connection_goes_on() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let balancer = Setup::to(origin.address())
            .pool("limits = { backend_requests = 1, queue_timeout = \"50ms\" }")
            .start()
            .await;
        let held = begin(&balancer, way, "/held").await;
        wait_until("the first is there", DEADLINE, || origin.in_flight() == 1).await;
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..2 {
            let answer = asker.ask("GET", "/").await;
            assert_eq!(answer, (503, "all backends are busy\n".into()), "{way:?}");
        }
        assert_eq!(count(&balancer, |counts| &counts.queue_timeouts), 2, "{way:?}");
        origin.release();
        assert_eq!(held.await.unwrap().0, 200, "{way:?}");
        assert_eq!(asker.ask("GET", "/").await.0, 200, "{way:?}");
        until_quiet(&balancer).await;
    }
}

#[tokio::test]
async fn a_full_backend_is_not_picked_while_another_has_room() {
    for way in WAYS {
        let names = ["a", "b", "c", "d", "e"];
        let origins = Origin::start_all(names).await;
        // By the client's address, so the policy names the same one for all.
        let balancer = Setup::new()
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"ip-hash\"")
            .pool("limits = { backend_requests = 2, queue_timeout = \"1h\" }")
            .start()
            .await;
        let mut asked = Vec::new();
        for number in 1..=10 {
            asked.push(begin(&balancer, way, "/held").await);
            wait_until("it is there", DEADLINE, || {
                origins.iter().map(Origin::in_flight).sum::<usize>() == number
            })
            .await;
        }
        assert!(origins.iter().all(|origin| origin.in_flight() == 2), "{way:?}");
        asked.push(begin(&balancer, way, "/held").await);
        until_waiting(&balancer, 1).await;
        origins[3].release();
        wait_until("the last is at the one with room", DEADLINE, || {
            origins[3].hits() == 3
        })
        .await;
        origins.iter().for_each(Origin::release);
        for asked in asked {
            assert_eq!(asked.await.unwrap().0, 200, "{way:?}");
        }
        assert_eq!(
            balancer.faults(trimtab::policy::FaultKind::Unusable),
            0,
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_queue() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let balancer = Setup::to(origin.address())
            .pool("limits = { backend_requests = 1, queue_timeout = \"1h\" }")
            .start()
            .await;
        let held = begin(&balancer, way, "/held").await;
        wait_until("the first is there", DEADLINE, || origin.in_flight() == 1).await;
        let leaving = begin(&balancer, way, "/").await;
        until_waiting(&balancer, 1).await;
        let last = begin(&balancer, way, "/").await;
        until_waiting(&balancer, 2).await;
        leaving.abort();
        until_waiting(&balancer, 1).await;
        origin.release();
        assert_eq!(held.await.unwrap().0, 200, "{way:?}");
        assert_eq!(last.await.unwrap().0, 200, "{way:?}");
        until_quiet(&balancer).await;
    }
}

#[tokio::test]
async fn limits_are_those_of_all_workers_together() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .workers(2)
        .pool("limits = { requests = 6, queue_timeout = \"1h\" }")
        .start()
        .await;
    let mut asked = Vec::new();
    for number in 1..=20 {
        asked.push(begin(&balancer, Way::Own, "/held").await);
        wait_until("it is there or waits", DEADLINE, || {
            origin.in_flight() + waiting(&balancer) as usize == number
        })
        .await;
    }
    assert_eq!((origin.in_flight(), waiting(&balancer)), (6, 14));
    origin.release();
    for asked in asked {
        assert_eq!(asked.await.unwrap().0, 200);
    }
    until_quiet(&balancer).await;
}

#[tokio::test]
async fn a_pool_without_backends_has_nobody_wait() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let balancer = Setup::to(origin.address())
            .pool("limits = { requests = 1, queue_timeout = \"1h\" }")
            .start()
            .await;
        let held = begin(&balancer, way, "/held").await;
        wait_until("the first is there", DEADLINE, || origin.in_flight() == 1).await;
        let pool = balancer.view().pool;
        pool.set_draining(balancer.id(0), true, std::time::Instant::now());
        let answer = begin(&balancer, way, "/").await.await.unwrap();
        assert_eq!(answer.1, "no usable backend\n", "{way:?}");
        origin.release();
        assert_eq!(held.await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn a_tcp_connection_waits_for_room_and_is_closed_when_there_is_none() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.send("hello").await;
        peer.until_closed().await;
    })
    .await;
    let setup = Setup::to(origin.address()).listener("protocol = \"tcp\"");
    let balancer = setup
        .clone()
        .pool("limits = { backend_requests = 1, queue_timeout = \"1h\" }")
        .start()
        .await;
    let first = Client::connect(balancer.address).await;
    wait_until("the first is there", DEADLINE, || origin.connections() == 1).await;
    let mut second = Client::connect(balancer.address).await;
    until_waiting(&balancer, 1).await;
    drop(first);
    wait_until("the second is there", DEADLINE, || origin.connections() == 2).await;
    second.send("x").await;
    let strict = setup
        .pool("limits = { backend_requests = 1, queue_timeout = \"50ms\" }")
        .start()
        .await;
    let _first = Client::connect(strict.address).await;
    wait_until("the first is there", DEADLINE, || origin.connections() == 3).await;
    assert_eq!(Client::connect(strict.address).await.until_closed().await, "");
    assert_eq!(count(&strict, |counts| &counts.queue_timeouts), 1);
}
