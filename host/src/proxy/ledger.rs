//! The accounting of one attempt, from its begin to the end of its response.
//!
//! Owns what is recorded: requests in flight, latency, bytes, status, and what policies are told of it. It must not know
//! how the request is carried, nor whether another attempt follows.
//!
//! Invariant: a [`Ledger`] begins and ends its backend's `active` exactly once, however the attempt ends.

use std::{cell::Cell, rc::Rc, task::Context, time::Duration};

use super::{
    attempts::Attempts,
    client::Watch,
    error::Error,
    forward::Target,
    plain::Plain,
    pool::{Decider, PoolSettings, WorkerPool},
    serve::Client,
    upstream::{How, Upstream},
    worker::WorkerState,
};
use crate::{clock, policy::Ended, proxy_header::Endpoints};

/// Long bodies show up in the throughput while they flow: after so many bytes.
const RECORD_EVERY: u64 = 1 << 16;

/// An attempt's entry in the books.
pub(super) struct Ledger {
    pub(super) worker: Rc<WorkerState>,
    pub(super) settings: Rc<PoolSettings>,
    pub(super) upstream: Rc<Upstream>,
    pub(super) watch: Rc<Watch>,
    /// The client, if the backend's connection begins with a word about it and is for nobody else.
    pub(super) told: Option<Rc<Endpoints>>,
    pool: Rc<WorkerPool>,
    /// What the client gets with the answer to keep its session, if anything.
    pub(super) cookie: Option<String>,
    /// Of the snapshot that the pick was made on.
    generation: u64,
    index: usize,
    decider: Decider,
    /// How long the response's head is waited for, as long as another attempt can be made.
    try_timeout: Cell<Option<Duration>>,
    began_us: u64,
    latency_us: u64,
    status: Option<u16>,
    /// Its outcome is known.
    is_recorded: bool,
    /// Body bytes from the client so far.
    pub(super) sent: u64,
    received: u64,
    /// Body bytes already in the backend's counters.
    recorded_sent: u64,
    recorded_received: u64,
}

impl Ledger {
    #[inline]
    pub(super) fn begin(client: &Client, attempts: &Attempts<'_>, target: &Target) -> Self {
        let worker = client.worker.clone();
        target.upstream.backend.load(worker.id).begin();
        attempts.pool.begin(target);
        if attempts.settings.config.limits.is_some() {
            attempts.pool.occupy(worker.id);
        }
        Self {
            worker,
            settings: attempts.settings.clone(),
            upstream: target.upstream.clone(),
            watch: client.watch.clone(),
            told: attempts.settings.config.send_proxy.map(|_| client.told()),
            cookie: attempts.cookie(target),
            pool: attempts.pool.clone(),
            generation: target.generation,
            index: target.index,
            decider: target.decider,
            try_timeout: Cell::new(attempts.try_timeout(target)),
            began_us: attempts.now_us,
            latency_us: 0,
            status: None,
            is_recorded: false,
            sent: 0,
            received: 0,
            recorded_sent: 0,
            recorded_received: 0,
        }
    }

    /// The response's head has to come in time from now on.
    #[inline]
    pub(super) fn expect_answer(&self) {
        let config = &self.settings.config;
        let within = self.try_timeout.get().unwrap_or(config.response_timeout);
        self.watch.expect_backend(within.as_millis() as u64);
    }

    /// Whether the time for the response's head is over. If it is the shorter time of an attempt that another may follow,
    /// this pays for that one; and when there is nothing to pay it with, this attempt gets the rest of its time.
    pub(super) fn ran_out(&self) -> Option<Error> {
        if self.watch.request_expired() {
            return Some(Error::RequestTimeout);
        }
        if !self.watch.backend_expired() {
            return None;
        }
        let config = &self.settings.config;
        let Some(passed) = self.try_timeout.take() else {
            return Some(Error::ResponseTimeout);
        };
        if self.pool.spend(self.worker.id, &config.retry) {
            return Some(Error::TryTimeout);
        }
        let rest = config.response_timeout.saturating_sub(passed);
        self.watch.release_backend();
        self.watch.expect_backend(rest.as_millis() as u64);
        None
    }

