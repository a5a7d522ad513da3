//! One attempt: a request to one backend, up to the response's head, and the accounting of what follows.
//!
//! Owns the choice between a stored and a new connection, and what is recorded of an attempt. It must not know whether
//! another attempt follows; `serve.rs` does.
//!
//! Invariant: an [`Exchange`] begins and ends its backend's `active` exactly once, however it ends.

use std::{cell::Cell, rc::Rc, task::Context};

use http::{Request, Response};
use hyper::body::Incoming;

use super::{
    body::RequestBody,
    client::Watch,
    error::Error,
    upstream::{Connection, SendError, Upstream},
    worker::{PoolSettings, WorkerPool, WorkerState},
};
use crate::{clock, policy::Ended};

/// A request that is with a backend.
pub(super) struct Exchange {
    worker: Rc<WorkerState>,
    pool: Rc<WorkerPool>,
    settings: Rc<PoolSettings>,
    upstream: Rc<Upstream>,
    watch: Rc<Watch>,
    connection: Option<Box<Connection>>,
    /// Of the snapshot that the pick was made on.
    generation: u64,
    index: usize,
    began_us: u64,
    latency_us: u64,
    status: Option<u16>,
    /// Body bytes from the client; shared with the body that counts them.
    sent: Rc<Cell<u64>>,
    received: u64,
    /// Body bytes already in the backend's counters.
    recorded_sent: u64,
    recorded_received: u64,
}

/// Where a request goes, decided.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) upstream: Rc<Upstream>,
    pub(super) generation: u64,
    pub(super) index: usize,
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
    pub(super) fn begin(
        worker: &Rc<WorkerState>,
        pool: &Rc<WorkerPool>,
        settings: &Rc<PoolSettings>,
        target: &Target,
        watch: &Rc<Watch>,
        sent: &Rc<Cell<u64>>,
        now_us: u64,
    ) -> Self {
        target.upstream.backend.load(worker.id).begin();
        pool.seat().begin(target.generation, target.index);
        Self {
            worker: worker.clone(),
            pool: pool.clone(),
            settings: settings.clone(),
            upstream: target.upstream.clone(),
            watch: watch.clone(),
            connection: None,
            generation: target.generation,
            index: target.index,
            began_us: now_us,
            latency_us: 0,
            status: None,
            sent: sent.clone(),
            received: 0,
            recorded_sent: sent.get(),
            recorded_received: 0,
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
                self.worker
                    .metrics()
                    .count(|metrics| &metrics.upstream_connect_failures);
                return Err(Failed::for_good(error));
            }
        };
        let response_timeout = self.settings.config.response_timeout;
        self.watch.expect_backend(response_timeout.as_millis() as u64);
        let result = connection.send(request, &self.watch).await;
        self.watch.release_backend();
        match result {
            Ok(response) => {
                self.connection = Some(connection);
                self.record_response(response.status().as_u16());
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
        if freshness == Freshness::Any
            && let Some(connection) = self.upstream.take_idle(&self.watch)
        {
            return Ok(connection);
        }
        self.worker.metrics().count(|metrics| &metrics.upstream_connects);
        let within = self.settings.config.connect_timeout;
        // Boxed because it is large and rare, and would make every request's future larger.
        Box::pin(self.upstream.connect(within))
            .await
            .map_err(|error| Error::Connect(error.to_string()))
    }

    fn record_response(&mut self, status: u16) {
        let now_us = clock::now_us();
        self.latency_us = now_us.saturating_sub(self.began_us);
        self.status = Some(status);
        let load = self.upstream.backend.load(self.worker.id);
        load.record_latency(self.latency_us, now_us);
        let in_a_row = load.record_status(Some(status));
        self.report(in_a_row);
    }

    /// The backend did not answer, or not with what can be passed on.
    pub(super) fn record_failure(&mut self) {
        let now_us = clock::now_us();
        self.latency_us = now_us.saturating_sub(self.began_us);
        let load = self.upstream.backend.load(self.worker.id);
        load.record_latency(self.latency_us, now_us);
        let in_a_row = load.record_status(None);
        self.report(in_a_row);
    }

    #[inline]
    fn report(&self, in_a_row: u32) {
        if in_a_row > 0 {
            self.settings
                .reporter
                .failures(self.upstream.backend.id, in_a_row);
        }
    }

    /// Drives the connection.
    #[inline]
    pub(super) fn drive(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.drive(&mut Context::from_waker(self.watch.gate.waker()));
        }
    }

    /// Asks for a piece of the body, without being woken for having asked.
    #[inline]
    pub(super) fn ask<T>(&self, act: impl FnOnce() -> T) -> T {
        self.watch.gate.shut_for(act)
    }

    /// A piece of the response has arrived.
    #[inline]
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        // Long bodies show up in the throughput while they flow.
        if self.received - self.recorded_received >= 1 << 16 {
            self.record_bytes();
        }
        self.watch.release_backend();
    }

    /// The next piece has to wait.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.watch
            .expect_backend(self.settings.config.body_timeout.as_millis() as u64);
        self.watch.remember(cx.waker());
    }

    /// Whether the backend has made the client wait for too long.
    pub(super) fn has_stalled(&self) -> bool {
        self.watch.backend_expired()
    }

    fn record_bytes(&mut self) {
        let sent = self.sent.get();
        let load = self.upstream.backend.load(self.worker.id);
        let now_ms = self.worker.coarse_ms();
        load.record_bytes(
            sent - self.recorded_sent,
            self.received - self.recorded_received,
            now_ms,
        );
        (self.recorded_sent, self.recorded_received) = (sent, self.received);
    }

    /// The response has been read to its end: the connection can carry another request, unless it is still sending.
    #[inline]
    pub(super) fn complete(mut self) {
        if let Some(connection) = self.connection.take() {
            let keep = self.settings.config.idle_connections;
            self.upstream.put_idle(connection, keep, self.worker.coarse_ms());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.watch.release_backend();
        self.record_bytes();
        self.upstream.backend.load(self.worker.id).end();
        let ended = Ended {
            generation: self.generation,
            index: self.index,
            backend: self.upstream.backend.id,
            latency_us: self.latency_us,
            bytes: self.sent.get() + self.received,
            status: self.status,
            now_us: self.worker.coarse_ms() * 1000,
        };
        self.pool.seat().end(&ended);
    }
}

/// Whether a stored connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Stored or new.
    Any,
    /// New: a stored one has just failed.
    New,
}
