//! One attempt by way of the HTTP library: a request to one backend, up to the response's head and through its body.
//!
//! Owns the choice between a stored and a new connection. It must not know whether another attempt follows;
//! `attempts.rs` does.

use std::{cell::Cell, rc::Rc, task::Context};

use http::{Request, Response};
use hyper::body::Incoming;

use super::{
    attempts::Freshness,
    body::RequestBody,
    error::Error,
    ledger::Ledger,
    pool::Decider,
    upstream::{Connection, SendError, Upstream},
};

/// A request that is with a backend.
pub(super) struct Exchange {
    ledger: Ledger,
    connection: Option<Box<Connection>>,
    /// Body bytes from the client; shared with the body that counts them.
    sent: Rc<Cell<u64>>,
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
    pub(super) fn new(ledger: Ledger, sent: &Rc<Cell<u64>>) -> Self {
        Self {
            ledger,
            connection: None,
            sent: sent.clone(),
        }
    }

    /// Sends the request and waits for the response's head. The request is left where it was if nothing of it was sent.
    ///
    /// Dropping this future closes the connection, so the backend learns that nobody waits any more.
    pub(super) async fn send(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        freshness: Freshness,
    ) -> Result<Response<Incoming>, Failed> {
        let mut connection = match self.connection(freshness).await {
            Ok(connection) => connection,
            Err(error) => {
                self.record_failure();
                self.ledger
                    .worker
                    .metrics()
                    .count(|metrics| &metrics.upstream_connect_failures);
                return Err(Failed::for_good(error));
            }
        };
        let watch = &self.ledger.watch;
        let response_timeout = self.ledger.settings.config.response_timeout;
        watch.expect_backend(response_timeout.as_millis() as u64);
        let result = connection.send(request, watch).await;
        watch.release_backend();
        match result {
            Ok(response) => {
                self.connection = Some(connection);
                self.ledger.record(Some(response.status().as_u16()));
                Ok(response)
            }
            Err(error) => Err(self.failed(error, connection.is_reused)),
        }
    }

    fn failed(&mut self, error: SendError, is_reused: bool) -> Failed {
        let error = match error {
            SendError::Broken(reason) => Error::Upstream(reason),
            SendError::Timeout => Error::ResponseTimeout,
        };
        let was_stale = is_reused && !matches!(error, Error::ResponseTimeout);
        if !was_stale {
            self.record_failure();
        }
        Failed { error, was_stale }
    }

    async fn connection(&self, freshness: Freshness) -> Result<Box<Connection>, Error> {
        let Ledger {
            upstream,
            watch,
            worker,
            settings,
            ..
        } = &self.ledger;
        if freshness == Freshness::Any
            && let Some(connection) = upstream.take_idle(watch)
        {
            return Ok(connection);
        }
        worker.metrics().count(|metrics| &metrics.upstream_connects);
        // Boxed because it is large and rare, and would make every request's future larger.
        Box::pin(upstream.connect(settings.config.connect_timeout))
            .await
            .map_err(|error| Error::Connect(error.to_string()))
    }

    /// The backend did not answer, or not with what can be passed on.
    pub(super) fn record_failure(&mut self) {
        self.ledger.record(None);
    }

    /// Drives the connection.
    #[inline]
    pub(super) fn drive(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.drive(&mut Context::from_waker(self.ledger.watch.gate.waker()));
        }
    }

    /// Asks for a piece of the body, without being woken for having asked.
    #[inline]
    pub(super) fn ask<T>(&self, act: impl FnOnce() -> T) -> T {
        self.ledger.watch.gate.shut_for(act)
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

    /// The response has been read to its end: the connection can carry another request, unless it is still sending.
    #[inline]
    pub(super) fn complete(mut self) {
        if let Some(connection) = self.connection.take() {
            let keep = self.ledger.settings.config.idle_connections;
            let now_ms = self.ledger.worker.coarse_ms();
            self.ledger.upstream.put_idle(connection, keep, now_ms);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.ledger.sent = self.sent.get();
    }
}
