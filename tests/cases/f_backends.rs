//! F: backends that are hostile or broken, on HTTP/1.1.

use trimtab_tests::{Client, RawOrigin, Setup, ok};

use crate::stage::{Stage, WAYS, Way};

/// A backend that answers so and then waits; the connection is on this way already.
async fn behind(way: Way, answer: String) -> (RawOrigin, trimtab_tests::Balancer, Client) {
    let origin = RawOrigin::start(move |mut peer| {
        let answer = answer.clone();
        async move {
            while let Some(head) = peer.request().await {
                if head.contains("/unusual") {
                    peer.send(ok("")).await;
                } else {
                    peer.send(&answer).await;
                }
            }
        }
    })
    .await;
    let balancer = Setup::to(origin.address())
        .pool("retry = { attempts = 1 }\noutlier = \"off\"")
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    if way == Way::Library {
        let unusual = "GET /unusual HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
        assert_eq!(client.ask(unusual).await.status, 200);
    }
    (origin, balancer, client)
}

#[tokio::test]
async fn f01_f02_f13_a_response_with_two_readings_is_a_bad_gateway() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi!",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2x\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhi",
        "HTTP/1.1 000 Zero\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 1000 Many\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 two OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        for way in WAYS {
            let (origin, _balancer, mut client) = behind(way, answer.to_owned()).await;
            for _ in 0..2 {
                assert_eq!(client.get("/").await.status, 502, "{way:?}: {answer}");
            }
            // Each such answer was its connection's last.
            for connection in origin.received_by_connection() {
                let asked = String::from_utf8_lossy(&connection).matches("GET / HTTP").count();
                assert!(asked <= 1, "{way:?}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn f04_what_follows_a_response_is_nobodys() {
    for way in WAYS {
        let (origin, _balancer, mut client) = behind(way, ok("right") + &ok("poison")).await;
        for _ in 0..4 {
            assert_eq!(client.get("/").await.text(), "right", "{way:?}");
        }
        assert!(origin.connections() >= 4, "{way:?}");
    }
}

#[tokio::test]
async fn f05_a_body_where_none_may_be_is_nobodys_response() {
    let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for status in ["204 No Content", "304 Not Modified"] {
        for way in WAYS {
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{poison}",
                poison.len()
            );
            let (_origin, _balancer, mut client) = behind(way, answer).await;
            for _ in 0..3 {
                let response = client.get("/").await;
                assert_eq!(response.status.to_string(), status[..3], "{way:?}");
                assert_ne!(response.text(), "poison");
            }
        }
    }
    for way in WAYS {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{poison}",
            poison.len()
        );
        let (_origin, _balancer, mut client) = behind(way, answer).await;
        for _ in 0..3 {
            client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let head = client.head().await.unwrap();
            assert_eq!(
                head.field("content-length"),
                Some(poison.len().to_string().as_str()),
                "{way:?}"
            );
        }
    }
}

#[tokio::test]
async fn f06_a_head_that_is_too_large_or_malformed_is_a_bad_gateway() {
    let many: String = (0..100_000).map(|number| format!("x-{number}: 1\r\n")).collect();
    for answer in [
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx y: a\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"),
        format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n",
            "y".repeat(1 << 20)
        ),
    ] {
        for way in WAYS {
            let shown = answer.chars().take(60).collect::<String>();
            let (_origin, _balancer, mut client) = behind(way, answer.clone()).await;
            assert_eq!(client.get("/").await.status, 502, "{way:?}: {shown:?}");
        }
    }
}

#[tokio::test]
async fn f07_interim_responses_without_end_are_a_bad_gateway() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let (_origin, _balancer, mut client) = behind(Way::Own, interim.repeat(8) + &ok("real")).await;
    assert_eq!(client.get("/").await.text(), "real");
    let (_origin, _balancer, mut client) = behind(Way::Own, interim.repeat(9) + &ok("late")).await;
    assert_eq!(client.get("/").await.status, 502);
    // The library counts none, and ends them by the time for the response.
    for way in WAYS {
        let origin = RawOrigin::start(move |mut peer| async move {
            while let Some(head) = peer.request().await {
                if head.contains("/unusual") {
                    peer.send(ok("")).await;
                    continue;
                }
                while tokio::io::AsyncWriteExt::write_all(&mut peer.stream, interim.as_bytes())
                    .await
                    .is_ok()
                {}
            }
        })
        .await;
        let balancer = Setup::to(origin.address())
            .pool("response_timeout = \"200ms\"\nretry = { attempts = 1 }")
            .start()
            .await;
        let stage = Stage { origin, balancer };
        let status = stage.judged(way, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(matches!(status, 502 | 504), "{way:?}: {status}");
    }
}

#[tokio::test]
async fn f08_an_agreement_that_nobody_asked_for_is_a_bad_gateway() {
    for way in WAYS {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
        let (_origin, _balancer, mut client) = behind(way, answer.to_owned()).await;
        assert_eq!(client.get("/").await.status, 502, "{way:?}");
    }
}
