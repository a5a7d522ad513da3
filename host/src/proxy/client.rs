//! One client connection as the worker watches it: how long it has been waiting, and for whom.
//!
//! Owns the time-outs of the data path. Instead of a timer for each request, a connection notes what it waits for and
//! since when (two stores); the worker looks at all its connections every now and then, and wakes those that waited too
//! long. The connection then fails its own reads and writes, and everything above unwinds as if the peer had gone.
//!
//! Invariant: whoever waits on a peer has noted it. It must not know HTTP.
//! Read next: `client/stream.rs`, where that is noted.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::Duration,
};

use super::gate::Gate;
use crate::config::Limits;

mod pace;
mod stream;

use pace::Pace;

pub(super) use stream::{ClientStream, Encrypted, Socket};

/// A client may take so long for its first bytes, or between two requests, before that counts as idle: a flood must not push out
/// those that are just about to go on.
const IDLE_MS: u64 = 1000;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// TLS is being agreed on, which has a time-out of its own.
    Handshake,
    /// Nothing received since it was accepted.
    Fresh,
    /// Waiting for the next request.
    Idle,
    /// A request head has begun to arrive.
    Head,
    /// A request is being served.
    Busy,
    /// Waiting for the next request on a connection that has many at once.
    Quiet,
    /// Passing bytes of another protocol.
    Tunnel,
    /// The same, after one side has ended.
    HalfTunnel,
}

/// How idle a connection is: of two, the lesser is to make room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Idleness {
    /// Whether it has ever been used: a flood of connections that say nothing must not push out those that are.
    is_used: bool,
    since_ms: u64,
}

impl Idleness {
    pub(super) fn is_used(self) -> bool {
        self.is_used
    }
}

/// Why a connection was ended by the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Quiet for too long between requests: closed without a word.
    Idle,
    /// The head took too long: told so.
    Head,
    /// The client stopped sending its body, or reading the response.
    Body,
}

/// Whether the worker wants a connection to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// It does not.
    No,
    /// After its current request, or now if there is none.
    Soon,
    /// After its current request, or the next one: somebody else listens, so a client loses nothing by being told with an
    /// answer, and may lose a request that crosses the end of a connection.
    WithAnAnswer,
}

/// Whether a connection that waits for its next request has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    No,
    Yes,
    /// It has waited for so long that it should give it back.
    Over,
}

/// The watched state of one connection. Times are in milliseconds of the worker's coarse clock; 0 is "not waiting".
pub(super) struct Watch {
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    /// The request line of the head that arrives has not ended yet.
    line_is_open: Cell<bool>,
    body_wait_ms: Cell<u64>,
    pace: Pace,
    write_wait_ms: Cell<u64>,
    backend_deadline_ms: Cell<u64>,
    backend_within_ms: Cell<u64>,
    backend_expired: Cell<bool>,
    /// When the whole request has to be over.
    request_deadline_ms: Cell<u64>,
    request_expired: Cell<bool>,
    expired: Cell<Option<Expired>>,
    stopping: Cell<Stopping>,
    stay: Cell<Stay>,
    /// What the client sent as a body was none.
    body_failed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// For the upstream connections that this connection's task drives.
    pub(super) gate: Gate,
    /// The worker's coarse clock, in milliseconds.
    clock: Rc<Cell<u64>>,
}

impl Watch {
    pub(super) fn new(clock: Rc<Cell<u64>>) -> Self {
        Self {
            phase: Cell::new(Phase::Fresh),
            since_ms: Cell::new(clock.get()),
            line_is_open: Cell::new(false),
            body_wait_ms: Cell::new(0),
            pace: Pace::default(),
            write_wait_ms: Cell::new(0),
            backend_deadline_ms: Cell::new(0),
            backend_within_ms: Cell::new(0),
            backend_expired: Cell::new(false),
            request_deadline_ms: Cell::new(0),
            request_expired: Cell::new(false),
            expired: Cell::new(None),
            stopping: Cell::new(Stopping::No),
            stay: Cell::new(Stay::No),
            body_failed: Cell::new(false),
            waker: RefCell::new(None),
            gate: Gate::default(),
            clock,
        }
    }

