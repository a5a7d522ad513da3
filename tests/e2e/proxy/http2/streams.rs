//! One request among many: its time-outs and its end are its own. And the end of a connection, which is said.

use std::time::Duration;

use trimtab_tests::{
    Balancer, DEADLINE, Origin, RawOrigin, Setup,
    frames::{Framed, block, flag, frame, kind},
    ok, wait_until, within,
};

const NO_ERROR: Option<u32> = Some(0);

fn get(path: &str) -> Vec<u8> {
    block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ])
}

#[tokio::test]
async fn l5_a_request_that_is_given_up_is_given_up_at_the_backend() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 1, &get("/held")))
        .await;
    wait_until("it is with the origin", DEADLINE, || origin.in_flight() == 1).await;
    framed.send(frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8])).await;
    wait_until("the origin has lost its client", DEADLINE, || {
        origin.in_flight() == 0
    })
    .await;
    assert!(framed.get(3, &[]).await);
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    wait_until("it is counted", DEADLINE, || {
        balancer.count(|worker| &worker.aborted) == 1
    })
    .await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_its_request_and_no_other() {
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address()).listener("limits = { body_timeout = \"200ms\" }");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    let post = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ]);
    framed
        .send(frame(kind::HEADERS, flag::END_HEADERS, 1, &post))
        .await;
    framed.send(frame(kind::DATA, 0, 1, b"begun")).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 3, &get("/held")))
        .await;
    let reset = framed.until(kind::RST_STREAM).await.unwrap();
    assert_eq!(reset.stream, 1);
    origin.release();
    let head = framed.until(kind::HEADERS).await.unwrap();
    assert_eq!((head.stream, head.status()), (3, Some(200)));
}

#[tokio::test]
async fn i2_a_body_that_drips_ends_its_request_and_no_other() {
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address())
        .listener("limits = { body_timeout = \"300ms\", body_rate_min = \"1KiB\" }");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    let post = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ]);
    framed
        .send(frame(kind::HEADERS, flag::END_HEADERS, 1, &post))
        .await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 3, &get("/held")))
        .await;
    let dripping = async {
        while balancer.count(|worker| &worker.connections_expired) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            framed.send(frame(kind::DATA, 0, 1, b"b")).await;
        }
    };
    within("the body is given up", DEADLINE, dripping).await;
    assert_eq!(framed.until(kind::RST_STREAM).await.unwrap().stream, 1);
    origin.release();
    let head = framed.until(kind::HEADERS).await.unwrap();
    assert_eq!((head.stream, head.status()), (3, Some(200)));
}

#[tokio::test]
async fn g9_a_window_that_is_never_opened_ends_its_request_and_no_other() {
    let body = vec![b'x'; 2_000_000];
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let origin = RawOrigin::answering([head.as_bytes(), &body].concat()).await;
    let setup = Setup::to(origin.address()).listener("limits = { body_timeout = \"200ms\" }");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed.get(1, &[]).await;
    let reset = framed.until(kind::RST_STREAM).await.unwrap();
    assert_eq!(reset.stream, 1);
    wait_until("the origin's connection ends", DEADLINE, || {
        origin.open_connections() == 0
    })
    .await;
    framed.send(frame(kind::PING, 0, 0, &[3; 8])).await;
    assert_eq!(framed.until(kind::PING).await.unwrap().payload, [3; 8]);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_costs_its_request_a_504() {
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address()).pool("response_timeout = \"100ms\"");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 1, &get("/held")))
        .await;
    let answer = framed.until(kind::HEADERS).await.unwrap();
    assert_eq!(answer.stream, 1);
    assert!(answer.status() != Some(200));
    assert!(framed.get(3, &[]).await);
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().stream, 3);
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whoever_gives_it() {
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
    let setup = Setup::to(origin.address()).listener("route = [{ path_prefix = \"/a\", pool = \"main\" }]");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    for (stream, path) in [(1, "/a"), (3, "/no-route")] {
        let head = block(&[
            (":method", "HEAD"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
        ]);
        framed.send(frame(kind::HEADERS, flag::BOTH, stream, &head)).await;
        let answer = framed.until(kind::HEADERS).await.unwrap();
        assert_eq!(answer.flags & flag::END_STREAM, flag::END_STREAM, "{path}");
    }
}

#[tokio::test]
async fn g17_l7_a_stop_finishes_what_is_under_way_and_takes_nothing_new() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).top("drain = \"1h\"").start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 1, &get("/held")))
        .await;
    wait_until("it is with the origin", DEADLINE, || origin.in_flight() == 1).await;
    balancer.handle().stop().await;
    let warning = framed.until(kind::GOAWAY).await.unwrap();
    assert_eq!(warning.error(), NO_ERROR);
    let ping = framed.until(kind::PING).await.unwrap();
    framed.send(frame(kind::PING, 1, 0, &ping.payload)).await;
    let last = framed.until(kind::GOAWAY).await.unwrap();
    assert_eq!((last.error(), &last.payload[..4]), (NO_ERROR, &[0, 0, 0, 1][..]));
    framed.get(3, &[]).await;
    origin.release();
    let rest = framed.rest().await;
    let answered: Vec<_> = rest.iter().filter(|frame| frame.kind == kind::HEADERS).collect();
    assert_eq!(
        (answered.len(), answered[0].stream, answered[0].status()),
        (1, 1, Some(200))
    );
    assert!(
        rest.iter()
            .any(|frame| frame.kind == kind::DATA && frame.payload == b"a")
    );
    within("the end", DEADLINE, balancer.join()).await;
    assert_eq!(origin.hits(), 1);
}

