//! Ordinary requests are read by trimtab itself, all others by the HTTP library. The two must not differ in anything that
//! a peer can see: every case here is put to both.

use std::collections::BTreeSet;

use trimtab_tests::{
    Balancer, Client, Directory, RawOrigin, Response, Setup,
    frames::{Framed, kind},
    ok,
};

mod uploads;

/// Not ordinary, so the library has its connection from then on.
const UNUSUAL: &str = "GET /unusual HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
/// What tells the one from the other in the origin's record.
const MARK: &str = "/case";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Own,
    Library,
}

/// What peers saw of a case.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Status, fields and body at the client; `None` if it got no head.
    response: Option<(u16, BTreeSet<String>, Vec<u8>, bool)>,
    /// First lines and fields at the origin, in any order, and the body.
    request: Option<(BTreeSet<String>, String)>,
    /// Whether the client's connection carries another request.
    goes_on: bool,
}

/// Fields in any order, their names in lower case. Neither lane promises either.
fn fields(head: &str) -> BTreeSet<String> {
    let plain = |line: &str| match line.split_once(':') {
        Some((name, _)) if name.eq_ignore_ascii_case("date") => "date".to_owned(),
        Some((name, value)) => format!("{}: {}", name.to_ascii_lowercase(), value.trim()),
        None => line.to_owned(),
    };
    head.trim_end().split("\r\n").map(plain).collect()
}

async fn see(lane: Lane, options: &[&str], request: &str, answer: &[u8]) -> Seen {
    let answer = answer.to_vec();
    let origin = RawOrigin::start(move |mut peer| {
        let answer = answer.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.contains(MARK) {
                    peer.send(&answer).await;
                    // An answer that ends with its connection.
                    if !String::from_utf8_lossy(&answer)
                        .to_ascii_lowercase()
                        .contains("\r\ncontent-length")
                        && answer.ends_with(b"rest")
                    {
                        return;
                    }
                } else {
                    peer.send(ok("")).await;
                }
            }
        }
    })
    .await;
    let setup = Setup::to(origin.address()).pool("retry = { attempts = 1 }");
    let balancer = options
        .iter()
        .fold(setup, |setup, line| setup.listener(line))
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    if lane == Lane::Library {
        assert_eq!(client.ask(UNUSUAL).await.status, 200);
    }
    client.send(request).await;
    let response = match request.starts_with("HEAD") {
        true => client.head().await.map(|head| Response {
            is_complete: true,
            ..head
        }),
        false => client.try_response().await,
    };
    let response = response.ok();
    let goes_on = match &response {
        Some(response) if response.is_complete => {
            client.send("GET /after HTTP/1.1\r\nhost: a\r\n\r\n").await;
            client
                .try_response()
                .await
                .is_ok_and(|response| response.status == 200)
        }
        _ => false,
    };
    let received = origin.received();
    let request = received.find(MARK).map(|at| {
        let from = received[..at].rfind('\n').map_or(0, |end| end + 1);
        let (head, body) = received[from..].split_once("\r\n\r\n").unwrap_or_default();
        let body = body.split("GET /after").next().unwrap_or_default();
        (fields(head), body.to_owned())
    });
    Seen {
        response: response.map(|seen| {
            let head = fields(&seen.head)
                .into_iter()
                .filter(|line| !line.starts_with("HTTP/"))
                .collect();
            (seen.status, head, seen.body, seen.is_complete)
        }),
        request,
        goes_on,
    }
}

async fn same(options: &[&str], request: &str, answer: &[u8]) -> Seen {
    let own = see(Lane::Own, options, request, answer).await;
    let library = see(Lane::Library, options, request, answer).await;
    assert_eq!(
        own,
        library,
        "own way (left) and library (right) for\n{request}\n{}",
        String::from_utf8_lossy(answer)
    );
    own
}