    /// As good as new, for another request.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.clock.clone());
    }

    /// TLS is agreed on with the client before anything else.
    pub(super) fn handshake_began(&self) {
        self.enter(Phase::Handshake);
    }

    /// The connection is as good as one that has just been accepted.
    pub(super) fn handshake_ended(&self) {
        self.enter(Phase::Fresh);
        if self.stopping.get() == Stopping::Soon {
            self.stop();
        }
    }

    /// The connection has many requests at once, each with a watch of its own, and now it has none.
    pub(super) fn all_ended(&self) {
        self.enter(Phase::Quiet);
        self.line_is_open.set(false);
    }

    /// A connection with many requests at once has been quiet for too long. Only told once of each time.
    pub(super) fn take_quiet(&self) -> bool {
        let is_quiet = self.phase.get() == Phase::Quiet && self.expired.get() == Some(Expired::Idle);
        if is_quiet {
            self.expired.set(None);
            self.enter(Phase::Quiet);
        }
        is_quiet
    }

    /// A byte has passed a tunnel, or its first may.
    pub(super) fn tunnel_moved(&self) {
        match self.phase.get() {
            Phase::HalfTunnel => self.enter(Phase::HalfTunnel),
            _ => self.enter(Phase::Tunnel),
        }
    }

    /// One side of a tunnel will send nothing more.
    pub(super) fn tunnel_half_ended(&self) {
        if self.phase.get() == Phase::Tunnel {
            self.enter(Phase::HalfTunnel);
        }
    }

    /// The tunnel, if it is still one, has to end.
    pub(super) fn end_tunnel(&self) {
        if matches!(self.phase.get(), Phase::Tunnel | Phase::HalfTunnel) {
            self.expired.set(Some(Expired::Body));
            self.wake();
        }
    }

    /// Whether the client has not sent, or has not taken, what it should have.
    pub(super) fn has_expired(&self) -> bool {
        self.expired.get() == Some(Expired::Body)
    }

    /// The client has, or has no longer, something to take before more of a response can be handed on.
    pub(super) fn wait_for_client(&self, waiting: bool) {
        self.write_wait_ms.set(if waiting { self.clock.get() } else { 0 });
    }

    /// The connection has room for its next request while it waits for that, or no longer.
    #[inline]
    pub(super) fn stay(&self, stays: bool) {
        self.stay.set(if stays { Stay::Yes } else { Stay::No });
    }

    /// Whether it has waited for too long to keep that.
    #[inline]
    pub(super) fn has_stayed(&self) -> bool {
        self.stay.get() == Stay::Over
    }

    /// What the client sent after its last request is a part of the next.
    pub(super) fn head_began(&self) {
        self.enter(Phase::Head);
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since_ms.set(self.clock.get());
    }

    /// A request head is complete.
    pub(super) fn request_began(&self) {
        self.body_failed.set(false);
        self.pace.begin();
        self.limit_request(None);
        self.enter(Phase::Busy);
    }

    /// The response's last byte was handed to the connection.
    pub(super) fn request_ended(&self) {
        self.enter(Phase::Idle);
        self.body_wait_ms.set(0);
    }

    /// The request's body is, or is no longer, waited for.
    pub(super) fn wait_for_body(&self, waiting: bool) {
        let now = self.clock.get();
        match (waiting, self.body_wait_ms.get()) {
            (true, 0) => {
                self.body_wait_ms.set(now);
                self.pace.wait(now);
            }
            (true, _) => {}
            (false, 0) => {}
            (false, _) => {
                self.body_wait_ms.set(0);
                self.pace.settle(now);
            }
        }
    }

    /// A piece of the request's body has arrived.
    #[inline]
    pub(super) fn body_moved(&self, bytes: u64) {
        self.pace.moved(bytes);
    }

    /// How fast the rest of the request's body comes is between the client and its backend.
    #[inline]
    pub(super) fn free_body(&self) {
        self.pace.free();
    }

    /// The client's body broke off or is malformed, so that whatever comes of it is not the backend's doing.
    pub(super) fn fail_body(&self) {
        self.body_failed.set(true);
    }

    /// Whether it was the client who made the request fail.
    pub(super) fn body_failed(&self) -> bool {
        self.body_failed.get()
    }

    /// The whole request has to be over after this time, or may take as long as it does.
    #[inline]
    pub(super) fn limit_request(&self, within: Option<Duration>) {
        let deadline = within.map_or(0, |within| self.clock.get() + within.as_millis().max(1) as u64);
        self.request_deadline_ms.set(deadline);
        self.request_expired.set(false);
    }

    /// Whether the whole request has taken too long.
    #[inline]
    pub(super) fn request_expired(&self) -> bool {
        self.request_expired.get()
    }

    /// Whether it is the client who keeps us from going on.
    pub(super) fn is_clients_turn(&self) -> bool {
        self.body_wait_ms.get() > 0 || self.write_wait_ms.get() > 0
    }

    /// The backend must act before this much time has passed, counted from the first such call since it last did.
    pub(super) fn expect_backend(&self, within_ms: u64) {
        if self.backend_deadline_ms.get() == 0 {
            self.backend_within_ms.set(within_ms.max(1));
            self.backend_deadline_ms.set(self.clock.get() + within_ms.max(1));
        }
    }

    /// The backend has taken a piece of the request, so its time begins anew.
    pub(super) fn extend_backend(&self) {
        if self.backend_deadline_ms.get() > 0 {
            self.backend_deadline_ms
                .set(self.clock.get() + self.backend_within_ms.get());
        }
    }

    /// The backend acted, or nothing is expected of it any more.
    pub(super) fn release_backend(&self) {
        self.backend_deadline_ms.set(0);
        self.backend_expired.set(false);
    }

    /// Whether the backend missed its deadline.
    pub(super) fn backend_expired(&self) -> bool {
        self.backend_expired.get()
    }

    /// Ends the connection after its current requests, though the worker does not want it.
    pub(super) fn begin_stopping(&self) {
        self.stopping.set(Stopping::Soon);
        if self.phase.get() == Phase::Quiet {
            self.enter(Phase::Quiet);
        }
    }

    /// Whether the worker wants this connection to end after its current request.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get() != Stopping::No
    }

    /// Whether it is time to tell a library so, which would close a connection without a request at once.
    pub(super) fn is_stopping_now(&self) -> bool {
        match self.stopping.get() {
            Stopping::No => false,
            Stopping::Soon => true,
            Stopping::WithAnAnswer => !self.is_between_requests(),
        }
    }

    /// How idle it is, if it may be closed without anybody missing anything.
    pub(super) fn idleness(&self) -> Option<Idleness> {
        let since_ms = self.since_ms.get();
        let is_used = match self.phase.get() {
            Phase::Idle | Phase::Quiet => true,
            Phase::Fresh => false,
            _ => return None,
        };
        let is_free = self.expired.get().is_none() && !self.is_stopping();
        let is_free = is_free && self.clock.get() >= since_ms + IDLE_MS;
        is_free.then_some(Idleness { is_used, since_ms })
    }

    /// Whether it has not sent anything yet.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self.phase.get(), Phase::Handshake | Phase::Fresh)
    }

    /// Ends an idle connection for the sake of others.
    pub(super) fn make_room(&self) {
        self.stopping.set(Stopping::Soon);
        self.expired.set(Some(Expired::Idle));
        self.wake();
    }

    fn is_between_requests(&self) -> bool {
        matches!(self.phase.get(), Phase::Fresh | Phase::Idle)
    }

    /// Asks the connection to end after its current request, or now if there is none.
    pub(super) fn stop(&self) {
        self.stopping.set(Stopping::Soon);
        if self.is_between_requests() {
            self.expired.set(Some(Expired::Idle));
        }
        self.wake();
    }

    /// Asks the connection to end with its current request, or with the next one if there is none. True if it waits for
    /// that.
    pub(super) fn stop_with_an_answer(&self) -> bool {
        // A connection with many requests can be told without an answer.
        if self.stopping.get() == Stopping::No {
            self.stopping.set(Stopping::WithAnAnswer);
            self.wake();
        }
        self.is_between_requests()
    }

    /// As [`Self::stop`], but a connection that is too young to have asked anything may ask once.
    pub(super) fn finish(&self) {
        if self.phase.get() == Phase::Fresh {
            self.stop_with_an_answer();
        } else {
            self.stop();
        }
    }

    /// Looks whether anyone has waited too long. True if the connection was ended by this.
    pub(super) fn check(&self, limits: &Limits) -> bool {
        let now = self.clock.get();
        let over =
            |since: u64, limit: Duration| since > 0 && now.saturating_sub(since) > limit.as_millis() as u64;
        // While the client keeps us from reading or writing, the backend can do nothing about it.
        let is_clients_turn = self.is_clients_turn();
        let deadline = self.backend_deadline_ms.get();
        if deadline > 0 && now > deadline && !is_clients_turn && !self.backend_expired.replace(true) {
            self.wake();
        }
        let whole = self.request_deadline_ms.get();
        if whole > 0 && now > whole && !self.request_expired.replace(true) {
            self.wake();
        }
        if self.stay.get() == Stay::Yes && now >= self.since_ms.get() + IDLE_MS {
            self.stay.set(Stay::Over);
            self.wake();
        }
        let drips = self.body_wait_ms.get() > 0 && self.pace.is_too_slow(now, limits);
        let waits = drips
            || over(self.body_wait_ms.get(), limits.body_timeout)
            || over(self.write_wait_ms.get(), limits.body_timeout)
            // All others notice by themselves; one that is written to is woken by nobody else.
            || (self.request_expired.get() && self.write_wait_ms.get() > 0);
        let is_silent = match self.phase.get() {
            Phase::HalfTunnel => over(self.since_ms.get(), limits.half_closed_timeout),
            _ => over(self.since_ms.get(), limits.tunnel_timeout),
        };
        let expired = match self.phase.get() {
            _ if self.expired.get().is_some() => None,
            // There, who waits for whom is not ours to judge, only that nothing moves.
            Phase::Tunnel | Phase::HalfTunnel if !is_silent => None,
            Phase::Tunnel | Phase::HalfTunnel => Some(Expired::Body),
            _ if waits => Some(Expired::Body),
            Phase::Fresh | Phase::Head if over(self.since_ms.get(), limits.header_timeout) => {
                Some(Expired::Head)
            }
            // One that was told to end gets less time.
            Phase::Quiet if self.is_stopping() && over(self.since_ms.get(), limits.header_timeout) => {
                Some(Expired::Idle)
            }
            Phase::Idle | Phase::Quiet if over(self.since_ms.get(), limits.idle_timeout) => {
                Some(Expired::Idle)
            }
            _ => None,
        };
        if expired.is_some() {
            self.expired.set(expired);
            self.wake();
        }
        expired.is_some()
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Remembers whom to wake.
    pub(super) fn remember(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests;
