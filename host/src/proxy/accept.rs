//! From a listening socket to served connections.
//!
//! Owns accepting, and the HTTP server of each connection. It must not know what a request is answered with.
//!
//! Invariant: an error in accepting never ends a listener; only being closed does.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::HeaderValue;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::{
    client::ClientStream,
    lane::{self, Next},
    prefixed::Prefixed,
    route::Route,
    serve::{Client, serve},
    worker::WorkerState,
};
use crate::{config, policy::client_bits};

/// Pause after an error that will not go away at once, above all running out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A listener that closes takes at most this many more: what its queue can hold.
const DRAINED_AT_CLOSE: usize = 4096;
/// hyper's own default, for which it needs no allocation.
const HEADERS_ON_STACK: usize = 100;

/// A listener in this worker. Outlives reloads as long as its address is listened on.
pub(super) struct ListenerState {
    rules: RefCell<Rc<Rules>>,
    close: Notify,
    is_closed: Cell<bool>,
}

/// What a listener does with requests; a request keeps the rules that it began with.
pub(super) struct Rules {
    pub(super) config: Arc<config::Listener>,
    pub(super) routes: Vec<Route>,
}

impl ListenerState {
    pub(super) fn new(rules: Rc<Rules>) -> Self {
        Self {
            rules: RefCell::new(rules),
            close: Notify::new(),
            is_closed: Cell::new(false),
        }
    }

    #[inline]
    pub(super) fn rules(&self) -> Rc<Rules> {
        self.rules.borrow().clone()
    }

    pub(super) fn set_rules(&self, rules: Rc<Rules>) {
        *self.rules.borrow_mut() = rules;
    }

    /// Stops accepting.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Whether accepting has stopped, and with it the socket is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }
}

/// Accepts until the listener is closed.
pub(super) async fn accept(
    worker: Rc<WorkerState>,
    listener: Rc<ListenerState>,
    socket: std::net::TcpListener,
) {
    match TcpListener::from_std(socket) {
        Ok(socket) => accept_all(&worker, &listener, &socket).await,
        Err(error) => tracing::error!(%error, "cannot listen"),
    }
    listener.is_closed.set(true);
}

async fn accept_all(worker: &Rc<WorkerState>, listener: &Rc<ListenerState>, socket: &TcpListener) {
    let spawn = |(stream, address)| {
        tokio::task::spawn_local(connection(worker.clone(), listener.clone(), stream, address));
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = listener.close.notified() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => spawn(accepted),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Connections that the kernel has already taken for us would be reset with the socket.
    for _ in 0..DRAINED_AT_CLOSE {
        match poll_fn(|cx| Poll::Ready(socket.poll_accept(cx))).await {
            Poll::Ready(Ok(accepted)) => spawn(accepted),
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
    }
}

fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Serves one connection to its end.
async fn connection(
    worker: Rc<WorkerState>,
    listener: Rc<ListenerState>,
    stream: TcpStream,
    address: SocketAddr,
) {
    // Without it small responses would wait for the client's acknowledgement of the last ones.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (key, watch) = worker.register(&listener);
    let _guard = Registered {
        worker: worker.clone(),
        key,
    };
    let limits = listener.rules().config.limits.clone();
    let client = Rc::new(Client {
        worker,
        listener,
        watch: watch.clone(),
        address,
        bits: client_bits(address.ip()),
        text: HeaderValue::from_str(&address.ip().to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown")),
    });
    let mut stream = ClientStream::new(stream, watch);
    if let Next::Library(bytes) = lane::serve(&client, &mut stream).await {
        // Boxed because it is large, and most connections never need it.
        Box::pin(by_library(client, Prefixed::new(bytes, stream), &limits)).await;
    }
}

/// Serves the rest of a connection by way of the HTTP library.
async fn by_library(client: Rc<Client>, stream: Prefixed<ClientStream>, limits: &config::Limits) {
    let mut server = http1::Builder::new();
    server
        .max_buf_size(limits.header_bytes)
        // `pipeline_flush` stays off: it holds an answer back until the next request is complete, if a part of that has
        // arrived, and never sends the answer to a malformed head.
        .header_read_timeout(None);
    if limits.headers != HEADERS_ON_STACK {
        server.max_headers(limits.headers);
    }
    let watch = client.watch.clone();
    let service = service_fn(|request| serve(client.clone(), request));
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    let mut was_told = false;
    // How a connection ends is the client's business; what matters of it is counted where it happens.
    let _ = poll_fn(|cx| {
        watch.gate.lead_to(cx);
        if watch.is_stopping() && !was_told {
            was_told = true;
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(cx)
    })
    .await;
}

/// Forgets a connection however its task ends, a panic included.
struct Registered {
    worker: Rc<WorkerState>,
    key: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.forget(self.key);
    }
}
