//! One attempt by way of the HTTP library: a request to one backend, up to the response's head and through its body.
//!
//! Owns the choice between a stored and a new connection. It must not know whether another attempt follows;
//! `attempts.rs` does.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};

use super::{
    attempts::Freshness,
    body::RequestBody,
    client::Watch,
    error::Error,
    headers,
    ledger::Ledger,
    pool::Decider,
    relay::Tunnel,
    upstream::{Connection, Either, Place, SendError, Upstream, Wire},
};
use crate::config::PoolProtocol;

/// A request that is with a backend.
pub(super) struct Exchange {
    ledger: Ledger,
    carrier: Option<Carrier>,
    /// Body bytes from the client; shared with the body that counts them.
    sent: Rc<Cell<u64>>,
    /// The request asks for what only HTTP/1.1 can give.
    needs_http1: bool,
}

/// What a request is on.
enum Carrier {
    /// A connection of its own, which it drives.
    Own(Box<Connection>),
    /// One of HTTP/2, which others are on too.
    Shared(Place),
}

impl Carrier {
    fn is_reused(&self) -> bool {
        match self {
            Self::Own(connection) => connection.is_reused,
            Self::Shared(place) => place.is_reused,
        }
    }
}

/// Where a request goes, decided.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) upstream: Rc<Upstream>,
    pub(super) generation: u64,
    pub(super) index: usize,
    pub(super) decider: Decider,
}

/// A failed attempt, with what is needed to decide whether to make another.
pub(super) struct Failed {
    pub(super) error: Error,
    /// A kept-alive connection turned out to be closed. That says nothing about the backend.
    pub(super) was_stale: bool,
}

impl Failed {
    /// Of an attempt that says something about the backend, and not about a connection.
    pub(super) fn for_good(error: Error) -> Self {
        Self {
            error,
            was_stale: false,
        }
    }
}

impl Exchange {
    pub(super) fn new(ledger: Ledger, sent: &Rc<Cell<u64>>, needs_http1: bool) -> Self {
        Self {
            needs_http1,
            ledger,
            carrier: None,
            sent: sent.clone(),
        }
    }

    /// One without a request, for bytes that are passed on as they are.
    pub(super) fn of_bytes(ledger: Ledger) -> Self {
        Self::new(ledger, &Rc::default(), false)
    }

