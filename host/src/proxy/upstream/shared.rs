//! HTTP/2 connections to one backend, each for many requests at once.
//!
//! Owns which connection a request goes on, and their ends. Such a connection belongs to no request, so it has a task of
//! its own. It must not know pools or policies.
//!
//! Invariant: a request that is over, or given up, is no longer counted on its connection.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::Poll,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::TokioIo;

use super::{SendError, Wire};
use crate::{
    proxy::{body::RequestBody, client::Watch, error::Error},
    proxy_header::Endpoints,
};

/// Most backends allow 100 at once or more; those that allow fewer have the rest wait.
const REQUESTS_MAX: usize = 100;
/// A response's body that nobody reads is not kept beyond this, for one request and for all of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const WINDOW: u32 = 4 << 20;
/// What of a request's body is kept until the backend takes it.
const SEND_BUFFER_BYTES: usize = 128 << 10;
const HEADER_BYTES: u32 = 128 << 10;

/// The connections to one backend.
#[derive(Default)]
pub(super) struct SharedConnections {
    all: RefCell<Vec<Rc<Shared>>>,
}

struct Shared {
    sender: SendRequest<RequestBody>,
    /// The client that it is for, if it is for one only.
    told: Option<Endpoints>,
    requests: Cell<usize>,
    /// Since when it has none.
    idle_ms: Cell<u64>,
    /// It has carried a request before, so the backend may have closed it meanwhile.
    is_used: Cell<bool>,
}

/// A place for one request on a connection.
pub(in crate::proxy) struct Place {
    connection: Rc<Shared>,
    pub(in crate::proxy) is_reused: bool,
}

impl Place {
    fn on(connection: &Rc<Shared>) -> Self {
        connection.requests.set(connection.requests.get() + 1);
        Self {
            connection: connection.clone(),
            is_reused: connection.is_used.replace(true),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.connection.requests.get().saturating_sub(1);
        self.connection.requests.set(left);
        // The next sweep notes when that was.
        self.connection.idle_ms.set(0);
    }
}

/// Tasks of the library, which stay in this worker.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

impl SharedConnections {
    /// A place on a connection that is there.
    pub(super) fn take(&self, told: Option<Endpoints>) -> Option<Place> {
        let mut all = self.all.borrow_mut();
        all.retain(|connection| !connection.sender.is_closed());
        let has_room = |connection: &&Rc<Shared>| {
            connection.told == told
                && connection.sender.is_ready()
                && connection.requests.get() < REQUESTS_MAX
        };
        all.iter().find(has_room).map(Place::on)
    }

    /// Whether a connection has room for a request of anybody.
    pub(super) fn has_place(&self) -> bool {
        self.all.borrow().iter().any(|connection| {
            let requests = connection.requests.get();
            let is_open = connection.told.is_none() && connection.sender.is_ready();
            requests == 0 || (is_open && requests < REQUESTS_MAX)
        })
    }

    /// Closes a connection without requests. False if there is none.
    pub(super) fn drop_unused(&self) -> bool {
        let mut all = self.all.borrow_mut();
        let at = all.iter().position(|connection| connection.requests.get() == 0);
        at.map(|at| all.remove(at)).is_some()
    }

    /// Begins HTTP/2 on a new connection.
    pub(super) async fn open(&self, wire: Wire, told: Option<Endpoints>) -> io::Result<Place> {
        let mut builder = http2::Builder::new(Local);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(HEADER_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        let handshake = builder.handshake(TokioIo::new(wire)).await;
        let (sender, driver) = handshake.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            // Errors reach whoever waits for a response or its body.
            let _ = driver.await;
        });
        let connection = Rc::new(Shared {
            sender,
            told,
            requests: Cell::new(0),
            idle_ms: Cell::new(0),
            is_used: Cell::new(false),
        });
        let place = Place::on(&connection);
        self.all.borrow_mut().push(connection);
        Ok(place)
    }

    /// No new request goes on those that are there; they end with the last that they have.
    pub(super) fn clear(&self) {
        self.all.borrow_mut().clear();
    }

    /// Closes the connections that were unused for too long.
    pub(super) fn sweep(&self, longest_ms: u64, now_ms: u64) {
        self.all.borrow_mut().retain(|connection| {
            if connection.requests.get() > 0 {
                return true;
            }
            if connection.idle_ms.get() == 0 {
                connection.idle_ms.set(now_ms);
            }
            // Without senders the library says GOAWAY and closes.
            now_ms.saturating_sub(connection.idle_ms.get()) <= longest_ms && !connection.sender.is_closed()
        });
    }
}

impl Place {
    /// Sends a request and waits for the response's head until `ran_out` says why not to. If the connection is gone before
    /// anything is written, the request is put back. Dropping this future has the backend told that nobody waits.
    pub(in crate::proxy) async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        watch: &Watch,
        ran_out: impl Fn() -> Option<Error>,
    ) -> Result<Response<Incoming>, SendError> {
        let Some(given) = request.take() else {
            return Err(SendError::Broken("nothing to send".into()));
        };
        let mut sender = self.connection.sender.clone();
        let mut response = pin!(sender.try_send_request(given));
        poll_fn(|cx| match response.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(mut error)) => {
                *request = error.take_message();
                Poll::Ready(Err(SendError::Broken(error.into_error().to_string())))
            }
            Poll::Pending => {
                watch.remember(cx.waker());
                ran_out().map_or(Poll::Pending, |error| Poll::Ready(Err(SendError::RanOut(error))))
            }
        })
        .await
    }
}
