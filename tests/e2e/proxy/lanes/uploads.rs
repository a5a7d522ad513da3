//! Bodies that come after their heads, and all that can happen meanwhile: the same on both ways.

use std::{collections::BTreeSet, fmt::Debug, sync::atomic::Ordering};

use tokio::io::AsyncWriteExt;
use trimtab_tests::{Balancer, Client, DEADLINE, Directory, RawOrigin, Setup, ok, wait_until};

use super::{Lane, MARK, UNUSUAL, fields};

/// A name that only the own way passes on as it was written, so that a case is known to have gone by it.
const KEPT: &str = "X-Kept-As-Written";

async fn both<T: PartialEq + Debug>(see: impl AsyncFn(Lane) -> T) -> T {
    let own = see(Lane::Own).await;
    let library = see(Lane::Library).await;
    assert_eq!(own, library, "own way (left) and library (right)");
    own
}

async fn connect(balancer: &Balancer, lane: Lane) -> Client {
    let mut client = Client::connect(balancer.address).await;
    if lane == Lane::Library {
        assert_eq!(client.ask(UNUSUAL).await.status, 200);
    }
    client
}

fn head(length: usize) -> String {
    format!("PUT {MARK} HTTP/1.1\r\nHost: a\r\n{KEPT}: 1\r\nContent-Length: {length}\r\n\r\n")
}

/// Nothing that could be taken for a request.
fn body(length: usize) -> Vec<u8> {
    let pattern = b"body\0:\r\n, ".iter().copied().cycle();
    pattern.take(length).collect()
}

/// The head of the case as the origin got it, and what followed it there.
fn arrived(origin: &RawOrigin, lane: Lane) -> (BTreeSet<String>, Vec<u8>) {
    let received = origin.received_bytes();
    let text = String::from_utf8_lossy(&received);
    assert_eq!(
        text.contains(KEPT),
        lane == Lane::Own,
        "{lane:?} took the other way"
    );
    let from = text.find(&format!("PUT {MARK}")).unwrap();
    let end = from + text[from..].find("\r\n\r\n").unwrap();
    (fields(&text[from..end]), received[end + 4..].to_vec())
}

/// What was counted: requests that failed, that were broken off, and attempts made again.
fn counted(balancer: &Balancer) -> [u64; 3] {
    [
        balancer.count(|worker| &worker.errors),
        balancer.count(|worker| &worker.aborted),
        balancer.count(|worker| &worker.retries),
    ]
}

