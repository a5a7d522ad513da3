//! A backend that drains: what is in flight finishes, and what would never end is ended.

use super::{Asker, WAYS, active};
use std::time::Instant;
use trimtab_tests::{Balancer, Client, DEADLINE, Origin, RawOrigin, Setup, wait_until};

/// Says everything back, after a 101 to a request.
async fn echo() -> RawOrigin {
    RawOrigin::start(|mut peer| async move {
        while let Some(bytes) = peer.bytes().await {
            if bytes.starts_with(b"GET") {
                let switch = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
                peer.send(switch).await;
            } else {
                peer.send(bytes).await;
            }
        }
    })
    .await
}

async fn tunnel(balancer: &Balancer, is_upgrade: bool) -> Client {
    let mut client = Client::connect(balancer.address).await;
    if is_upgrade {
        let ask = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
        client.send(ask).await;
        assert_eq!(client.head().await.unwrap().status, 101);
    }
    say(&mut client).await;
    client
}

async fn say(client: &mut Client) {
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
}

fn setup(origin: &RawOrigin, is_upgrade: bool) -> Setup {
    Setup::to(origin.address()).listener(match is_upgrade {
        true => "upgrades = [\"chat\"]",
        false => "protocol = \"tcp\"",
    })
}

#[tokio::test]
async fn tunnels_of_a_backend_that_drains_end_after_their_time_and_not_before() {
    for is_upgrade in [true, false] {
        let origin = echo().await;
        let patient = setup(&origin, is_upgrade)
            .pool("drain_timeout = \"1h\"")
            .start()
            .await;
        let hasty = setup(&origin, is_upgrade)
            .pool("drain_timeout = \"0s\"")
            .start()
            .await;
        let mut kept = tunnel(&patient, is_upgrade).await;
        let mut ended = tunnel(&hasty, is_upgrade).await;
        for balancer in [&patient, &hasty] {
            balancer
                .view()
                .pool
                .set_draining(balancer.id(0), true, Instant::now());
        }
        assert_eq!(ended.until_closed().await, "");
        wait_until("nothing is left", DEADLINE, || active(&hasty) == 0).await;
        // One that begins and ends later: what was to be ended is by then.
        let other = setup(&origin, is_upgrade)
            .pool("drain_timeout = \"0s\"")
            .start()
            .await;
        let mut last = tunnel(&other, is_upgrade).await;
        other.view().pool.set_draining(other.id(0), true, Instant::now());
        assert_eq!(last.until_closed().await, "");
        say(&mut kept).await;
        assert_eq!(active(&patient), 1);
    }
}

#[tokio::test]
async fn tunnels_of_a_backend_that_a_reload_takes_out_end_after_their_time() {
    for is_upgrade in [true, false] {
        let [old, new] = [echo().await, echo().await];
        let balancer = setup(&old, is_upgrade)
            .pool("drain_timeout = \"0s\"")
            .start()
            .await;
        let mut client = tunnel(&balancer, is_upgrade).await;
        let other = setup(&new, is_upgrade).pool("drain_timeout = \"0s\"");
        balancer.replace(&other).await.unwrap();
        assert_eq!(client.until_closed().await, "");
        tunnel(&balancer, is_upgrade).await;
        assert_eq!(new.connections(), 1);
    }
}

#[tokio::test]
async fn requests_of_a_backend_that_drains_finish_and_unused_connections_are_closed() {
    for way in WAYS {
        let origins = Origin::start_all(["old", "new"]).await;
        let balancer = Setup::to(origins[0].address())
            .backend_with(&origins[1].address(), "tier = 1")
            .pool("drain_timeout = \"0s\"\nidle_timeout = \"1h\"")
            .start()
            .await;
        let mut held = Asker::new(&balancer, way).await;
        let mut asker = Asker::new(&balancer, way).await;
        assert_eq!(asker.ask("GET", "/").await, (200, "old".into()), "{way:?}");
        let held = tokio::spawn(async move { held.ask("GET", "/held").await });
        wait_until("it is there", DEADLINE, || origins[0].in_flight() == 1).await;
        assert_eq!(asker.ask("GET", "/").await, (200, "old".into()), "{way:?}");
        let pool = balancer.view().pool;
        let snapshot = pool.snapshot();
        let backend = &snapshot.members[0].backend;
        assert_eq!(backend.connections(), 2, "{way:?}");
        pool.set_draining(balancer.id(0), true, Instant::now());
        wait_until("the unused one is closed", DEADLINE, || {
            backend.connections() == 1
        })
        .await;
        assert_eq!(asker.ask("GET", "/").await, (200, "new".into()), "{way:?}");
        origins[0].release();
        assert_eq!(held.await.unwrap(), (200, "old".into()), "{way:?}");
        wait_until("nothing is left", DEADLINE, || {
            backend.connections() == 0 && backend.active() == 0
        })
        .await;
        // It is put back.
        pool.set_draining(balancer.id(0), false, Instant::now());
        assert_eq!(asker.ask("GET", "/").await, (200, "old".into()), "{way:?}");
    }
}
