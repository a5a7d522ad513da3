//! CONNECT: refused unless the listener passes it on; then a tunnel, and not a byte of it before the backend agrees.
//! Numbers like C9 are those of the case list that issue 5 names.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use trimtab_tests::{
    Client, DEADLINE, Peer, RawOrigin, Setup,
    frames::{Framed, block, flag, frame, kind},
    ok, wait_until, within,
};

const ASKS: &str = "CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n";

fn to(origin: &RawOrigin) -> Setup {
    Setup::to(origin.address()).listener("connect = true")
}

/// A proxy that agrees with these words, and then sends back what comes, until the end and a last word.
async fn agreeing(words: &'static str) -> RawOrigin {
    RawOrigin::start(move |mut peer: Peer| async move {
        if peer.head().await.is_none() {
            return;
        }
        // The first bytes of the tunnel come in one piece with the agreement.
        peer.send(format!("{words}\r\nwelcome,")).await;
        while let Some(bytes) = peer.bytes().await {
            peer.send(bytes).await;
        }
        peer.send("goodbye").await;
        let _ = peer.stream.shutdown().await;
    })
    .await
}

#[tokio::test]
async fn c9_it_is_refused_unless_the_listener_passes_it_on() {
    let origin = RawOrigin::answering(ok("hi")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send(format!("{ASKS}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    let answer = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    // What was meant for a tunnel is no request.
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn bytes_pass_both_ways_after_the_agreement() {
    for words in [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        // RFC 9110, 9.3.6: to be ignored.
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n",
    ] {
        let origin = agreeing(words).await;
        let balancer = to(&origin).start().await;
        let mut client = Client::connect(balancer.address).await;
        // What follows the request at once is not lost.
        client.send(format!("{ASKS}early,")).await;
        let agreed = client.head().await.unwrap();
        assert_eq!(agreed.status / 100, 2, "{words}");
        assert_eq!(agreed.field("content-length"), None, "{words}");
        assert_eq!(agreed.field("transfer-encoding"), None, "{words}");
        let large = "x".repeat(1_000_000);
        client.send(&large).await;
        client.stream.shutdown().await.unwrap();
        let rest = client.rest().await.unwrap();
        let expected = format!("welcome,early,{large}goodbye");
        assert!(rest == expected.as_bytes(), "{words}: {} bytes", rest.len());
        let received = origin.received();
        assert!(
            received.starts_with("CONNECT db.test:5432 HTTP/1.1\r\n"),
            "{received:.300}"
        );
        assert!(received.contains("host: db.test:5432\r\n"), "{received:.300}");
        assert_eq!(balancer.count(|worker| &worker.upgrades), 1);
    }
}

#[tokio::test]
async fn nothing_reaches_the_backend_before_its_agreement_and_nothing_becomes_a_request_without() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let origin = RawOrigin::answering(answer).await;
        let balancer = to(&origin).start().await;
        let mut client = Client::connect(balancer.address).await;
        client
            .send(format!("{ASKS}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"))
            .await;
        let response = client.response().await;
        assert_eq!(
            (response.text(), response.field("connection")),
            ("no".into(), Some("close"))
        );
        assert_eq!(client.until_closed().await, "");
        assert!(!origin.received().contains("smuggled"), "{}", origin.received());
    }
    // Nor while it thinks, and not after it has thought for too long.
    let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let balancer = to(&origin).pool("response_timeout = \"300ms\"").start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send(format!("{ASKS}early")).await;
    let answer = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    wait_until("the backend is left", DEADLINE, || origin.closed() == 1).await;
    assert!(origin.received().starts_with("CONNECT"), "{}", origin.received());
    assert!(!origin.received().contains("early"), "{}", origin.received());
}

#[tokio::test]
async fn an_error_in_place_of_the_answer_ends_the_connection_too() {
    let nobody = RawOrigin::start(|_| async {}).await;
    let balancer = to(&nobody).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send(format!("{ASKS}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    let answer = client.until_closed().await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn h12_what_is_not_exactly_host_and_port_is_refused() {
    let origin = agreeing("HTTP/1.1 200 OK\r\n").await;
    let balancer = to(&origin).start().await;
    for asks in [
        "CONNECT db.test HTTP/1.1\r\nhost: db.test\r\n\r\n",
        "CONNECT db.test:0 HTTP/1.1\r\nhost: db.test\r\n\r\n",
        "CONNECT /path HTTP/1.1\r\nhost: db.test\r\n\r\n",
        "CONNECT http://db.test:80/ HTTP/1.1\r\nhost: db.test\r\n\r\n",
        "CONNECT user@db.test:80 HTTP/1.1\r\nhost: db.test\r\n\r\n",
        "CONNECT db.test:80 HTTP/1.1\r\nhost: db.test\r\ncontent-length: 2\r\n\r\nhi",
        "CONNECT db.test:80 HTTP/1.1\r\nhost: db.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = Client::connect(balancer.address).await;
        client.send(asks).await;
        let answer = client.until_closed().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{asks}{answer}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_route_takes_it_by_its_host() {
    let (a, b) = (
        agreeing("HTTP/1.1 200 A\r\n").await,
        agreeing("HTTP/1.1 200 B\r\n").await,
    );
    let setup = to(&a)
        .listener("route = [{ host = \"db.test\", pool = \"main\" }, { pool = \"b\" }]")
        .rest(&format!("[pool.b]\nbackends = [\"{}\"]", b.address()));
    let balancer = setup.start().await;
    for (asks, origin) in [(ASKS.to_owned(), &a), (ASKS.replace("db.test", "other.test"), &b)] {
        let mut client = Client::connect(balancer.address).await;
        client.send(asks).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn silence_ends_a_tunnel() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\n\r\n").await;
        peer.until_closed().await;
    })
    .await;
    let balancer = to(&origin)
        .listener("limits = { tunnel_timeout = \"1s\" }")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client.send(ASKS).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    client.until_closed().await;
    wait_until("the backend's end too", DEADLINE, || origin.closed() == 1).await;
}

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A client with HTTP/2 by prior knowledge.
async fn http2(address: std::net::SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = within("a handshake", DEADLINE, handshake).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn asks(method: Method, uri: &str) -> Request<Empty<Bytes>> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Empty::new())
        .unwrap()
}

/// A tunnel to the end of it: what came back.
async fn through(sender: &mut Sender, says: &[u8]) -> Vec<u8> {
    let asked = sender.send_request(asks(Method::CONNECT, "db.test:5432"));
    let response = within("an answer", DEADLINE, asked).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let upgraded = within("a tunnel", DEADLINE, hyper::upgrade::on(response))
        .await
        .unwrap();
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let says = says.to_vec();
    let sending = tokio::spawn(async move {
        write.write_all(&says).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    within("all of it", DEADLINE, read.read_to_end(&mut received))
        .await
        .unwrap();
    sending.await.unwrap();
    received
}

#[tokio::test]
async fn over_http2_a_tunnel_is_one_of_many_requests() {
    let origin = agreeing("HTTP/1.1 200 OK\r\n").await;
    // Were the tunnel not counted as open, the connection would end as quiet.
    let setup = to(&origin).listener("limits = { idle_timeout = \"1s\", header_timeout = \"100ms\" }");
    let balancer = setup.start().await;
    let mut sender = http2(balancer.address).await;
    let large = vec![b'x'; 500_000];
    for _ in 0..2 {
        let received = through(&mut sender, &large).await;
        assert!(
            received == [b"welcome,", &large[..], b"goodbye"].concat(),
            "{} bytes",
            received.len()
        );
    }
    let asked = sender.send_request(asks(Method::CONNECT, "db.test:5432"));
    let response = within("an answer", DEADLINE, asked).await.unwrap();
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut welcome = [0; 8];
    tunnel.read_exact(&mut welcome).await.unwrap();
    let quiet_until = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    tokio::time::sleep_until(quiet_until).await;
    tunnel.write_all(b"still").await.unwrap();
    let mut back = [0; 5];
    within("an echo", DEADLINE, tunnel.read_exact(&mut back))
        .await
        .unwrap();
    assert_eq!(&back, b"still");
    assert_eq!(balancer.count(|worker| &worker.upgrades), 3);
    assert_eq!(balancer.count(|worker| &worker.http2_connections), 1);
}

#[tokio::test]
async fn over_http2_a_tunnel_that_breaks_off_does_not_look_ended() {
    let breaking = RawOrigin::start(|mut peer: Peer| async move {
        if peer.head().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\n\r\n").await;
            // Something has come through, so the client has the agreement.
            peer.bytes().await;
            peer.stream.set_zero_linger().unwrap();
        }
    })
    .await;
    let balancer = to(&breaking).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    let head = block(&[(":method", "CONNECT"), (":authority", "db.test:5432")]);
    framed
        .send(frame(kind::HEADERS, flag::END_HEADERS, 1, &head))
        .await;
    let agreed = framed.until(kind::HEADERS).await.unwrap();
    assert_eq!(agreed.status(), Some(200));
    framed.send(frame(kind::DATA, 0, 1, b"hello")).await;
    let reset = framed.until(kind::RST_STREAM).await.unwrap();
    // CONNECT_ERROR
    assert_eq!((reset.stream, reset.error()), (1, Some(0xa)));
}

#[tokio::test]
async fn over_http2_a_refusal_is_an_answer_and_the_connection_goes_on() {
    let origin = RawOrigin::answering("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    for (setup, status) in [(to(&origin), 403), (Setup::to(origin.address()), 405)] {
        let balancer = setup.start().await;
        let mut sender = http2(balancer.address).await;
        let response = sender
            .send_request(asks(Method::CONNECT, "db.test:5432"))
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        assert!(!response.headers().contains_key(header::CONNECTION));
        let ordinary = sender.send_request(asks(Method::GET, "http://a/")).await.unwrap();
        assert_eq!(ordinary.status(), 403);
    }
}

/// A proxy that speaks HTTP/2, agrees, and echoes.
async fn http2_proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service =
                hyper::service::service_fn(|mut request: Request<hyper::body::Incoming>| async move {
                    let asked = (request.method().clone(), request.uri().to_string());
                    let is_right = asked == (Method::CONNECT, "db.test:5432".to_owned());
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let Ok(upgraded) = upgrade.await else { return };
                        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                        let _ = write.write_all(b"welcome,").await;
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                        let _ = write.write_all(b"goodbye").await;
                        let _ = write.shutdown().await;
                    });
                    let mut response = hyper::Response::new(Empty::<Bytes>::new());
                    if !is_right {
                        *response.status_mut() = StatusCode::BAD_REQUEST;
                    }
                    Ok::<_, std::convert::Infallible>(response)
                });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn a_backend_with_http2_is_a_proxy_just_as_well() {
    let setup = Setup::to(http2_proxy().await)
        .listener("connect = true")
        .pool("protocol = \"h2\"");
    let balancer = setup.start().await;
    let large = vec![b'x'; 500_000];
    let expected = [b"welcome,", &large[..], b"goodbye"].concat();
    let mut sender = http2(balancer.address).await;
    let received = through(&mut sender, &large).await;
    assert!(received == expected, "{} bytes", received.len());
    let mut client = Client::connect(balancer.address).await;
    client.send(ASKS).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    client.send(&large).await;
    client.stream.shutdown().await.unwrap();
    let received = client.rest().await.unwrap();
    assert!(received == expected, "{} bytes", received.len());
}