fn ask(fields: &str) -> String {
    format!("GET {MARK} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[tokio::test]
async fn requests_reach_the_origin_the_same_way() {
    for fields in [
        "",
        "X-Odd:   spaces  \r\nAccept: */*\r\n",
        "X-Twice: 1\r\nx-twice: 2\r\n",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n",
        "Connection: close\r\n",
        "Proxy: http://evil\r\nCookie: a=b; c=d\r\n",
        "X-Empty:\r\n",
        "X-High: \u{e9}\u{fc}\r\n",
    ] {
        let seen = same(&[], &ask(fields), ok("hello").as_bytes()).await;
        assert!(seen.request.is_some(), "{fields}");
    }
    let replaced =
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nVia: 1.0 other\r\n";
    let twice = "X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for: 5.6.7.8\r\n";
    for options in [
        &["forwarded = \"replace\""][..],
        &["forwarded = \"append\""],
        &["forwarded = \"off\"", "via = false"],
    ] {
        for fields in [replaced, twice] {
            let seen = same(options, &ask(fields), ok("hello").as_bytes()).await;
            assert!(seen.request.is_some(), "{fields}");
        }
    }
}

#[tokio::test]
async fn methods_targets_and_bodies_reach_the_origin_the_same_way() {
    for request in [
        format!("HEAD {MARK} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("DELETE {MARK}?a=b&c=%20 HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("POST {MARK} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        format!(
            "PUT {MARK} HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n{}",
            "x".repeat(3000)
        ),
        format!("POST {MARK} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        format!("PATCH {MARK}/a//b/../c;d HTTP/1.1\r\nhost: a.example:8080\r\n\r\n"),
        format!("GET {MARK}'()*!$&+,=:@~ HTTP/1.1\r\nhost: [::1]:80\r\n\r\n"),
    ] {
        let seen = same(&[], &request, ok("hello").as_bytes()).await;
        assert!(seen.request.is_some() && seen.response.is_some(), "{request}");
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_the_same_way() {
    for fields in [
        "Host: b\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1, 1\r\n",
        "Bad Name: x\r\n",
        "X-Folded: a\r\n b\r\n",
        "X-Nul: a\0b\r\n",
        "X-Cr: a\rb\r\n",
        "Expect: something\r\n",
        "Transfer-Encoding: gzip\r\n",
        ": empty\r\n",
    ] {
        let seen = same(&[], &ask(fields), ok("hello").as_bytes()).await;
        assert!(seen.request.is_none(), "{fields:?} got through: {seen:?}");
    }
    for line in [
        format!("GET  {MARK} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("get {MARK} HTTP/1.1\r\nHost: a,b\r\n\r\n"),
        format!("GET {MARK} HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        format!("GET {MARK} HTTP/1.1\r\n\r\n"),
        format!("GET {MARK}\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("TRACE {MARK} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET {MARK} HTTP/3.1\r\nHost: a\r\n\r\n"),
    ] {
        let seen = same(&[], &line, ok("hello").as_bytes()).await;
        assert!(seen.request.is_none(), "{line:?} got through: {seen:?}");
    }
}

#[tokio::test]
async fn responses_reach_the_client_the_same_way() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 Fine By Me\r\nContent-Length: 5\r\nDate: x\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\nKeep-Alive: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nthe rest",
        "HTTP/1.0 200 OK\r\n\r\nthe rest",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
        "HTTP/1.1 299 \r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let seen = same(&[], &ask(""), answer.as_bytes()).await;
        assert!(seen.goes_on, "{answer}: {seen:?}");
    }
}

#[tokio::test]
async fn bad_responses_are_refused_the_same_way() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        // The library's words for it are its own.
        for lane in [Lane::Own, Lane::Library] {
            let seen = see(lane, &[], &ask(""), answer.as_bytes()).await;
            let status = seen.response.map(|response| response.0);
            assert_eq!(status, Some(502), "{lane:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_across_the_lanes() {
    let origin = RawOrigin::start(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            peer.send(ok(&path)).await;
        }
    })
    .await;
    let balancer = Setup::to(origin.address()).start().await;
    let mut client = Client::connect(balancer.address).await;
    let plain = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let post = "POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let all = [&plain("/1"), post, &plain("/3"), UNUSUAL, &plain("/5")].concat();
    // In two pieces, the second of which begins in the middle of a head.
    let (first, second) = all.split_at(60);
    client.send(first).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    client.send(second).await;
    for path in ["/1", "/2", "/3", "/unusual", "/5"] {
        assert_eq!(client.response().await.text(), path);
    }
}

#[tokio::test]
async fn the_access_log_says_what_a_client_speaks() {
    let directory = Directory::new();
    let origin = RawOrigin::answering(ok("hi")).await;
    let setup = Setup::to(origin.address()).top("log.access = \"access.log\"");
    let balancer = Balancer::start(setup.text(), directory.path()).await;
    let balancer = balancer.unwrap_or_else(|error| panic!("{error}"));
    let mut client = Client::connect(balancer.address).await;
    client.get("/own").await;
    client.ask(UNUSUAL).await;
    let mut old = Client::connect(balancer.address).await;
    old.ask("GET /old HTTP/1.0\r\n\r\n").await;
    let mut framed = Framed::connect(balancer.address).await;
    framed.get(1, &[]).await;
    framed.until(kind::DATA).await.unwrap();
    balancer.stop().await;
    let log = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
    for (path, protocol) in [
        ("/own", "http/1.1"),
        ("/unusual", "http/1.1"),
        ("/old", "http/1.0"),
        ("/", "h2"),
    ] {
        let path = format!("\"path\":\"{path}\"");
        let line = log.lines().find(|line| line.contains(&path)).unwrap();
        assert!(line.contains(&format!("\"protocol\":\"{protocol}\"")), "{line}");
    }
}
