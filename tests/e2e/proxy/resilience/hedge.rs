//! A second attempt beside one that takes long.

use super::{Asker, WAYS, Way, count, until_quiet};
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;
use trimtab::pool::{Load, State};
use trimtab_tests::{Balancer, DEADLINE, RawOrigin, Setup, ok, wait_until};

const HEDGED: &str = "retry = { hedge_after = \"20ms\" }\noutlier = { consecutive_failures = 1 }";

/// Answers nothing.
async fn frozen() -> RawOrigin {
    RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await
}

/// Answers each request with this once it is told to.
async fn held(answer: String) -> (RawOrigin, watch::Sender<bool>) {
    let (go, gone) = watch::channel(false);
    let origin = RawOrigin::start(move |mut peer| {
        let (mut gone, answer) = (gone.clone(), answer.clone());
        async move {
            while peer.request().await.is_some() {
                let _ = gone.wait_for(|gone| *gone).await;
                peer.send(&answer).await;
            }
        }
    })
    .await;
    (origin, go)
}

async fn balancer(first: &RawOrigin, second: &RawOrigin, pool: &str) -> Balancer {
    Setup::to(first.address())
        .backend(second.address())
        .pool(pool)
        .start()
        .await
}

/// Attempts without a response, or with one that says as much.
fn failures(balancer: &Balancer) -> u64 {
    let snapshot = balancer.view().pool.snapshot();
    let loads = snapshot.members.iter().flat_map(|member| member.backend.loads());
    let of = |load: &Load| load.failures.load(Relaxed) + load.responses[5].load(Relaxed);
    loads.map(of).sum()
}

#[tokio::test]
async fn the_quicker_one_is_taken_and_the_slow_one_is_let_go_without_blame() {
    for way in WAYS {
        let slow = frozen().await;
        let fine = RawOrigin::answering(ok("fine")).await;
        let balancer = balancer(&slow, &fine, HEDGED).await;
        let mut asker = Asker::new(&balancer, way).await;
        for _ in 0..6 {
            assert_eq!(asker.ask("GET", "/").await, (200, "fine".into()), "{way:?}");
        }
        let [made, won] = [
            count(&balancer, |counts| &counts.hedges),
            count(&balancer, |counts| &counts.hedges_won),
        ];
        assert!(made > 0 && made == won, "{way:?}: {made} {won}");
        assert_eq!(made, slow.requests() as u64, "{way:?}");
        wait_until("the slow one is let go", DEADLINE, || {
            slow.closed() == slow.connections()
        })
        .await;
        until_quiet(&balancer).await;
        assert_eq!(failures(&balancer), 0, "{way:?}");
        assert_eq!(balancer.state(0), State::Ready, "{way:?}");
    }
}

#[tokio::test]
async fn the_first_is_taken_if_it_is_the_quicker_one_after_all() {
    for way in WAYS {
        let (first, go) = held(ok("first")).await;
        let second = frozen().await;
        let balancer = balancer(&first, &second, HEDGED).await;
        let mut asker = Asker::new(&balancer, way).await;
        let asked = tokio::spawn(async move { asker.ask("GET", "/").await });
        wait_until("both are asked", DEADLINE, || {
            first.requests() == 1 && second.requests() == 1
        })
        .await;
        go.send_replace(true);
        assert_eq!(asked.await.unwrap(), (200, "first".into()), "{way:?}");
        wait_until("the other is let go", DEADLINE, || second.closed() == 1).await;
        until_quiet(&balancer).await;
        assert_eq!(
            (count(&balancer, |counts| &counts.hedges), failures(&balancer)),
            (1, 0)
        );
    }
}

#[tokio::test]
async fn a_bad_answer_of_one_has_the_other_waited_for() {
    for way in WAYS {
        let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";
        for bad in [busy, ""] {
            let (first, go) = held(ok("first")).await;
            let second = RawOrigin::start(move |mut peer| async move {
                peer.request().await;
                peer.send(bad).await;
            })
            .await;
            let retry = "retry = { attempts = 2, hedge_after = \"20ms\" }\noutlier = \"off\"";
            let balancer = balancer(&first, &second, retry).await;
            let mut asker = Asker::new(&balancer, way).await;
            let asked = tokio::spawn(async move { asker.ask("GET", "/").await });
            wait_until("the bad one has answered", DEADLINE, || {
                first.requests() == 1 && failures(&balancer) == 1
            })
            .await;
            go.send_replace(true);
            assert_eq!(asked.await.unwrap(), (200, "first".into()), "{way:?} {bad}");
            until_quiet(&balancer).await;
        }
    }
}

