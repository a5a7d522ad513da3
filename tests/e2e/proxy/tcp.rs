//! Connections whose bytes are passed on as they are: both ways, to the end of each, and to the right backend.

use tokio::io::AsyncWriteExt;
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Peer, Port, RawOrigin, Setup,
    tls::{Authority, TlsOrigin, shake, shake_over},
    wait_until, within,
};

const TCP: &str = "protocol = \"tcp\"";

fn to(origin: &RawOrigin) -> Setup {
    Setup::to(origin.address()).listener(TCP)
}

/// Speaks first, sends back what comes, and has a last word.
async fn echo(mut peer: Peer) {
    peer.send("welcome,").await;
    while let Some(bytes) = peer.bytes().await {
        peer.send(bytes).await;
    }
    peer.send("goodbye").await;
    let _ = peer.stream.shutdown().await;
}

/// Says its name and ends.
async fn named(name: &'static str) -> RawOrigin {
    RawOrigin::start(move |mut peer| async move {
        peer.send(name).await;
        let _ = peer.stream.shutdown().await;
        peer.until_closed().await;
    })
    .await
}

/// All that a new connection is told.
async fn told(balancer: &Balancer) -> String {
    Client::connect(balancer.address).await.until_closed().await
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_end_is_passed_on_by_itself() {
    let origin = RawOrigin::start(echo).await;
    let balancer = to(&origin).start().await;
    let mut client = Client::connect(balancer.address).await;
    // The server speaks first.
    assert_eq!(client.exactly(8).await, b"welcome,");
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(client.stream);
    let sent = large.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        // The client's end reaches the backend, whose last word still reaches the client.
        write.shutdown().await.unwrap();
        write
    });
    let mut received = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut received);
    within("all of it", DEADLINE, reading).await.unwrap();
    sending.await.unwrap();
    assert!(
        received.strip_suffix(b"goodbye") == Some(&large),
        "{} bytes",
        received.len()
    );
    assert!(origin.received_bytes() == large);
    assert_eq!(balancer.count(|worker| &worker.tcp_connections), 1);
    // No request was served.
    assert_eq!(balancer.count(|worker| &worker.responses[2]), 0);
}

#[tokio::test]
async fn a_backends_end_leaves_the_clients_way_open() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.send("done").await;
        peer.stream.shutdown().await.unwrap();
        peer.until_closed().await;
    })
    .await;
    let balancer = to(&origin).start().await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.rest().await.unwrap(), b"done");
    client.send("and one more thing").await;
    origin.wait_for("and one more thing").await;
    assert_eq!(origin.closed(), 0);
    client.stream.shutdown().await.unwrap();
    wait_until("the end arrives", DEADLINE, || origin.closed() == 1).await;
}

#[tokio::test]
async fn a_connection_that_breaks_off_does_not_look_like_one_that_ends() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.send("half of").await;
        peer.until(".").await;
        peer.stream.set_zero_linger().unwrap();
    })
    .await;
    let balancer = to(&origin).start().await;
    let mut client = Client::connect(balancer.address).await;
    assert_eq!(client.exactly(7).await, b"half of");
    client.send(".").await;
    assert!(client.rest().await.is_err(), "a reset");
    // And the other way round.
    let (tell, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let origin = RawOrigin::start(move |mut peer| {
        let tell = tell.clone();
        async move {
            let mut bytes = Vec::new();
            let end = tokio::io::AsyncReadExt::read_to_end(&mut peer.stream, &mut bytes).await;
            let _ = tell.send((bytes, end.is_err()));
        }
    })
    .await;
    let balancer = to(&origin).start().await;
    for is_reset in [true, false] {
        let mut client = Client::connect(balancer.address).await;
        client.send("x").await;
        wait_until("it is connected", DEADLINE, || {
            balancer.count(|worker| &worker.tcp_connections) == if is_reset { 1 } else { 2 }
        })
        .await;
        if is_reset {
            client.stream.set_zero_linger().unwrap();
        }
        drop(client);
        let (bytes, was_reset) = within("an end", DEADLINE, ended.recv()).await.unwrap();
        assert_eq!(was_reset, is_reset);
        // A reset may overtake what was sent before it.
        assert!(bytes == b"x" || (is_reset && bytes.is_empty()), "{bytes:?}");
    }
}

