//! The PROXY protocol: who is believed, what follows from a word, and what backends are told. Numbers like E12 are those
//! of the case list that issue 5 names.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, RawOrigin, Setup, ok,
    tls::{Authority, shake_over},
    wait_until,
};

const TRUST: &str = "proxy_protocol = { trusted = [\"127.0.0.1\"] }";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const ADDRESSES: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
const ASKS: &str = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";

/// A header of version 2 with what follows its first twelve bytes.
fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, kind], &length, rest].concat()
}

/// A connection that begins with these bytes.
async fn introduced(balancer: &Balancer, header: &[u8]) -> Client {
    let mut client = Client::connect(balancer.address).await;
    client.send(header).await;
    client
}

#[tokio::test]
async fn e12_a_trusted_proxys_word_is_the_clients_address() {
    let directory = Directory::new();
    let origin = RawOrigin::answering(ok("hi")).await;
    let setup = Setup::to(origin.address())
        .listener(TRUST)
        .top("log.access = \"access.log\"");
    let balancer = Balancer::start(setup.text(), directory.path())
        .await
        .ok()
        .unwrap();
    for header in [
        V1,
        &v2(0x21, 0x11, ADDRESSES),
        &v2(0x21, 0x11, &[ADDRESSES, &[1, 0, 2, b'h', b'2']].concat()),
    ] {
        // In one piece with the request; by our own way and then by the library's.
        let mut client = introduced(&balancer, &[header, ASKS.as_bytes()].concat()).await;
        assert_eq!(client.response().await.text(), "hi");
        assert_eq!(client.ask(CHUNKED).await.text(), "hi");
    }
    balancer.stop().await;
    let received = origin.received();
    assert_eq!(
        received.matches("x-forwarded-for: 192.0.2.7\r\n").count(),
        6,
        "{received}"
    );
    let log = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
    assert_eq!(log.matches("\"client\":\"192.0.2.7\"").count(), 6, "{log}");
}

#[tokio::test]
async fn e12_policies_see_the_told_address() {
    let origins = trimtab_tests::Origin::start_all(["a", "b", "c"]).await;
    let setup = Setup::new()
        .backends(origins.iter().map(trimtab_tests::Origin::address))
        .pool("policy = \"ip-hash\"")
        .listener(TRUST);
    let balancer = setup.start().await;
    let mut answers = std::collections::BTreeSet::new();
    for last in 0..32 {
        let header = format!("PROXY TCP4 192.0.2.{last} 198.51.100.1 1 2\r\n");
        let first = introduced(&balancer, header.as_bytes())
            .await
            .get("/")
            .await
            .text();
        assert_eq!(
            introduced(&balancer, header.as_bytes())
                .await
                .get("/")
                .await
                .text(),
            first
        );
        answers.insert(first);
    }
    // All come from one peer, and are still different clients.
    assert_eq!(answers.len(), 3);
}

#[tokio::test]
async fn e12_a_header_in_pieces_is_one_all_the_same() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let balancer = Setup::to(origin.address()).listener(TRUST).start().await;
    for header in [V1, &v2(0x21, 0x11, ADDRESSES)] {
        let mut client = Client::connect(balancer.address).await;
        for byte in header {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.ask(ASKS).await.text(), "hi");
    }
    assert_eq!(origin.received().matches("192.0.2.7").count(), 2);
}

