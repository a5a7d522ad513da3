//! From a listening socket to served connections.
//!
//! Owns accepting, handshakes, and the HTTP server of each connection. It must not know what a request is answered with.
//!
//! Invariant: an error in accepting never ends a listener; only being closed does.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    body::Arriving,
    client::{ClientStream, Encrypted, Socket},
    guarded::Guarded,
    http2, introduction,
    lane::{self, Desk, Next},
    pacing,
    places::{Full, Idle, Place},
    prefixed::Prefixed,
    relay,
    route::Route,
    scratch::Scratch,
    serve::{Client, serve},
    spares::Spares,
    tcp,
    worker::WorkerState,
};
use crate::{
    config::{self, Protocol},
    metrics,
    proxy_header::Endpoints,
    rate::Limiter,
    tls::{ALPN_H2, Terminator},
};

/// Pause after an error that will not go away at once, above all running out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A listener that closes takes at most this many more: what its queue can hold.
const DRAINED_AT_CLOSE: usize = 4096;
/// hyper's own default, for which it needs no allocation.
const HEADERS_ON_STACK: usize = 100;
const PLAIN_TEXT_RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 34\r\n\r\nthis port speaks HTTPS, not HTTP\r\n";

/// A listener in this worker. Outlives reloads as long as its address is listened on.
pub(super) struct ListenerState {
    rules: RefCell<Rc<Rules>>,
    pub(super) counters: Arc<metrics::Listener>,
    pub(super) idle: Idle,
    close: Notify,
    is_closing: Cell<bool>,
    /// Its sockets: one, or more after an upgrade from a process with more workers.
    open: Cell<usize>,
}

/// What a listener does with requests; a request keeps the rules that it began with.
pub(super) struct Rules {
    pub(super) config: Arc<config::Listener>,
    pub(super) routes: Vec<Route>,
    /// `None` where any number may come.
    pub(super) rates: Option<Rc<Limiter>>,
    /// `None` on a listener that speaks plain text.
    pub(super) tls: Option<Arc<Terminator>>,
    /// Whether a backend may be told where a client has connected to.
    pub(super) tells_backends: bool,
}

impl WorkerState {
    /// The rules of a listener, with the pools that this worker has.
    pub(super) fn rules(
        &self,
        config: Arc<config::Listener>,
        tls: Option<Arc<Terminator>>,
        rates: Option<Rc<Limiter>>,
    ) -> Rules {
        let pools = self.pools.borrow();
        let route = |rule: &config::Route| {
            pools.get(&rule.pool).map(|pool| Route {
                rule: rule.clone(),
                pool: pool.clone(),
            })
        };
        let routes: Vec<Route> = config.routes.iter().filter_map(route).collect();
        let tells = |route: &Route| route.pool.settings().config.send_proxy.is_some();
        Rules {
            tells_backends: routes.iter().any(tells),
            routes,
            config,
            rates,
            tls,
        }
    }
}

