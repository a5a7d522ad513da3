//! Backends that speak HTTP/2: gRPC's way of using it, and clients of either version. Numbers like L4 are those of the
//! case list that issue 5 names.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{sync::mpsc, task::JoinSet};
use trimtab_tests::{Balancer, Client, DEADLINE, Port, Setup, get, wait_until, within};

/// A body that is what is sent into it.
struct Fed(mpsc::UnboundedReceiver<Frame<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

fn fed() -> (mpsc::UnboundedSender<Frame<Bytes>>, Fed) {
    let (feed, fed) = mpsc::unbounded_channel();
    (feed, Fed(fed))
}

fn grpc_status(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers
}

/// A server that speaks HTTP/2 from the first byte on.
struct Server {
    port: Arc<Port>,
    seen: Arc<Seen>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    waiting: AtomicUsize,
    /// Whether all requests wait, and not only those for `/held`.
    is_frozen: AtomicBool,
    last: std::sync::Mutex<Option<http::request::Parts>>,
}

impl Server {
    async fn start() -> Self {
        Self::listen(Arc::default()).await
    }

    async fn listen(port: Arc<Port>) -> Self {
        let listener = port.listen().await;
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let seen = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| answer(seen.clone(), request));
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, seen, serving }
    }

    async fn balancer(&self) -> Balancer {
        self.setup().start().await
    }

    fn setup(&self) -> Setup {
        Setup::to(self.port.address().to_string()).pool("protocol = \"h2\"")
    }

    fn last(&self) -> http::request::Parts {
        self.seen.last.lock().unwrap().clone().unwrap()
    }

    fn count(&self, read: impl Fn(&Seen) -> &AtomicUsize) -> usize {
        read(&self.seen).load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Waiting(Arc<Seen>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

type Answer = BoxBody<Bytes, Infallible>;

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    *seen.last.lock().unwrap() = Some(parts);
    let response = Response::builder().header("content-type", "application/grpc");
    let is_held = path == "/held" || seen.is_frozen.load(Ordering::SeqCst);
    match path.as_str() {
        _ if is_held => {
            seen.waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(seen);
            std::future::pending::<()>().await;
        }
        "/trailers-only" => {
            let response = response.header("grpc-status", "5").body(Empty::new().boxed());
            return Ok(response.unwrap());
        }
        _ => {}
    }
    let (feed, fed) = fed();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                let _ = feed.send(Frame::data(data));
            }
        }
        let _ = feed.send(Frame::trailers(grpc_status("0")));
    });
    Ok(response.body(fed.boxed()).unwrap())
}

type Sender = hyper::client::conn::http2::SendRequest<Fed>;

