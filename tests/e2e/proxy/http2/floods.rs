//! Connections that send much and want nothing: each is cut off, with a word, and nobody else notices.

use trimtab_tests::{
    Balancer, Origin, Setup,
    frames::{Frame, Framed, block, flag, frame, get_fields, kind},
    get, wait_until,
};

const CALM: Option<u32> = Some(0xb);
const PROTOCOL_ERROR: Option<u32> = Some(1);

/// Sends a flood until the connection breaks, and gives how many pieces went out and the last word.
async fn flood(balancer: &Balancer, pieces: usize, piece: impl Fn(u32) -> Vec<u8>) -> (usize, Option<Frame>) {
    let mut framed = Framed::connect(balancer.address).await;
    let mut sent = 0;
    // The end of some floods is only to be seen when nothing more is sent: a break is seen at the next writing.
    while sent < pieces && framed.send(piece(sent as u32)).await {
        sent += 1;
    }
    let last = framed
        .rest()
        .await
        .into_iter()
        .rfind(|frame| frame.kind == kind::GOAWAY);
    (sent, last)
}

#[tokio::test]
async fn g1_requests_that_are_given_up_at_once_end_the_connection() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let block = block(&get_fields(&[]));
    let pair = |at: u32| {
        let stream = 2 * at + 1;
        let reset = frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        [frame(kind::HEADERS, flag::BOTH, stream, &block), reset].concat()
    };
    // In one piece, so that they are there before we look; and one by one.
    let mut framed = Framed::connect(balancer.address).await;
    framed.send((0..2000).flat_map(pair).collect::<Vec<u8>>()).await;
    let last = framed.rest().await.pop().unwrap();
    assert_eq!((last.kind, last.error()), (kind::GOAWAY, CALM));
    let (_, last) = flood(&balancer, 100_000, pair).await;
    // When the end comes as a reset, its word may be lost; that it came is what counts.
    assert!(last.is_none_or(|frame| frame.error() == CALM));
    assert!(origin.hits() < 1000, "{} got through", origin.hits());
    assert_eq!(get(balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn g2_requests_that_we_have_to_give_up_end_the_connection() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let block = block(&get_fields(&[]));
    for (flags, wrong, payload) in [
        (flag::END_HEADERS, kind::WINDOW_UPDATE, &[0; 4][..]),
        (flag::END_HEADERS, kind::WINDOW_UPDATE, &[0x7f, 0xff, 0xff, 0xff]),
        (flag::BOTH, kind::DATA, b"after the end"),
    ] {
        let (sent, last) = flood(&balancer, 100_000, |at| {
            let stream = 2 * at + 1;
            let head = frame(kind::HEADERS, flags, stream, &block);
            [head, frame(wrong, 0, stream, payload)].concat()
        })
        .await;
        assert!(sent < 100_000, "{wrong} {payload:?}");
        // The library takes some of these for the connection's fault, at once.
        let errors = [CALM, PROTOCOL_ERROR, Some(3), Some(5)];
        assert!(
            last.is_none_or(|frame| errors.contains(&frame.error())),
            "{wrong} {payload:?}"
        );
    }
    assert!(origin.hits() < 1000, "{} got through", origin.hits());
    assert_eq!(get(balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn g5_g6_g8_frames_that_do_nothing_end_the_connection() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    for (name, piece) in [
        ("pings", frame(kind::PING, 0, 0, &[0; 8])),
        ("settings", frame(kind::SETTINGS, 0, 0, &[])),
        (
            "settings that change the table",
            frame(kind::SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        ),
        ("priorities", frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("unknown frames", frame(0xee, 0, 0, &[0; 5])),
        ("window updates", frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
    ] {
        let floods = balancer.count(|worker| &worker.http2_floods);
        let (sent, last) = flood(&balancer, 1_000_000, |_| piece.clone()).await;
        assert!(sent < 1_000_000, "{name}");
        assert!(last.is_none_or(|frame| frame.error() == CALM), "{name}");
        assert_eq!(
            balancer.count(|worker| &worker.http2_floods),
            floods + 1,
            "{name}"
        );
    }
    let block = block(&get_fields(&[]));
    let (sent, _) = flood(&balancer, 1_000_000, |at| match at {
        0 => frame(kind::HEADERS, flag::END_HEADERS, 1, &block),
        _ => frame(kind::DATA, 0, 1, &[]),
    })
    .await;
    assert!(sent < 1_000_000, "empty data");
    assert_eq!(get(balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn a_flood_that_fits_in_one_reading_is_answered_with_goaway() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    framed.get(1, &[]).await;
    framed.until(kind::DATA).await.unwrap();
    framed.send(frame(kind::PING, 0, 0, &[0; 8]).repeat(600)).await;
    let last = framed.rest().await.pop().unwrap();
    assert_eq!((last.kind, last.error()), (kind::GOAWAY, CALM));
    assert_eq!(
        last.payload[..4],
        [0, 0, 0, 1],
        "the last request that was looked at"
    );
}

#[tokio::test]
async fn g3_g7_a_head_that_never_ends_ends_the_connection() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let field = block(&[("x", &"y".repeat(1000))]);
    let begin = frame(kind::HEADERS, 0, 1, &block(&get_fields(&[])));
    for piece in [
        frame(kind::CONTINUATION, 0, 1, &field),
        frame(kind::CONTINUATION, 0, 1, &[]),
    ] {
        let (sent, _) = flood(&balancer, 1_000_000, |at| {
            if at == 0 { begin.clone() } else { piece.clone() }
        })
        .await;
        assert!(sent < 100_000, "{sent} pieces");
    }
    assert_eq!(origin.hits(), 0);
    assert_eq!(get(balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn g4_a_small_head_that_becomes_a_large_one_is_refused() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut framed = Framed::connect(balancer.address).await;
    // One field of almost 4 KiB, kept in the table, and then named 3000 times by one byte.
    let value = "v".repeat(3900);
    let mut entry = block(&[("x-bomb", &value)]);
    entry[0] = 0x40;
    let bomb = [block(&get_fields(&[])), entry, vec![0xbe; 3000]].concat();
    framed.send(frame(kind::HEADERS, flag::BOTH, 1, &bomb)).await;
    framed.send(frame(kind::PING, 0, 0, &[1; 8])).await;
    // Refused as a request or as a connection; a 200 is what must not come.
    loop {
        match framed.next().await {
            None => break,
            Some(frame) if frame.kind == kind::HEADERS => {
                assert_ne!(frame.status(), Some(200));
                break;
            }
            Some(frame) if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => break,
            Some(_) => {}
        }
    }
    assert_eq!(origin.hits(), 0);
}

#[tokio::test]
async fn g12_requests_beyond_those_allowed_are_refused_and_the_others_are_served() {
    let origin = Origin::start("a").await;
    let setup = Setup::to(origin.address()).listener("http2 = { streams = 5 }");
    let balancer = setup.start().await;
    let mut framed = Framed::connect(balancer.address).await;
    let held = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/held"),
    ]);
    // Before we have said how many there may be, a client knows no better; after that it does.
    framed.until(kind::SETTINGS).await.unwrap();
    for stream in 0..8 {
        framed
            .send(frame(kind::HEADERS, flag::BOTH, 2 * stream + 1, &held))
            .await;
    }
    for _ in 0..3 {
        let refused = framed.until(kind::RST_STREAM).await.unwrap();
        assert!(refused.stream > 9 && refused.error() == Some(7), "{refused:?}");
    }
    wait_until("five are there", trimtab_tests::DEADLINE, || {
        origin.in_flight() == 5
    })
    .await;
    origin.release();
    for _ in 0..5 {
        assert_eq!(framed.until(kind::HEADERS).await.unwrap().status(), Some(200));
    }
    assert_eq!(origin.hits(), 5);
}

#[tokio::test]
async fn g10_g13_g14_g15_what_breaks_the_protocol_ends_the_connection() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address()).start().await;
    let get = block(&get_fields(&[]));
    let head = |stream| frame(kind::HEADERS, flag::BOTH, stream, &get);
    for (name, bytes, error) in [
        (
            "a window beyond 2^31",
            frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            Some(3),
        ),
        (
            "a window that overflows",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Some(3),
        ),
        ("an even stream", head(2), PROTOCOL_ERROR),
        ("stream 0", head(0), PROTOCOL_ERROR),
        ("a stream below the last", [head(5), head(3)].concat(), None),
        (
            "a frame that is too large",
            frame(kind::DATA, 0, 1, &vec![0; 20_000]),
            Some(6),
        ),
        (
            "more padding than frame",
            frame(kind::HEADERS, 0xd, 1, &[200, 1, 2]),
            PROTOCOL_ERROR,
        ),
        ("a ping of 7 bytes", frame(kind::PING, 0, 0, &[0; 7]), Some(6)),
        ("half a setting", frame(kind::SETTINGS, 0, 0, &[0; 9]), Some(6)),
        (
            "settings that agree and set",
            frame(kind::SETTINGS, 1, 0, &[0, 4, 0, 0, 0, 0]),
            Some(6),
        ),
        (
            "a request that goes on after its end",
            [head(1), frame(kind::DATA, 0, 1, b"more")].concat(),
            Some(5),
        ),
        (
            "a request that goes on after it was given up",
            [
                frame(kind::HEADERS, flag::END_HEADERS, 1, &get),
                frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
                head(1),
            ]
            .concat(),
            Some(5),
        ),
        (
            "continuation of nothing",
            frame(kind::CONTINUATION, 4, 1, &get),
            PROTOCOL_ERROR,
        ),
        (
            "text of HTTP/1.1",
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            None,
        ),
    ] {
        let mut framed = Framed::connect(balancer.address).await;
        framed.send(bytes).await;
        let last = framed
            .rest()
            .await
            .into_iter()
            .rfind(|frame| frame.kind == kind::GOAWAY);
        // The end may also come as a reset, which loses its word.
        if let (Some(last), Some(_)) = (last, error) {
            assert_eq!(last.error(), error, "{name}: {last:?}");
        }
    }
    assert_eq!(trimtab_tests::get(balancer.address, "/").await.status, 200);
}