#[tokio::test]
async fn without_a_budget_and_for_what_is_not_repeatable_there_is_no_second_attempt() {
    for way in WAYS {
        for (method, retry) in [
            ("GET", "retry = { hedge_after = \"20ms\", budget = 0, floor = 0 }"),
            ("POST", "retry = { hedge_after = \"20ms\" }"),
            ("PATCH", "retry = { hedge_after = \"20ms\" }"),
            // It may be sent again as such, but its body is not there any more.
            ("PUT", "retry = { hedge_after = \"20ms\" }"),
        ] {
            let (first, go) = held(ok("fine")).await;
            let (second, go_too) = held(ok("fine")).await;
            let balancer = balancer(&first, &second, retry).await;
            let mut asker = Asker::new(&balancer, way).await;
            let asked = tokio::spawn(async move { asker.ask(method, "/").await });
            if method == "GET" {
                wait_until("the budget was asked", DEADLINE, || {
                    count(&balancer, |counts| &counts.retries_denied) == 1
                })
                .await;
            } else {
                // A GET that begins later is hedged, so the time of the POST is over.
                wait_until("it is there", DEADLINE, || {
                    first.requests() + second.requests() == 1
                })
                .await;
                let mut other = Asker::new(&balancer, way).await;
                let other = tokio::spawn(async move { other.ask("GET", "/").await });
                wait_until("the GET is hedged", DEADLINE, || {
                    count(&balancer, |counts| &counts.hedges) == 1
                })
                .await;
                other.abort();
            }
            let posts = first.received() + &second.received();
            assert_eq!(posts.matches(&format!("{method} /")).count(), 1, "{way:?}");
            go.send_replace(true);
            go_too.send_replace(true);
            assert_eq!(asked.await.unwrap().0, 200, "{way:?}");
        }
    }
}

#[tokio::test]
async fn what_does_no_harm_twice_and_has_no_body_is_hedged_whatever_its_method() {
    for way in WAYS {
        for method in ["GET", "DELETE", "OPTIONS"] {
            let slow = [frozen().await, frozen().await];
            let balancer = balancer(&slow[0], &slow[1], HEDGED).await;
            let mut asker = Asker::new(&balancer, way).await;
            let asked = tokio::spawn(async move { asker.ask(method, "/").await });
            wait_until("both are asked", DEADLINE, || {
                slow.iter().all(|origin| origin.requests() == 1)
            })
            .await;
            for origin in &slow {
                let received = origin.received();
                assert!(received.starts_with(method), "{way:?}: {received}");
            }
            // Both end with their client, which takes its connection with it.
            asked.abort();
            wait_until("both are let go", DEADLINE, || {
                slow.iter().all(|origin| origin.closed() == 1)
            })
            .await;
            until_quiet(&balancer).await;
            assert_eq!(failures(&balancer), 0, "{way:?} {method}");
        }
    }
}

#[tokio::test]
async fn the_budget_of_second_attempts_is_a_share_of_the_requests() {
    // The highest number of a request that may be answered.
    let (go, gone) = watch::channel(0);
    let start = || {
        let gone = gone.clone();
        RawOrigin::start(move |mut peer| {
            let mut gone = gone.clone();
            async move {
                while let Some(request) = peer.request().await {
                    let number = request
                        .strip_prefix("GET /")
                        .and_then(|rest| rest.split(' ').next());
                    let number: u64 = number.and_then(|number| number.parse().ok()).unwrap();
                    let _ = gone.wait_for(|gone| *gone >= number).await;
                    peer.send(ok("slow")).await;
                }
            }
        })
    };
    let (one, two) = (start().await, start().await);
    let pool = "policy = \"round-robin\"\nretry = { hedge_after = \"5ms\", budget = 10, floor = 0 }";
    let balancer = balancer(&one, &two, pool).await;
    let made = || count(&balancer, |counts| &counts.hedges);
    let denied = || count(&balancer, |counts| &counts.retries_denied);
    let mut asker = Asker::new(&balancer, Way::Own).await;
    for number in 1..=40 {
        let path = format!("/{number}");
        let asked = tokio::spawn(async move {
            let answer = asker.ask("GET", &path).await;
            (asker, answer)
        });
        wait_until("a second attempt is paid for or not", DEADLINE, || {
            made() + denied() == number
        })
        .await;
        go.send_replace(number);
        let answer;
        (asker, answer) = asked.await.unwrap();
        assert_eq!(answer, (200, "slow".into()));
    }
    // Ten requests pay for one.
    assert_eq!((made(), denied()), (4, 36));
    until_quiet(&balancer).await;
}
