//! The time for a whole request: waiting, attempts and bodies together.

use super::{Asker, WAYS, Way, until_quiet};
use trimtab_tests::{Client, DEADLINE, Origin, RawOrigin, Setup, wait_until};

#[tokio::test]
async fn a_request_that_takes_too_long_as_a_whole_gets_504_and_is_not_sent_again() {
    for way in WAYS {
        let slow = Origin::start_all(["one", "two"]).await;
        let balancer = Setup::new()
            .backends(slow.iter().map(Origin::address))
            .pool("response_timeout = \"1h\"\nrequest_timeout = \"100ms\"")
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        let answer = asker.ask("GET", "/held").await;
        assert_eq!(answer, (504, "request took too long\n".into()), "{way:?}");
        until_quiet(&balancer).await;
        // The next one on the connection has its own time.
        assert_eq!(asker.ask("GET", "/").await.0, 200, "{way:?}");
        assert_eq!(slow[0].hits() + slow[1].hits(), 1, "{way:?}");
    }
}

#[tokio::test]
async fn attempts_do_not_make_it_longer() {
    for way in WAYS {
        let frozen = [
            RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await,
            RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await,
        ];
        let balancer = Setup::new()
            .backends(frozen.iter().map(RawOrigin::address))
            .pool("response_timeout = \"1h\"\nrequest_timeout = \"200ms\"")
            .pool("retry = { try_timeout = \"20ms\" }")
            .start()
            .await;
        let mut asker = Asker::new(&balancer, way).await;
        let answer = asker.ask("GET", "/").await;
        assert_eq!(answer, (504, "request took too long\n".into()), "{way:?}");
        assert_eq!((frozen[0].requests(), frozen[1].requests()), (1, 1), "{way:?}");
    }
}

#[tokio::test]
async fn it_ends_a_wait_for_room_too() {
    for way in WAYS {
        let origin = Origin::start("a").await;
        let setup =
            Setup::to(origin.address()).pool("limits = { backend_requests = 1, queue_timeout = \"1h\" }");
        let setup = setup.pool("response_timeout = \"1h\"\nrequest_timeout = \"100ms\"");
        let balancer = setup.start().await;
        let mut first = Asker::new(&balancer, way).await;
        let first = tokio::spawn(async move { first.ask("GET", "/held").await.0 });
        wait_until("the first is there", DEADLINE, || origin.in_flight() == 1).await;
        let mut asker = Asker::new(&balancer, way).await;
        assert_eq!(asker.ask("GET", "/held").await.0, 504, "{way:?}");
        assert_eq!(first.await.unwrap(), 504, "{way:?}");
        until_quiet(&balancer).await;
    }
}

#[tokio::test]
async fn a_response_that_takes_too_long_is_cut() {
    for way in [Way::Own, Way::Library] {
        let origin = RawOrigin::start(|mut peer| async move {
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
                .await;
            peer.until_closed().await;
        })
        .await;
        let balancer = Setup::to(origin.address())
            .pool("body_timeout = \"1h\"\nrequest_timeout = \"100ms\"")
            .start()
            .await;
        let mut client = Client::connect(balancer.address).await;
        let odd = match way {
            Way::Library => "te: trailers\r\n",
            _ => "",
        };
        client
            .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{odd}\r\n"))
            .await;
        let response = client.response().await;
        assert_eq!(
            (response.text(), response.is_complete),
            ("half".into(), false),
            "{way:?}"
        );
        wait_until("the origin is let go", DEADLINE, || origin.closed() == 1).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_cut_as_well() {
    for odd in ["", "te: trailers\r\n"] {
        let origin = RawOrigin::start(|mut peer| async move {
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n")
                .await;
            peer.send(vec![b'x'; 32 << 20]).await;
            peer.until_closed().await;
        })
        .await;
        let balancer = Setup::to(origin.address())
            .listener("limits = { body_timeout = \"1h\" }")
            .pool("body_timeout = \"1h\"\nrequest_timeout = \"300ms\"")
            .start()
            .await;
        let mut client = Client::connect_narrow(balancer.address).await;
        client
            .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{odd}\r\n"))
            .await;
        wait_until("the origin is let go", DEADLINE, || origin.closed() == 1).await;
        assert!(!client.response().await.is_complete);
    }
}

#[tokio::test]
async fn a_tunnel_is_no_request_any_more() {
    let origin = RawOrigin::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
            .await;
        while let Some(bytes) = peer.bytes().await {
            peer.send(bytes).await;
        }
    })
    .await;
    let slow = Origin::start("slow").await;
    let balancer = Setup::to(origin.address())
        .listener("upgrades = [\"chat\"]")
        .listener("route = [{ path_prefix = \"/held\", pool = \"slow\" }, { pool = \"main\" }]")
        .pool("request_timeout = \"50ms\"")
        .rest(&format!(
            "[pool.slow]\nbackends = [{:?}]\nrequest_timeout = \"200ms\"",
            slow.address()
        ))
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status, 101);
    // One with more time, that began later: when that is over, the time of the tunnel's request would be, too.
    let mut other = Client::connect(balancer.address).await;
    assert_eq!(other.get("/held").await.status, 504);
    client.send("still here").await;
    assert_eq!(client.exactly(10).await, b"still here");
}