#[tokio::test]
async fn the_next_backend_is_tried_when_one_cannot_be_connected_to() {
    let live = named("live").await;
    let dead = Port::new();
    let setup = to(&live)
        .backend(dead.address().to_string())
        .pool("policy = \"round-robin\"")
        .pool("outlier = \"off\"");
    let balancer = setup.start().await;
    for _ in 0..4 {
        assert_eq!(told(&balancer).await, "live");
    }
    assert!(balancer.count(|worker| &worker.upstream_connect_failures) > 0);
}

#[tokio::test]
async fn without_a_backend_the_connection_is_cut() {
    let dead = Port::new();
    let setup = Setup::to(dead.address().to_string()).listener(TCP);
    let balancer = setup.start().await;
    // The reset may come before the client knows that it is connected.
    if let Ok(mut client) = Client::try_connect(balancer.address).await {
        assert!(client.rest().await.is_err());
    }
    wait_until("it is counted", DEADLINE, || {
        balancer.count(|worker| &worker.errors) == 1
    })
    .await;
}

#[tokio::test]
async fn policies_choose_and_see_open_connections_as_load() {
    let origins = [RawOrigin::start(echo).await, RawOrigin::start(echo).await];
    let setup = Setup::new()
        .listener(TCP)
        .backends(origins.iter().map(RawOrigin::address))
        .pool("policy = \"least-connections\"");
    let balancer = setup.start().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(balancer.address).await;
        assert_eq!(client.exactly(8).await, b"welcome,");
        clients.push(client);
    }
    assert_eq!(origins.each_ref().map(RawOrigin::connections), [3, 3]);
    let active = |index: usize| {
        let snapshot = balancer.view().pool.snapshot();
        snapshot.members[index].backend.load(0).active()
    };
    assert_eq!([active(0), active(1)], [3, 3]);
    // While it is open, so that policies that balance bytes see a long transfer.
    clients[0].send(vec![b'x'; 200_000]).await;
    clients[0].exactly(200_000).await;
    let bytes = || -> u64 {
        let snapshot = balancer.view().pool.snapshot();
        let of = |index: usize| {
            let load = snapshot.members[index].backend.load(0);
            load.bytes_sent.load(std::sync::atomic::Ordering::Relaxed)
                + load.bytes_received.load(std::sync::atomic::Ordering::Relaxed)
        };
        of(0) + of(1)
    };
    wait_until("most of it is counted", DEADLINE, || bytes() > 300_000).await;
    drop(clients);
    wait_until("all are over", DEADLINE, || active(0) + active(1) == 0).await;
    // Six welcomes, six goodbyes at most, and what went there and back.
    assert!((400_048..=400_048 + 42).contains(&bytes()), "{}", bytes());
}

#[tokio::test]
async fn silence_ends_a_connection_and_sooner_once_one_side_has_ended() {
    let quiet = || RawOrigin::start(|mut peer: Peer| async move { peer.until_closed().await });
    let origin = quiet().await;
    let setup = to(&origin).listener("limits = { tunnel_timeout = \"1s\" }");
    let balancer = setup.start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("x").await;
    origin.wait_for("x").await;
    client.until_closed().await;
    wait_until("the backend's too", DEADLINE, || origin.closed() == 1).await;
    assert_eq!(balancer.count(|worker| &worker.connections_expired), 1);
    // The origin waits for an end that it has, and never ends itself.
    let origin = RawOrigin::start(|mut peer: Peer| async move {
        peer.until_closed().await;
        std::future::pending::<()>().await;
    })
    .await;
    let setup = to(&origin).listener("limits = { half_closed_timeout = \"1s\" }");
    let balancer = setup.start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("x").await;
    client.stream.shutdown().await.unwrap();
    wait_until("the end arrives", DEADLINE, || origin.closed() == 1).await;
    client.until_closed().await;
    assert_eq!(balancer.count(|worker| &worker.connections_expired), 1);
}

