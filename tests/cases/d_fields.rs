//! D: header fields and their limits.

use std::fmt::Write;

use trimtab_tests::{Client, DEADLINE, ok, within};

use crate::stage::{Stage, WAYS};

fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nhost: a\r\n", fields.as_ref(), b"\r\n\r\n"].concat()
}

#[tokio::test]
async fn d01_d02_d03_what_is_no_field_is_refused() {
    let judge = Stage::new().await;
    for field in [
        &b"x: a\rb"[..],
        b"x: a\0b",
        b"x: a\r\r\n",
        b"x: \r",
        b"x y: 1",
        b"x\0: 1",
        b": 1",
        b" : 1",
        b"x\x80: 1",
        b"x\xc3\xa9: 1",
        b"x(: 1",
        b"x\t: 1",
        b"no colon",
        b"x",
        b"x: a\n\0: b",
        b"x: a\x0bb",
        b"x: a\x7fb",
    ] {
        judge.refused(with(field), &[400]).await;
    }
}

#[tokio::test]
async fn d04_d05_more_fields_or_bytes_than_allowed_are_refused() {
    let judge = Stage::new().await;
    let mut many = String::new();
    for number in 0..120 {
        write!(many, "x-{number}: 1\r\n").unwrap();
    }
    judge.refused(with(many.trim_end()), &[431]).await;
    judge
        .refused(with(format!("x: {}", "y".repeat(70_000))), &[431])
        .await;
    judge
        .refused(with(format!("x: {}", "y".repeat((16 << 10) + 1))), &[431])
        .await;
    judge.passed(with(format!("x: {}", "y".repeat(16 << 10)))).await;
    let large = format!(
        "a: {0}\r\nb: {0}\r\nc: {0}\r\nd: {0}\r\ne: {0}",
        "y".repeat(15_000)
    );
    judge.refused(with(large), &[431]).await;
}

#[tokio::test]
async fn d06_a_hundred_thousand_fields_byte_by_byte_end_at_the_limit() {
    let stage = Stage::new().await;
    let mut client = Client::connect(stage.balancer.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n").await;
    let sending = async {
        for number in 0..100_000 {
            // Each by itself; the end is seen in the answer.
            for piece in ["x", ":", " y\r\n"] {
                if tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece.as_bytes())
                    .await
                    .is_err()
                {
                    return number;
                }
            }
        }
        100_000
    };
    let sent = within("the end of the connection", DEADLINE, sending).await;
    assert!(sent < 100_000, "{sent}");
    assert!(stage.seen().requests.is_empty());
}

#[tokio::test]
async fn d07_fields_whose_names_collide_cost_no_more_than_others() {
    // The number of fields bounds any comparison of one with another: 100 of them, however they are named.
    for way in WAYS {
        let stage = Stage::new().await;
        let names: String = (0..90).map(|_| "x-same: 1\r\n").collect();
        for _ in 0..50 {
            assert_eq!(stage.judged(way, &with(names.trim_end())).await, 200);
        }
        assert_eq!(stage.seen().requests.len(), 50);
    }
}

#[tokio::test]
async fn d08_singletons_that_come_twice_reach_the_backend_as_they_are() {
    let judge = Stage::new().await;
    let fields = "content-type: a/b\r\ncontent-type: c/d\r\nauthorization: one\r\nauthorization: two";
    let request = judge.passed(with(fields)).await;
    assert_eq!(request.all("content-type"), ["a/b", "c/d"]);
    assert_eq!(request.all("authorization"), ["one", "two"]);
}

#[tokio::test]
async fn d09_twins_with_an_underscore_are_dropped() {
    let judge = Stage::new().await;
    let fields =
        "x_forwarded_for: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\ncontent_length: 7\r\nx-kept: 1\r\nx_gone: 2";
    let request = judge.passed(with(fields)).await;
    assert!(
        request.fields.iter().all(|(name, _)| !name.contains('_')),
        "{request:?}"
    );
    assert_eq!(
        (request.all("x-kept"), request.all("x-forwarded-for")),
        (vec!["1"], vec!["127.0.0.1"])
    );
    let request = Stage::with("underscores = \"pass\"", ok("").as_str())
        .await
        .passed(with("x_kept: 2"))
        .await;
    assert_eq!(request.all("x_kept"), ["2"]);
}

#[tokio::test]
async fn d10_space_around_a_value_is_left_out() {
    let judge = Stage::new().await;
    let request = judge.passed(with("x: \t a  b \t\r\ny:c\r\nz:")).await;
    assert_eq!(
        (request.all("x"), request.all("y"), request.all("z")),
        (vec!["a  b"], vec!["c"], vec![""])
    );
}
