//! A: where a request of HTTP/1.1 ends.

use trimtab_tests::{Client, DEADLINE, RawOrigin, Setup, ok, wait_until};

use crate::stage::{Stage, WAYS};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}")
}

#[tokio::test]
async fn a01_a02_a03_a_length_beside_chunks_is_refused() {
    let judge = Stage::new().await;
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 45\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 0",
    ] {
        judge
            .refused(post(fields, &format!("0\r\n\r\n{SMUGGLED}")), &[400])
            .await;
        judge
            .refused(post(fields, &format!("2a\r\n{SMUGGLED}\r\n0\r\n\r\n")), &[400])
            .await;
    }
}

#[tokio::test]
async fn a04_a05_two_lengths_are_refused() {
    let judge = Stage::new().await;
    for fields in [
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 4",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5, 5",
        "content-length: 5,6",
    ] {
        judge.refused(post(fields, "12345"), &[400]).await;
    }
}

#[tokio::test]
async fn a06_a07_a08_a09_a_length_that_is_no_plain_number_is_refused() {
    let judge = Stage::new().await;
    for length in [
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5 5",
        "1Z",
        "5.0",
        "",
        " ",
        "99999999999999999999",
        "18446744073709551616",
        "9223372036854775808",
        "05",
        "00",
        "\u{0665}",
    ] {
        judge
            .refused(post(&format!("content-length: {length}"), "12345"), &[400, 413])
            .await;
    }
    judge
        .refused(post("content-length:\r\ncontent-length: 5", "12345"), &[400])
        .await;
}

#[tokio::test]
async fn a10_a11_any_coding_but_chunked_once_is_refused() {
    let judge = Stage::new().await;
    for fields in [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: ,chunked",
        "transfer-encoding: chunked,",
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding:",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    ] {
        judge.refused(post(fields, "0\r\n\r\n"), &[400, 501]).await;
    }
}

#[tokio::test]
async fn a12_a13_a14_a_coding_that_is_hidden_is_refused() {
    let judge = Stage::new().await;
    for around in [
        &b"\tchunked"[..],
        b" \x0bchunked",
        b" \x85chunked",
        b" \xa0chunked",
        b" \xffchunked",
        b" \0chunked",
        b" chunked\t",
        b" chunked\x0b",
        b" chunked\xff",
        b" chunked\0",
        b"  chunked",
    ] {
        let bytes = [
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:",
            around,
            b"\r\n\r\n0\r\n\r\n",
        ]
        .concat();
        judge.refused(bytes, &[400]).await;
    }
    for fields in [
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "x: y\r\n\ttransfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "x: y\r\n content-length: 5",
        " transfer-encoding: chunked",
    ] {
        judge.refused(post(fields, "0\r\n\r\n"), &[400]).await;
    }
}

#[tokio::test]
async fn a15_chunks_in_http_1_0_are_refused() {
    let judge = Stage::new().await;
    for fields in [
        "transfer-encoding: chunked",
        "connection: keep-alive\r\ntransfer-encoding: chunked",
    ] {
        judge
            .refused(
                format!("POST / HTTP/1.0\r\nhost: a\r\n{fields}\r\n\r\n0\r\n\r\n"),
                &[400],
            )
            .await;
    }
}

#[tokio::test]
async fn a16_a_body_where_none_is_usual_keeps_its_framing() {
    let judge = Stage::new().await;
    for method in ["GET", "DELETE", "OPTIONS"] {
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 35\r\n\r\n{SMUGGLED}");
        let request = judge.passed(request).await;
        assert_eq!(
            (request.method.as_str(), request.body.as_slice()),
            (method, SMUGGLED.as_bytes())
        );
    }
    for way in WAYS {
        let stage = Stage::with("", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
        let mut client = stage.client_of_head(way).await;
        client
            .send(format!(
                "HEAD / HTTP/1.1\r\nhost: a\r\ncontent-length: 35\r\n\r\n{SMUGGLED}"
            ))
            .await;
        assert_eq!(client.head().await.unwrap().status, 200);
        assert_eq!(
            stage.seen().requests.last().unwrap().body,
            SMUGGLED.as_bytes(),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn a17_after_an_early_answer_the_rest_of_a_body_is_no_request() {
    let origin = RawOrigin::start(|mut peer| async move {
        while peer.head().await.is_some() {
            peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
        let mut client = Client::connect(balancer.address).await;
        client.send(post(framing, "")).await;
        assert_eq!(client.response().await.status, 403);
        client.send(SMUGGLED).await;
        client.send([b' '; 1000]).await;
        let answers = client.until_closed().await;
        assert!(!answers.contains("HTTP/1.1 200"), "{answers}");
    }
    let received = origin.received();
    assert_eq!(received.matches("x-forwarded-for").count(), 2, "{received}");
}

#[tokio::test]
async fn a18_a_body_that_breaks_off_is_never_whole_at_the_backend() {
    for (framing, part) in [
        ("content-length: 10", "half"),
        ("transfer-encoding: chunked", "4\r\nhalf\r\n"),
    ] {
        for way in WAYS {
            let stage = Stage::new().await;
            let mut client = stage.client(way).await;
            client.send(post(framing, part)).await;
            stage.origin.wait_for("half").await;
            drop(client);
            wait_until("the backend is told", DEADLINE, || {
                stage.origin.open_connections() == 0
            })
            .await;
            let seen = stage.seen();
            assert!(seen.requests.is_empty() && seen.is_cut, "{seen:?}");
        }
    }
}

#[tokio::test]
async fn a19_fifty_pipelined_requests_are_answered_in_order() {
    for way in WAYS {
        let origin = RawOrigin::start(|mut peer| async move {
            while let Some(head) = peer.request().await {
                peer.send(ok(head.split(' ').nth(1).unwrap())).await;
            }
        })
        .await;
        let balancer = Setup::to(origin.address()).start().await;
        let stage = Stage { origin, balancer };
        let mut client = stage.client(way).await;
        let all: String = (0..50)
            .map(|number| match number % 3 {
                0 => format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"),
                1 => format!("POST /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
                _ => format!("PUT /{number} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            })
            .collect();
        client.send(all).await;
        for number in 0..50 {
            assert_eq!(client.response().await.text(), format!("/{number}"), "{way:?}");
        }
        assert_eq!(stage.seen().requests.len(), 50);
    }
}

#[tokio::test]
async fn a20_one_empty_line_may_come_before_a_request() {
    let judge = Stage::new().await;
    judge.passed("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    for lines in ["\r\n\r\n", "\n", "\r\n\n", " \r\n"] {
        judge
            .refused(format!("{lines}GET / HTTP/1.1\r\nhost: a\r\n\r\n"), &[400])
            .await;
    }
}