/// Of all backends: picks, failures, and bytes both ways.
fn books(balancer: &Balancer) -> [u64; 4] {
    let snapshot = balancer.view().pool.snapshot();
    let mut sums = [0; 4];
    for member in &snapshot.members {
        let load = member.backend.load(0);
        let counts = [
            &load.picks,
            &load.failures,
            &load.bytes_sent,
            &load.bytes_received,
        ];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
    sums
}

#[tokio::test]
async fn bodies_that_come_later_arrive_whole_and_are_counted() {
    for (length, first, piece) in [
        (1, 0, 1),
        (20_000, 20, 7_000),
        (100_000, 0, 100_000),
        (700_000, 16_000, 50_001),
    ] {
        let seen = both(async |lane| {
            let origin = RawOrigin::answering(ok("fine")).await;
            let balancer = Setup::to(origin.address()).workers(1).start().await;
            let mut client = connect(&balancer, lane).await;
            let before = books(&balancer);
            let body = body(length);
            client
                .send([head(length).as_bytes(), &body[..first]].concat())
                .await;
            origin.wait_for(MARK).await;
            let rest: Vec<&[u8]> = body[first..].chunks(piece).collect();
            for (number, part) in rest.iter().enumerate() {
                // The next request comes with the last of it.
                match number + 1 == rest.len() {
                    true => {
                        let next = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
                        client.send([part, &next[..]].concat()).await;
                    }
                    false => client.send(part).await,
                }
            }
            let answers = [client.response().await, client.response().await];
            let answers = answers.map(|answer| (answer.status, answer.text()));
            let (head, mut followed) = arrived(&origin, lane);
            let next = followed.split_off(length);
            assert!(followed == body, "the body is another one");
            assert!(next.starts_with(b"GET /next "));
            // The last attempt may end a moment after its answer.
            let expected = [2, 0, length as u64, 8];
            wait_until("all of it is in the books", DEADLINE, || {
                let now = books(&balancer);
                (0..4).all(|at| now[at] - before[at] == expected[at])
            })
            .await;
            (answers, head, origin.connections(), counted(&balancer))
        })
        .await;
        assert_eq!(seen.2, 1, "{length}");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_has() {
    both(async |lane| {
        let origin = RawOrigin::start(|mut peer| async move {
            while let Some(head) = peer.head().await {
                peer.send(ok("early")).await;
                if head.contains(MARK) {
                    peer.exactly(50_000).await;
                }
            }
        })
        .await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = connect(&balancer, lane).await;
        let body = body(50_000);
        client.send([head(50_000).as_bytes(), &body[..10]].concat()).await;
        let early = client.response().await;
        client.send(&body[10..]).await;
        // The library lets the connection go with its next request; the own way takes the rest of the body first.
        if lane == Lane::Own {
            assert_eq!(client.get("/next").await.text(), "early");
            assert!(
                arrived(&origin, lane).1.starts_with(&body),
                "what goes on is the body"
            );
        }
        (early.status, early.text(), arrived(&origin, lane).0)
    })
    .await;
}

#[tokio::test]
async fn body_and_answer_may_take_turns() {
    both(async |lane| {
        let origin = RawOrigin::start(|mut peer| async move {
            while let Some(head) = peer.head().await {
                if !head.contains(MARK) {
                    peer.send(ok("")).await;
                    continue;
                }
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n")
                    .await;
                for _ in 0..30 {
                    let Some(piece) = peer.exactly(10_000).await else {
                        return;
                    };
                    peer.send(piece).await;
                }
            }
        })
        .await;
        let balancer = Setup::to(origin.address()).start().await;
        let mut client = connect(&balancer, lane).await;
        client.send(head(300_000)).await;
        let status = client.head().await.unwrap().status;
        let body = body(300_000);
        for piece in body.chunks(10_000) {
            client.send(piece).await;
            assert!(
                client.exactly(piece.len()).await == piece,
                "the echo of this piece"
            );
        }
        assert!(arrived(&origin, lane).1 == body);
        (status, client.get("/next").await.status)
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_wants_no_body_is_heard_and_the_connection_ends() {
    both(async |lane| {
        let origin = RawOrigin::start(|mut peer| async move {
            while let Some(head) = peer.head().await {
                if head.contains(MARK) {
                    let no =
                        "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno";
                    return peer.send(no).await;
                }
                peer.send(ok("")).await;
            }
        })
        .await;
        let balancer = Setup::to(origin.address()).workers(1).start().await;
        let mut client = connect(&balancer, lane).await;
        client.send(head(1 << 30)).await;
        let answer = client.response().await;
        arrived(&origin, lane);
        client.send("more").await;
        client.until_closed().await;
        (
            answer.status,
            answer.text(),
            books(&balancer)[1],
            counted(&balancer),
        )
    })
    .await;
}

#[tokio::test]
async fn a_client_that_breaks_its_body_off_is_told_and_the_backend_not_blamed() {
    let seen = both(async |lane| {
        let origin = RawOrigin::answering(ok("whole")).await;
        let balancer = Setup::to(origin.address()).workers(1).start().await;
        let mut client = connect(&balancer, lane).await;
        client
            .send([head(100_000).as_bytes(), &body(30_000)].concat())
            .await;
        origin.wait_for(MARK).await;
        client.stream.shutdown().await.unwrap();
        let answer = client.response().await;
        client.until_closed().await;
        let is_closed = || origin.closed() == origin.connections();
        wait_until("the origin's connection is closed", DEADLINE, is_closed).await;
        assert!(arrived(&origin, lane).1.len() < 100_000);
        (
            answer.status,
            answer.text(),
            books(&balancer)[1],
            counted(&balancer),
        )
    })
    .await;
    assert_eq!((seen.0, seen.2), (400, 0), "{seen:?}");
}

#[tokio::test]
async fn a_client_that_goes_after_its_body_ends_the_attempt() {
    both(async |lane| {
        let origin = RawOrigin::start(|mut peer| async move {
            while let Some(head) = peer.head().await {
                if head.contains(MARK) {
                    peer.exactly(100_000).await;
                    return peer.until_closed().await;
                }
                peer.send(ok("")).await;
            }
        })
        .await;
        let balancer = Setup::to(origin.address()).workers(1).start().await;
        let mut client = connect(&balancer, lane).await;
        let body = body(100_000);
        client.send([head(100_000).as_bytes(), &body].concat()).await;
        wait_until("the origin has all of it", DEADLINE, || {
            origin.received_bytes().ends_with(&body)
        })
        .await;
        arrived(&origin, lane);
        drop(client);
        wait_until("the attempt is ended", DEADLINE, || {
            origin.open_connections() == 0
        })
        .await;
        let is_counted = || counted(&balancer)[1] == 1;
        wait_until("it is counted as broken off", DEADLINE, is_counted).await;
        counted(&balancer)
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_goes_in_the_middle_of_a_body_is_a_bad_gateway() {
    let seen = both(async |lane| {
        let start = || {
            RawOrigin::start(|mut peer| async move {
                while let Some(head) = peer.head().await {
                    if head.contains(MARK) {
                        peer.exactly(5_000).await;
                        return;
                    }
                    peer.send(ok("")).await;
                }
            })
        };
        let origins = [start().await, start().await];
        let balancer = Setup::to(origins[0].address())
            .backend(origins[1].address())
            .workers(1)
            .pool("idle_connections = 0")
            .start()
            .await;
        let mut client = connect(&balancer, lane).await;
        client
            .send([head(100_000).as_bytes(), &body(30_000)].concat())
            .await;
        let answer = client.response().await;
        // What has gone by cannot be sent to the other one.
        let asked = origins.each_ref().map(|origin| origin.received().contains(MARK));
        assert_eq!(asked.iter().filter(|asked| **asked).count(), 1);
        arrived(&origins[usize::from(asked[1])], lane);
        (answer.status, books(&balancer)[1], counted(&balancer))
    })
    .await;
    assert_eq!((seen.0, seen.1), (502, 1), "{seen:?}");
}

#[tokio::test]
async fn a_body_of_which_nothing_was_sent_goes_to_the_next_backend() {
    let seen = both(async |lane| {
        // It was free a moment ago, and stays bound without listening.
        let dead = tokio::net::TcpSocket::new_v4().unwrap();
        dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let origin = RawOrigin::answering(ok("fine")).await;
        let mut tried = 0;
        let balancer = Setup::to(dead.local_addr().unwrap().to_string())
            .backend(origin.address())
            .workers(1)
            .pool("policy = \"round-robin\"")
            .start()
            .await;
        let mut client = connect(&balancer, lane).await;
        let body = body(60_000);
        // One of two begins with the dead one.
        let mut answers = Vec::new();
        for _ in 0..2 {
            client.send([head(60_000).as_bytes(), &body[..9]].concat()).await;
            tried += 1;
            wait_until("the origin hears of it", DEADLINE, || {
                origin.received().matches(&format!("PUT {MARK}")).count() == tried
            })
            .await;
            client.send(&body[9..]).await;
            answers.push(client.response().await.text());
        }
        let received = origin.received_bytes();
        let whole = received
            .windows(body.len())
            .filter(|window| *window == body)
            .count();
        (answers, whole, balancer.count(|worker| &worker.retries) > 0)
    })
    .await;
    assert_eq!((seen.1, seen.2), (2, true));
}

#[tokio::test]
async fn a_request_that_is_answered_here_leaves_no_body_behind() {
    let seen = both(async |lane| {
        let origin = RawOrigin::answering(ok("")).await;
        let setup =
            Setup::to(origin.address()).listener("route = [{ path_prefix = \"/unusual\", pool = \"main\" }]");
        let balancer = setup.start().await;
        let mut client = connect(&balancer, lane).await;
        // All of it is there, though not in one buffer.
        client
            .send([head(40_000).as_bytes(), &body(40_000)].concat())
            .await;
        let answer = client.response().await;
        client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
        // Whether the connection goes on depends on what had arrived; what follows is no part of the body.
        let next = client.try_response().await.map_or(404, |next| next.status);
        assert!(!origin.received().contains(MARK));
        (answer.status, next)
    })
    .await;
    assert_eq!(seen, (404, 404));
}

#[tokio::test]
async fn the_access_log_tells_of_uploads_the_same() {
    let seen = both(async |lane| {
        let directory = Directory::new();
        let origin = RawOrigin::answering(ok("hi")).await;
        let setup = Setup::to(origin.address()).top("log.access = \"access.log\"");
        let balancer = Balancer::start(setup.text(), directory.path()).await.unwrap();
        let mut client = connect(&balancer, lane).await;
        client.send(head(80_000)).await;
        origin.wait_for(MARK).await;
        client.send(body(80_000)).await;
        assert_eq!(client.response().await.status, 200);
        // And one that is broken off.
        client.send([head(80_000).as_bytes(), b"x"].concat()).await;
        client.stream.shutdown().await.unwrap();
        client.until_closed().await;
        balancer.stop().await;
        let log = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
        let lines = log.lines().filter(|line| line.contains(MARK));
        // But for times and ports.
        let told = |line: &str| -> Vec<String> {
            let changing = ["_ms\"", "_us\"", "\"client\"", "\"backend\""];
            let parts = line
                .split(',')
                .filter(|part| !changing.iter().any(|name| part.contains(name)));
            parts.map(str::to_owned).collect()
        };
        lines.map(told).collect::<Vec<_>>()
    })
    .await;
    assert_eq!(seen.len(), 2, "{seen:?}");
}
