//! Which outcomes are retried, and that a budget bounds it.

use super::{Asker, WAYS, Way, count, until_quiet};
use trimtab_tests::{DEADLINE, Origin, RawOrigin, Setup, ok, wait_until};

const TURNS: &str = "policy = \"round-robin\"\noutlier = \"off\"";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

#[tokio::test]
async fn a_get_answered_with_503_is_tried_elsewhere_and_the_connection_is_kept() {
    for way in WAYS {
        let busy = RawOrigin::answering(BUSY).await;
        let fine = RawOrigin::answering(ok("fine")).await;
        let balancer = Setup::to(busy.address())
            .backend(fine.address())
            .pool(TURNS)
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..8 {
            assert_eq!(asker.ask("GET", "/").await, (200, "fine".into()), "{way:?}");
        }
        assert!(busy.requests() >= 4, "{way:?}: {}", busy.requests());
        assert_eq!(count(&balancer, |counts| &counts.retries), busy.requests() as u64);
        assert_eq!(busy.connections(), 1, "{way:?}: its responses were whole");
        until_quiet(&balancer).await;
    }
}

#[tokio::test]
async fn a_long_answer_that_nobody_gets_ends_with_its_connection() {
    for way in WAYS {
        let busy = RawOrigin::start(|mut peer| async move {
            peer.request().await;
            peer.send("HTTP/1.1 503 Busy\r\ncontent-length: 1000000\r\n\r\nbus")
                .await;
            peer.until_closed().await;
        })
        .await;
        let fine = RawOrigin::answering(ok("fine")).await;
        let balancer = Setup::to(busy.address())
            .backend(fine.address())
            .pool(TURNS)
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..4 {
            assert_eq!(asker.ask("GET", "/").await, (200, "fine".into()), "{way:?}");
        }
        wait_until("the connections are closed", DEADLINE, || {
            busy.connections() >= 2 && busy.closed() == busy.connections()
        })
        .await;
        until_quiet(&balancer).await;
    }
}

#[tokio::test]
async fn a_post_or_a_status_that_is_not_named_is_not_sent_again() {
    for way in WAYS {
        let busy = Origin::start("busy").await;
        busy.set_status(503);
        let fine = Origin::start("fine").await;
        let setup = Setup::to(busy.address()).backend(fine.address()).pool(TURNS);
        let balancer = setup.start().await;
        let mut asker = Asker::new(&balancer, way).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(asker.ask("POST", "/").await.0);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 503, 503], "{way:?}");
        assert_eq!((busy.hits(), fine.hits()), (2, 2));
        let other = setup.pool("retry = { on = [\"reset\", 502] }").start().await;
        let mut asker = Asker::new(&other, way).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(asker.ask("GET", "/").await.0);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 503, 503], "{way:?}");
    }
}

#[tokio::test]
async fn when_all_have_answered_with_503_the_client_gets_that_of_the_last() {
    for way in WAYS {
        let busy = Origin::start_all(["one", "two"]).await;
        busy.iter().for_each(|origin| origin.set_status(503));
        let balancer = Setup::new()
            .backends(busy.iter().map(Origin::address))
            .pool(TURNS)
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        let (status, text) = asker.ask("GET", "/").await;
        assert!(
            status == 503 && ["one", "two"].contains(&text.as_str()),
            "{way:?}: {text}"
        );
        // The third attempt would have nobody new.
        assert_eq!((busy[0].hits(), busy[1].hits()), (1, 1), "{way:?}");
    }
}

#[tokio::test]
async fn without_a_budget_nothing_is_sent_again_and_that_is_counted() {
    for way in WAYS {
        let broken = RawOrigin::start(|mut peer| async move {
            peer.request().await;
        })
        .await;
        let busy = RawOrigin::answering(BUSY).await;
        let balancer = Setup::to(broken.address())
            .backend(busy.address())
            .pool(TURNS)
            .pool("retry = { budget = 0, floor = 0 }")
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(asker.ask("GET", "/").await.0);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [502, 502, 503, 503], "{way:?}");
        assert_eq!((broken.requests(), busy.requests()), (2, 2), "{way:?}");
        assert_eq!(count(&balancer, |counts| &counts.retries_denied), 4, "{way:?}");
        assert_eq!(count(&balancer, |counts| &counts.retries), 0, "{way:?}");
    }
}