async fn connect(balancer: &Balancer) -> Sender {
    let stream = Client::connect(balancer.address).await.stream;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(path: &str, body: Fed) -> Request<Fed> {
    Request::post(format!("http://shop.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn l4_a_call_streams_both_ways_at_once_and_ends_in_trailers() {
    let server = Server::start().await;
    let balancer = server.balancer().await;
    let mut sender = connect(&balancer).await;
    let (feed, body) = fed();
    let response = within("the head", DEADLINE, sender.send_request(call("/echo", body)))
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut echoed = response.into_body();
    // Each message is back before the next is sent.
    for message in ["one", "two", "three"] {
        feed.send(Frame::data(message.into())).unwrap();
        let frame = within("the echo", DEADLINE, echoed.frame())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(feed);
    let frame = within("trailers", DEADLINE, echoed.frame())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame.into_trailers().unwrap(), grpc_status("0"));
    assert!(within("the end", DEADLINE, echoed.frame()).await.is_none());
    let asked = server.last();
    assert_eq!(asked.version, http::Version::HTTP_2);
    assert_eq!(asked.uri, "http://shop.test/echo");
    assert_eq!(
        (&asked.headers["te"], asked.headers.get("host")),
        (&"trailers".parse().unwrap(), None)
    );
    let via = asked.headers["via"].to_str().unwrap();
    assert!(via.starts_with("2.0 trimtab-"), "{via}");
}

#[tokio::test]
async fn l4_messages_larger_than_all_windows_arrive_whole() {
    let server = Server::start().await;
    let balancer = server.balancer().await;
    let mut sender = connect(&balancer).await;
    let (feed, body) = fed();
    let message: Bytes = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    feed.send(Frame::data(message.clone())).unwrap();
    drop(feed);
    let response = within("the head", DEADLINE, sender.send_request(call("/echo", body)))
        .await
        .unwrap();
    let echoed = within("the echo", DEADLINE, response.into_body().collect())
        .await
        .unwrap();
    assert_eq!(echoed.trailers(), Some(&grpc_status("0")));
    assert!(echoed.to_bytes() == message);
}

#[tokio::test]
async fn l6_an_answer_of_trailers_only_stays_one() {
    let server = Server::start().await;
    let balancer = server.balancer().await;
    let mut sender = connect(&balancer).await;
    let (_feed, body) = fed();
    let response = within(
        "the head",
        DEADLINE,
        sender.send_request(call("/trailers-only", body)),
    )
    .await
    .unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream(), "it ends with its head");
}

#[tokio::test]
async fn l5_a_call_that_is_given_up_is_given_up_at_the_backend_and_no_other() {
    let server = Server::start().await;
    let balancer = server.balancer().await;
    let mut sender = connect(&balancer).await;
    let (_feed, body) = fed();
    let waiting = tokio::spawn(sender.send_request(call("/held", body)));
    wait_until("it is there", DEADLINE, || {
        server.count(|seen| &seen.waiting) == 1
    })
    .await;
    waiting.abort();
    wait_until("it is gone", DEADLINE, || server.count(|seen| &seen.waiting) == 0).await;
    let (feed, body) = fed();
    drop(feed);
    let response = within("another", DEADLINE, sender.send_request(call("/echo", body)))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.count(|seen| &seen.connections), 1);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_told_and_others_go_on() {
    let server = Server::start().await;
    let balancer = server.setup().pool("response_timeout = \"200ms\"").start().await;
    assert_eq!(get(balancer.address, "/held").await.status, 504);
    wait_until("it is given up", DEADLINE, || {
        server.count(|seen| &seen.waiting) == 0
    })
    .await;
    assert_eq!(get(balancer.address, "/echo").await.status, 200);
    assert_eq!(server.count(|seen| &seen.connections), 1);
}

#[tokio::test]
async fn a_hedge_leaves_the_connection_of_the_attempt_that_is_not_taken_to_others() {
    let [slow, fine] = [Server::start().await, Server::start().await];
    let setup = slow.setup().backend(fine.port.address().to_string());
    let balancer = setup
        .pool("policy = \"round-robin\"\noutlier = \"off\"\nretry = { hedge_after = \"20ms\" }")
        .start()
        .await;
    let pool = balancer.view().pool;
    let open = || pool.snapshot().members[0].backend.connections();
    // On a busy machine an attempt may be given up while it connects, and its connection with it.
    while open() == 0 {
        assert_eq!(get(balancer.address, "/echo").await.status, 200);
    }
    let before = slow.count(|seen| &seen.connections);
    for is_frozen in [true, false] {
        slow.seen.is_frozen.store(is_frozen, Ordering::SeqCst);
        for _ in 0..4 {
            assert_eq!(get(balancer.address, "/echo").await.status, 200);
        }
        wait_until("it is given up", DEADLINE, || {
            slow.count(|seen| &seen.waiting) == 0
        })
        .await;
    }
    assert!(pool.total(|counts| &counts.hedges_won) > 0);
    assert_eq!(slow.count(|seen| &seen.connections), before);
    wait_until("the books are closed", DEADLINE, || {
        pool.snapshot()
            .members
            .iter()
            .all(|member| member.backend.active() == 0)
    })
    .await;
}

#[tokio::test]
async fn clients_of_http_1_are_served_by_it_too_and_counted_once() {
    let server = Server::start().await;
    let balancer = server.balancer().await;
    let mut client = Client::connect(balancer.address).await;
    for body in ["one", "two"] {
        let request = format!("POST /echo HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 3\r\n\r\n{body}");
        let response = client.ask(request).await;
        assert_eq!((response.status, response.text()), (200, body.into()));
        assert_eq!(server.last().uri, "http://shop.test/echo");
        assert_eq!(server.last().headers["x-forwarded-host"], "shop.test");
    }
    assert_eq!(get(balancer.address, "/echo").await.status, 200);
    assert_eq!(
        server.count(|seen| &seen.connections),
        1,
        "they share a connection"
    );
    assert_eq!(server.count(|seen| &seen.requests), 3);
    wait_until("each is counted once", DEADLINE, || {
        balancer.count(|worker| &worker.responses[2]) == 3
    })
    .await;
    assert_eq!(balancer.count(|worker| &worker.aborted), 0);
}

#[tokio::test]
async fn a_listener_serves_pools_of_both_kinds_on_one_connection() {
    let server = Server::start().await;
    let plain = trimtab_tests::Origin::start("plain").await;
    let routes = "route = [{ path_prefix = \"/echo\", pool = \"main\" }, { pool = \"other\" }]";
    let other = format!("[pool.other]\nbackends = [{:?}]", plain.address());
    let balancer = server.setup().listener(routes).rest(&other).start().await;
    let mut client = Client::connect(balancer.address).await;
    for (path, text) in [("/a", "plain"), ("/echo", ""), ("/b", "plain")] {
        let response = client.get(path).await;
        assert_eq!((response.status, response.text()), (200, text.into()), "{path}");
    }
}

#[tokio::test]
async fn a_connection_that_has_died_costs_no_request() {
    let server = Server::start().await;
    let balancer = server.balancer().await;
    assert_eq!(get(balancer.address, "/echo").await.status, 200);
    let port = server.port.clone();
    drop(server);
    let again = Server::listen(port).await;
    for _ in 0..3 {
        assert_eq!(get(balancer.address, "/echo").await.status, 200);
    }
    assert_eq!(again.count(|seen| &seen.connections), 1);
}

#[tokio::test]
async fn a_backend_that_speaks_http_1_is_a_bad_gateway() {
    let origin = trimtab_tests::Origin::start("a").await;
    let balancer = Setup::to(origin.address())
        .pool("protocol = \"h2\"")
        .start()
        .await;
    assert_eq!(get(balancer.address, "/").await.status, 502);
}

#[tokio::test]
async fn checks_ask_in_the_pools_protocol() {
    let server = Server::start().await;
    let health = "health = { kind = \"http\", path = \"/echo\", interval = \"20ms\", timeout = \"20s\" }";
    let text = health.replace("timeout = \"20s\"", "timeout = \"20ms\"");
    let balancer = server.setup().pool(&text).start().await;
    wait_until("a check was good", DEADLINE, || {
        balancer
            .view()
            .supervisor
            .checks()
            .iter()
            .any(|(_, check)| check.ok)
    })
    .await;
    assert_eq!(server.last().version, http::Version::HTTP_2);
}
