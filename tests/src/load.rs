//! Clients by the dozen, on a thread of their own.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crate::Client;

/// Failures that are kept to be shown; the rest is counted.
const FAILURES_SHOWN: usize = 10;

/// Keeps asking until stopped.
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What became of the requests.
#[derive(Debug)]
pub struct Outcome {
    /// Answered with 200, completely.
    pub answered: u64,
    /// Anything else, resets included.
    pub failed: u64,
    /// The first failures in words.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts so many connections, each of which sends one request after the other.
    #[must_use]
    pub fn start(address: SocketAddr, connections: usize) -> Self {
        Self::start_at(address, connections, "test")
    }

    /// The same for another host.
    #[must_use]
    pub fn start_at(address: SocketAddr, connections: usize, host: &'static str) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = start((address, host), connections, u64::MAX, shared.clone());
        Self { shared, thread }
    }

    /// Requests answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Requests failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests were answered.
    pub async fn more(&self, count: u64) {
        let wanted = self.answered() + count;
        crate::wait_until("more answers", crate::DEADLINE, || {
            self.answered() >= wanted || self.failed() > 0
        })
        .await;
    }

    /// Ends it.
    pub async fn stop(self) -> Outcome {
        self.shared.is_over.store(true, Ordering::SeqCst);
        join(self.thread).await;
        self.shared.outcome()
    }

    /// So many requests on so many connections.
    pub async fn run(address: SocketAddr, connections: usize, requests: u64) -> Outcome {
        let shared = Arc::new(Shared::default());
        let each = requests.div_ceil(connections as u64);
        join(start((address, "test"), connections, each, shared.clone())).await;
        shared.outcome()
    }
}

impl Outcome {
    /// Judges.
    ///
    /// # Panics
    /// When a request failed, or none was answered.
    pub fn expect_no_failure(&self) {
        assert!(self.failed == 0 && self.answered > 0, "{self:?}");
    }
}

async fn join(thread: JoinHandle<()>) {
    let joined = tokio::task::spawn_blocking(move || thread.join());
    let joined = joined.await.expect("a thread to wait in");
    joined.expect("the load's thread");
}

/// An address, and what the Host field says.
type To = (SocketAddr, &'static str);

fn start(to: To, connections: usize, each: u64, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let tasks: Vec<_> = (0..connections)
                .map(|_| tokio::spawn(ask_again_and_again(to, each, shared.clone())))
                .collect();
            for task in tasks {
                task.await.expect("a client");
            }
        });
    })
}

impl Shared {
    fn fail(&self, failure: String) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_SHOWN {
            failures.push(failure);
        }
    }

    fn outcome(&self) -> Outcome {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        Outcome {
            answered: self.answered.load(Ordering::SeqCst),
            failed: self.failed.load(Ordering::SeqCst),
            failures: failures.clone(),
        }
    }
}

async fn ask_again_and_again((address, host): To, requests: u64, shared: Arc<Shared>) {
    let mut kept = None;
    for _ in 0..requests {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let mut client = match kept.take() {
            Some(client) => client,
            None => match Client::try_connect(address).await {
                Ok(client) => client,
                Err(error) => {
                    shared.fail(format!("connecting: {error}"));
                    continue;
                }
            },
        };
        client
            .send(format!("GET /load HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        match client.try_response().await {
            Ok(response) if response.status == 200 && response.is_complete => {
                shared.answered.fetch_add(1, Ordering::SeqCst);
                // A server may end a connection in order; anything else is a failure of the next request.
                if response.field("connection") != Some("close") {
                    kept = Some(client);
                }
            }
            Ok(response) => shared.fail(response.head + &String::from_utf8_lossy(&response.body)),
            Err(error) => shared.fail(format!("response: {error}")),
        }
    }
}
