//! What a broken origin or a vanished client does to the other side.

use trimtab_tests::{Client, DEADLINE, RawOrigin, Setup, get, ok, wait_until};

#[tokio::test]
async fn a_body_that_ends_early_is_never_a_clean_end() {
    for (answer, what) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "length"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "chunks",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf",
            "a chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf",
            "a bad chunk",
        ),
    ] {
        let origin = RawOrigin::start(move |mut peer| async move {
            peer.head().await;
            peer.send(answer).await;
        })
        .await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = Client::connect(balancer.address).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        // Nothing at all may come of it, too: the head may still be with us when the body fails.
        if let Ok(response) = client.try_response().await {
            assert!(!response.is_complete, "{what}: {response:?}");
        }
        client.until_closed().await;
        wait_until("it is counted", DEADLINE, || {
            balancer.count(|worker| &worker.aborted) == 1
        })
        .await;
    }
}

#[tokio::test]
async fn garbage_from_an_origin_means_502() {
    for answer in [
        "garbage\r\n\r\n",
        "HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 000 Zero\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 1000 Many\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0",
    ] {
        let origin = RawOrigin::start(move |mut peer| async move {
            peer.request().await;
            peer.send(answer).await;
        })
        .await;
        let balancer = Setup::to(origin.address()).start().await;
        let response = get(balancer.address, "/").await;
        assert_eq!(response.status, 502, "{answer:?}");
        assert!(
            !response.text().contains("127.0.0.1"),
            "nothing of the inside: {}",
            response.text()
        );
    }
}

#[tokio::test]
async fn a_response_with_length_and_chunks_means_502() {
    let origin = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    )
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    for asked in 1..4 {
        assert_eq!(get(balancer.address, "/").await.status, 502);
        assert_eq!(origin.connections(), asked, "no connection is used again");
    }
}

#[tokio::test]
async fn too_large_a_response_head_means_502() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.request().await;
        peer.send(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(2 << 20)))
            .await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    assert_eq!(get(balancer.address, "/").await.status, 502);
}

#[tokio::test]
async fn endless_informational_responses_end_with_the_time_for_the_response() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.request().await;
        let many = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(100);
        use tokio::io::AsyncWriteExt;
        while peer.stream.write_all(many.as_bytes()).await.is_ok() {}
    })
    .await;
    let balancer = Setup::to(origin.address())
        .pool("response_timeout = \"200ms\"\nretry = { attempts = 1 }")
        .start()
        .await;
    let status = get(balancer.address, "/").await.status;
    assert!(matches!(status, 502 | 504), "{status}");
}

#[tokio::test]
async fn an_informational_response_comes_before_the_real_one() {
    let origin = RawOrigin::answering(format!(
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{}",
        ok("real")
    ))
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    assert_eq!(get(balancer.address, "/").await.text(), "real");
}

#[tokio::test]
async fn bytes_after_a_response_are_nobodys_next_response() {
    let origin = RawOrigin::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(ok("right") + &ok("poison")).await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "right");
    }
    assert_eq!(origin.connections(), 5, "none was used again");
}

#[tokio::test]
async fn bytes_on_an_unused_connection_are_nobodys_response() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.request().await;
        peer.send(ok("right")).await;
        if peer.number == 0 {
            peer.send(ok("poison")).await;
            peer.until_closed().await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    assert_eq!(get(balancer.address, "/").await.text(), "right");
    wait_until("the connection is thrown away", DEADLINE, || origin.closed() == 1).await;
    assert_eq!(get(balancer.address, "/").await.text(), "right");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request_at_the_origin() {
    let origin = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    origin.wait_for("GET /slow").await;
    drop(client);
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
    wait_until("it is counted", DEADLINE, || {
        balancer.count(|worker| &worker.aborted) == 1
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_body_cancels_its_request_at_the_origin() {
    let origin = RawOrigin::answering(ok("")).await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    origin.wait_for("half").await;
    drop(client);
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_in_a_response_cancels_it_at_the_origin() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        peer.until_closed().await;
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.head().await.unwrap();
    drop(client);
    wait_until("the origin's connection is closed", DEADLINE, || {
        origin.closed() == 1
    })
    .await;
}
