//! The demo's clients: a bounded, even load over kept-alive connections, and what they see of the answers.
//!
//! Owns sending and counting. Nothing is ever sent twice: what the balancer does not hide counts as failed. It must not
//! know the balancer's own counters, so that the two can be compared.
//!
//! Invariant: at most [`CONNECTIONS`] requests at once, [`RATE_MAX`] a second, [`REQUESTS_MAX`] altogether.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    backends::{CAST, COUNT, NAME_FIELD},
    histogram::Histogram,
};

/// Clients.
pub(super) const CONNECTIONS: u32 = 32;
/// Requests a second of all clients together: enough for smooth shares, and a small part of one core.
pub(super) const RATE_MAX: u32 = 2_000;
/// The end of a demo that somebody left running: about eight minutes.
const REQUESTS_MAX: u64 = 1_000_000;
/// No backend takes a hundredth of this, so a request that waits longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the clients have seen since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Sent and ended, well or not.
    pub(super) requests: u64,
    /// Any other answer than 200, or none.
    pub(super) failed: u64,
    /// Good answers, by the backend that signed them.
    pub(super) answers: [u64; COUNT],
    /// Of the good answers: from the request to the end of the body.
    pub(super) latency: Histogram,
}

/// The running clients; dropping this ends them.
pub(super) struct Load {
    counts: Arc<Mutex<Counts>>,
    /// Closed when they shall end.
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to send requests to `target`.
    pub(super) fn start(target: SocketAddr) -> io::Result<Self> {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (stop, stopped) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|index| Client::new(target, counts.clone()).run(index, stopped.clone()))
            .collect();
        let run = move || {
            runtime.block_on(async {
                let clients: JoinSet<_> = clients.into_iter().collect();
                clients.join_all().await;
            });
        };
        let thread = std::thread::Builder::new().name("demo-load".into()).spawn(run)?;
        Ok(Self {
            counts,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What was seen up to now.
    pub(super) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; the demo is over anyway.
            let _ = thread.join();
        }
    }
}

/// Counting cannot leave the counts half done, so a poisoned lock says nothing here.
fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection's worth of load.
struct Client {
    target: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    fn new(target: SocketAddr, counts: Arc<Mutex<Counts>>) -> Self {
        Self {
            target,
            counts,
            sender: None,
        }
    }

    /// Sends at an even pace, one request at a time. What is under way at the stop is finished first, or every stop
    /// would look like failures.
    async fn run(mut self, index: u32, mut stopped: watch::Receiver<()>) {
        let pace = Duration::from_secs(1) * CONNECTIONS / RATE_MAX;
        let mut due = Instant::now() + pace * index / CONNECTIONS;
        while lock(&self.counts).requests < REQUESTS_MAX {
            tokio::select! {
                _ = stopped.changed() => return,
                () = sleep_until(due) => {}
            }
            let began = Instant::now();
            // A pause is not made up for: the rate is a limit, not a promise.
            due = (due + pace).max(began);
            let answer = timeout(PATIENCE, self.ask()).await.ok().flatten();
            if answer.is_none() {
                self.sender = None;
            }
            self.record(answer, began.elapsed());
        }
    }

    fn record(&self, answer: Option<usize>, took: Duration) {
        let mut counts = lock(&self.counts);
        counts.requests += 1;
        match answer {
            Some(backend) => {
                counts.answers[backend] += 1;
                counts.latency.record(took.as_micros() as u64);
            }
            None => counts.failed += 1,
        }
    }

    /// Who answered, if it was a good answer.
    async fn ask(&mut self) -> Option<usize> {
        let sender = match &mut self.sender {
            Some(sender) => sender,
            none => none.insert(connect(self.target).await?),
        };
        let request = Request::get("/")
            .header(header::HOST, "demo.trimtab")
            .body(Empty::new())
            .ok()?;
        sender.ready().await.ok()?;
        let response = sender.send_request(request).await.ok()?;
        let is_good = response.status() == StatusCode::OK;
        let name = response.headers().get(NAME_FIELD).cloned();
        response.into_body().collect().await.ok()?;
        let name = name.filter(|_| is_good)?;
        CAST.iter().position(|role| name == role.name)
    }
}

async fn connect(target: SocketAddr) -> Option<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(target).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Errors reach whoever waits for an answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Some(sender)
}