#[tokio::test]
async fn e12_a_bad_header_or_none_closes_the_connection_without_an_answer() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let balancer = Setup::to(origin.address()).listener(TRUST).start().await;
    let bad = [
        // None.
        Vec::new(),
        b"\x16\x03\x01".to_vec(),
        // Signature.
        b"PROXI TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
        [&b"\r\n\r\n\0\r\nQUIX\n"[..], &[0x21, 0x11, 0, 12], ADDRESSES].concat(),
        // Words, addresses, ports, the end of the line.
        b"PROXY TCP5 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.777 198.51.100.1 4711 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(),
        // Version, command, family, lengths.
        v2(0x11, 0x11, ADDRESSES),
        v2(0x2f, 0x11, ADDRESSES),
        v2(0x21, 0x12, ADDRESSES),
        v2(0x21, 0x11, &ADDRESSES[..8]),
        v2(0x21, 0x21, ADDRESSES),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], ADDRESSES].concat(),
        // Extensions, and a checksum among them.
        v2(0x21, 0x11, &[ADDRESSES, &[1, 0, 9, 1]].concat()),
        v2(0x21, 0x11, &[ADDRESSES, &[1]].concat()),
        v2(0x21, 0x11, &[ADDRESSES, &[3, 0, 4, 1, 2, 3, 4]].concat()),
    ];
    for (count, bad) in bad.iter().enumerate() {
        let mut client = introduced(&balancer, &[bad, ASKS.as_bytes()].concat()).await;
        assert_eq!(client.until_closed().await, "", "{bad:?}");
        assert_eq!(
            balancer.count(|worker| &worker.proxy_header_failures),
            count as u64 + 1
        );
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn e12_a_header_that_does_not_come_is_not_waited_for() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let setup = Setup::to(origin.address())
        .listener(TRUST)
        .listener("limits.header_timeout = \"100ms\"");
    let balancer = setup.start().await;
    for begin in [&b""[..], &V1[..20], &SIGNATURE[..8]] {
        let mut client = introduced(&balancer, begin).await;
        assert_eq!(client.until_closed().await, "", "{begin:?}");
    }
    assert_eq!(balancer.count(|worker| &worker.proxy_header_failures), 3);
}

#[tokio::test]
async fn e12_nobody_else_is_believed() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let setup = Setup::to(origin.address()).listener("proxy_protocol = { trusted = [\"192.0.2.0/24\"] }");
    let balancer = setup.start().await;
    // A client by itself.
    assert_eq!(introduced(&balancer, b"").await.ask(ASKS).await.text(), "hi");
    assert!(origin.received().contains("x-forwarded-for: 127.0.0.1\r\n"));
    for header in [V1, &v2(0x21, 0x11, ADDRESSES)] {
        let mut client = introduced(&balancer, &[header, ASKS.as_bytes()].concat()).await;
        let answer = client.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn e12_a_header_that_is_not_required_is_still_believed() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let setup = Setup::to(origin.address())
        .listener("proxy_protocol = { trusted = [\"127.0.0.0/8\", \"::1\"], required = false }");
    let balancer = setup.start().await;
    assert_eq!(introduced(&balancer, b"").await.ask(ASKS).await.text(), "hi");
    assert_eq!(introduced(&balancer, V1).await.ask(ASKS).await.text(), "hi");
    let received = origin.received();
    assert_eq!(
        received.matches("x-forwarded-for: 127.0.0.1\r\n").count(),
        1,
        "{received}"
    );
    assert_eq!(
        received.matches("x-forwarded-for: 192.0.2.7\r\n").count(),
        1,
        "{received}"
    );
    // What begins like one is one.
    assert_eq!(
        introduced(&balancer, b"PROXY nonsense\r\n")
            .await
            .until_closed()
            .await,
        ""
    );
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_is_the_client() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let balancer = Setup::to(origin.address()).listener(TRUST).start().await;
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        &v2(0x20, 0x00, b""),
        &v2(0x20, 0x11, ADDRESSES),
        &v2(0x21, 0x00, b""),
    ] {
        assert_eq!(introduced(&balancer, header).await.ask(ASKS).await.text(), "hi");
    }
    assert_eq!(
        origin
            .received()
            .matches("x-forwarded-for: 127.0.0.1\r\n")
            .count(),
        4
    );
}

#[tokio::test]
async fn a_header_comes_before_tls() {
    let authority = Authority::new();
    let directory = Directory::new();
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", format!("{}{}", signed.cert, signed.key));
    let origin = RawOrigin::answering(ok("hi")).await;
    let setup = Setup::to(origin.address())
        .listener(TRUST)
        .listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    let balancer = Balancer::start(setup.text(), directory.path())
        .await
        .ok()
        .unwrap();
    let connection = introduced(&balancer, V1).await.stream;
    let mut client = shake_over(connection, "shop.test", authority.trusted(&[], None))
        .await
        .unwrap();
    assert_eq!(client.ask(ASKS).await.text(), "hi");
    assert!(origin.received().contains("x-forwarded-for: 192.0.2.7\r\n"));
}

