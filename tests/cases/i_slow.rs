//! I: clients that cost much. Those that wait are in `e2e/proxy/timeouts.rs`.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use trimtab_tests::{Client, DEADLINE, RawOrigin, Setup, wait_until, within};

use crate::stage::Stage;

#[tokio::test]
async fn i07_of_ten_thousand_streams_for_a_dead_origin_no_more_wait_than_the_queue_holds() {
    let dead = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let balancer = Setup::to(dead.address())
        .listener("http2 = { streams = 10000 }")
        .pool("response_timeout = \"1h\"")
        .pool("limits = { backend_requests = 1, queue = 100, queue_timeout = \"1h\" }")
        .start()
        .await;
    let stream = Client::connect(balancer.address).await.stream;
    let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut asked = JoinSet::new();
    for _ in 0..10_000 {
        let mut sender = sender.clone();
        let request = Request::get("http://a/").body(Full::<Bytes>::default()).unwrap();
        asked.spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            // One that is given up unread is reset, and too many resets end a connection.
            response.into_body().collect().await.unwrap();
            status
        });
    }
    for _ in 0..10_000 - 101 {
        let status = within("a refusal", DEADLINE, asked.join_next()).await;
        assert_eq!(status.unwrap().unwrap(), 503);
    }
    let pool = balancer.view().pool;
    let in_flight = || pool.snapshot().members[0].backend.active();
    assert_eq!((pool.waiting(), in_flight(), dead.connections()), (100, 1, 1));
    // They are gone with their client.
    asked.abort_all();
    connection.abort();
    wait_until("nobody waits", DEADLINE, || {
        pool.waiting() == 0 && in_flight() == 0
    })
    .await;
}

#[tokio::test]
async fn i08_a_range_of_ten_thousand_parts_is_passed_on_within_the_limit_for_fields() {
    let judge = Stage::new().await;
    let ranges = (0..1500)
        .map(|at| format!("{at}-{at}"))
        .collect::<Vec<_>>()
        .join(",");
    let request = judge
        .passed(format!(
            "GET / HTTP/1.1\r\nhost: a\r\nrange: bytes={ranges}\r\n\r\n"
        ))
        .await;
    assert_eq!(request.all("range"), [format!("bytes={ranges}")]);
    let ranges = (0..10_000)
        .map(|at| format!("{at}-{at}"))
        .collect::<Vec<_>>()
        .join(",");
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nrange: bytes={ranges}\r\n\r\n");
    judge.refused(request, &[431]).await;
}
