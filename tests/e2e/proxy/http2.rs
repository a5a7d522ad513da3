//! HTTP/2 with clients. Numbers like G1 are those of the case list that issue 5 names.

mod floods;
mod malformed;
mod straight;
mod streams;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use trimtab_tests::{
    Balancer, Client, DEADLINE, Directory, Origin, RawOrigin, Setup,
    frames::{self, flag, frame, get_fields, kind},
    get, ok,
    tls::{Authority, shake},
    wait_until, within,
};

type Sender = SendRequest<Full<Bytes>>;

/// A well-behaved client over any stream.
async fn client(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Sender {
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn connect(balancer: &Balancer) -> Sender {
    client(Client::connect(balancer.address).await.stream).await
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let uri = format!("http://shop.test{path}");
    Request::get(uri).body(Full::default()).unwrap()
}

async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> (u16, Bytes) {
    let asking = async {
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    within("a response", DEADLINE, asking).await
}

#[tokio::test]
async fn h10_a_request_reaches_the_backend_as_http_1_with_host_and_whole_cookies() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut sender = connect(&balancer).await;
    let mut asked = request("/a?b=c");
    for piece in ["a=1", "b=2", "c=3"] {
        asked.headers_mut().append("cookie", piece.parse().unwrap());
    }
    asked
        .headers_mut()
        .insert("x-forwarded-proto", "https".parse().unwrap());
    assert_eq!(ask(&mut sender, asked).await, (200, Bytes::from("hello")));
    let received = origin.received();
    assert!(received.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{received}");
    for line in [
        "host: shop.test\r\n",
        "cookie: a=1; b=2; c=3\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: shop.test\r\n",
        "via: 2.0 trimtab-",
    ] {
        assert!(received.contains(line), "{line}: {received}");
    }
    assert_eq!(balancer.count(|worker| &worker.http2_connections), 1);
}

#[tokio::test]
async fn it_is_chosen_in_the_handshake_and_plain_clients_go_on() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let authority = Authority::new();
    let directory = Directory::new();
    let signed = authority.server(["shop.test"]);
    directory.write("shop.pem", signed.cert + &signed.key);
    let setup = Setup::to(origin.address()).listener("tls = { certificates = [{ cert = \"shop.pem\" }] }");
    for (setup, chosen) in [
        (setup.clone(), Some(&b"h2"[..])),
        (setup.listener("http2 = \"off\""), Some(&b"http/1.1"[..])),
    ] {
        let balancer = Balancer::start(setup.text(), directory.path()).await;
        let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
        let both = authority.trusted(&["h2", "http/1.1"], None);
        let shaken = shake(balancer.address, "shop.test", both).await.unwrap();
        assert_eq!(shaken.stream.get_ref().1.alpn_protocol(), chosen);
        if chosen == Some(b"h2") {
            let mut sender = client(shaken.stream).await;
            assert_eq!(ask(&mut sender, request("/")).await, (200, Bytes::from("hello")));
            assert!(origin.received().contains("x-forwarded-proto: https\r\n"));
        }
        for only in [&["http/1.1"][..], &[]] {
            let config = authority.trusted(only, None);
            let mut old = shake(balancer.address, "shop.test", config).await.unwrap();
            assert_eq!(old.get("/").await.text(), "hello");
        }
    }
}

#[tokio::test]
async fn the_preface_may_come_in_pieces() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let whole = [
        frames::PREFACE,
        &frame(kind::SETTINGS, 0, 0, &[]),
        &frame(kind::HEADERS, flag::BOTH, 1, &frames::block(&get_fields(&[]))),
    ]
    .concat();
    let mut client = Client::connect(balancer.address).await;
    for byte in whole {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    client.send(frame(kind::PING, 0, 0, &[7; 8])).await;
    let mut seen = Vec::new();
    while !seen
        .windows(5)
        .any(|part| part == b"\x01a\x00\x00\x00" || part == b"\x01\x00\x00\x00\x01")
    {
        let mut buffer = [0; 1024];
        let reading = tokio::io::AsyncReadExt::read(&mut client.stream, &mut buffer);
        let count = within("frames", DEADLINE, reading).await.unwrap();
        assert!(count > 0, "closed after {seen:?}");
        seen.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(balancer.count(|worker| &worker.http2_connections), 1);
}

#[tokio::test]
async fn turned_off_or_after_a_request_the_preface_is_no_way_in() {
    let origin = Origin::start("a").await;
    for (setup, before) in [
        (Setup::to(origin.address()).listener("http2 = \"off\""), false),
        (Setup::to(origin.address()), true),
    ] {
        let balancer = setup.start().await;
        let mut client = Client::connect(balancer.address).await;
        if before {
            assert_eq!(client.get("/").await.status, 200);
        }
        client.send(frames::PREFACE).await;
        client.send(frame(kind::SETTINGS, 0, 0, &[])).await;
        let answer = client.until_closed().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer:?}"
        );
        assert_eq!(balancer.count(|worker| &worker.http2_connections), 0);
        assert_eq!(get(balancer.address, "/").await.status, 200);
    }
}

#[tokio::test]
async fn e6_an_upgrade_to_h2c_is_not_taken() {
    let origin = RawOrigin::answering(ok("hello")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let fields =
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
    let response = trimtab_tests::get_with(balancer.address, "/", fields).await;
    assert_eq!((response.status, response.text()), (200, "hello".into()));
    let received = origin.received();
    assert!(
        !received.contains("upgrade") && !received.contains("http2-settings"),
        "{received}"
    );
}

#[tokio::test]
async fn many_requests_of_one_connection_are_served_at_once() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let sender = connect(&balancer).await;
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { ask(&mut sender, request("/held")).await })
        })
        .collect();
    wait_until("all are at the origin", DEADLINE, || origin.in_flight() == 50).await;
    origin.release();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), (200, Bytes::from("a")));
    }
}

