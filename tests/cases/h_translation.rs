//! H: requests of HTTP/2 that HTTP/1.1 must not hear. Most are in `e2e/proxy/http2/malformed.rs`.

use trimtab_tests::frames::{Framed, block, flag, frame, kind};

use crate::stage::Stage;

/// The status of the answer, or 0 for a reset.
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
    loop {
        match framed.next().await {
            None => return 0,
            Some(frame) if frame.kind == kind::HEADERS => return frame.status().unwrap_or(999),
            Some(frame) if matches!(frame.kind, kind::RST_STREAM | kind::GOAWAY) => return 0,
            Some(_) => {}
        }
    }
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
    ] {
        let stage = Stage::new().await;
        let status = asked(&stage, method, path).await;
        assert!(matches!(status, 0 | 400), "{path:?}: {status}");
        assert!(stage.seen().requests.is_empty(), "{path:?}");
    }
    let stage = Stage::new().await;
    assert_eq!(asked(&stage, "GET", "/a//b/../%63?d#e").await, 200);
    assert_eq!(
        stage.seen().requests[0].target,
        "/a/c?d",
        "no reader sees a fragment"
    );
}
