//! What is ambiguous about where a request ends is refused, and none of it reaches an origin.

use trimtab_tests::{Client, RawOrigin, Setup, get, ok};

/// Sends to a balancer whose origin must not hear of it; gives the status.
async fn refused(request: &str) -> u16 {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send(request).await;
    let status = client.try_response().await.map_or(0, |response| response.status);
    // What follows on the same connection must not be served either.
    client.send("GET /after HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until_closed().await;
    assert_eq!(origin.received(), "", "{request:?} got through");
    assert_eq!(
        get(balancer.address, "/others").await.status,
        200,
        "others are served"
    );
    status
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    for fields in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: +4",
        "content-length: -4",
        "content-length: 0x4",
        "content-length: 4 4",
        "content-length: 4_0",
        "content-length:",
        "content-length: 99999999999999999999999",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: gzip",
        "transfer-encoding: \u{b}chunked",
        "transfer-encoding : chunked",
        "x: y\r\n transfer-encoding: chunked",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
        assert_eq!(refused(&request).await, 400, "{fields:?}");
    }
}

#[tokio::test]
async fn a_bad_chunk_never_becomes_a_complete_request() {
    for body in [
        "0x2\r\nab\r\n0\r\n\r\n",
        "-1\r\nab\r\n0\r\n\r\n",
        "+2\r\nab\r\n0\r\n\r\n",
        "\r\nab\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "2\r\nab0\r\n\r\n",
        "2\nab\n0\n\n",
    ] {
        let origin = RawOrigin::answering(ok("")).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"
            ))
            .await;
        let status = client.try_response().await.map_or(0, |response| response.status);
        assert_ne!(status, 200, "{body:?}");
        client.until_closed().await;
        let received = origin.received();
        assert!(
            !received.ends_with("0\r\n\r\n"),
            "{body:?} ended well: {received}"
        );
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
}

#[tokio::test]
async fn a_request_needs_exactly_one_host() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    ] {
        assert_eq!(refused(head).await, 400, "{head:?}");
    }
}

#[tokio::test]
async fn a_malformed_head_is_refused() {
    for head in [
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
        "GET / HTTP/1.32\r\nhost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "G(T / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n: z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(refused(head).await, 400, "{head:?}");
    }
}

#[tokio::test]
async fn http_1_0_with_chunks_is_refused() {
    assert_eq!(
        refused("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await,
        400
    );
}

#[tokio::test]
async fn equal_content_lengths_are_refused_or_become_one() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    match client.response().await.status {
        200 => assert_eq!(
            origin.received().matches("content-length").count(),
            1,
            "{}",
            origin.received()
        ),
        status => assert_eq!((status, origin.requests()), (400, 0)),
    }
}

#[tokio::test]
async fn connect_and_trace_are_not_allowed() {
    for request in [
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let origin = RawOrigin::answering(ok("")).await;
        let balancer = Setup::to(origin.address()).start().await;
        let response = Client::connect(balancer.address).await.ask(request).await;
        assert_eq!(response.status, 405, "{request:?}");
        assert!(response.field("allow").is_some());
        assert_eq!(origin.connections(), 0);
    }
}

#[tokio::test]
async fn an_unknown_expectation_fails() {
    let request = "POST / HTTP/1.1\r\nhost: a\r\nexpect: coffee\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(refused(request).await, 417);
}

#[tokio::test]
async fn an_early_response_does_not_make_a_body_the_next_request() {
    let origin = RawOrigin::start(|mut peer| async move {
        while peer.head().await.is_some() {
            peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 403);
    client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.send([b' '; 1000]).await;
    client.until_closed().await;
    // As the rest of the body it may have been passed on; as a request it would carry our fields.
    let received = origin.received();
    assert_eq!(received.matches("x-forwarded-for").count(), 1, "{received}");
}

#[tokio::test]
async fn http_1_0_clients_are_served_and_their_connection_closed() {
    let origin =
        RawOrigin::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let all = client.until_closed().await;
    assert!(
        !all.to_ascii_lowercase().contains("transfer-encoding"),
        "1.0 knows no chunks: {all}"
    );
    assert!(all.ends_with("\r\n\r\nhello"), "{all}");
}

#[tokio::test]
async fn http_1_0_clients_may_keep_their_connection() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..2 {
        let response = client
            .ask("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n")
            .await;
        assert_eq!(
            (response.text(), response.field("connection")),
            ("hello".into(), Some("keep-alive"))
        );
    }
}
