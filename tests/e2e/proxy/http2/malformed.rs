//! Requests that are none: what HTTP/2 can say and HTTP/1.1 must not hear. Nothing of them reaches the origin.

use trimtab_tests::{
    Balancer, DEADLINE, RawOrigin, Setup,
    frames::{Framed, block, flag, frame, get_fields, kind},
    ok, wait_until,
};

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "a");
const PATH: (&str, &str) = (":path", "/");

/// How a request was refused: by a status, or by a reset (0).
async fn refused(name: &str, frames: Vec<u8>) -> u16 {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed.send(frames).await;
    let answer = loop {
        let frame = framed.next().await;
        match frame {
            None => break 0,
            Some(frame) if frame.kind == kind::HEADERS => break frame.status().unwrap_or(999),
            Some(frame) if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => break 0,
            Some(_) => {}
        }
    };
    assert_ne!(answer, 200, "{name}");
    assert_eq!(origin.requests(), 0, "{name}: {}", origin.received());
    answer
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::BOTH, 1, &block(fields))
}

#[tokio::test]
async fn h1_h2_h5_h13_fields_that_http_1_must_not_hear_are_refused() {
    for field in [
        ("x", "a\r\nsmuggled: 1"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x: y\r\nz", "1"),
        ("x y", "1"),
        ("x:y", "1"),
        ("", "1"),
        ("X-Upper", "1"),
        ("connection", "close"),
        ("connection", "x-y"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("te", "gzip"),
    ] {
        let answer = refused(&format!("{field:?}"), head(&get_fields(&[field]))).await;
        assert!(answer == 0 || answer == 400, "{field:?}: {answer}");
    }
}

#[tokio::test]
async fn h1_h6_h7_h9_pseudo_fields_that_make_no_request_are_refused() {
    for fields in [
        &[SCHEME, AUTHORITY, PATH][..],
        &[METHOD, AUTHORITY, PATH],
        &[METHOD, SCHEME, AUTHORITY],
        &[METHOD, SCHEME, PATH],
        &[METHOD, METHOD, SCHEME, AUTHORITY, PATH],
        &[METHOD, SCHEME, AUTHORITY, PATH, PATH],
        &[METHOD, SCHEME, AUTHORITY, ("x", "1"), PATH],
        &[METHOD, SCHEME, AUTHORITY, PATH, (":odd", "1")],
        &[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")],
        &[METHOD, SCHEME, AUTHORITY, (":path", "")],
        &[METHOD, SCHEME, AUTHORITY, (":path", "a")],
        &[METHOD, SCHEME, AUTHORITY, (":path", "/a b")],
        &[METHOD, SCHEME, AUTHORITY, (":path", "/ HTTP/1.1\r\nx: y")],
        &[(":method", "GET / HTTP/1.1\r\nx: y"), SCHEME, AUTHORITY, PATH],
        &[(":method", "G T"), SCHEME, AUTHORITY, PATH],
        &[METHOD, SCHEME, (":authority", "a b"), PATH],
        &[METHOD, SCHEME, (":authority", "a/b"), PATH],
        &[METHOD, SCHEME, (":authority", "u@a"), PATH],
        &[METHOD, SCHEME, (":authority", "a\r\nx: y"), PATH],
        &[METHOD, (":scheme", "http://x"), AUTHORITY, PATH],
    ] {
        let answer = refused(&format!("{fields:?}"), head(fields)).await;
        assert!(answer == 0 || answer == 400, "{fields:?}: {answer}");
    }
}

#[tokio::test]
async fn h8_a_host_that_is_not_the_authority_is_refused() {
    assert_eq!(refused("other", head(&get_fields(&[("host", "b")]))).await, 0);
    let two = head(&get_fields(&[("host", "a"), ("host", "a")]));
    assert_eq!(refused("two", two).await, 400);
}

#[tokio::test]
async fn what_is_malformed_is_reset_and_the_connection_goes_on() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    for (at, fields) in [
        get_fields(&[("x", " a")]),
        get_fields(&[("x", "a\t")]),
        get_fields(&[("host", "b")]),
        vec![(":method", "CONNECT")],
    ]
    .iter()
    .enumerate()
    {
        let stream = 2 * at as u32 + 1;
        framed
            .send(frame(kind::HEADERS, flag::BOTH, stream, &block(fields)))
            .await;
        let reset = framed.until(kind::RST_STREAM).await.unwrap();
        assert_eq!((reset.stream, reset.error()), (stream, Some(1)), "{fields:?}");
    }
    assert_eq!(origin.requests(), 0, "{}", origin.received());
    framed.get(99, &[("x", "a b")]).await;
    let answer = framed.until(kind::HEADERS).await.unwrap();
    assert_eq!((answer.stream, answer.status()), (99, Some(200)));
}

#[tokio::test]
async fn h4_a_length_without_a_body_is_refused() {
    let answer = refused("length", head(&get_fields(&[("content-length", "5")]))).await;
    assert!(answer == 0 || answer == 400, "{answer}");
    let two = head(&get_fields(&[("content-length", "0"), ("content-length", "5")]));
    let answer = refused("two lengths", two).await;
    assert!(answer == 0 || answer == 400, "{answer}");
}

#[tokio::test]
async fn d4_d5_more_fields_than_allowed_are_refused() {
    let many: Vec<_> = (0..120).map(|_| ("x", "1")).collect();
    assert_eq!(
        refused("count", head(&get_fields(&many))).await,
        999,
        "431 has no number of its own"
    );
    let large = "v".repeat(15_000);
    let pieces: Vec<_> = (0..5)
        .flat_map(|at| {
            let end = if at == 4 { flag::END_HEADERS } else { 0 };
            frame(kind::CONTINUATION, end, 1, &block(&[("x", &large)]))
        })
        .collect();
    let begin = frame(kind::HEADERS, flag::END_STREAM, 1, &block(&get_fields(&[])));
    let answer = refused("size", [begin, pieces].concat()).await;
    assert!(answer == 0 || answer == 999, "{answer}");
}

#[tokio::test]
async fn h3_h11_a_body_that_is_not_what_was_said_never_becomes_a_whole_request() {
    let post = |length: &str| {
        let fields = [
            (":method", "POST"),
            SCHEME,
            AUTHORITY,
            PATH,
            ("content-length", length),
        ];
        frame(kind::HEADERS, flag::END_HEADERS, 1, &block(&fields))
    };
    let trailers = |fields: &[(&str, &str)], flags| frame(kind::HEADERS, flags, 1, &block(fields));
    for (name, bytes) in [
        (
            "more",
            [post("3"), frame(kind::DATA, flag::END_STREAM, 1, b"abcd")].concat(),
        ),
        (
            "less",
            [post("3"), frame(kind::DATA, flag::END_STREAM, 1, b"ab")].concat(),
        ),
        (
            "less, with trailers",
            [
                post("3"),
                frame(kind::DATA, 0, 1, b"ab"),
                trailers(&[("x", "y")], flag::BOTH),
            ]
            .concat(),
        ),
        (
            "pseudo field in trailers",
            [
                post("3"),
                frame(kind::DATA, 0, 1, b"ab"),
                trailers(&[PATH], flag::BOTH),
            ]
            .concat(),
        ),
        (
            "trailers that do not end it",
            [
                post("3"),
                frame(kind::DATA, 0, 1, b"ab"),
                trailers(&[("x", "y")], flag::END_HEADERS),
            ]
            .concat(),
        ),
    ] {
        let origin = RawOrigin::answering(ok("")).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut framed = Framed::connect(balancer.address).await;
        framed.send(bytes).await;
        let reset = loop {
            let frame = framed.next().await;
            match frame {
                None => break true,
                Some(frame) if frame.kind == kind::HEADERS => break frame.status() != Some(200),
                Some(frame) if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => break true,
                Some(_) => {}
            }
        };
        assert!(reset, "{name}");
        wait_until("the origin's connection ends", DEADLINE, || {
            origin.open_connections() == 0
        })
        .await;
        let received = origin.received();
        assert!(
            !received.ends_with("abc") && !received.ends_with("0\r\n\r\n"),
            "{name}: {received}"
        );
    }
}

/// A connection on which an upload is with the origin, but for its end.
async fn uploading(origin: &RawOrigin) -> (Balancer, Framed) {
    let balancer = Setup::to(origin.address()).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    let head = block(&[(":method", "POST"), SCHEME, AUTHORITY, PATH]);
    framed
        .send(frame(kind::HEADERS, flag::END_HEADERS, 1, &head))
        .await;
    framed.send(frame(kind::DATA, 0, 1, b"ab")).await;
    origin.wait_for("ab\r\n").await;
    (balancer, framed)
}

/// The origin must not take what came for the whole.
async fn expect_broken(origin: &RawOrigin) {
    wait_until("the origin's connection ends", DEADLINE, || origin.closed() == 1).await;
    let received = origin.received_by_connection().remove(0);
    let received = String::from_utf8_lossy(&received);
    assert!(!received.contains("\r\n0\r\n"), "{received}");
}

#[tokio::test]
async fn h11_trailers_with_what_only_a_head_has_reset_that_request_and_no_other() {
    for fields in [
        block(&[PATH]),
        block(&[("x", "y"), SCHEME]),
        // The whole field by its number.
        vec![0x83],
        // One of a name by its number that becomes an entry, which later requests may name.
        vec![0x44, 2, b'/', b'b'],
    ] {
        let origin = RawOrigin::answering(ok("")).await;
        let (_balancer, mut framed) = uploading(&origin).await;
        framed.send(frame(kind::HEADERS, flag::BOTH, 1, &fields)).await;
        let reset = framed.until(kind::RST_STREAM).await.unwrap();
        assert_eq!((reset.stream, reset.error()), (1, Some(1)), "{fields:x?}");
        expect_broken(&origin).await;
        let mut next = block(&[METHOD, SCHEME, AUTHORITY]);
        next.push(if fields[0] == 0x44 { 0xbe } else { 0x84 });
        framed.send(frame(kind::HEADERS, flag::BOTH, 3, &next)).await;
        let answer = framed.until(kind::HEADERS).await.unwrap();
        assert_eq!((answer.stream, answer.status()), (3, Some(200)), "{fields:x?}");
        let received = origin.received();
        assert_eq!(received.contains("GET /b HTTP"), fields[0] == 0x44, "{received}");
    }
}

#[tokio::test]
async fn trailers_whose_beginning_has_been_passed_on_end_the_connection_with_what_only_a_head_has() {
    let origin = RawOrigin::answering(ok("")).await;
    let (_balancer, mut framed) = uploading(&origin).await;
    // More than is read at once.
    let large = block(&[("x", &"v".repeat(16_000))]);
    let pieces = [
        frame(kind::HEADERS, flag::END_STREAM, 1, &large),
        frame(kind::CONTINUATION, 0, 1, &large),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block(&[PATH])),
    ];
    framed.send(pieces.concat()).await;
    let last = framed.until(kind::GOAWAY).await.unwrap();
    assert_eq!(last.error(), Some(1));
    expect_broken(&origin).await;
}

#[tokio::test]
async fn fields_that_cannot_be_unpacked_end_the_connection_by_their_name() {
    let whole = block(&get_fields(&[]));
    let cut = &whole[..whole.len() - 1];
    for frames in [
        frame(kind::HEADERS, flag::BOTH, 1, b"\x40"),
        frame(kind::HEADERS, flag::BOTH, 1, cut),
        frame(kind::HEADERS, flag::BOTH, 1, b"\x80"),
        frame(kind::HEADERS, flag::BOTH, 1, b"\x7f\xff\xff\xff\xff\x01"),
        [
            frame(kind::HEADERS, flag::END_STREAM, 1, cut),
            frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""),
        ]
        .concat(),
    ] {
        let origin = RawOrigin::answering(ok("")).await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut framed = Framed::connect(balancer.address).await;
        framed.send(&frames).await;
        let last = framed.until(kind::GOAWAY).await.unwrap();
        assert_eq!(last.error(), Some(9), "{frames:x?}");
        assert_eq!(origin.connections(), 0);
    }
}
