//! Requests without a body go to HTTP/1.1 backends without the library; with `te: trailers` they go by it. The two must
//! not differ in anything that a peer can see: every case here is put to both.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use trimtab_tests::{DEADLINE, RawOrigin, Setup, ok, wait_until, within};

use super::connect;

const MARK: &str = "/case";

/// What peers saw of a case.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Status, fields and body at the client; `None` of what broke off.
    status: Option<u16>,
    fields: BTreeSet<String>,
    body: Option<Bytes>,
    /// Lines of the head at the origin.
    request: Option<BTreeSet<String>>,
    /// After another request.
    connections: usize,
    /// Errors, requests broken off, attempts made again.
    counted: [u64; 3],
    /// Failures of the backend, and bytes from it.
    books: [u64; 2],
}

/// Fields in any order, and without what tells the ways apart.
fn lines(head: &str) -> BTreeSet<String> {
    let plain = |line: &str| match line.split_once(':') {
        Some((name, value)) => format!("{}: {}", name.to_ascii_lowercase(), value.trim()),
        None => line.to_owned(),
    };
    let told = head.trim_end().split("\r\n").map(plain);
    told.filter(|line| line != "te: trailers" && line != "connection: te")
        .collect()
}

async fn see(by_library: bool, options: &[&str], asked: &Request<()>, answer: &[u8]) -> Seen {
    let answer = answer.to_vec();
    let origin = RawOrigin::start(move |mut peer| {
        let answer = answer.clone();
        async move {
            while let Some(request) = peer.request().await {
                if !request.contains(MARK) {
                    peer.send(ok("")).await;
                    continue;
                }
                peer.send(&answer).await;
                if answer.ends_with(b"rest") {
                    return;
                }
            }
        }
    })
    .await;
    let setup = Setup::to(origin.address())
        .workers(1)
        .pool("retry = { attempts = 1 }");
    let balancer = options
        .iter()
        .fold(setup, |setup, line| setup.listener(line))
        .start()
        .await;
    let mut sender = connect(&balancer).await;
    let mut request = Request::new(Full::<Bytes>::default());
    *request.method_mut() = asked.method().clone();
    *request.uri_mut() = format!("http://shop.test{}", asked.uri()).parse().unwrap();
    request.headers_mut().clone_from(asked.headers());
    if by_library {
        request.headers_mut().insert("te", "trailers".parse().unwrap());
    }
    let response = within("a response", DEADLINE, sender.send_request(request))
        .await
        .ok();
    let status = response.as_ref().map(|response| response.status().as_u16());
    let mut fields = BTreeSet::new();
    let mut body = None;
    if let Some(response) = response {
        for (name, value) in response.headers() {
            let value = if name == "date" {
                ""
            } else {
                value.to_str().unwrap()
            };
            fields.insert(format!("{name}: {value}"));
        }
        let collected = within("the body", DEADLINE, response.into_body().collect()).await;
        body = collected.ok().map(|body| body.to_bytes());
    }
    let mut next = Request::get("http://shop.test/next")
        .body(Full::default())
        .unwrap();
    if by_library {
        next.headers_mut().insert("te", "trailers".parse().unwrap());
    }
    let next = within("the next", DEADLINE, sender.send_request(next))
        .await
        .unwrap();
    assert_eq!(next.status(), 200);
    let received = origin.received();
    let at = received
        .find(MARK)
        .map(|at| received[..at].rfind('\n').map_or(0, |end| end + 1));
    let request = at
        .and_then(|at| received[at..].split("\r\n\r\n").next())
        .map(lines);
    let backend = balancer.view().pool.snapshot().members[0].backend.clone();
    wait_until("all has ended", DEADLINE, || backend.load(0).active() == 0).await;
    let read = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    Seen {
        status,
        fields,
        body,
        request,
        connections: origin.connections(),
        counted: [
            balancer.count(|worker| &worker.errors),
            balancer.count(|worker| &worker.aborted),
            balancer.count(|worker| &worker.retries),
        ],
        books: [
            read(&backend.load(0).failures),
            read(&backend.load(0).bytes_received),
        ],
    }
}

async fn same(options: &[&str], asked: &Request<()>, answer: &[u8]) -> Seen {
    let straight = see(false, options, asked, answer).await;
    let library = see(true, options, asked, answer).await;
    assert_eq!(
        straight,
        library,
        "straight (left) and library (right) for\n{asked:?}\n{}",
        String::from_utf8_lossy(answer)
    );
    straight
}

fn ask(method: Method, path: &str, fields: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn requests_reach_the_backend_the_same_way() {
    let told = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-host", "b"),
        ("x-forwarded-port", "1"),
        ("forwarded", "for=x"),
        ("via", "1.0 other"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("proxy", "x"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ];
    for options in [
        &["forwarded = \"replace\""][..],
        &["forwarded = \"append\""],
        &["forwarded = \"off\"", "via = false"],
    ] {
        let seen = same(
            options,
            &ask(Method::GET, "/case?a=b", &told),
            ok("hello").as_bytes(),
        )
        .await;
        assert!(seen.request.is_some());
    }
    for method in [
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ] {
        let seen = same(
            &[],
            &ask(method, "/case/%20x", &[("content-length", "0")]),
            ok("").as_bytes(),
        )
        .await;
        assert_eq!((seen.status, seen.connections), (Some(200), 1), "{seen:?}");
    }
    // One that is not common goes by the library, and arrives all the same.
    let odd = Method::from_bytes(b"PURGE").unwrap();
    let seen = see(false, &[], &ask(odd, MARK, &[]), ok("").as_bytes()).await;
    assert_eq!((seen.status, seen.request.is_some()), (Some(200), true));
}

#[tokio::test]
async fn responses_reach_the_client_the_same_way() {
    let long = ok(&"long ".repeat(60_000));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nDate: x\r\nX-A: 1\r\nx-a: 2\r\nX-Empty:\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nyou\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\nKeep-Alive: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nthe rest",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\noops",
        &long,
    ] {
        let seen = same(&[], &ask(Method::GET, MARK, &[]), answer.as_bytes()).await;
        assert!(seen.status.is_some() && seen.body.is_some(), "{answer}: {seen:?}");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let seen = same(&[], &ask(Method::HEAD, MARK, &[]), head.as_bytes()).await;
    assert!(seen.fields.contains("content-length: 5"), "{seen:?}");
}

#[tokio::test]
async fn bad_responses_are_refused_on_both_ways() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        for by_library in [false, true] {
            let seen = see(by_library, &[], &ask(Method::GET, MARK, &[]), answer.as_bytes()).await;
            assert_eq!(
                (seen.status, seen.books[0]),
                (Some(502), 1),
                "{by_library} {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_never_looks_complete() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nnot all of the rest",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nnot all of the rest",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx of the rest",
    ] {
        // Whether the head is seen before the reset is the client's luck.
        for by_library in [false, true] {
            let seen = see(by_library, &[], &ask(Method::GET, MARK, &[]), answer.as_bytes()).await;
            assert_eq!((seen.body, seen.counted[1]), (None, 1), "{by_library}: {answer}");
        }
    }
}