#[tokio::test]
async fn the_budget_is_a_share_of_the_requests() {
    let busy = RawOrigin::answering(BUSY).await;
    let fine = RawOrigin::answering(ok("fine")).await;
    let balancer = Setup::to(busy.address())
        .backend(fine.address())
        .pool(TURNS)
        .pool("retry = { budget = 10, floor = 0 }")
        .start()
        .await;
    let mut asker = Asker::new(&balancer, Way::Own).await;
    for _ in 0..105 {
        asker.ask("GET", "/").await;
    }
    let [made, denied] = [
        count(&balancer, |counts| &counts.retries),
        count(&balancer, |counts| &counts.retries_denied),
    ];
    // The n-th is paid for by n requests; each retry takes the next turn, so a little more than half of them were needed.
    assert_eq!(made, 10, "{denied} denied");
    assert!(denied >= 35, "{denied}");
}

#[tokio::test]
async fn a_dead_backend_costs_nothing_of_the_budget() {
    for way in WAYS {
        let dead = Origin::start("dead").await;
        let fine = Origin::start("fine").await;
        let balancer = Setup::to(dead.address())
            .backend(fine.address())
            .pool(TURNS)
            .pool("retry = { budget = 0, floor = 0 }")
            .start()
            .await;
        dead.kill();
        let mut asker = Asker::new(&balancer, way).await;
        for method in ["GET", "POST", "GET", "POST"] {
            assert_eq!(asker.ask(method, "/").await.0, 200, "{way:?}");
        }
        assert!(count(&balancer, |counts| &counts.retries) > 0, "{way:?}");
    }
}

#[tokio::test]
async fn no_connection_is_no_reason_if_the_file_says_so() {
    for way in WAYS {
        let dead = Origin::start("dead").await;
        let fine = Origin::start("fine").await;
        let balancer = Setup::to(dead.address())
            .backend(fine.address())
            .pool(TURNS)
            .pool("retry = { on = [] }")
            .start()
            .await;
        dead.kill();
        let mut asker = Asker::new(&balancer, way).await;
        let mut statuses = [asker.ask("GET", "/").await.0, asker.ask("GET", "/").await.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{way:?}");
    }
}

#[tokio::test]
async fn a_frozen_backend_costs_a_get_the_try_timeout_only() {
    for way in WAYS {
        let frozen = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
        let fine = RawOrigin::answering(ok("fine")).await;
        let balancer = Setup::to(frozen.address())
            .backend(fine.address())
            .pool(TURNS)
            .pool("response_timeout = \"1h\"\nretry = { try_timeout = \"50ms\" }")
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..4 {
            assert_eq!(asker.ask("GET", "/").await, (200, "fine".into()), "{way:?}");
        }
        assert!(frozen.requests() >= 2, "{way:?}");
        wait_until("the frozen one is let go", DEADLINE, || {
            frozen.closed() == frozen.connections()
        })
        .await;
        until_quiet(&balancer).await;
    }
}

#[tokio::test]
async fn the_try_timeout_is_not_for_what_cannot_be_sent_again() {
    for way in WAYS {
        let slow = Origin::start_all(["one", "two"]).await;
        let balancer = Setup::new()
            .backends(slow.iter().map(Origin::address))
            .pool(TURNS)
            .pool("retry = { try_timeout = \"20ms\" }")
            .start()
            .await;
        let in_flight = || slow[0].in_flight() + slow[1].in_flight();
        let [mut posting, mut getting] = [Asker::new(&balancer, way).await, Asker::new(&balancer, way).await];
        let posting = tokio::spawn(async move { posting.ask("POST", "/held").await });
        wait_until("the POST is there", DEADLINE, || in_flight() == 1).await;
        // It comes later, and has been tried elsewhere: so the time of the POST would be over, too.
        let getting = tokio::spawn(async move { getting.ask("GET", "/held").await });
        wait_until("the GET is elsewhere", DEADLINE, || {
            count(&balancer, |counts| &counts.retries) == 1
        })
        .await;
        slow.iter().for_each(Origin::release);
        assert_eq!(posting.await.unwrap().0, 200, "{way:?}");
        assert_eq!(getting.await.unwrap().0, 200, "{way:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_nobody_pays_another_for_goes_on() {
    for way in WAYS {
        let slow = Origin::start_all(["one", "two"]).await;
        let balancer = Setup::new()
            .backends(slow.iter().map(Origin::address))
            .pool(TURNS)
            .pool("retry = { try_timeout = \"20ms\", budget = 0, floor = 0 }")
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        let asking = tokio::spawn(async move { asker.ask("GET", "/held").await });
        wait_until("the budget was asked", DEADLINE, || {
            count(&balancer, |counts| &counts.retries_denied) == 1
        })
        .await;
        slow.iter().for_each(Origin::release);
        assert_eq!(asking.await.unwrap().0, 200, "{way:?}");
        assert_eq!(slow[0].hits() + slow[1].hits(), 1, "{way:?}");
    }
}
