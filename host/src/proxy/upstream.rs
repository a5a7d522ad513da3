//! Connections to one backend, as one worker has them.
//!
//! Owns connecting, the store of unused connections, and sending one request over one of them. A connection has no task
//! of its own: whoever uses it drives it from its own task, so that a response wakes the one who waits for it and nobody
//! else. It must not know pools or policies.
//!
//! Invariant: a connection in the store has finished its last exchange completely.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    num::NonZeroU32,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{body::RequestBody, client::Watch, error::Error, plain::Plain};
use crate::{pool::Backend, proxy_header::Endpoints, tls::Offer};

mod shared;
mod store;
mod wire;

pub(super) use shared::Place;
use shared::SharedConnections;
use store::Store;
pub(super) use wire::{Dialing, Wire};

/// How a connection is opened, and the client that it is for if it is for one only.
pub(super) type How<'a> = (&'a Dialing, Option<Endpoints>);

/// One backend as one worker sees it. What each request needs comes first, so that it is on one cache line.
#[repr(C)]
pub(super) struct Upstream {
    pub(super) backend: Arc<Backend>,
    /// Counts how often the way of opening connections has changed. Those of another time are not kept.
    era: Cell<u64>,
    /// Without a library around them; the most recently used at the back, which is taken first, so that surplus ones age at
    /// the front.
    idle_plain: RefCell<Store<Plain>>,
    /// The same for those with one.
    idle: RefCell<Store<Box<Connection>>>,
    /// Those with HTTP/2, each for many requests.
    shared: SharedConnections,
    /// Who passes bytes over one of its connections.
    tunnels: RefCell<Vec<Weak<Watch>>>,
    /// Since when it gets nothing new; 0 while it does.
    leaving_ms: Cell<u64>,
}

/// A connection of HTTP/1.1 or a place on one of HTTP/2, whichever the backend chose.
pub(super) enum Either {
    Own(Box<Connection>),
    Shared(Place),
}

/// One connection, boxed because it moves between the store and the exchanges.
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Wire>, RequestBody>,
    is_done: bool,
    era: u64,
    /// It has carried a request before, so the backend may have closed it meanwhile.
    pub(super) is_reused: bool,
}

/// Why a request was not answered.
pub(super) enum SendError {
    /// The connection failed. If nothing had been written, the request is back where it was.
    Broken(String),
    /// The response head did not come in time, as whoever waits says.
    RanOut(Error),
}

