//! Header fields on their way through, read from the bytes at the origin and at the client.

use trimtab_tests::{Client, RawOrigin, Setup, get, ok};

/// What the origin receives of a request through a listener with these lines.
async fn at_origin(listener: &str, request: &str) -> String {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).listener(listener).start().await;
    let response = Client::connect(balancer.address).await.ask(request).await;
    assert_eq!(response.status, 200, "{request:?}");
    origin.received()
}

#[tokio::test]
async fn hop_by_hop_fields_end_at_the_balancer() {
    let received = at_origin(
        "",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-private, close\r\nx-private: 1\r\n\
         keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: gzip\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQAAP__\r\nproxy: evil\r\nx-end-to-end: 2\r\n\r\n",
    )
    .await;
    for gone in [
        "connection",
        "x-private",
        "keep-alive",
        "te:",
        "upgrade",
        "http2-settings",
        "proxy",
    ] {
        assert!(
            !received.contains(&format!("\r\n{gone}")),
            "{gone} passed: {received}"
        );
    }
    assert!(received.contains("x-end-to-end: 2\r\n"), "{received}");
}

#[tokio::test]
async fn connection_cannot_take_away_what_we_say_of_the_client() {
    let received = at_origin(
        "",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: x-forwarded-for\r\n\r\nhi",
    )
    .await;
    for kept in [
        "host: a\r\n",
        "content-length: 2\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
    ] {
        assert!(received.contains(kept), "{received}");
    }
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_response_end_at_the_balancer() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-private\r\nkeep-alive: timeout=5\r\nx-private: 1\r\n\
         proxy-connection: x\r\nupgrade: h2c\r\nx-public: 2\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let head = get(balancer.address, "/").await.head;
    for gone in [
        "connection",
        "keep-alive",
        "x-private",
        "proxy-connection",
        "upgrade",
    ] {
        assert!(!head.contains(&format!("\r\n{gone}")), "{gone} passed: {head}");
    }
    assert!(head.contains("x-public: 2\r\n"), "{head}");
}

#[tokio::test]
async fn forwarded_fields_of_strangers_are_replaced() {
    let received = at_origin(
        "",
        "GET / HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n\
         x-forwarded-host: evil\r\n\r\n",
    )
    .await;
    for ours in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: shop.example\r\n",
    ] {
        assert!(received.contains(ours), "{ours}: {received}");
    }
    assert!(
        !received.contains("6.6.6.6") && !received.contains("evil"),
        "{received}"
    );
}

#[tokio::test]
async fn forwarded_fields_of_another_proxy_are_appended_to() {
    let received = at_origin(
        "forwarded = \"append\"",
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8\r\n\
         x-forwarded-proto: https\r\n\r\n",
    )
    .await;
    assert!(
        received.contains("x-forwarded-for: 1.2.3.4, 5.6.7.8, 127.0.0.1\r\n"),
        "{received}"
    );
    assert!(received.contains("x-forwarded-proto: https\r\n"), "{received}");
}

#[tokio::test]
async fn forwarded_fields_can_be_left_alone() {
    let received = at_origin(
        "forwarded = \"off\"",
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\n\r\n",
    )
    .await;
    assert!(received.contains("x-forwarded-for: 1.2.3.4\r\n"), "{received}");
    assert!(!received.contains("x-forwarded-proto"), "{received}");
}

#[tokio::test]
async fn via_is_added_both_ways_unless_off() {
    for (line, is_there) in [("", true), ("via = false", false)] {
        let origin =
            RawOrigin::answering("HTTP/1.1 200 OK\r\nvia: 1.1 inner\r\ncontent-length: 0\r\n\r\n").await;
        let balancer = Setup::to(origin.address()).listener(line).start().await;
        let mut client = Client::connect(balancer.address).await;
        let response = client
            .ask("GET / HTTP/1.1\r\nhost: a\r\nvia: 1.0 outer\r\n\r\n")
            .await;
        assert_eq!(
            response.head.contains("1.1 trimtab"),
            is_there,
            "{}",
            response.head
        );
        assert!(response.head.contains("via: 1.1 inner\r\n"), "{}", response.head);
        let received = origin.received();
        assert_eq!(received.contains("via: 1.1 trimtab-"), is_there, "{received}");
        assert!(received.contains("via: 1.0 outer\r\n"), "{received}");
    }
}

#[tokio::test]
async fn host_and_target_are_kept() {
    let received = at_origin(
        "",
        "GET /a%20b/c?d=e&f=../%61 HTTP/1.1\r\nhost: shop.example:8080\r\n\r\n",
    )
    .await;
    assert!(
        received.starts_with("GET /a%20b/c?d=e&f=../%61 HTTP/1.1\r\n"),
        "{received}"
    );
    assert!(received.contains("host: shop.example:8080\r\n"), "{received}");
}

#[tokio::test]
async fn an_absolute_target_wins_over_host_and_becomes_a_path() {
    let received = at_origin("", "GET http://real.example/x?y HTTP/1.1\r\nhost: other\r\n\r\n").await;
    assert!(received.starts_with("GET /x?y HTTP/1.1\r\n"), "{received}");
    assert!(received.contains("host: real.example\r\n"), "{received}");
    assert!(!received.contains("other"), "{received}");
}

#[tokio::test]
async fn user_information_in_a_target_does_not_reach_the_origin() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let response = client
        .ask("GET http://user:secret@real.example/ HTTP/1.1\r\nhost: real.example\r\n\r\n")
        .await;
    assert!(!origin.received().contains("secret"), "{}", origin.received());
    assert_eq!(response.status, 400);
}

#[tokio::test]
async fn an_asterisk_target_stays() {
    let received = at_origin("", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(received.starts_with("OPTIONS * HTTP/1.1\r\n"), "{received}");
}

#[tokio::test]
async fn repeated_fields_keep_their_order() {
    let received = at_origin(
        "",
        "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\nx: 1\r\nx: 2\r\nx: 3\r\n\r\n",
    )
    .await;
    let values: Vec<&str> = received
        .split("\r\n")
        .filter_map(|line| line.strip_prefix("x: "))
        .collect();
    assert_eq!(values, ["1", "2", "3"], "{received}");
}
