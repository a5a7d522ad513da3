//! One client connection as the worker watches it: how long it has been waiting, and for whom.
//!
//! Owns the time-outs of the data path. Instead of a timer for each request, a connection notes what it waits for and
//! since when (two stores); the worker looks at all its connections every now and then, and wakes those that waited too
//! long. The connection then fails its own reads and writes, and everything above unwinds as if the peer had gone.
//!
//! Invariant: whoever waits on a peer has noted it. It must not know HTTP beyond the text of a 408.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{gate::Gate, plain::poll_write_two, scratch::Scratch};
use crate::{config::Limits, http1::Inbox};

const TIMEOUT_RESPONSE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// How the HTTP library's answer to a head that is too large begins. It does not say which part of it is.
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 ";
const TARGET_TOO_LONG_RESPONSE: &[u8] =
    b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing received since it was accepted.
    Fresh,
    /// Waiting for the next request.
    Idle,
    /// A request head has begun to arrive.
    Head,
    /// A request is being served.
    Busy,
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

/// The watched state of one connection. Times are in milliseconds of the worker's coarse clock; 0 is "not waiting".
pub(super) struct Watch {
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    /// The request line of the head that arrives has not ended yet.
    line_is_open: Cell<bool>,
    body_wait_ms: Cell<u64>,
    write_wait_ms: Cell<u64>,
    backend_deadline_ms: Cell<u64>,
    backend_within_ms: Cell<u64>,
    backend_expired: Cell<bool>,
    expired: Cell<Option<Expired>>,
    stopping: Cell<bool>,
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
            write_wait_ms: Cell::new(0),
            backend_deadline_ms: Cell::new(0),
            backend_within_ms: Cell::new(0),
            backend_expired: Cell::new(false),
            expired: Cell::new(None),
            stopping: Cell::new(false),
            waker: RefCell::new(None),
            gate: Gate::default(),
            clock,
        }
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
        self.enter(Phase::Busy);
    }

    /// The response's last byte was handed to the connection.
    pub(super) fn request_ended(&self) {
        self.enter(Phase::Idle);
        self.body_wait_ms.set(0);
    }

    /// The request's body is, or is no longer, waited for.
    pub(super) fn wait_for_body(&self, waiting: bool) {
        match (waiting, self.body_wait_ms.get()) {
            (true, 0) => self.body_wait_ms.set(self.clock.get()),
            (true, _) => {}
            (false, _) => self.body_wait_ms.set(0),
        }
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

    /// Whether the worker wants this connection to end after its current request.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn is_between_requests(&self) -> bool {
        matches!(self.phase.get(), Phase::Fresh | Phase::Idle)
    }

    /// Asks the connection to end after its current request, or now if there is none.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        if self.is_between_requests() {
            self.expired.set(Some(Expired::Idle));
        }
        self.wake();
    }

    /// Looks whether anyone has waited too long. True if the connection was ended by this.
    pub(super) fn check(&self, limits: &Limits) -> bool {
        let now = self.clock.get();
        let over = |since: u64, limit: std::time::Duration| {
            since > 0 && now.saturating_sub(since) > limit.as_millis() as u64
        };
        // While the client keeps us from reading or writing, the backend can do nothing about it.
        let is_clients_turn = self.body_wait_ms.get() > 0 || self.write_wait_ms.get() > 0;
        let deadline = self.backend_deadline_ms.get();
        if deadline > 0 && now > deadline && !is_clients_turn && !self.backend_expired.replace(true) {
            self.wake();
        }
        let waits = over(self.body_wait_ms.get(), limits.body_timeout)
            || over(self.write_wait_ms.get(), limits.body_timeout);
        let expired = match self.phase.get() {
            _ if self.expired.get().is_some() => None,
            _ if waits => Some(Expired::Body),
            Phase::Fresh | Phase::Head if over(self.since_ms.get(), limits.header_timeout) => {
                Some(Expired::Head)
            }
            Phase::Idle if over(self.since_ms.get(), limits.idle_timeout) => Some(Expired::Idle),
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

/// A client's socket under watch.
pub(super) struct ClientStream {
    inner: TcpStream,
    watch: Rc<Watch>,
}

impl ClientStream {
    pub(super) fn new(inner: TcpStream, watch: Rc<Watch>) -> Self {
        Self { inner, watch }
    }

    /// What a read gives on a connection that was ended by the watch.
    fn expire(&self) -> Option<io::Result<()>> {
        match self.watch.expired.get()? {
            Expired::Idle => None,
            Expired::Head => {
                // If the socket takes no more bytes there is nobody to tell.
                if self.watch.phase.get() == Phase::Head {
                    let _ = self.inner.try_write(TIMEOUT_RESPONSE);
                }
                Some(Ok(()))
            }
            Expired::Body => Some(Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Notes the first bytes of a head, and whether its request line has ended.
    #[inline]
    fn watch_head(&self, bytes: &[u8]) {
        let is_first = self.watch.is_between_requests();
        if is_first {
            // It came just before an idle connection was closed, and is served after all.
            self.watch.expired.set(None);
            self.watch.enter(Phase::Head);
        }
        if is_first || self.watch.line_is_open.get() {
            self.watch.line_is_open.set(!bytes.contains(&b'\n'));
        }
    }

    /// Whether these bytes say that a head is too large whose request line alone is. Then the right answer is given in
    /// their place.
    #[inline]
    fn replace_answer(&self, bytes: &[u8]) -> bool {
        let is_wrong = self.watch.line_is_open.get()
            && self.watch.phase.get() == Phase::Head
            && bytes.starts_with(TOO_LARGE);
        if is_wrong {
            // If the socket takes no more bytes there is nobody to tell.
            let _ = self.inner.try_write(TARGET_TOO_LONG_RESPONSE);
        }
        is_wrong
    }

    /// Notes whether a write waits for the client.
    #[inline]
    fn watch_write<T>(&self, cx: &Context<'_>, poll: &Poll<T>) {
        match (poll, self.watch.write_wait_ms.get()) {
            (Poll::Pending, 0) => {
                self.watch.write_wait_ms.set(self.watch.clock.get());
                self.watch.remember(cx.waker());
            }
            (Poll::Pending, _) => self.watch.remember(cx.waker()),
            (Poll::Ready(_), _) => self.watch.write_wait_ms.set(0),
        }
    }
}

/// For those who read the bytes themselves (`lane.rs`).
impl ClientStream {
    /// The next request's first bytes, in an inbox that is only taken when there are some. `None` at the end.
    pub(super) fn poll_inbox(&mut self, cx: &mut Context<'_>, scratch: &Scratch) -> Poll<Option<Inbox>> {
        if ready!(self.poll_readable(cx)).is_err() {
            return Poll::Ready(None);
        }
        let mut inbox = scratch.take_inbox();
        let poll = self.poll_fill(cx, &mut inbox);
        if poll == Poll::Ready(true) {
            return Poll::Ready(Some(inbox));
        }
        scratch.put_inbox(inbox);
        poll.map(|_| None)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = self.expire() {
            return Poll::Ready(end);
        }
        let poll = self.inner.poll_read_ready(cx);
        if poll.is_pending() {
            if self.watch.expired.get() == Some(Expired::Idle) && self.watch.is_between_requests() {
                return Poll::Ready(Ok(()));
            }
            self.watch.remember(cx.waker());
        }
        poll
    }

    /// Reads once. False at the end.
    #[inline]
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<bool> {
        let mut space = ReadBuf::new(inbox.space());
        let result = ready!(Pin::new(self).poll_read(cx, &mut space));
        let read = space.filled().len();
        inbox.add(read);
        Poll::Ready(result.is_ok() && read > 0)
    }

    /// Whether the client went away while it was waiting. What it sends meanwhile is kept.
    #[inline]
    pub(super) fn is_gone(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> bool {
        while !inbox.space().is_empty() {
            match self.poll_fill(cx, inbox) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return true,
                Poll::Pending => return false,
            }
        }
        self.watch.remember(cx.waker());
        false
    }

    /// Writes one slice after the other; `written` counts over both. False if the client is gone.
    #[inline]
    pub(super) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
        written: &mut usize,
    ) -> Poll<bool> {
        poll_write_two(self, cx, first, second, written).map(|result| result.is_ok())
    }
}

impl AsyncRead for ClientStream {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = self.expire() {
            return Poll::Ready(end);
        }
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if poll.is_pending() {
            // A request that arrived in the last moment is still served; only then is an idle connection closed.
            if self.watch.expired.get() == Some(Expired::Idle) && self.watch.is_between_requests() {
                return Poll::Ready(Ok(()));
            }
            self.watch.remember(cx.waker());
        } else if buffer.filled().len() > before {
            self.watch_head(&buffer.filled()[before..]);
        }
        poll
    }
}

impl AsyncWrite for ClientStream {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(Expired::Body) = self.watch.expired.get() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.replace_answer(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch_write(cx, &poll);
        poll
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(Expired::Body) = self.watch.expired.get() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if slices.first().is_some_and(|first| self.replace_answer(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch_write(cx, &poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
