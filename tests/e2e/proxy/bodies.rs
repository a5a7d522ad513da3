//! Bodies pass unchanged, in both framings, at the reader's pace.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::io::AsyncWriteExt;
use trimtab_tests::{Client, DEADLINE, LONG, RawOrigin, Setup, get, ok, wait_until, within};

/// More than all buffers on the way together: sockets of both connections, hyper's on both sides.
const LARGE: usize = 32 << 20;

#[tokio::test]
async fn a_request_body_with_a_length_arrives_as_sent() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let response = client
        .ask("POST /in HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\nhello world")
        .await;
    assert_eq!(response.status, 200);
    let received = origin.received();
    assert!(received.contains("content-length: 11\r\n"), "{received}");
    assert!(received.ends_with("\r\n\r\nhello world"), "{received}");
}

#[tokio::test]
async fn a_chunked_request_body_stays_chunked() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(client.ask(request).await.status, 200);
    let received = origin.received();
    assert!(received.contains("transfer-encoding: chunked\r\n"), "{received}");
    assert!(!received.contains("x=y"), "chunk extensions end here: {received}");
    let body = received.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body.replace("\r\n", ""), "5hello6 world0");
}

#[tokio::test]
async fn a_response_body_with_a_length_arrives_as_sent() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let response = get(balancer.address, "/").await;
    assert_eq!(
        (response.field("content-length"), response.text()),
        (Some("5"), "hello".into())
    );
}

#[tokio::test]
async fn a_chunked_response_body_stays_chunked() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let response = get(balancer.address, "/").await;
    assert_eq!(response.field("transfer-encoding"), Some("chunked"));
    assert!(response.is_complete);
    assert_eq!(response.text(), "hello world");
}

#[tokio::test]
async fn a_response_without_framing_ends_with_the_connection() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let response = get(balancer.address, "/").await;
    assert!(response.is_complete);
    assert_eq!(response.text(), "until the end");
}

#[tokio::test]
async fn request_trailers_reach_the_origin() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n";
    assert_eq!(client.ask(request).await.status, 200);
    let received = origin.received();
    assert!(received.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{received}");
}

#[tokio::test]
async fn response_trailers_reach_the_client_that_asked_for_them() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n",
    )
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let response = client
        .ask("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n")
        .await;
    assert_eq!(response.text(), "hi");
    assert_eq!(response.trailers, "x-sum: 42\r\n");
    let received = origin.received();
    assert!(received.contains("te: trailers\r\n"), "{received}");
}

#[tokio::test]
async fn responses_that_have_no_body_end_at_once() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"x\"\r\n\r\n",
        ),
    ] {
        let origin = RawOrigin::answering(answer).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        // Twice on one connection: a left-over body would be the second response.
        for _ in 0..2 {
            client
                .send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"))
                .await;
            let head = client.head().await.unwrap();
            assert_eq!(head.head[..15], answer[..15], "{method}: {}", head.head);
            if method == "HEAD" && answer.contains("content-length") {
                assert_eq!(head.field("content-length"), Some("5"));
            }
        }
        assert_eq!(
            origin.connections(),
            1,
            "{method} {answer:?} keeps the connection"
        );
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_origin_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let origin = RawOrigin::start(move |mut peer| {
        let counter = counter.clone();
        async move {
            peer.head().await;
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"))
                .await;
            let piece = vec![b'x'; 64 << 10];
            for _ in 0..LARGE / piece.len() {
                if peer.stream.write_all(&piece).await.is_err() {
                    return;
                }
                counter.fetch_add(piece.len(), Ordering::SeqCst);
            }
            peer.until_closed().await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect_narrow(balancer.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // The client reads nothing, so the origin gets stuck once the buffers are full.
    let mut last = (0, 0);
    wait_until("the origin is held back", DEADLINE, || {
        let now = written.load(Ordering::SeqCst);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        now > 0 && last.1 > 50
    })
    .await;
    assert!(
        last.0 < LARGE / 2,
        "{} of {LARGE} bytes went ahead of the reader",
        last.0
    );
    let response = within("the whole body", LONG, client.response()).await;
    assert!(response.is_complete);
    assert_eq!(response.body.len(), LARGE);
}

#[tokio::test]
async fn a_slow_origin_holds_the_client_back() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let origin = RawOrigin::start(move |mut peer| {
        let mut wait = wait.clone();
        async move {
            peer.head().await;
            wait.wait_for(|go| *go).await.unwrap();
            peer.exactly(LARGE).await.unwrap();
            peer.send(ok("all of it")).await;
            peer.until_closed().await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let client = Client::connect(balancer.address).await;
    let (reading, mut writing) = client.stream.into_split();
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n");
        writing.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..LARGE / piece.len() {
            writing.write_all(&piece).await.unwrap();
            counter.fetch_add(piece.len(), Ordering::SeqCst);
        }
        writing
    });
    let mut last = (0, 0);
    wait_until("the client is held back", DEADLINE, || {
        let now = written.load(Ordering::SeqCst);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        now > 0 && last.1 > 50
    })
    .await;
    assert!(
        last.0 < LARGE / 2,
        "{} of {LARGE} bytes went ahead of the origin",
        last.0
    );
    go.send_replace(true);
    let writing = within("sending", LONG, sending).await.unwrap();
    let mut client = Client::from(reading.reunite(writing).unwrap());
    assert_eq!(client.response().await.text(), "all of it");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = RawOrigin::start(|mut peer| async move {
        while let Some(head) = peer.request().await {
            let path = head.split(' ').nth(1).unwrap();
            peer.send(ok(path)).await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let requests: String = (0..50)
        .map(|number| format!("POST /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"))
        .collect();
    client.send(requests).await;
    for number in 0..50 {
        assert_eq!(client.response().await.text(), format!("/{number}"));
    }
}

#[tokio::test]
async fn a_response_does_not_wait_for_the_rest_of_the_next_request() {
    let origin = RawOrigin::answering(ok("first")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /next HTTP/1.1\r\nho")
        .await;
    assert_eq!(client.response().await.text(), "first");
    client.send("st: a\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "first");
}

#[tokio::test]
async fn a_body_on_a_get_is_passed_on_and_never_left_behind() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let smuggled = "GET /evil HTTP/1.1\r\n\r\n";
    let request = format!(
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    assert_eq!(client.ask(request).await.status, 200);
    let received = origin.received();
    assert!(
        received.contains(&format!("content-length: {}\r\n", smuggled.len())),
        "{received}"
    );
    assert!(received.ends_with(smuggled), "{received}");
    assert_eq!(client.get("/next").await.status, 200);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_before_its_body() {
    let origin = RawOrigin::answering(ok("done")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("body").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "done".into()));
    assert!(
        !origin.received().contains("expect"),
        "answered here: {}",
        origin.received()
    );
}
