//! Upgrades: what is passed on, when, and what never becomes a request. Numbers like E7 are those of the case list that
//! issue 5 names.

use tokio::io::AsyncWriteExt;
use trimtab_tests::{
    Client, DEADLINE, Directory, Peer, RawOrigin, Setup, ok,
    tls::{Authority, shake},
    wait_until, within,
};

const ASKS: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees, and then sends back what comes, until the end and a last word.
async fn echo(mut peer: Peer) {
    if peer.head().await.is_none() {
        return;
    }
    // The first word comes in one piece with the agreement.
    peer.send(format!("{AGREES}welcome")).await;
    while let Some(bytes) = peer.bytes().await {
        peer.send(bytes).await;
    }
    peer.send("goodbye").await;
    let _ = peer.stream.shutdown().await;
}

#[tokio::test]
async fn e7_bytes_pass_both_ways_after_the_agreement() {
    let origin = RawOrigin::start(echo).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    // What follows the request at once is not lost.
    client.send(format!("{ASKS}early,")).await;
    let agreed = client.head().await.unwrap();
    assert_eq!((agreed.status, agreed.field("upgrade")), (101, Some("websocket")));
    assert_eq!(agreed.field("connection"), Some("upgrade"));
    assert_eq!(
        agreed.field("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    let large = "x".repeat(1_000_000);
    client.send(&large).await;
    client.stream.shutdown().await.unwrap();
    let rest = client.rest().await.unwrap();
    let expected = format!("welcomeearly,{large}goodbye");
    assert!(rest == expected.as_bytes(), "{} bytes", rest.len());
    let received = origin.received();
    assert!(
        received.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
        "{received:.500}"
    );
    assert!(
        received.contains("sec-websocket-version: 13\r\n"),
        "{received:.500}"
    );
    assert_eq!(balancer.count(|worker| &worker.upgrades), 1);
}

#[tokio::test]
async fn e7_without_an_agreement_what_follows_reaches_nobody() {
    for answer in [
        ok("no"),
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_owned(),
        "HTTP/1.1 426 Upgrade Required\r\nupgrade: other\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nno".to_owned(),
    ] {
        let origin = RawOrigin::answering(answer.clone()).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        client.send(format!("{ASKS}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.text(), response.field("connection")), ("no".into(), Some("close")));
        assert_eq!(client.until_closed().await, "");
        assert!(!origin.received().contains("smuggled"), "{}", origin.received());
    }
}

#[tokio::test]
async fn f8_an_agreement_to_something_else_is_a_bad_gateway() {
    for agreed in [
        AGREES.replace("WebSocket", "other"),
        AGREES.replace("upgrade: WebSocket\r\n", ""),
    ] {
        let origin = RawOrigin::answering(agreed).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        assert_eq!(client.ask(format!("{ASKS}early")).await.status, 502);
        assert_eq!(client.until_closed().await, "");
        assert!(!origin.received().contains("early"));
    }
}

#[tokio::test]
async fn e7_an_error_in_place_of_the_answer_ends_the_connection_too() {
    let nobody = RawOrigin::start(|_| async {}).await;
    for (setup, status) in [
        (Setup::to(nobody.address()), 502),
        (
            Setup::to(nobody.address()).listener("route = [{ host = \"b\", pool = \"main\" }]"),
            404,
        ),
    ] {
        let balancer = setup.start().await;
        let mut client = Client::connect(balancer.address).await;
        client
            .send(format!("{ASKS}GET /smuggled HTTP/1.1\r\nhost: b\r\n\r\n"))
            .await;
        let answer = client.until_closed().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn l2_a_websocket_without_its_fields_is_refused() {
    for (asks, status) in [
        (ASKS.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (
            ASKS.replace("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
            400,
        ),
        (ASKS.replace("version: 13", "version: 12"), 426),
        (ASKS.replace("sec-websocket-version: 13\r\n", ""), 426),
    ] {
        let origin = RawOrigin::start(echo).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        let response = client.ask(&asks).await;
        assert_eq!(response.status, status, "{asks}");
        if status == 426 {
            assert_eq!(response.field("sec-websocket-version"), Some("13"));
        }
        client.until_closed().await;
        assert_eq!(origin.connections(), 0);
    }
}

#[tokio::test]
async fn e8_what_may_not_be_asked_for_is_an_ordinary_request() {
    let body = "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nhi";
    for (listener, asks) in [
        ("upgrades = []", ASKS.to_owned()),
        ("upgrades = [\"chat\"]", ASKS.to_owned()),
        ("", ASKS.replace("upgrade: websocket", "upgrade: chat")),
        (
            "",
            ASKS.replace("upgrade: websocket", "upgrade: websocket\r\nupgrade: chat"),
        ),
        ("", ASKS.replace("keep-alive, Upgrade", "keep-alive")),
        ("", body.to_owned()),
    ] {
        let origin = RawOrigin::answering(ok("plain")).await;
        let balancer = Setup::to(origin.address()).listener(listener).start().await;
        let mut client = Client::connect(balancer.address).await;
        assert_eq!(client.ask(&asks).await.text(), "plain", "{asks}");
        let received = origin.received();
        assert!(
            !received.contains("\r\nupgrade") && !received.contains("\r\nconnection"),
            "{received}"
        );
    }
}

#[tokio::test]
async fn l3_a_silent_tunnel_ends_and_one_that_is_used_does_not() {
    let origin = RawOrigin::start(echo).await;
    let limits = "limits = { tunnel_timeout = \"1s\", idle_timeout = \"1s\" }";
    let balancer = Setup::to(origin.address()).listener(limits).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send(ASKS).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        client.send("tick ").await;
    }
    let all = client.until_closed().await;
    assert!(all.starts_with("welcometick tick tick "), "{all}");
    wait_until("the backend is told", DEADLINE, || origin.open_connections() == 0).await;
}

#[tokio::test]
async fn a_tunnel_goes_through_tls() {
    let origin = RawOrigin::start(echo).await;
    let authority = Authority::new();
    let directory = Directory::new();
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let setup = Setup::to(origin.address()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = trimtab_tests::Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let config = authority.trusted(&["http/1.1"], None);
    let mut client = shake(balancer.address, "shop.test", config).await.unwrap();
    client.send(format!("{ASKS}early,")).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    client.send("late,").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"welcomeearly,late,goodbye");
}

#[tokio::test]
async fn a_stop_waits_for_a_tunnel_no_longer_than_it_drains() {
    let origin = RawOrigin::start(echo).await;
    let balancer = Setup::to(origin.address()).top("drain = \"200ms\"").start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send(ASKS).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    balancer.handle().stop().await;
    within("the end", DEADLINE, balancer.join()).await;
    assert_eq!(client.until_closed().await, "welcome");
}