#[tokio::test]
async fn a_stop_lets_connections_finish() {
    let origin = RawOrigin::start(echo).await;
    let balancer = to(&origin).top("drain = \"1m\"").start().await;
    let address = balancer.address;
    let mut client = Client::connect(address).await;
    assert_eq!(client.exactly(8).await, b"welcome,");
    let _port = Port::of(address);
    let stopping = tokio::spawn(balancer.stop());
    within("nothing is accepted", DEADLINE, async {
        while Client::try_connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.send("still here").await;
    assert_eq!(client.exactly(10).await, b"still here");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.until_closed().await, "goodbye");
    within("stopping", DEADLINE, stopping).await.unwrap();
}

/// Two origins behind TLS of their own, and a listener that passes it through.
async fn passed_through() -> (Authority, [TlsOrigin; 2], Balancer) {
    let authority = Authority::new();
    let a = TlsOrigin::start(&authority.server(["a.test", "deep.a.test"]), &[], None).await;
    let b = TlsOrigin::start(&authority.server(["b.test"]), &[], None).await;
    let setup = Setup::to(a.address())
        .listener(TCP)
        .listener(
            "route = [{ server_name = \"a.test\", pool = \"main\" }, { server_name = \"*.a.test\", pool = \"main\" }, \
             { server_name = \"b.test\", pool = \"b\" }]",
        )
        .rest(&format!("[pool.b]\nbackends = [\"{}\"]", b.address()));
    (authority, [a, b], setup.start().await)
}

#[tokio::test]
async fn tls_is_passed_through_to_the_backend_whose_name_it_asks_for() {
    let (authority, origins, balancer) = passed_through().await;
    for (name, at) in [("a.test", 0), ("B.test", 1), ("deep.a.test", 0), ("b.test", 1)] {
        let before = origins[at].seen().len();
        let mut client = shake(balancer.address, name, authority.trusted(&[], None))
            .await
            .unwrap();
        let answer = client
            .ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")
            .await;
        assert_eq!(answer.text(), "hi", "{name}");
        assert_eq!(origins[at].seen().len(), before + 1, "{name}");
    }
    // Neither another name, nor none, nor another protocol leads anywhere.
    let other = shake(balancer.address, "c.test", authority.trusted(&[], None)).await;
    assert!(other.is_err());
    let mut plain = Client::connect(balancer.address).await;
    plain.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    assert_eq!(plain.until_closed().await, "");
    assert_eq!(origins.each_ref().map(|origin| origin.seen().len()), [2, 2]);
}

#[tokio::test]
async fn a_handshake_in_small_pieces_is_passed_through_whole() {
    use tokio::io::AsyncReadExt;
    let (authority, origins, balancer) = passed_through().await;
    // Between the client and the balancer, a wire that carries a byte at a time; records of 64 bytes make the first message
    // one of many, too.
    let (near, far) = tokio::io::duplex(1);
    let connection = tokio::net::TcpStream::connect(balancer.address).await.unwrap();
    let (mut from_balancer, mut to_balancer) = connection.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(far);
    let up = tokio::spawn(async move {
        let mut byte = [0];
        while from_client.read_exact(&mut byte).await.is_ok() {
            to_balancer.write_all(&byte).await.unwrap();
            to_balancer.flush().await.unwrap();
        }
    });
    tokio::spawn(async move { tokio::io::copy(&mut from_balancer, &mut to_client).await });
    let mut config = authority.trusted(&[], None);
    config.max_fragment_size = Some(64);
    let name = rustls::pki_types::ServerName::try_from("b.test").unwrap();
    let shaking = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, near);
    let stream = within("a handshake", DEADLINE, shaking).await.unwrap();
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    wait_until("the backend has it too", DEADLINE, || {
        origins[1].seen().len() == 1
    })
    .await;
    assert_eq!(origins[1].seen()[0].name.as_deref(), Some("b.test"));
    up.abort();
}

