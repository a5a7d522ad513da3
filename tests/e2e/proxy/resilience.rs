//! What becomes of requests when backends fail or are full, on each way that a request can take.

mod budget;
mod connections;
mod drain;
mod hedge;
mod limits;
mod overflow;
mod whole;
mod zones;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::atomic::AtomicU64;
use trimtab::pool::Counts;
use trimtab_tests::{Balancer, Client, DEADLINE, wait_until, within};

/// The way of a request through the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Our own code.
    Own,
    /// By the HTTP library, because it is not ordinary.
    Library,
    /// One of many on a connection.
    Http2,
}

const WAYS: [Way; 3] = [Way::Own, Way::Library, Way::Http2];

/// A client's connection that goes one way.
enum Asker {
    Http1(Client, Way),
    Http2(SendRequest<Full<Bytes>>),
}

impl Asker {
    async fn new(balancer: &Balancer, way: Way) -> Self {
        let client = Client::connect(balancer.address).await;
        if way != Way::Http2 {
            return Self::Http1(client, way);
        }
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(client.stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    /// Status and body of the answer.
    async fn ask(&mut self, method: &str, path: &str) -> (u16, String) {
        match self {
            Self::Http1(client, way) => {
                let odd = match way {
                    // Whoever asks for trailers is not ordinary.
                    Way::Library => "te: trailers\r\n",
                    _ => "",
                };
                let body = match method {
                    "POST" | "PUT" => "content-length: 2\r\n\r\nhi",
                    _ => "\r\n",
                };
                let text = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{odd}{body}");
                let response = client.ask(&text).await;
                (response.status, response.text())
            }
            Self::Http2(sender) => {
                let body = match method {
                    "POST" | "PUT" => Full::from("hi"),
                    _ => Full::default(),
                };
                let request = Request::builder()
                    .method(method)
                    .uri(format!("http://a{path}"))
                    .body(body)
                    .unwrap();
                let asking = async {
                    let response = sender.send_request(request).await.unwrap();
                    let status = response.status().as_u16();
                    (status, response.into_body().collect().await.unwrap().to_bytes())
                };
                let (status, body) = within("a response", DEADLINE, asking).await;
                (status, String::from_utf8_lossy(&body).into_owned())
            }
        }
    }
}

/// A count of the pool `main`.
fn count(balancer: &Balancer, read: impl Fn(&Counts) -> &AtomicU64) -> u64 {
    balancer.view().pool.total(read)
}

/// Requests that the pool `main` takes to be in flight.
fn active(balancer: &Balancer) -> u32 {
    let snapshot = balancer.view().pool.snapshot();
    let loads = snapshot.members.iter().flat_map(|member| member.backend.loads());
    loads.map(trimtab::pool::Load::active).sum()
}

/// Requests that wait for a backend of the pool `main` with room.
fn waiting(balancer: &Balancer) -> u64 {
    balancer.view().pool.waiting()
}

/// The last piece of a response reaches a client just before its books are closed.
async fn until_quiet(balancer: &Balancer) {
    wait_until("the books are closed", DEADLINE, || {
        waiting(balancer) == 0 && active(balancer) == 0
    })
    .await;
}