#[tokio::test]
async fn a_quiet_connection_is_ended_with_a_word() {
    let origin = RawOrigin::answering(ok("")).await;
    let limits = "limits = { idle_timeout = \"1s\", header_timeout = \"100ms\" }";
    let balancer = Setup::to(origin.address()).listener(limits).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed.get(1, &[]).await;
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    // It answers nothing to that, and is closed all the same.
    assert_eq!(framed.until(kind::GOAWAY).await.unwrap().error(), NO_ERROR);
    framed.rest().await;
    wait_until("it is forgotten", DEADLINE, || {
        balancer.count(|worker| &worker.connections_closed) == 1
    })
    .await;
}

async fn held_on_a_connection_that_is_soon_quiet() -> (Origin, Balancer, Framed) {
    let origin = Origin::start("a").await;
    let limits = "limits = { idle_timeout = \"1s\", header_timeout = \"100ms\" }";
    let balancer = Setup::to(origin.address()).listener(limits).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 1, &get("/held")))
        .await;
    wait_until("it is with the origin", DEADLINE, || origin.in_flight() == 1).await;
    (origin, balancer, framed)
}

#[tokio::test]
async fn a_connection_with_a_long_request_is_not_quiet() {
    let (origin, _balancer, mut framed) = held_on_a_connection_that_is_soon_quiet().await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    origin.release();
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_served_until_it_closes() {
    let (origin, _balancer, mut framed) = held_on_a_connection_that_is_soon_quiet().await;
    // With a code that nobody knows, which is nothing special (RFC 9113, 7).
    let goodbye = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]);
    framed.send(goodbye).await;
    for word in [b"are-you-", b"-there-?"] {
        framed.send(frame(kind::PING, 0, 0, word)).await;
        assert_eq!(framed.until(kind::PING).await.unwrap().payload, word);
        origin.release();
        if word == b"are-you-" {
            assert_eq!(framed.until(kind::DATA).await.unwrap().payload, b"a");
        }
    }
    // One that does not close is quiet, and ended as such.
    assert_eq!(framed.until(kind::GOAWAY).await.unwrap().error(), NO_ERROR);
    framed.rest().await;
}

#[tokio::test]
async fn a_request_has_nothing_of_the_one_whose_place_it_takes() {
    let origin = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let setup = Setup::to(origin.address())
        .workers(1)
        .listener("limits = { body_timeout = \"200ms\" }");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 1, &get("/third")))
        .await;
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    let line = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/first"),
    ];
    let first = block(&[&line[..], &[("x-first", "one"), ("cookie", "of=first")]].concat());
    framed.send(frame(kind::HEADERS, flag::BOTH, 3, &first)).await;
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 5, &get("/third")))
        .await;
    assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    // Its body does not come, and so its time runs out.
    let post = block(&[(":method", "POST"), line[1], line[2], (":path", "/second")]);
    framed
        .send(frame(kind::HEADERS, flag::END_HEADERS, 7, &post))
        .await;
    assert_eq!(framed.until(kind::RST_STREAM).await.unwrap().stream, 7);
    for stream in [9, 11, 13] {
        framed
            .send(frame(kind::HEADERS, flag::BOTH, stream, &get("/third")))
            .await;
        let head = framed.until(kind::HEADERS).await.unwrap();
        assert_eq!((head.stream, head.status()), (stream, Some(200)));
    }
    let received = origin.received();
    let thirds = received.split("GET /third ").skip(1);
    let thirds: Vec<_> = thirds.map(|third| third.split("\r\n\r\n").next()).collect();
    assert_eq!(thirds.len(), 5, "{received}");
    assert!(thirds.iter().all(|third| *third == thirds[0]), "{received}");
}
