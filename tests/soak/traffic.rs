//! The clients of a soak, each kind a few tasks that go on until the end. Every answer is compared with what was asked.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use trimtab_tests::{Client, tls::shake};

use crate::{backends::LARGE_BYTES, node::Node};

/// Tasks of each kind.
const EACH: usize = 3;
/// Between two rounds of a task: enough load to matter, and the machine is not full.
const PAUSE: Duration = Duration::from_millis(2);
/// A round that takes longer never ends.
const HANGS: Duration = Duration::from_secs(60);
/// Failures that are shown of each kind.
const SHOWN: usize = 5;
const UPLOAD_BYTES: usize = 200_000;

type Round = Result<u64, String>;

/// What there is to talk to.
#[derive(Clone)]
struct Doors {
    main: SocketAddr,
    tls: SocketAddr,
    tcp: SocketAddr,
    trust: ClientConfig,
}

/// The tasks.
pub(crate) struct Traffic {
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(&'static str, Kind)>>,
}

/// What became of it, by kind.
pub(crate) struct Done(BTreeMap<&'static str, Kind>);

#[derive(Default)]
struct Kind {
    done: u64,
    failed: u64,
    /// The first ones, in words.
    failures: Vec<String>,
}

impl Kind {
    fn add(&mut self, round: Round) {
        match round {
            Ok(count) => self.done += count,
            Err(failure) => {
                self.failed += 1;
                self.failures.push(failure);
                self.failures.truncate(SHOWN);
            }
        }
    }
}

macro_rules! each_kind {
    ($traffic:ident, $doors:ident: $($name:literal => $round:path),* $(,)?) => {
        $( for _ in 0..EACH { $traffic.begin($name, $doors.clone(), $round); } )*
    };
}

impl Traffic {
    pub(crate) fn start(node: &Node) -> Self {
        let door = |name| node.listener(name).expect("one of ours");
        let doors = Doors {
            main: door("main"),
            tls: door("tls"),
            tcp: door("tcp"),
            trust: node.authority().trusted(&["http/1.1"], None),
        };
        let mut traffic = Self {
            is_over: Arc::default(),
            tasks: Vec::new(),
        };
        each_kind!(traffic, doors:
            "HTTP/1.1, kept" => kept,
            "HTTP/1.1, a connection each" => churn,
            "HTTP/1.1, pipelined" => pipelined,
            "HTTP/2" => many_streams,
            "TLS" => encrypted,
            "upload" => upload,
            "WebSocket" => websocket,
            "TCP" => bytes,
            "aborted" => aborted,
        );
        traffic
    }

    fn begin<F>(&mut self, name: &'static str, doors: Doors, round: fn(Doors) -> F)
    where
        F: Future<Output = Round> + 'static,
    {
        let is_over = self.is_over.clone();
        self.tasks.push(tokio::task::spawn_local(async move {
            let mut kind = Kind::default();
            while !is_over.load(Relaxed) {
                let round = tokio::time::timeout(HANGS, round(doors.clone())).await;
                kind.add(round.unwrap_or_else(|_| Err("hangs".to_owned())));
                tokio::time::sleep(PAUSE).await;
            }
            (name, kind)
        }));
    }

    pub(crate) async fn stop(self) -> Done {
        self.is_over.store(true, Relaxed);
        let mut all = BTreeMap::new();
        for task in self.tasks {
            let (name, kind) = task.await.expect("a client");
            let of: &mut Kind = all.entry(name).or_default();
            of.done += kind.done;
            of.failed += kind.failed;
            of.failures.extend(kind.failures);
        }
        Done(all)
    }
}

impl Done {
    /// Any is one too many; and a kind that did nothing has shown nothing.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, kind) in &self.0 {
            let Kind {
                done,
                failed,
                failures,
            } = kind;
            if *failed > 0 {
                wrong.push(format!("{name}: {failed} failed: {failures:?}"));
            }
            if *done == 0 {
                wrong.push(format!("{name}: none was done"));
            }
        }
        wrong
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28} {:>9} {:>7}", "traffic", "done", "failed")?;
        for (name, Kind { done, failed, .. }) in &self.0 {
            writeln!(f, "{name:28} {done:>9} {failed:>7}")?;
        }
        Ok(())
    }
}

fn said(error: impl fmt::Display) -> String {
    error.to_string()
}

async fn connect(address: SocketAddr) -> Result<Client, String> {
    Client::try_connect(address).await.map_err(said)
}

/// One request on a connection, and that its answer is its own.
async fn ask<S>(client: &mut Client<S>, request: &str, body: &[u8], expected: &[u8]) -> Result<bool, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.send(request).await;
    client.send(body).await;
    expect(client, expected).await
}

/// Whether the connection may be used again.
async fn expect<S>(client: &mut Client<S>, expected: &[u8]) -> Result<bool, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let response = client.try_response().await.map_err(said)?;
    if response.status != 200 || !response.is_complete || response.body != expected {
        return Err(format!("{}{:.100}", response.head, response.text()));
    }
    Ok(response.field("connection") != Some("close"))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