    /// Sends the request and waits for the response's head. The request is left where it was if nothing of it was sent.
    ///
    /// Dropping this future closes the connection, so the backend learns that nobody waits any more.
    pub(super) async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        freshness: Freshness,
    ) -> Result<Response<Incoming>, Failed> {
        let mut carrier = match self.carrier(freshness).await {
            Ok(carrier) => carrier,
            Err(error) => {
                self.ledger.fail(&error);
                self.ledger
                    .worker
                    .metrics()
                    .count(|metrics| &metrics.upstream_connect_failures);
                return Err(Failed::for_good(error));
            }
        };
        let watch = &self.ledger.watch;
        self.ledger.expect_answer();
        let ran_out = || self.ledger.ran_out();
        let result = match &mut carrier {
            Carrier::Own(connection) => connection.send(request, watch, ran_out).await,
            Carrier::Shared(place) => {
                if let Some(request) = request {
                    headers::into_http2(request, self.ledger.settings.dialing.scheme());
                }
                place.send(request, watch, ran_out).await
            }
        };
        watch.release_backend();
        match result {
            Ok(response) => {
                // Both may take turns from here on.
                watch.free_body();
                self.carrier = Some(carrier);
                self.ledger.record(Some(response.status().as_u16()));
                Ok(response)
            }
            Err(error) => Err(self.failed(error, carrier.is_reused())),
        }
    }

    fn failed(&mut self, error: SendError, is_reused: bool) -> Failed {
        let error = match error {
            SendError::Broken(reason) => Error::Upstream(reason),
            SendError::RanOut(error) => error,
        };
        let is_clients = self.ledger.watch.body_failed();
        let was_stale = is_reused && !is_clients && matches!(error, Error::Upstream(_));
        let error = if is_clients {
            Error::BadRequest("malformed body")
        } else {
            error
        };
        // What a client breaks must not have a backend taken out of service.
        if !was_stale && !is_clients {
            self.ledger.fail(&error);
        }
        Failed { error, was_stale }
    }

    async fn carrier(&self, freshness: Freshness) -> Result<Carrier, Error> {
        let Ledger {
            upstream,
            watch,
            worker,
            settings,
            ..
        } = &self.ledger;
        let how = self.ledger.how();
        let protocol = match settings.config.protocol {
            PoolProtocol::Auto if self.needs_http1 => PoolProtocol::Http1,
            protocol => protocol,
        };
        let place = || upstream.take_place(how.1).map(Carrier::Shared);
        let idle = || upstream.take_idle(how.1.as_ref(), watch).map(Carrier::Own);
        let stored = || match protocol {
            PoolProtocol::Http1 => idle(),
            PoolProtocol::Http2 => place(),
            PoolProtocol::Auto => place().or_else(idle),
        };
        if freshness == Freshness::Any
            && let Some(stored) = stored()
        {
            return Ok(stored);
        }
        worker.metrics().count(|metrics| &metrics.upstream_connects);
        let opening = async {
            Ok(match protocol {
                PoolProtocol::Http1 => Carrier::Own(upstream.connect(how).await?),
                PoolProtocol::Http2 => Carrier::Shared(upstream.connect_shared(how).await?),
                PoolProtocol::Auto => match upstream.connect_either(how).await? {
                    Either::Own(connection) => Carrier::Own(connection),
                    Either::Shared(place) => Carrier::Shared(place),
                },
            })
        };
        // Boxed because it is large and rare, and would make every request's future larger.
        opened(Box::pin(opening), watch).await
    }

    /// Gives the client what keeps its session.
    pub(super) fn set_cookie(&mut self, fields: &mut http::HeaderMap) {
        let cookie = self.ledger.cookie.take();
        // It is made of what the configuration and hex have, which is always good for a field.
        if let Some(Ok(cookie)) = cookie.map(http::HeaderValue::try_from) {
            fields.append(http::header::SET_COOKIE, cookie);
        }
    }

    /// The backend did not answer, or not with what can be passed on.
    pub(super) fn record_failure(&mut self) {
        self.ledger.record(None);
    }

    /// The next piece of the body: what has arrived, or else what arrives when the connection is driven.
    #[inline]
    pub(super) fn poll_body(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(Carrier::Own(connection)) = &mut self.carrier else {
            return Pin::new(incoming).poll_frame(cx);
        };
        // The connection is driven from here, so the body's own wake-up is not needed.
        let mut quiet = Context::from_waker(Waker::noop());
        let gate = &self.ledger.watch.gate;
        let poll = gate.shut_for(|| Pin::new(&mut *incoming).poll_frame(&mut quiet));
        if poll.is_ready() {
            return poll;
        }
        connection.drive(&mut Context::from_waker(gate.waker()));
        gate.shut_for(|| Pin::new(incoming).poll_frame(&mut quiet))
    }

    /// A piece of the response has arrived.
    #[inline]
    pub(super) fn received(&mut self, bytes: usize) {
        self.ledger.sent = self.sent.get();
        self.ledger.received(bytes);
    }

    /// The next piece has to wait.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.ledger.wait(cx);
    }

    /// Whether the backend has made the client wait for too long.
    pub(super) fn has_stalled(&self) -> bool {
        self.ledger.has_stalled()
    }

    /// So much of the client's was passed on, past the request's body.
    #[inline]
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.ledger.sent = self.sent.get();
    }

    /// Bytes to the backend, and from it.
    pub(super) fn passed(&self) -> (u64, u64) {
        self.ledger.passed()
    }

    /// It has become a tunnel.
    pub(super) fn tunnel_began(&self) {
        self.ledger.upstream.tunnel_began(&self.ledger.watch);
    }

    /// What the exchange was on, for another protocol: its socket, and what was read of it after the response's head.
    pub(super) async fn into_tunnel(mut self, response: &mut Response<Incoming>) -> Option<Tunnel> {
        match self.carrier.take()? {
            Carrier::Own(connection) => {
                let (wire, early) = connection.into_socket().await;
                Some(Tunnel::new(wire, early, self))
            }
            Carrier::Shared(place) => {
                let stream = hyper::upgrade::on(response).await.ok()?;
                // It goes on being one of those on the connection.
                self.carrier = Some(Carrier::Shared(place));
                Some(Tunnel::new(Wire::of_stream(stream), [], self))
            }
        }
    }

    /// The response has been read to its end: the connection can carry another request, unless it is still sending.
    #[inline]
    pub(super) fn complete(mut self) {
        if let Some(Carrier::Own(connection)) = self.carrier.take() {
            let ledger = &self.ledger;
            let bound = (ledger.unused_kept(), ledger.worker.coarse_ms());
            ledger.upstream.put_idle(connection, ledger.told.as_ref(), bound);
        }
    }
}

/// Waits for a connection, as long as the whole request may take.
async fn opened(
    mut opening: Pin<Box<impl Future<Output = io::Result<Carrier>>>>,
    watch: &Watch,
) -> Result<Carrier, Error> {
    poll_fn(|cx| match opening.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened.map_err(|error| Error::Connect(error.to_string()))),
        Poll::Pending if watch.request_expired() => Poll::Ready(Err(Error::RequestTimeout)),
        Poll::Pending => {
            watch.remember(cx.waker());
            Poll::Pending
        }
    })
    .await
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.ledger.sent = self.sent.get();
    }
}
