//! A request's sticky session: what its cookie says, and which one it gets.
//!
//! Owns when a cookie is set: whenever the backend that answers is not the one that the client's names, and when that one
//! is old. It must not know how cookies look (`sticky.rs`), nor whether a backend can serve.

use std::sync::Arc;

use super::{
    access::unix_ms,
    forward::Target,
    pool::{Decided, Decider, WorkerPool},
    room,
    serve::Client,
};
use crate::{
    http1::Head,
    policy::{Choice, Chooser, Decision, Facts, Tried},
    sticky::{Outcome, Sticky, Ticket},
};

impl WorkerPool {
    /// For the backend that keeps the client's session, if it can. One that is full cannot.
    pub(super) fn keep(&self, id: u64, tried: &Tried, facts: &Facts) -> Option<Decided> {
        if tried.contains(id) {
            return None;
        }
        self.sync(facts.now_us);
        let (generation, index) = {
            let seat = self.seat();
            (seat.snapshot().generation, seat.snapshot().keeping(id)?)
        };
        let target = self.target((generation, index), Decider::Active)?;
        if let Some(limits) = &self.settings().config.limits
            && !room::has_room(limits, &target.upstream)
        {
            return None;
        }
        let decision = Decision::Send(Choice {
            index,
            chooser: Chooser::Sticky,
            note: None,
        });
        Some((decision, Decider::Active, Some(target)))
    }
}

/// The session of one request.
pub(super) struct Session {
    cookie: Cookie,
    now_s: u64,
    is_counted: bool,
}

enum Cookie {
    None,
    Refused,
    Good(Ticket),
}

impl Session {
    pub(super) fn read(sticky: &Sticky, head: &Head) -> Self {
        let now_s = unix_ms() / 1000;
        let cookie = match head.cookie(sticky.cookie()) {
            None => Cookie::None,
            Some(value) => sticky.read(value, now_s).map_or(Cookie::Refused, Cookie::Good),
        };
        Self {
            cookie,
            now_s,
            is_counted: false,
        }
    }

    /// The backend that the cookie names.
    pub(super) fn wanted(&self) -> Option<u64> {
        match self.cookie {
            Cookie::Good(ticket) => Some(ticket.id),
            Cookie::None | Cookie::Refused => None,
        }
    }

    /// Counts what came of it: once, however many attempts there are.
    pub(super) fn count(&mut self, sticky: &Sticky, worker: usize, target: Option<&Target>) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let chosen = target.map(|target| target.upstream.backend.id);
        sticky.count(
            worker,
            match self.cookie {
                Cookie::None => Outcome::New,
                Cookie::Refused => Outcome::Refused,
                Cookie::Good(ticket) if chosen == Some(ticket.id) => Outcome::Kept,
                Cookie::Good(_) => Outcome::Moved,
            },
        );
    }

    /// The field for an answer of this backend.
    pub(super) fn cookie(&self, sticky: &Arc<Sticky>, id: u64, client: &Client) -> Option<String> {
        if let Cookie::Good(ticket) = self.cookie
            && ticket.id == id
            && ticket.is_fresh
        {
            return None;
        }
        let random = client.worker.random() as u32;
        Some(sticky.write(id, self.now_s, (client.scheme == "https", random)))
    }
}
