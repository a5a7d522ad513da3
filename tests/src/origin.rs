//! Origins that are simply web servers: they answer with their name, count, and can be made slow, ill or dead.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, header::HeaderValue, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::Port;

/// A web server that answers every request with its name.
#[derive(Debug)]
pub struct Origin {
    /// Its own when it is dead, too.
    port: Port,
    state: Arc<State>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    name: String,
    status: AtomicU16,
    hits: AtomicU64,
    in_flight: AtomicUsize,
    /// Requests for `/held` wait while this is false.
    released: watch::Sender<bool>,
}

impl Origin {
    /// Listens on a port of the system's choice.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(name: &str) -> Self {
        let port = Port::new();
        let listener = port.listen().await;
        let state = Arc::new(State {
            name: name.to_owned(),
            status: AtomicU16::new(200),
            hits: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            released: watch::Sender::new(false),
        });
        let serving = tokio::spawn(serve(listener, state.clone()));
        Self {
            port,
            state,
            serving: Mutex::new(Some(serving)),
        }
    }

    /// As many as there are names.
    pub async fn start_all<const N: usize>(names: [&str; N]) -> Vec<Self> {
        let mut origins = Vec::with_capacity(N);
        for name in names {
            origins.push(Self::start(name).await);
        }
        origins
    }

    /// `address:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Requests answered, those of health checks (`/healthz`) excluded.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.state.hits.load(Ordering::SeqCst)
    }

    /// Requests that wait to be released.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    /// Answers with this status from now on.
    pub fn set_status(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// Lets requests for `/held` go on.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// Closes the socket and cuts all connections, as a dead process does.
    pub fn kill(&self) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            serving.abort();
        }
    }

    /// Listens again on the same port.
    pub async fn revive(&self) {
        let listener = self.port.listen().await;
        let serving = tokio::spawn(serve(listener, self.state.clone()));
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(state.clone(), request));
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no failure of the test.
            let _ = serving.await;
        });
    }
}

/// Counts a request that waits, until it goes on or its client has gone.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_check = request.uri().path() == "/healthz";
    let is_held = request.uri().path() == "/held";
    // A body that breaks off ends the connection anyway.
    let _ = request.into_body().collect().await;
    if is_held {
        let _held = Held::new(&state.in_flight);
        let mut released = state.released.subscribe();
        // The sender lives in the state that we hold.
        let _ = released.wait_for(|released| *released).await;
    }
    if !is_check {
        state.hits.fetch_add(1, Ordering::SeqCst);
    }
    let mut response = Response::new(Full::new(Bytes::from(state.name.clone())));
    if let Ok(status) = hyper::StatusCode::from_u16(state.status.load(Ordering::SeqCst)) {
        *response.status_mut() = status;
    }
    response.headers_mut().insert(
        "x-origin",
        HeaderValue::from_str(&state.name).expect("a plain name"),
    );
    Ok(response)
}
