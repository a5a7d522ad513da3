//! H: requests of HTTP/2 that HTTP/1.1 must not hear. Most are in `e2e/proxy/http2/malformed.rs`.

use trimtab_tests::frames::{Framed, block, flag, frame, kind};

use crate::stage::Stage;

/// The status of the answer, or 0 for a reset.
async fn answer(framed: &mut Framed, stream: u32) -> u16 {
    loop {
        match framed.next().await {
            None => return 0,
            Some(frame) if frame.kind == kind::GOAWAY => return 0,
            Some(frame) if frame.stream != stream => {}
            Some(frame) if frame.kind == kind::HEADERS => return frame.status().unwrap_or(999),
            Some(frame) if frame.kind == kind::RST_STREAM => return 0,
            Some(_) => {}
        }
    }
}

async fn asked(stage: &Stage, method: &str, path: &str) -> u16 {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ];
    let mut framed = Framed::connect(stage.balancer.address).await;
    framed
        .send(frame(kind::HEADERS, flag::BOTH, 1, &block(&fields)))
        .await;
    answer(&mut framed, 1).await
}

#[tokio::test]
async fn h07_a_path_is_one() {
    for (method, path) in [
        ("GET", ""),
        ("GET", "*"),
        ("GET", "a"),
        ("GET", "http://a/"),
        ("GET", "/a b"),
        ("GET", "/a\\b"),
        ("GET", "/a%2fb"),
        ("GET", "/../a"),
        ("GET", "/a#b"),
        ("GET", "/a?b#"),
        ("GET", "#"),
    ] {
        let stage = Stage::new().await;
        let status = asked(&stage, method, path).await;
        assert!(matches!(status, 0 | 400), "{path:?}: {status}");
        assert!(stage.seen().requests.is_empty(), "{path:?}");
    }
    let stage = Stage::new().await;
    assert_eq!(asked(&stage, "GET", "/a//b/../%63?d").await, 200);
    assert_eq!(stage.seen().requests[0].target, "/a/c?d");
}

#[tokio::test]
async fn h07_a_fragment_is_refused_in_every_spelling_and_costs_one_request() {
    // GET, http, and `a` as the authority.
    let before = [0x82, 0x86, 0x41, 1, b'a'];
    // `/#` in Huffman's code: 011000 and 111111111010, and padding.
    let packed = [0x83, 0x63, 0xfe, 0xbf];
    let plain = [2, b'/', b'#'];
    // `:path` by its entry, as a text, and as one in Huffman's code.
    let names = [
        &[0x04][..],
        &[0x45],
        &[0, 5, b':', b'p', b'a', b't', b'h'],
        &[0x10, 0x84, 0xb9, 0x58, 0xd3, 0x3f],
    ];
    let stage = Stage::new().await;
    let mut framed = Framed::connect(stage.balancer.address).await;
    let mut stream = 1;
    for name in names {
        for value in [&plain[..], &packed] {
            let block = [&before[..], name, value].concat();
            for cut in [block.len(), block.len() - 1] {
                let (head, more) = block.split_at(cut);
                framed
                    .send(frame(kind::HEADERS, flag::END_STREAM, stream, head))
                    .await;
                framed
                    .send(frame(kind::CONTINUATION, flag::END_HEADERS, stream, more))
                    .await;
                let status = answer(&mut framed, stream).await;
                assert!(matches!(status, 0 | 400), "{name:?} {value:?}: {status}");
                stream += 2;
            }
        }
    }
    assert!(stage.seen().requests.is_empty(), "no reader sees any of them");
    // `/a?b` in a referer may have one, and the connection serves on.
    let referer = [&before[..], &[0x84, 0x0f, 0x24, 3, b'/', b'#', b'b']].concat();
    framed
        .send(frame(kind::HEADERS, flag::BOTH, stream, &referer))
        .await;
    assert_eq!(answer(&mut framed, stream).await, 200);
    let seen = stage.seen();
    assert_eq!(seen.requests[0].all("referer"), ["/#b"]);
}
