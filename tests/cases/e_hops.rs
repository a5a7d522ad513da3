//! E: what means one connection only, what is said of a client, and other protocols.

use trimtab_tests::{Client, RawOrigin, Setup, ok};

use crate::stage::{Stage, WAYS};

fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n")
}

#[tokio::test]
async fn e01_a_client_cannot_strip_what_we_say_of_it() {
    let judge = Stage::new().await;
    let named = "connection: close, x-forwarded-for, x-forwarded-proto, x-forwarded-host, via, x-real-ip, authorization";
    let request = judge
        .passed(with(&format!(
            "{named}\r\nx-real-ip: 6.6.6.6\r\nauthorization: x"
        )))
        .await;
    assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.all("x-forwarded-proto"), ["http"]);
    assert_eq!(request.all("x-forwarded-host"), ["a"]);
    assert_eq!(request.all("via").len(), 1);
    assert!(request.all("x-real-ip").is_empty() && request.all("authorization").is_empty());
}

#[tokio::test]
async fn e02_connection_that_names_what_frames_a_message_is_refused() {
    let judge = Stage::new().await;
    for named in [
        "content-length",
        "transfer-encoding",
        "host",
        "close, Host",
        "keep-alive,Content-Length",
    ] {
        judge
            .refused(with(&format!("connection: {named}\r\ncontent-length: 0")), &[400])
            .await;
    }
}

#[tokio::test]
async fn e03_e05_fields_of_one_connection_end_here() {
    let judge = Stage::new().await;
    let request = judge.passed(with(
        "keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: gzip\r\nupgrade: foo\r\nproxy: http://evil\r\n\
         connection: keep-alive, x-mine\r\nx-mine: 1\r\nx-kept: 1",
    ))
    .await;
    let mut names: Vec<_> = request.fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept"
        ]
    );
}

#[tokio::test]
async fn e04_what_strangers_say_of_themselves_is_replaced() {
    let judge = Stage::new().await;
    let said = "x-forwarded-for: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nx-forwarded-host: evil\r\nx-forwarded-port: 1\r\n\
        x-forwarded-prefix: /evil\r\nx-forwarded-server: evil\r\nx-forwarded-anything: evil\r\n\
        forwarded: for=6.6.6.6;host=evil\r\nx-real-ip: 6.6.6.6";
    let request = judge.passed(with(said)).await;
    let text = format!("{request:?}");
    assert!(!text.contains("evil") && !text.contains("6.6.6.6"), "{text}");
    assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
    // Of another proxy of ours it is kept, and added to.
    let request = Stage::with("forwarded = \"append\"", ok("").as_str())
        .await
        .passed(with(said))
        .await;
    assert_eq!(request.all("x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(request.all("forwarded"), ["for=6.6.6.6;host=evil"]);
}

#[tokio::test]
async fn e06_h2c_is_not_asked_for_behind_us() {
    let judge = Stage::new().await;
    let fields = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__";
    let request = judge.passed(with(fields)).await;
    for gone in ["connection", "upgrade", "http2-settings"] {
        assert!(request.all(gone).is_empty(), "{request:?}");
    }
}

#[tokio::test]
async fn e08_what_follows_a_question_that_may_not_be_asked_is_still_judged() {
    let asks = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
    for way in WAYS {
        let stage = Stage::new().await;
        let mut client = stage.client(way).await;
        let bad =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        client.send([asks, bad].concat()).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(client.response().await.status, 400);
        client.until_closed().await;
        assert_eq!(stage.seen().requests.len(), 1);
    }
}

#[tokio::test]
async fn e09_expectations_leave_no_body_behind() {
    let judge = Stage::new().await;
    let once = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi";
    judge
        .refused(
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 2\r\n\r\nhi",
            &[417],
        )
        .await;
    for way in WAYS {
        let stage = Stage::new().await;
        let mut client = stage.client(way).await;
        client.send(once).await;
        let mut answer = client.response().await;
        if answer.status == 100 {
            answer = client.response().await;
        }
        assert_eq!(answer.status, 200);
        assert_eq!(stage.seen().requests[0].body, b"hi");
        // The backend answers before it reads; what comes then is a body, or nothing.
        let origin = RawOrigin::start(|mut peer| async move {
            while peer.head().await.is_some() {
                peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
        })
        .await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        if way == WAYS[1] {
            client
                .ask("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n")
                .await;
        }
        client
            .send("POST /first HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 60\r\n\r\n")
            .await;
        let mut answer = client.head().await.unwrap();
        if answer.status == 100 {
            answer = client.response().await;
        }
        assert_eq!(answer.status, 403);
        client
            .send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n".to_owned() + &" ".repeat(60))
            .await;
        client.until_closed().await;
        assert!(
            !origin
                .received()
                .contains("/smuggled HTTP/1.1\r\nhost: a\r\nx-forwarded-for"),
            "{}",
            origin.received()
        );
    }
}

#[tokio::test]
async fn e10_trace_is_not_passed_on() {
    for way in WAYS {
        let stage = Stage::new().await;
        let mut client = stage.client(way).await;
        let response = client
            .ask("TRACE / HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\ncookie: secret\r\n\r\n")
            .await;
        assert_eq!(response.status, 405);
        assert!(response.field("allow").is_some() && !response.text().contains("secret"));
        assert!(stage.seen().requests.is_empty());
    }
}

#[tokio::test]
async fn e11_a_request_that_was_here_before_is_refused() {
    let judge = Stage::new().await;
    let first = judge.passed(with("via: 1.0 other")).await;
    let [other, own] = first.all("via")[..] else {
        panic!("{first:?}")
    };
    assert_eq!(other, "1.0 other");
    for way in WAYS {
        let stage = Stage::with("", ok("").as_str()).await;
        for via in [format!("via: {own}"), format!("via: 1.0 other, {own}, 1.1 more")] {
            assert_eq!(stage.judged(way, with(&via).as_bytes()).await, 508, "{way:?}");
        }
        assert!(stage.seen().requests.is_empty());
    }
}