async fn gets<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>, count: u64) -> Round {
    for at in 0..count {
        let path = format!("/{at}");
        if !ask(client, &get(&path), b"", path.as_bytes()).await? {
            // It was told so, as the rules have it.
            return Ok(at + 1);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(count)
}

async fn kept(doors: Doors) -> Round {
    gets(&mut connect(doors.main).await?, 200).await
}

async fn churn(doors: Doors) -> Round {
    let mut client = connect(doors.main).await?;
    let request = "GET /churn HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    ask(&mut client, request, b"", b"/churn").await?;
    Ok(1)
}

async fn pipelined(doors: Doors) -> Round {
    let mut client = connect(doors.main).await?;
    let paths: Vec<String> = (0..10).map(|at| format!("/p{at}")).collect();
    let requests: String = paths.iter().map(|path| get(path)).collect();
    client.send(requests).await;
    for path in &paths {
        expect(&mut client, path.as_bytes()).await?;
    }
    Ok(10)
}

async fn encrypted(doors: Doors) -> Round {
    let mut client = shake(doors.tls, "shop.test", doors.trust).await.map_err(said)?;
    gets(&mut client, 10).await
}

async fn upload(doors: Doors) -> Round {
    let mut client = connect(doors.main).await?;
    let body = vec![b'u'; UPLOAD_BYTES];
    let head = format!("POST /steady/up HTTP/1.1\r\nhost: a\r\ncontent-length: {UPLOAD_BYTES}\r\n\r\n");
    ask(&mut client, &head, &body, &body).await?;
    let head = "POST /steady/up HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = [b"30D40\r\n", &body[..], b"\r\n0\r\n\r\n"].concat();
    ask(&mut client, head, &chunked, &body).await?;
    Ok(2)
}

/// 10 at a time on one connection.
async fn many_streams(doors: Doors) -> Round {
    let stream = TcpStream::connect(doors.main).await.map_err(said)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(said)?;
    let driving = tokio::spawn(connection);
    let failed = Rc::new(RefCell::new(None));
    for _ in 0..10 {
        let mut asked = Vec::new();
        for at in 0..10 {
            let (mut sender, failed) = (sender.clone(), failed.clone());
            asked.push(tokio::task::spawn_local(async move {
                let path = format!("/h{at}");
                let request = Request::get(format!("http://a{path}")).body(Empty::<Bytes>::new());
                let answered = async {
                    let response = sender.send_request(request.map_err(said)?).await.map_err(said)?;
                    let status = response.status();
                    let body = response.into_body().collect().await.map_err(said)?.to_bytes();
                    if status == 200 && body == path {
                        Ok(())
                    } else {
                        Err(format!("{status} {body:?}"))
                    }
                };
                if let Err(failure) = answered.await {
                    failed.replace(Some(failure));
                }
            }));
        }
        for task in asked {
            task.await.map_err(said)?;
        }
    }
    driving.abort();
    match failed.take() {
        None => Ok(100),
        Some(failure) => Err(failure),
    }
}

async fn websocket(doors: Doors) -> Round {
    let mut client = connect(doors.main).await?;
    let asks = "GET /steady/chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    client.send(asks).await;
    let head = client.head().await.map_err(said)?;
    if head.status != 101 {
        return Err(head.head);
    }
    echoes(&mut client, 20).await
}

async fn bytes(doors: Doors) -> Round {
    let mut client = connect(doors.tcp).await?;
    echoes(&mut client, 20).await?;
    // The other half goes on until it has said all.
    client.send(b"last words").await;
    client.stream.shutdown().await.map_err(said)?;
    let rest = client.rest().await.map_err(said)?;
    if rest == b"last words" {
        Ok(1)
    } else {
        Err(format!("{} bytes at the end", rest.len()))
    }
}

async fn echoes(client: &mut Client, count: usize) -> Round {
    for at in 0..count {
        let message = vec![at as u8; 1 << (at % 15)];
        client.send(&message).await;
        if client.exactly(message.len()).await != message {
            return Err("other bytes came back".to_owned());
        }
    }
    Ok(1)
}

/// Clients that go away: in a head, in a body, in an answer, and without a word.
async fn aborted(doors: Doors) -> Round {
    drop(connect(doors.main).await?);
    let mut client = connect(doors.main).await?;
    client.send("GET /half HTTP/1.1\r\nho").await;
    drop(client);
    let mut client = connect(doors.main).await?;
    client
        .send("POST /steady/half HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nhalf")
        .await;
    drop(client);
    let mut client = connect(doors.main).await?;
    client.send(get("/steady/large")).await;
    let some = client.exactly(1000).await;
    if some.len() != 1000 {
        return Err(format!("{} bytes of {LARGE_BYTES}", some.len()));
    }
    drop(client);
    Ok(4)
}