    /// The response's head is there, or (`None`) the backend did not answer, or not with what can be passed on.
    pub(super) fn record(&mut self, status: Option<u16>) {
        let now_us = clock::now_us();
        self.latency_us = now_us.saturating_sub(self.began_us);
        self.status = status;
        self.is_recorded = true;
        let load = self.upstream.backend.load(self.worker.id);
        load.record_latency(self.latency_us, now_us);
        let in_a_row = load.record_status(status);
        if in_a_row > 0 {
            self.settings
                .reporter
                .failures(self.upstream.backend.id, in_a_row);
        }
    }

    /// The exchange is complete, and its connection can carry another.
    #[inline]
    pub(super) fn keep(&self, connection: Plain) {
        let bound = (self.unused_kept(), self.worker.coarse_ms());
        self.upstream.put_plain(connection, self.told.as_ref(), bound);
    }

    /// How a connection for this attempt is opened.
    pub(super) fn how(&self) -> How<'_> {
        (&self.settings.dialing, self.told.as_deref().copied())
    }

    /// How many unused connections to the backend are kept: none while other workers wait for one.
    #[inline]
    pub(super) fn unused_kept(&self) -> usize {
        match self.settings.dialing.most {
            Some(_) if self.pool.do_others_wait(self.worker.id) => 0,
            _ => self.settings.config.idle_connections,
        }
    }

    /// The attempt has failed. Is the request's whole time over, that counts against a backend that has had most of it.
    pub(super) fn fail(&mut self, error: &Error) {
        let whole = self.settings.config.request_timeout;
        if let (Error::RequestTimeout, Some(whole)) = (error, whole) {
            let had_us = clock::now_us().saturating_sub(self.began_us);
            if self.watch.is_clients_turn() || u128::from(had_us) * 2 < whole.as_micros() {
                return;
            }
        }
        self.record(None);
    }

    /// A piece of the response's body has arrived.
    #[inline]
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        self.note_bytes();
        self.watch.release_backend();
    }

    /// A piece of the request's body has gone to the backend.
    #[inline]
    pub(super) fn uploaded(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.note_bytes();
    }

    #[inline]
    fn note_bytes(&mut self) {
        let unrecorded = (self.received - self.recorded_received) + (self.sent - self.recorded_sent);
        if unrecorded >= RECORD_EVERY {
            self.record_bytes();
        }
    }

    /// Bytes to the backend, and from it.
    pub(super) fn passed(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// The next piece of the body has to wait.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        self.watch
            .expect_backend(self.settings.config.body_timeout.as_millis() as u64);
        self.watch.remember(cx.waker());
    }

    /// Whether the backend has made the client wait for too long.
    pub(super) fn has_stalled(&self) -> bool {
        self.watch.backend_expired() || self.watch.request_expired()
    }

    /// The other attempt of a hedged request was quicker, or the client has gone. That it has taken so long already is known
    /// of it, and nothing else.
    #[cold]
    fn cancel(&self, ended: &Ended, after: Duration) {
        let now_us = clock::now_us();
        let so_far_us = now_us.saturating_sub(self.began_us);
        if u128::from(so_far_us) >= after.as_micros() {
            let load = self.upstream.backend.load(self.worker.id);
            load.record_latency(so_far_us, now_us);
        }
        self.pool.cancel(ended);
    }

    fn record_bytes(&mut self) {
        let load = self.upstream.backend.load(self.worker.id);
        load.record_bytes(
            self.sent - self.recorded_sent,
            self.received - self.recorded_received,
            self.worker.coarse_ms(),
        );
        (self.recorded_sent, self.recorded_received) = (self.sent, self.received);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.watch.release_backend();
        self.record_bytes();
        self.upstream.backend.load(self.worker.id).end();
        let ended = Ended {
            generation: self.generation,
            index: self.index,
            backend: self.upstream.backend.id,
            latency_us: self.latency_us,
            bytes: self.sent + self.received,
            status: self.status,
            now_us: self.worker.coarse_ms() * 1000,
        };
        match self.settings.config.retry.hedge_after {
            Some(after) if !self.is_recorded => self.cancel(&ended, after),
            _ => self.pool.end(&ended, self.decider),
        }
        if self.settings.config.limits.is_some() {
            self.pool.vacate(self.worker.id);
        }
    }
}