#[tokio::test]
async fn what_names_no_server_goes_to_the_route_without_one() {
    let plain = named("plain").await;
    let (authority, origins, balancer) = passed_through().await;
    drop(balancer);
    let text = format!(
        "{}[pool.plain]\nbackends = [\"{}\"]\n",
        Setup::to(origins[0].address())
            .listener(TCP)
            .listener("route = [{ server_name = \"a.test\", pool = \"main\" }, { pool = \"plain\" }]")
            .text(),
        plain.address()
    );
    let directory = Directory::new();
    let balancer = Balancer::start(text, directory.path()).await.ok().unwrap();
    let mut client = Client::connect(balancer.address).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.until_closed().await, "plain");
    plain.wait_for("GET / HTTP/1.1\r\n\r\n").await;
    assert!(
        shake(balancer.address, "a.test", authority.trusted(&[], None))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn tls_ends_here_if_the_listener_has_it_and_begins_anew_if_the_pool_does() {
    let authority = Authority::new();
    let directory = Directory::new();
    let own = authority.server(["front.test"]);
    directory.write("front.pem", format!("{}{}", own.cert, own.key));
    directory.write("ca.pem", &authority.pem);
    let origin = TlsOrigin::start(&authority.server(["127.0.0.1"]), &[], None).await;
    let setup = Setup::to(origin.address())
        .listener(TCP)
        .listener("tls = { certificates = [{ cert = \"front.pem\" }] }")
        .listener("route = [{ server_name = \"front.test\", pool = \"main\" }]")
        .pool("tls = { ca = \"ca.pem\" }");
    let balancer = Balancer::start(setup.text(), directory.path())
        .await
        .ok()
        .unwrap();
    let mut client = shake(
        balancer.address,
        "front.test",
        authority.trusted(&["whatever"], None),
    )
    .await
    .unwrap();
    let answer = client
        .ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi")
        .await;
    assert_eq!(answer.text(), "hi");
    assert_eq!(origin.seen()[0].protocol, None, "we do not know what is spoken");
    // The end is said, both ways.
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"");
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_connection() {
    let directory = Directory::new();
    let origin = RawOrigin::start(echo).await;
    let setup = to(&origin)
        .listener("proxy_protocol = { trusted = [\"127.0.0.1\"] }")
        .pool("send_proxy = \"v1\"")
        .top("log.access = \"access.log\"");
    let balancer = Balancer::start(setup.text(), directory.path())
        .await
        .ok()
        .unwrap();
    let mut client = Client::connect(balancer.address).await;
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    client.send(format!("{header}hello")).await;
    client.stream.shutdown().await.unwrap();
    let answer = format!("welcome,{header}hellogoodbye");
    assert_eq!(client.until_closed().await, answer);
    balancer.stop().await;
    let log = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
    let received = answer.len();
    for told in [
        "\"client\":\"192.0.2.7\"".to_owned(),
        "\"protocol\":\"tcp\"".to_owned(),
        "\"sent\":5".to_owned(),
        format!("\"received\":{received}"),
        "\"complete\":true".to_owned(),
        format!("\"backend\":\"{}\"", origin.address()),
    ] {
        assert!(log.contains(&told), "{told}\nin\n{log}");
    }
}

#[tokio::test]
async fn a_client_that_shakes_hands_over_a_told_connection_is_passed_through() {
    let (authority, origins, balancer) = passed_through().await;
    drop(balancer);
    let setup = Setup::to(origins[0].address())
        .listener(TCP)
        .listener("proxy_protocol = { trusted = [\"127.0.0.1\"] }")
        .listener("route = [{ server_name = \"a.test\", pool = \"main\" }]");
    let balancer = setup.start().await;
    let mut connection = Client::connect(balancer.address).await;
    connection
        .send("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n")
        .await;
    let shaken = shake_over(connection.stream, "a.test", authority.trusted(&[], None)).await;
    assert!(shaken.is_ok());
}
