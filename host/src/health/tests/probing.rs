//! What a single check finds, and what the backend sees of it.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{net::TcpSocket, sync::mpsc};

use super::{Answer, BUSY, MS, OK, Origin, http, wait_until};
use crate::{
    config,
    health::{
        CheckResult,
        probe::{Probe, Schedule},
    },
    pool::{Backend, Pool, fixture},
};

/// Long enough for a loaded machine; only tests of the timeout itself use a shorter one.
fn rule(kind: config::HealthKind) -> config::Health {
    config::Health {
        kind,
        timeout: Duration::from_secs(20),
        ..fixture::health()
    }
}

/// One that says nothing about checks.
fn any_pool() -> Pool {
    fixture::pool(fixture::config(&["127.0.0.1:1"]), None, std::time::Instant::now())
}

async fn check(address: std::net::SocketAddr, rule: &config::Health) -> CheckResult {
    let backend = Backend::new(&address.to_string(), address, 1);
    Probe::new(0, &backend, rule, &any_pool()).check().await
}

/// Checks once, and gives whether it was good and why.
async fn found(answer: Answer, rule: &config::Health) -> (bool, String) {
    let origin = Origin::start(answer).await;
    let result = check(origin.address, rule).await;
    (result.ok, result.reason)
}

#[tokio::test]
async fn an_expected_status_is_good() {
    assert_eq!(found(OK, &rule(http("/"))).await, (true, "status 200".into()));
    let chunked = Answer::Raw("HTTP/1.1 302 Found\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    assert_eq!(
        found(chunked, &rule(http("/"))).await,
        (true, "status 302".into())
    );
}

#[tokio::test]
async fn another_status_is_bad_and_named() {
    assert_eq!(
        found(BUSY, &rule(http("/"))).await,
        (false, "status 503 (expected 200-399)".into())
    );
    let only_204 = config::HealthKind::Http {
        path: "/".into(),
        host: None,
        expect: 204..=204,
    };
    assert_eq!(
        found(OK, &rule(only_204)).await,
        (false, "status 200 (expected 204)".into())
    );
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_bad() {
    // Bound but not listening: refuses, and nobody else can get the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    for kind in [config::HealthKind::Tcp, http("/")] {
        let result = check(address, &rule(kind)).await;
        assert_eq!((result.ok, &*result.reason), (false, "connect refused"));
    }
}

#[tokio::test]
async fn silence_is_bad_when_the_timeout_is_over() {
    let rule = config::Health {
        timeout: 30 * MS,
        ..rule(http("/"))
    };
    let origin = Origin::start(Answer::Silence).await;
    let result = check(origin.address, &rule).await;
    assert_eq!((result.ok, &*result.reason), (false, "timed out after 30ms"));
    assert!(
        (30 * MS..10_000 * MS).contains(&result.duration),
        "{:?}",
        result.duration
    );
}

#[tokio::test]
async fn the_timeout_covers_the_body() {
    let rule = config::Health {
        timeout: 30 * MS,
        ..rule(http("/"))
    };
    let half = Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    assert_eq!(found(half, &rule).await, (false, "timed out after 30ms".into()));
}

#[tokio::test]
async fn a_long_body_is_not_read_to_its_end() {
    // 20 of a million bytes more than is read come, and the rest never does.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let text: &'static str = Box::leak(format!("{head}{}", "x".repeat(20 * 1024)).into_boxed_str());
    assert_eq!(
        found(Answer::Raw(text), &rule(http("/"))).await,
        (true, "status 200".into())
    );
}

#[tokio::test]
async fn hanging_up_or_nonsense_is_bad() {
    for answer in [Answer::HangUp, Answer::Raw("SSH-2.0-OpenSSH_9.9\r\n\r\n")] {
        let (ok, reason) = found(answer, &rule(http("/"))).await;
        assert!(!ok && reason.starts_with("broken answer: "), "{reason}");
    }
}

