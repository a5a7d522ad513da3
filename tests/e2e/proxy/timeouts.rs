//! Whoever keeps the balancer waiting is let go. Limits are short here, and only the outcome is judged.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trimtab_tests::{Client, DEADLINE, RawOrigin, Setup, ok, wait_until, within};

#[tokio::test]
async fn a_head_that_takes_too_long_gets_408() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { header_timeout = \"200ms\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client.send("GET / HTTP/1.1\r\nhost").await;
    let answer = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer: {answer}");
    assert_eq!(origin.connections(), 0);
    assert_eq!(balancer.count(|worker| &worker.connections_expired), 1);
}

#[tokio::test]
async fn a_second_head_that_takes_too_long_gets_408() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { header_timeout = \"200ms\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 200);
    client.send("GET / HT").await;
    let answer = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { header_timeout = \"200ms\" }")
        .start()
        .await;
    assert_eq!(Client::connect(balancer.address).await.until_closed().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { idle_timeout = \"1s\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.until_closed().await, "");
}

#[tokio::test]
async fn a_connection_is_idle_after_any_kind_of_answer() {
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let balancer = Setup::to(origin.address())
        .listener(
            "limits = { idle_timeout = \"1s\" }\nroute = [{ path_prefix = \"/known\", pool = \"main\" }]",
        )
        .start()
        .await;
    for request in [
        "HEAD /unknown HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /unknown HTTP/1.1\r\nhost: a\r\n\r\n",
        "HEAD /known HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /known HTTP/1.1\r\nhost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let mut client = Client::connect(balancer.address).await;
        client.send(request).await;
        client.head().await.unwrap();
        client.until_closed().await;
    }
    assert_eq!(
        balancer.count(|worker| &worker.aborted),
        0,
        "all were answered completely"
    );
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_let_go_and_so_is_the_origin() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { body_timeout = \"200ms\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    let answer = client.until_closed().await;
    assert!(!answer.contains(" 200 "), "{answer}");
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
}

/// Sends a body that never ends, a byte at a time, until the connection is closed.
async fn drip(client: &mut Client) {
    let dripping = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if client.stream.write_all(b"b").await.is_err() {
                return;
            }
        }
    };
    within("the connection is closed", DEADLINE, dripping).await;
}

#[tokio::test]
async fn i2_a_body_that_drips_is_let_go_and_so_is_the_origin() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { body_timeout = \"2s\", body_rate_min = \"1KiB\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    drip(&mut client).await;
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
    assert_eq!(balancer.count(|worker| &worker.connections_expired), 1);
    assert!(origin.received().ends_with('b'), "it was passed on while it came");
}

#[tokio::test]
async fn i2_once_it_is_answered_a_body_may_drip() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        peer.exactly(120).await;
        peer.send("0\r\n\r\n").await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { body_timeout = \"2s\", body_rate_min = \"1KiB\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 120\r\n\r\n")
        .await;
    for _ in 0..120 {
        // The pause is the subject here: together longer than it takes to be judged.
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.send("b").await;
    }
    let response = client.response().await;
    assert_eq!((response.status, response.is_complete), (200, true));
}

#[tokio::test]
async fn i3_a_client_that_reads_a_byte_now_and_then_is_let_go() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n")
            .await;
        peer.send(vec![b'x'; 32 << 20]).await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { body_timeout = \"500ms\" }")
        .start()
        .await;
    let mut client = Client::connect_narrow(balancer.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let reading = async {
        while origin.closed() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // What arrived before the end may be there still.
            let _ = client.stream.read(&mut [0]).await;
        }
    };
    within("the origin's connection is closed", DEADLINE, reading).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go_and_so_is_the_origin() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n")
            .await;
        peer.send(vec![b'x'; 32 << 20]).await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address())
        .listener("limits = { body_timeout = \"300ms\" }")
        .start()
        .await;
    // By our own way, and by the library's.
    for (at, more) in ["", "te: trailers\r\n"].iter().enumerate() {
        let mut client = Client::connect_narrow(balancer.address).await;
        client
            .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{more}\r\n"))
            .await;
        wait_until("the origin's connection is closed", DEADLINE, || {
            origin.closed() == at + 1
        })
        .await;
        assert_eq!(client.head().await.unwrap().status, 200);
        // A reset, for what is closed in order the system would keep until the client takes it.
        let end = client.rest().await.unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{more:?}");
    }
}

#[tokio::test]
async fn an_origin_that_does_not_answer_in_time_means_504() {
    let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let balancer = Setup::to(origin.address())
        .pool("response_timeout = \"200ms\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 504);
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
    assert_eq!(origin.requests(), 1, "what took too long is not repeated");
}

#[tokio::test]
async fn an_origin_that_drips_its_head_means_504() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nx-").await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address())
        .pool("response_timeout = \"200ms\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 504);
}

#[tokio::test]
async fn a_slow_upload_is_not_the_origins_fault() {
    let origin = RawOrigin::answering(ok("took it")).await;
    let balancer = Setup::to(origin.address())
        .pool("response_timeout = \"150ms\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n")
        .await;
    for byte in ["b", "o", "d", "y"] {
        // The pause is the subject here: together longer than the time for the response.
        tokio::time::sleep(Duration::from_millis(120)).await;
        client.send(byte).await;
    }
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "took it".into()));
}

#[tokio::test]
async fn an_upload_that_ended_starts_the_time_for_the_response() {
    let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let balancer = Setup::to(origin.address())
        .pool("response_timeout = \"150ms\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo")
        .await;
    origin.wait_for("\r\n\r\nbo").await;
    client.send("dy").await;
    assert_eq!(client.response().await.status, 504);
}

#[tokio::test]
async fn an_origin_that_stalls_in_its_body_breaks_the_response() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address())
        .pool("body_timeout = \"200ms\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    let response = client.get("/").await;
    assert_eq!((response.text(), response.is_complete), ("half".into(), false));
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_cannot_be_connected_to_in_time_means_502() {
    // A listener whose queue is full takes no more connections, and says nothing.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(100),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        waiting.push(stream);
    }
    let balancer = Setup::to(address.to_string())
        .pool("connect_timeout = \"200ms\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.get("/").await.status, 502);
}
