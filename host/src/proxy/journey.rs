//! A request from its head to the end of its response: what is counted and logged of it.
//!
//! Owns the access log's line and the counters of requests. It must not know how a request is served.
//!
//! Invariant: it ends exactly once, by being dropped, however the request ends.

use std::rc::Rc;

use super::{
    access::{Line, unix_ms},
    error::{Error, Fault},
    forward::Target,
    pool::{Decider, WorkerPool},
    serve::Client,
};
use crate::{
    http1::Head,
    policy::{Chooser, Decision},
};

/// A request under way.
pub(super) struct Journey {
    client: Rc<Client>,
    pub(super) began_us: u64,
    pub(super) status: u16,
    end: End,
    is_request: bool,
    line: Option<Box<Line>>,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Too early, unless something else is said.
    Aborted,
    /// The client has it all.
    Complete,
    /// It goes on as another.
    Left,
}

impl Journey {
    pub(super) fn begin(client: &Rc<Client>, head: &Head) -> Self {
        let line = client.worker.access_log().map(|_| {
            Box::new(Line {
                at_ms: unix_ms(),
                listener: client.listener.rules().config.name.clone(),
                client: client.address.ip().to_string(),
                protocol: if client.is_stream { "h2" } else { "http/1.1" },
                method: head.method().to_owned(),
                host: head.authority().to_owned(),
                path: head.target().to_owned(),
                ..Line::default()
            })
        });
        Self {
            client: client.clone(),
            began_us: client.worker.tick(),
            status: 0,
            end: End::Aborted,
            is_request: true,
            line,
        }
    }

    /// It is a connection without requests, which is logged like one and not counted.
    pub(super) fn of_connection(mut self) -> Self {
        self.is_request = false;
        if let Some(line) = &mut self.line {
            line.protocol = "tcp";
        }
        self
    }

    /// It is of HTTP/1.0, which is rare enough to be told afterwards.
    pub(super) fn is_old(&mut self) {
        if let Some(line) = &mut self.line {
            line.protocol = "http/1.0";
        }
    }

    /// So many bytes went to the backend, and came from it.
    pub(super) fn passed(&mut self, (sent, received): (u64, u64)) {
        if let Some(line) = &mut self.line {
            (line.sent, line.received) = (Some(sent), Some(received));
        }
    }

    pub(super) fn decided(
        &mut self,
        pool: &WorkerPool,
        decision: &Decision,
        decider: Decider,
        target: Option<&Target>,
    ) {
        let Some(line) = &mut self.line else { return };
        line.attempts += 1;
        line.pool = Some(pool.name().to_owned());
        line.backend = target.map(|target| target.upstream.backend.address.to_string());
        let candidate = pool.deployment(decider).candidate.clone();
        line.policy = Some(candidate.spec.name.clone());
        line.version = Some(candidate.version.to_string());
        // A canary is not recorded, nor what a cookie decides, and what an instance beside it was asked last is not this request.
        let is_sticky = matches!(decision, Decision::Send(choice) if choice.chooser == Chooser::Sticky);
        if decider == Decider::Active && !is_sticky {
            line.id = pool.seat().take_recorded_id().or(line.id.take());
        }
        if let Decision::Send(choice) = decision {
            line.note.clone_from(&choice.note);
            line.chosen_by = Some(match decider {
                Decider::Active => choice.chooser.name(),
                Decider::Canary => "canary",
            });
            line.reason = choice.chooser.reason();
        }
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.client.worker.metrics().count(|metrics| &metrics.errors);
        if let Some(line) = &mut self.line {
            line.error = Some(error.to_string());
        }
        if error.fault() == Fault::Upstream {
            tracing::debug!(%error, "request failed");
        }
    }

    /// The client has been given the whole response.
    pub(super) fn complete(mut self) {
        self.end = End::Complete;
    }

    /// Another journey of the same request begins, so this one never was.
    pub(super) fn leave(mut self) {
        self.end = End::Left;
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        if self.end == End::Left {
            return;
        }
        let is_complete = self.end == End::Complete;
        let worker = &self.client.worker;
        let duration_us = worker.tick().saturating_sub(self.began_us);
        if self.is_request {
            worker.metrics().record(self.status, duration_us);
        }
        if is_complete {
            self.client.watch.request_ended();
        } else if self.is_request {
            worker.metrics().count(|metrics| &metrics.aborted);
        }
        if let (Some(mut line), Some(log)) = (self.line.take(), worker.access_log()) {
            line.status = self.status;
            line.complete = is_complete;
            line.duration_us = duration_us;
            log.write(*line);
        }
    }
}