impl Upstream {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
        Self {
            backend,
            idle: RefCell::default(),
            idle_plain: RefCell::default(),
            shared: SharedConnections::default(),
            tunnels: RefCell::default(),
            leaving_ms: Cell::new(0),
            era: Cell::new(0),
        }
    }

    /// Connections are opened in another way from now on: unused ones are closed, used ones when they are done.
    pub(super) fn change_era(&self) {
        self.era.set(self.era.get() + 1);
        self.idle.borrow_mut().clear();
        self.idle_plain.borrow_mut().clear();
        self.shared.clear();
    }

    /// An unused connection that is still good, as far as can be known without asking the network.
    pub(super) fn take_idle(&self, told: Option<&Endpoints>, watch: &Watch) -> Option<Box<Connection>> {
        let mut cx = Context::from_waker(watch.gate.waker());
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connection) = idle.take(told) {
            if connection.is_alive(&mut cx) {
                connection.is_reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// An unused plain connection that is still good, as far as can be known without asking the network.
    #[inline]
    pub(super) fn take_plain(&self, told: Option<&Endpoints>) -> Option<Plain> {
        let mut idle = self.idle_plain.borrow_mut();
        while let Some(mut connection) = idle.take(told) {
            if connection.is_quiet() {
                connection.is_reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Opens a plain connection.
    pub(super) async fn connect_plain(&self, how: How<'_>) -> io::Result<Plain> {
        let wire = self.open(how, Offer::Http1).await?;
        Ok(Plain::new(wire, self.era.get()))
    }

    /// Opens a connection for bytes that we do not look at.
    pub(super) async fn connect_bytes(&self, how: How<'_>) -> io::Result<Wire> {
        self.open(how, Offer::Bytes).await
    }

    async fn open(&self, how: How<'_>, offer: Offer) -> io::Result<Wire> {
        if how
            .0
            .most
            .is_some_and(|most| self.backend.connections() >= most.get())
        {
            self.close_unused();
        }
        Wire::open(&self.backend, how, offer).await
    }

    /// Whether a request gets a connection without there being more of them than so many.
    pub(super) fn has_connection(&self, most: NonZeroU32) -> bool {
        self.backend.connections() < most.get()
            || !self.idle_plain.borrow().is_empty()
            || !self.idle.borrow().is_empty()
            || self.shared.has_place()
    }

    /// Closes one unused connection, of whatever kind: another kind is needed.
    fn close_unused(&self) {
        if !self.idle_plain.borrow_mut().drop_oldest() && !self.idle.borrow_mut().drop_oldest() {
            self.shared.drop_unused();
        }
    }

    /// Closes all unused connections.
    pub(super) fn close_all_unused(&self) {
        self.idle.borrow_mut().clear();
        self.idle_plain.borrow_mut().clear();
        while self.shared.drop_unused() {}
    }

    /// Stores a plain connection after a complete exchange, and not more than so many.
    #[inline]
    pub(super) fn put_plain(&self, connection: Plain, told: Option<&Rc<Endpoints>>, bound: (usize, u64)) {
        if connection.era == self.era.get() {
            self.idle_plain.borrow_mut().put(connection, told.cloned(), bound);
        }
    }

    /// A place on an HTTP/2 connection that is there.
    pub(super) fn take_place(&self, told: Option<Endpoints>) -> Option<Place> {
        self.shared.take(told)
    }

    /// Opens an HTTP/2 connection.
    pub(super) async fn connect_shared(&self, how: How<'_>) -> io::Result<Place> {
        let wire = self.open(how, Offer::Http2).await?;
        self.shared.open(wire, how.1).await
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, how: How<'_>) -> io::Result<Box<Connection>> {
        let wire = self.open(how, Offer::Http1).await?;
        self.begin(wire).await
    }

    /// Opens a connection of the kind that the backend chooses.
    pub(super) async fn connect_either(&self, how: How<'_>) -> io::Result<Either> {
        let wire = self.open(how, Offer::Either).await?;
        match wire.speaks_http2() {
            true => self.shared.open(wire, how.1).await.map(Either::Shared),
            false => self.begin(wire).await.map(Either::Own),
        }
    }

    async fn begin(&self, wire: Wire) -> io::Result<Box<Connection>> {
        let handshake = http1::Builder::new().handshake(TokioIo::new(wire)).await;
        let (sender, driver) = handshake.map_err(io::Error::other)?;
        Ok(Box::new(Connection {
            sender,
            driver,
            is_done: false,
            era: self.era.get(),
            is_reused: false,
        }))
    }

    /// Stores a connection after a complete exchange.
    pub(super) fn put_idle(
        &self,
        connection: Box<Connection>,
        told: Option<&Rc<Endpoints>>,
        bound: (usize, u64),
    ) {
        if !connection.is_done && connection.era == self.era.get() {
            self.idle.borrow_mut().put(connection, told.cloned(), bound);
        }
    }

    /// A tunnel has begun, which the client's watch can end.
    pub(super) fn tunnel_began(&self, watch: &Rc<Watch>) {
        let mut tunnels = self.tunnels.borrow_mut();
        tunnels.retain(|tunnel| tunnel.strong_count() > 0);
        tunnels.push(Rc::downgrade(watch));
    }

    /// Whether any may still be there.
    pub(super) fn has_tunnels(&self) -> bool {
        self.tunnels
            .borrow()
            .iter()
            .any(|tunnel| tunnel.strong_count() > 0)
    }

    /// It gets nothing new any more: unused connections are closed, and after this time the tunnels.
    pub(super) fn leave(&self, within_ms: u64, now_ms: u64) {
        if self.leaving_ms.get() == 0 {
            self.leaving_ms.set(now_ms.max(1));
        }
        // Those of requests that end only now come later.
        self.close_all_unused();
        if now_ms.saturating_sub(self.leaving_ms.get()) >= within_ms {
            let tunnels = self.tunnels.take();
            tunnels
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|watch| watch.end_tunnel());
        }
    }

    /// It serves, again or still.
    pub(super) fn stay(&self) {
        self.leaving_ms.set(0);
    }

    /// Closes the connections that were unused for too long, and those that the backend has closed.
    pub(super) fn sweep(&self, longest_ms: u64, now_ms: u64) {
        let mut cx = Context::from_waker(Waker::noop());
        let oldest_ms = now_ms.saturating_sub(longest_ms);
        let is_alive = |connection: &mut Box<Connection>| connection.is_alive(&mut cx);
        self.idle.borrow_mut().retain(oldest_ms, is_alive);
        self.idle_plain.borrow_mut().retain(oldest_ms, Plain::is_quiet);
        self.shared.sweep(longest_ms, now_ms);
    }
}

impl Connection {
    /// Drives the connection as far as it goes. True while it lives.
    #[inline]
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_done {
            // Errors reach whoever waits for the response or its body; here only the end matters.
            self.is_done = Pin::new(&mut self.driver).poll(cx).is_ready();
        }
        !self.is_done
    }

    /// The socket after the library has let go of it, and what it has read too much.
    pub(super) async fn into_socket(mut self: Box<Self>) -> (Wire, Bytes) {
        poll_fn(|cx| match self.drive(cx) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        let parts = self.driver.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    fn is_alive(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx) && self.sender.is_ready()
    }

    /// Sends a request and waits for the response's head until `ran_out` says why not to. If the connection is gone before
    /// anything is written, the request is put back.
    pub(super) async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        watch: &Watch,
        ran_out: impl Fn() -> Option<Error>,
    ) -> Result<Response<Incoming>, SendError> {
        let Self {
            sender,
            driver,
            is_done,
            ..
        } = self;
        let Some(given) = request.take() else {
            return Err(SendError::Broken("nothing to send".into()));
        };
        let mut response = pin!(watch.gate.shut_for(|| sender.try_send_request(given)));
        poll_fn(|cx| {
            if !*is_done {
                let mut gated = Context::from_waker(watch.gate.waker());
                *is_done = Pin::new(&mut *driver).poll(&mut gated).is_ready();
            }
            // Only driving the connection can bring the response, so its own wake-up is not needed: it would only have
            // this task polled twice.
            match response.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(mut error)) => {
                    *request = error.take_message();
                    Poll::Ready(Err(SendError::Broken(error.into_error().to_string())))
                }
                Poll::Pending if *is_done => Poll::Ready(Err(SendError::Broken("connection closed".into()))),
                Poll::Pending => {
                    watch.remember(cx.waker());
                    ran_out().map_or(Poll::Pending, |error| Poll::Ready(Err(SendError::RanOut(error))))
                }
            }
        })
        .await
    }
}