#[tokio::test]
async fn interim_answers_are_none() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let text = format!("HTTP/1.1 100 Continue\r\n\r\n{early}HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(
        found(Answer::Raw(text.leak()), &rule(http("/"))).await,
        (true, "status 204".into())
    );
    // No other answer follows this one.
    let changed =
        Answer::Raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n");
    assert_eq!(
        found(changed, &rule(http("/"))).await,
        (false, "status 101 (expected 200-399)".into())
    );
}

#[tokio::test]
async fn an_answer_that_ends_early_is_bad() {
    let cut = "broken answer: the connection ended before it";
    for (text, good) in [
        ("HTTP/1.1 200 OK\r\n\r\nup to the end", true),
        ("HTTP/1.0 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhal", false),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\nx: y\r\n", false),
        ("HTTP/1.1 100 Continue\r\n\r\n", false),
    ] {
        let expected = if good { "status 200" } else { cut };
        assert_eq!(
            found(Answer::Last(text), &rule(http("/"))).await,
            (good, expected.into()),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_no_client_would_get_is_bad() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(70_000)).leak();
    for (text, reason) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "response with two lengths",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
            "malformed chunk",
        ),
        (long, "its head is too long"),
    ] {
        assert_eq!(
            found(Answer::Raw(text), &rule(http("/"))).await,
            (false, format!("broken answer: {reason}"))
        );
    }
}

#[tokio::test]
async fn a_tcp_check_asks_nothing() {
    let origin = Origin::start(Answer::Silence).await;
    let result = check(origin.address, &rule(config::HealthKind::Tcp)).await;
    assert_eq!((result.ok, &*result.reason), (true, "connected"));
    wait_until("closed again", || {
        origin.open_max.load(Relaxed) == 1 && origin.open.load(Relaxed) == 0
    })
    .await;
    assert!(origin.asked.borrow().is_empty());
}

#[tokio::test]
async fn a_check_says_who_asks_for_what_and_that_it_will_not_stay() {
    let origin = Origin::start(OK).await;
    check(origin.address, &rule(http("/healthz?deep=1"))).await;
    let asked = origin.asked.borrow().clone();
    assert!(asked.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{asked}");
    let version = env!("CARGO_PKG_VERSION");
    for field in [
        format!("\r\nhost: {}\r\n", origin.address),
        format!("\r\nuser-agent: trimtab-health/{version}\r\n"),
        "\r\nconnection: close\r\n".into(),
    ] {
        assert!(asked.contains(&field), "{field:?} in {asked}");
    }
}

#[tokio::test]
async fn host_and_port_of_a_check_can_be_set() {
    let origin = Origin::start(OK).await;
    let named = config::HealthKind::Http {
        path: "/".into(),
        host: Some("shop.example".into()),
        expect: 200..=200,
    };
    let rule = config::Health {
        port: Some(origin.address.port()),
        ..rule(named)
    };
    let elsewhere = std::net::SocketAddr::new(origin.address.ip(), 1);
    assert!(check(elsewhere, &rule).await.ok);
    assert!(origin.asked.borrow().contains("\r\nhost: shop.example\r\n"));
}

#[tokio::test]
async fn checks_of_one_backend_go_on_without_overlap() {
    let origin = Origin::start(Answer::Silence).await;
    let rule = config::Health {
        interval: 10 * MS,
        timeout: 20 * MS,
        ..rule(http("/"))
    };
    let probe = Probe::new(3, &Backend::new("a:1", origin.address, 1), &rule, &any_pool());
    let (results, mut checks) = mpsc::channel(1);
    let task = tokio::spawn(probe.run(Schedule::new(rule.interval, 1), results));
    let mut ended = None;
    for _ in 0..5 {
        let check = checks.recv().await.unwrap();
        assert_eq!(check.index, 3);
        assert!(
            ended.is_none_or(|ended| check.result.at >= ended),
            "began before the last one ended"
        );
        ended = Some(check.result.at + check.result.duration);
    }
    drop(checks);
    task.await.expect("ends when nobody listens");
}
