//! A client's stream under guard, as the HTTP library reads it.
//!
//! Owns the bytes that were read and may not go on yet: at most one head, or one piece of a body. What is refused is
//! replaced by what the library refuses in turn, so that the answer comes after those to earlier requests. It must not
//! know what is ambiguous; `http1/guard.rs` does.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    client::{ClientStream, Socket},
    prefixed::Prefixed,
    serve::Client,
    upgrade,
};
use crate::http1::{Guard, POISON, Passage};

/// What is read at once where it has to be judged.
const PIECE_BYTES: usize = 8 << 10;

/// A stream whose messages were judged.
pub(super) struct Guarded<S> {
    stream: Prefixed<ClientStream<S>>,
    client: Rc<Client>,
    guard: Guard,
    /// Read and not handed on; the first `cleared` may be.
    held: Vec<u8>,
    cleared: usize,
    is_over: bool,
}

impl<S: Socket> Guarded<S> {
    pub(super) fn new(stream: Prefixed<ClientStream<S>>, client: Rc<Client>) -> Self {
        Self {
            stream,
            client,
            guard: Guard::default(),
            held: Vec::new(),
            cleared: 0,
            is_over: false,
        }
    }

    /// The stream itself, for writing and for its end.
    pub(super) fn get_mut(&mut self) -> &mut ClientStream<S> {
        self.stream.get_mut()
    }

    /// Looks at what is held. True if more has to be read first.
    fn judge(&mut self) -> bool {
        let listener = self.client.listener.rules().config.clone();
        // A question that is answered with an error ends the connection, too.
        let switches = |head: &_| !matches!(upgrade::asked(head, &listener), Ok(None));
        match self
            .guard
            .judge(&self.held, listener.limits.header_bytes, switches)
        {
            Passage::Wait => return true,
            Passage::Pass(count) => self.cleared = count,
            Passage::Last => (self.cleared, self.is_over) = (self.held.len(), true),
            Passage::RefuseBody => {
                self.held.clear();
                self.is_over = true;
            }
            Passage::RefuseHead => {
                self.held.clear();
                self.held.extend_from_slice(POISON);
                (self.cleared, self.is_over) = (POISON.len(), true);
            }
        }
        false
    }

    /// Reads more of what has to be judged. False at the end.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let before = self.held.len();
        self.held.resize(before + PIECE_BYTES, 0);
        let mut space = ReadBuf::new(self.held.get_mut(before..).unwrap_or_default());
        let poll = Pin::new(&mut self.stream).poll_read(cx, &mut space);
        let read = space.filled().len();
        self.held.truncate(before + read);
        ready!(poll)?;
        Poll::Ready(Ok(read > 0))
    }

    /// Reads straight into the library's buffer what passes whatever it is.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ahead = usize::try_from(self.guard.ahead()).unwrap_or(usize::MAX);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(ahead.min(buffer.remaining())));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.guard.skip(read as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.cleared > 0 {
                let count = this.cleared.min(buffer.remaining());
                buffer.put_slice(this.held.get(..count).unwrap_or_default());
                this.held.drain(..count);
                this.cleared -= count;
                return Poll::Ready(Ok(()));
            }
            if this.is_over {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() && this.guard.ahead() > 0 {
                return this.poll_ahead(cx, buffer);
            }
            if this.judge() && !ready!(this.poll_hold(cx))? {
                // The rest of a head that will never be whole.
                this.held.clear();
                this.is_over = true;
            }
        }
    }
}

impl<S: Socket> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
