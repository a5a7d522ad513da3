//! B: bodies in chunks.

use std::fmt::Write;

use trimtab_tests::{Client, DEADLINE, Origin, Setup, get, ok, wait_until, within};

use crate::stage::{Stage, WAYS};

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

/// A body that is none is answered with 400, and whatever of it was under way never becomes whole at the backend. Nor
/// does what follows become a request.
async fn broken(body: impl AsRef<[u8]>) {
    let body = body.as_ref();
    let shown = String::from_utf8_lossy(body)
        .chars()
        .take(100)
        .collect::<String>();
    for way in WAYS {
        let stage = Stage::new().await;
        let mut client = stage.client(way).await;
        client.send(POST).await;
        client.send(body).await;
        let status = client.try_response().await.map_or(0, |response| response.status);
        assert_eq!(status, 400, "{way:?}: {shown:?}");
        client.send("GET /after HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.until_closed().await;
        wait_until("the backend is told", DEADLINE, || {
            stage.origin.received_by_connection().len() <= 1 || stage.origin.closed() > 0
        })
        .await;
        let seen = stage.seen();
        assert!(
            seen.requests.is_empty(),
            "{way:?}: {shown:?} became whole: {seen:?}"
        );
        assert_eq!(get(stage.balancer.address, "/others").await.status, 200);
    }
}

#[tokio::test]
async fn b01_b02_a_size_that_is_no_plain_number_is_refused() {
    for size in [
        "0x2",
        "-0",
        "+1",
        "1_0",
        "",
        " 2",
        "\t2",
        "2 2",
        "g",
        "\u{0662}",
        "fffffffffffffffff",
        "10000000000000000",
    ] {
        broken(format!("{size}\r\nab\r\n0\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn b03_b04_lines_that_end_otherwise_are_refused() {
    for body in [
        "2\nab\n0\n\n",
        "2\nab\r\n0\r\n\r\n",
        "2\r\nab\n0\r\n\r\n",
        "2\r\nab\r\n0\n\r\n",
        "2\r\nab\r\n0\r\n\n",
        "2\rab\r\n0\r\n\r\n",
        "2\r\nab\r0\r\n\r\n",
        "2\r\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\n\rX",
    ] {
        broken(body).await;
    }
}

#[tokio::test]
async fn b05_data_without_its_end_is_refused() {
    for body in [
        "2\r\nabc\r\n0\r\n\r\n",
        "2\r\nab0\r\n\r\n",
        "2\r\nabXX0\r\n\r\n",
        "5\r\nab\r\n0\r\n\r\n",
    ] {
        broken([body, "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).await;
    }
}

#[tokio::test]
async fn b06_extensions_end_here_and_are_bounded() {
    let judge = Stage::new().await;
    let body = "2;a=b\r\nhi\r\n1;\"quoted\" ; c\r\n!\r\n0;last\r\n\r\n";
    let request = judge.passed([POST, body].concat()).await;
    assert_eq!(request.body, b"hi!");
    broken(format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(300))).await;
    broken("1;eeeeeeeeeeeeeeeeeeee\r\nx\r\n".repeat(1000) + "0\r\n\r\n").await;
}

#[tokio::test]
async fn b07_line_ends_inside_an_extension_are_refused() {
    for body in [
        "2;a\nb\r\nhi\r\n0\r\n\r\n",
        "2;a\rb\r\nhi\r\n0\r\n\r\n",
        "2;\nhi\r\n0\r\n\r\n",
        "2;a\0\r\nhi\r\n0\r\n\r\n",
    ] {
        broken(body).await;
    }
}

#[tokio::test]
async fn b08_a_million_chunks_of_one_byte_arrive_whole() {
    let origin = trimtab_tests::RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send(POST).await;
    client.send("1\r\nx\r\n".repeat(1_000_000)).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(within("an answer", DEADLINE, client.response()).await.status, 200);
    let seen = crate::strict::read(&origin.received_bytes()).unwrap();
    assert_eq!(seen.requests[0].body.len(), 1_000_000);
}

#[tokio::test]
async fn b09_trailers_say_nothing_about_the_message_and_are_bounded() {
    let judge = Stage::new().await;
    let names = [
        "content-length",
        "transfer-encoding",
        "host",
        "authorization",
        "content-type",
        "cookie",
        "x-forwarded-for",
        "forwarded",
        "connection",
        "te",
    ];
    let trailers = names.map(|name| format!("{name}: 7\r\n")).concat();
    let head = POST.replace(
        "\r\n\r\n",
        &format!("\r\ntrailer: x-sum, {}\r\n\r\n", names.join(", ")),
    );
    let request = judge
        .passed(format!("{head}2\r\nhi\r\n0\r\n{trailers}x-sum: 42\r\n\r\n"))
        .await;
    assert_eq!(request.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    broken(format!("2\r\nhi\r\n0\r\nx: {}\r\n\r\n", "y".repeat(70_000))).await;
    let mut many = String::new();
    for number in 0..2000 {
        write!(many, "x-{number}: 1\r\n").unwrap();
    }
    broken(format!("2\r\nhi\r\n0\r\n{many}\r\n")).await;
}

#[tokio::test]
async fn b10_trailers_that_break_off_leave_the_request_unfinished() {
    for way in WAYS {
        let stage = Stage::new().await;
        let mut client = stage.client(way).await;
        client.send([POST, "4\r\nhalf\r\n0\r\nx-sum: 4"].concat()).await;
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

#[tokio::test]
async fn b11_what_follows_the_last_chunk_is_the_next_request() {
    for way in WAYS {
        let stage = Stage::new().await;
        let mut client = stage.client(way).await;
        client
            .send([POST, "2\r\nhi\r\n0\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\n\r\n"].concat())
            .await;
        for _ in 0..2 {
            assert_eq!(client.response().await.status, 200);
        }
        let seen = stage.seen().requests;
        assert_eq!(
            (seen[0].body.as_slice(), seen[1].target.as_str()),
            (&b"hi"[..], "/next")
        );
    }
}

#[tokio::test]
async fn a_client_that_breaks_its_bodies_takes_no_backend_out_of_service() {
    let origin = Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .pool("outlier = { consecutive_failures = 2 }\npanic_threshold = 0")
        .start()
        .await;
    for _ in 0..10 {
        let mut client = Client::connect(balancer.address).await;
        client.send([POST, "4\r\nhalfX"].concat()).await;
        client.until_closed().await;
    }
    assert_eq!(get(balancer.address, "/").await.status, 200);
    assert_eq!(balancer.state(0), trimtab::pool::State::Ready);
}