/// An origin that takes a header of version 1 and then answers requests.
async fn told_by_line() -> RawOrigin {
    RawOrigin::start(|mut peer| async move {
        peer.until("\r\n").await;
        while peer.request().await.is_some() {
            peer.send(ok("hi")).await;
        }
    })
    .await
}

fn line(client: SocketAddr, balancer: SocketAddr) -> String {
    format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        client.ip(),
        balancer.ip(),
        client.port(),
        balancer.port()
    )
}

#[tokio::test]
async fn a_backend_is_told_of_each_client_on_a_connection_of_its_own() {
    let origin = told_by_line().await;
    let balancer = Setup::to(origin.address())
        .pool("send_proxy = \"v1\"")
        .start()
        .await;
    let mut lines = Vec::new();
    let mut clients = Vec::new();
    for number in 1..=3 {
        let mut client = Client::connect(balancer.address).await;
        lines.push(line(client.stream.local_addr().unwrap(), balancer.address));
        for _ in 0..2 {
            assert_eq!(client.ask(ASKS).await.text(), "hi");
        }
        assert_eq!(
            origin.connections(),
            number,
            "kept for the client's second request"
        );
        clients.push(client);
    }
    // Whoever comes in between.
    for client in clients.iter_mut().rev() {
        assert_eq!(client.ask(ASKS).await.text(), "hi");
    }
    assert_eq!(origin.connections(), 3);
    // The library's way has connections of its own.
    for client in &mut clients {
        assert_eq!(client.ask(CHUNKED).await.text(), "hi");
        assert_eq!(client.ask(CHUNKED).await.text(), "hi");
    }
    assert_eq!(origin.connections(), 6);
    let received = origin.received();
    for line in lines {
        assert_eq!(received.matches(&line).count(), 2, "{line}{received}");
    }
    assert!(received.starts_with("PROXY "), "{received}");
}

#[tokio::test]
async fn a_backend_is_told_what_a_proxy_told_us() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.exactly(16 + ADDRESSES.len()).await;
        while peer.request().await.is_some() {
            peer.send(ok("hi")).await;
        }
    })
    .await;
    let setup = Setup::to(origin.address())
        .pool("send_proxy = \"v2\"")
        .listener(TRUST);
    let balancer = setup.start().await;
    assert_eq!(introduced(&balancer, V1).await.ask(ASKS).await.text(), "hi");
    let expected = v2(0x21, 0x11, ADDRESSES);
    assert!(
        origin.received_bytes().starts_with(&expected),
        "{}",
        origin.received()
    );
}

#[tokio::test]
async fn the_header_comes_before_whatever_else_is_spoken() {
    for (pool, follows) in [
        ("protocol = \"h2\"", &b"PRI * HTTP/2.0\r\n"[..]),
        ("tls = { verify = false }", b"\x16\x03\x01"),
    ] {
        let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
        let setup = Setup::to(origin.address()).pool("send_proxy = \"v1\"").pool(pool);
        let balancer = setup.start().await;
        let mut client = Client::connect(balancer.address).await;
        let line = line(client.stream.local_addr().unwrap(), balancer.address);
        client.send(ASKS).await;
        let expected = [line.as_bytes(), follows].concat();
        wait_until("it arrives", DEADLINE, || {
            origin.received_bytes().len() >= expected.len()
        })
        .await;
        assert!(
            origin.received_bytes().starts_with(&expected),
            "{}",
            origin.received()
        );
        client.stream.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn checks_say_that_they_are_ours() {
    for (version, kind, begin) in [
        ("v1", "http", b"PROXY UNKNOWN\r\nGET /".to_vec()),
        ("v2", "http", [&v2(0x20, 0x00, b""), &b"GET /"[..]].concat()),
        ("v2", "tcp", v2(0x20, 0x00, b"")),
    ] {
        let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
        let setup = Setup::to(origin.address())
            .pool(&format!("send_proxy = \"{version}\""))
            .pool(&format!("health = {{ kind = \"{kind}\", interval = \"20ms\" }}"));
        let _balancer = setup.start().await;
        wait_until("a check arrives", DEADLINE, || {
            origin.received_bytes().len() >= begin.len()
        })
        .await;
        assert!(
            origin.received_bytes().starts_with(&begin),
            "{}",
            origin.received()
        );
    }
}