#[tokio::test]
async fn bodies_larger_than_all_windows_arrive_whole_both_ways() {
    let body: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    let answer = [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
        &body,
    ]
    .concat();
    let origin = RawOrigin::answering(answer).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut sender = connect(&balancer).await;
    let mut asked = request("/");
    *asked.method_mut() = hyper::Method::POST;
    *asked.body_mut() = Full::new(Bytes::from(body.clone()));
    let (status, received) = ask(&mut sender, asked).await;
    assert!(
        status == 200 && received == body,
        "{status}, {} bytes",
        received.len()
    );
    assert!(origin.received_bytes().ends_with(&body));
}

#[tokio::test]
async fn trailers_of_a_response_are_passed_on() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut sender = connect(&balancer).await;
    for _ in 0..2 {
        let response = within("a response", DEADLINE, sender.send_request(request("/")))
            .await
            .unwrap();
        let body = within("the body", DEADLINE, response.into_body().collect())
            .await
            .unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "7");
        assert_eq!(body.to_bytes(), "hi");
    }
    // They are the end: the request is whole, and the backend's connection is free for the next.
    wait_until("both have ended", DEADLINE, || {
        balancer.count(|worker| &worker.responses[2]) == 2
    })
    .await;
    assert_eq!(balancer.count(|worker| &worker.aborted), 0);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn connect_is_not_allowed_and_an_unknown_host_has_no_route() {
    let origin = RawOrigin::answering(ok("")).await;
    let setup = Setup::to(origin.address()).listener("route = [{ host = \"shop.test\", pool = \"main\" }]");
    let balancer = setup.start().await;
    let mut sender = connect(&balancer).await;
    let elsewhere = Request::get("http://other.test/").body(Full::default()).unwrap();
    assert_eq!(ask(&mut sender, elsewhere).await.0, 404);
    assert_eq!(ask(&mut sender, request("/")).await.0, 200);
    let tunnel = Request::connect("shop.test:80").body(Full::default()).unwrap();
    let refused = within("an answer", DEADLINE, sender.send_request(tunnel))
        .await
        .unwrap();
    assert_eq!(refused.status(), 405);
    assert_eq!(origin.requests(), 1);
}