impl ListenerState {
    pub(super) fn new(rules: Rc<Rules>, counters: Arc<metrics::Listener>) -> Self {
        Self {
            rules: RefCell::new(rules),
            counters,
            idle: Idle::default(),
            close: Notify::new(),
            is_closing: Cell::new(false),
            open: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn rules(&self) -> Rc<Rules> {
        self.rules.borrow().clone()
    }

    pub(super) fn set_rules(&self, rules: Rc<Rules>) {
        *self.rules.borrow_mut() = rules;
    }

    /// Accepts from this socket until [`Self::close`].
    pub(super) fn open(self: &Rc<Self>, worker: &Rc<WorkerState>, socket: std::net::TcpListener) {
        self.open.set(self.open.get() + 1);
        tokio::task::spawn_local(accept(worker.clone(), self.clone(), socket));
    }

    /// Stops accepting.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
        self.close.notify_waiters();
    }

    /// Whether as many connections are open as may be.
    pub(super) fn is_full(&self) -> bool {
        let limit = self.rules.borrow().config.limits.connections;
        limit.is_some_and(|limit| self.counters.open() >= u64::from(limit))
    }

    /// Whether accepting has stopped, and with it the sockets are gone.
    pub(super) fn is_closed(&self) -> bool {
        self.open.get() == 0
    }
}

/// Accepts until the listener is closed.
async fn accept(worker: Rc<WorkerState>, listener: Rc<ListenerState>, socket: std::net::TcpListener) {
    match without_delay(socket) {
        Ok(socket) => accept_all(&worker, &listener, &socket).await,
        Err(error) => tracing::error!(%error, "cannot listen"),
    }
    listener.open.set(listener.open.get() - 1);
}

/// Small responses would wait for the client's acknowledgement of the last ones. What is accepted has this from its
/// listener, which saves a call for each connection.
fn without_delay(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    TcpListener::from_std(socket)
}

async fn accept_all(worker: &Rc<WorkerState>, listener: &Rc<ListenerState>, socket: &TcpListener) {
    let let_in = |(stream, address)| {
        if !pacing::lets_connect(worker, (&listener.rules(), &listener.counters), None) {
            return Ok(());
        }
        let place = Place::take(worker, listener, &stream)?;
        // Boxed because it is large: a task is moved about when it begins and when it ends.
        tokio::task::spawn_local(Box::pin(connection(
            (worker.clone(), listener.clone()),
            stream,
            address,
            place,
        )));
        Ok(())
    };
    while !listener.is_closing.get() {
        let accepted = tokio::select! {
            biased;
            () = listener.close.notified() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((mut stream, address)) => {
                if Place::is_scarce(worker, listener, &stream) {
                    stream = worker.room.settle(worker, stream).await;
                }
                // The next ones wait in the system's queue, which costs us nothing.
                if let_in((stream, address)) == Err(Full::Files) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if worker.room.may_complain(worker.coarse_ms()) {
                    tracing::warn!(%error, "cannot accept, trying again");
                }
                // One at a time: what is closed over HTTP/2 or TLS may take a while to be gone.
                worker.room.make(worker);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Connections that the kernel has already taken for us would be reset with the socket.
    for _ in 0..DRAINED_AT_CLOSE {
        match poll_fn(|cx| Poll::Ready(socket.poll_accept(cx))).await {
            Poll::Ready(Ok(accepted)) => drop(let_in(accepted)),
            Poll::Ready(Err(_)) | Poll::Pending => return,
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Serves one connection to its end.
async fn connection(
    (worker, listener): (Rc<WorkerState>, Rc<ListenerState>),
    mut stream: TcpStream,
    address: SocketAddr,
    _place: Place,
) {
    let rules = listener.rules();
    let Some(ends) = endpoints(&worker, &rules, &mut stream, address).await else {
        return;
    };
    if !pacing::lets_connect(&worker, (&rules, &listener.counters), Some(ends.source.ip())) {
        return;
    }
    let scheme = if rules.tls.is_some() { "https" } else { "http" };
    let client = Rc::new(Client::new(worker, listener, ends, scheme));
    let _guard = Registered(client.clone());
    let handshake = rules.tls.as_ref().map(|terminator| {
        let within = rules.config.tls.as_ref().map(|tls| tls.handshake_timeout);
        (terminator.config().clone(), within.unwrap_or_default())
    });
    let is_http = rules.config.protocol == Protocol::Http;
    // Rules hold pools, and a connection may outlive those.
    drop(rules);
    match handshake {
        None if is_http => lanes(client, stream, |scratch| &scratch.desks.0).await,
        None => tcp::serve(client, stream, None).await,
        // Boxed because it is large, and a plain connection never needs it.
        Some((config, within)) => Box::pin(encrypted(client, stream, config, within)).await,
    }
}

/// The ends of a connection, as a proxy tells them if there is one. `None` if the connection ends here.
async fn endpoints(
    worker: &WorkerState,
    rules: &Rules,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<Endpoints> {
    // Asking the system is worth it only if somebody is told.
    let local = match rules.tells_backends {
        true => stream.local_addr().ok(),
        false => None,
    };
    let own = Endpoints {
        source: peer,
        destination: local.unwrap_or(rules.config.listen),
    };
    let Some(proxy_protocol) = &rules.config.proxy_protocol else {
        return Some(own);
    };
    let within = rules.config.limits.header_timeout;
    // Boxed because it is large, and most listeners never need it.
    match Box::pin(introduction::hear(stream, peer, proxy_protocol, within)).await {
        Ok(told) => Some(told.unwrap_or(own)),
        Err(error) => {
            worker.metrics().count(|metrics| &metrics.proxy_header_failures);
            tracing::debug!(%peer, %error, "PROXY protocol failed");
            None
        }
    }
}

/// Serves a connection that begins with a handshake.
async fn encrypted(client: Rc<Client>, stream: TcpStream, config: Arc<ServerConfig>, within: Duration) {
    client.watch.handshake_began();
    let is_http = client.listener.rules().config.protocol == Protocol::Http;
    let shaken = tokio::time::timeout(within, handshake(stream, config, is_http)).await;
    let metrics = client.worker.metrics();
    match shaken.map_err(|_| io::ErrorKind::TimedOut.into()).flatten() {
        Ok(stream) => {
            metrics.count(|metrics| &metrics.tls_handshakes);
            client.watch.handshake_ended();
            agreed(client, Box::new(stream)).await;
        }
        Err(error) => {
            metrics.count(|metrics| &metrics.tls_handshake_failures);
            tracing::debug!(client = %client.address, %error, "TLS handshake failed");
        }
    }
}

async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    is_http: bool,
) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    // A method begins like this, and no handshake does.
    if is_http && stream.peek(&mut first).await? > 0 && first[0].is_ascii_uppercase() {
        // What is unread when the socket goes would have the answer lost with it.
        let _ = stream.try_read(&mut [0; 4096]);
        let _ = stream.try_write(PLAIN_TEXT_RESPONSE);
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "plain text from the client",
        ));
    }
    TlsAcceptor::from(config).accept(stream).await
}

/// Serves what the handshake said would be spoken.
async fn agreed(client: Rc<Client>, stream: Encrypted) {
    let rules = client.listener.rules();
    if rules.config.protocol == Protocol::Tcp {
        drop(rules);
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        return tcp::serve(client, stream, name).await;
    }
    drop(rules);
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return lanes(client, stream, |scratch| &scratch.desks.1).await;
    }
    let listener = client.listener.rules().config.clone();
    // It may have been turned off since.
    let http2 = listener.http2.clone().unwrap_or_default();
    let stream = Prefixed::new(Vec::new(), ClientStream::new(stream, client.watch.clone()));
    http2::serve_connection(client, stream, &listener, &http2).await;
}

/// Serves the requests of a connection, in the way of the ordinary ones first.
async fn lanes<S: Socket + 'static>(client: Rc<Client>, stream: S, desks: fn(&Scratch) -> &Spares<Desk<S>>) {
    let stream = ClientStream::new(stream, client.watch.clone());
    let (mut stream, next) = lane::serve(&client, stream, desks(&client.worker.scratch)).await;
    let Next::Library { bytes, is_first } = next else {
        return stream.close().await;
    };
    let listener = client.listener.rules().config.clone();
    let is_http2 = is_first && http2::begins(&bytes);
    let stream = Prefixed::new(bytes, stream);
    // Boxed because they are large, and most connections never need them.
    match &listener.http2 {
        Some(http2) if is_http2 => {
            Box::pin(http2::serve_connection(client, stream, &listener, http2)).await;
        }
        _ => {
            let stream = Guarded::new(stream, client.clone());
            Box::pin(by_library(client, stream, &listener.limits)).await;
        }
    }
}

/// Serves the rest of a connection by way of the HTTP library.
async fn by_library<S: Socket>(client: Rc<Client>, stream: Guarded<S>, limits: &config::Limits) {
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
    let service =
        service_fn(|request: Request<Incoming>| serve(client.clone(), request.map(Arriving::Library)));
    let mut serving = server.serve_connection(TokioIo::new(stream), service);
    let mut was_told = false;
    // How a connection ends is the client's business; what matters of it is counted where it happens.
    let _ = poll_fn(|cx| {
        watch.gate.lead_to(cx);
        if watch.is_stopping_now() && !was_told {
            was_told = true;
            Pin::new(&mut serving).graceful_shutdown();
        }
        Pin::new(&mut serving).poll(cx)
    })
    .await;
    let tunnel = client.tunnel.take();
    if let Some(tunnel) = tunnel {
        client.worker.metrics().count(|metrics| &metrics.upgrades);
        let parts = serving.into_parts();
        let mut stream = parts.io.into_inner();
        let with = (&*watch, &client.worker.scratch);
        let (_, ended) = tunnel.run(&mut stream, parts.read_buf.into(), with).await;
        if ended.is_err_and(|error| relay::is_cut(&error)) {
            stream.get_mut().cut();
        }
    }
}

/// Forgets a connection however its task ends, a panic included.
struct Registered(Rc<Client>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.worker.forget(self.0.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection holds while it waits for a request.
    const WAITING_BYTES_MAX: usize = 640;

    fn size_of_made<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_has_no_room_for_a_request() {
        let task = size_of_made(|(of, stream, address, place)| connection(of, stream, address, place));
        assert!(task <= WAITING_BYTES_MAX, "{task}");
        assert!(
            size_of::<Client>() <= WAITING_BYTES_MAX / 2,
            "{}",
            size_of::<Client>()
        );
    }

    #[tokio::test]
    async fn what_is_accepted_sends_without_delay() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = without_delay(socket).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
