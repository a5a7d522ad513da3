//! What a connection says, gathered while its requests are looked at, and written in one piece.
//!
//! Owns the bytes that the library has written and the system has not. The library writes each response by itself, and to
//! do that for the dozen that came at once is a system call and a segment for each. It must not know frames.
//!
//! Invariant: whoever polls the library drains after it, in the same turn, so nothing is held back; bytes keep their
//! order.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::{
    client::{ClientStream, Socket},
    prefixed::Prefixed,
    scratch::BLOCK_BYTES,
};

/// Larger pieces are not copied but written as they are.
const COPIED_MAX: usize = 4 << 10;

/// A client's stream, as the library and whoever polls it share it.
pub(super) struct Cork<W>(Rc<RefCell<Held<W>>>);

struct Held<W> {
    stream: W,
    /// Without room while there is nothing in it: an idle connection has no buffers.
    block: Vec<u8>,
    at: usize,
    /// What was written may still have to be flushed.
    is_dirty: bool,
    /// There was nothing more to read in this turn: the library asks after each request.
    is_dry: bool,
}

impl<W> Clone for Cork<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: AsyncWrite + Unpin> Cork<W> {
    pub(super) fn new(stream: W) -> Self {
        Self(Rc::new(RefCell::new(Held {
            stream,
            block: Vec::new(),
            at: 0,
            is_dirty: false,
            is_dry: false,
        })))
    }

    /// A turn begins, in which whoever reads has one waker.
    pub(super) fn begin(&self) {
        self.0.borrow_mut().is_dry = false;
    }

    /// Writes what is held.
    pub(super) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(cx)
    }
}

impl<S: Socket> Cork<Prefixed<ClientStream<S>>> {
    /// Writes what can be written at once, these bytes last; if the socket takes no more there is nobody to tell.
    pub(super) fn say(&self, bytes: &[u8]) {
        let mut held = self.0.borrow_mut();
        let drained = held.poll_drain(&mut Context::from_waker(Waker::noop()));
        if matches!(drained, Poll::Ready(Ok(()))) {
            held.stream.get_mut().say(bytes);
        }
    }
}

impl<W: AsyncWrite + Unpin> Held<W> {
    /// Takes a piece, if it is small and there is room for it.
    fn hold(&mut self, slices: &[IoSlice<'_>], total: usize) -> bool {
        if total > COPIED_MAX || self.block.len() + total > BLOCK_BYTES {
            return false;
        }
        if self.block.capacity() == 0 {
            self.block.reserve_exact(BLOCK_BYTES);
        }
        slices
            .iter()
            .for_each(|slice| self.block.extend_from_slice(slice));
        true
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.block.get(self.at..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
            self.is_dirty = true;
        }
        (self.block, self.at) = (Vec::new(), 0);
        if self.is_dirty {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Cork<W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        if held.is_dry {
            return Poll::Pending;
        }
        let poll = Pin::new(&mut held.stream).poll_read(cx, buffer);
        held.is_dry = poll.is_pending();
        poll
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Cork<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.0.borrow_mut();
        let total = slices.iter().map(|slice| slice.len()).sum();
        if held.hold(slices, total) {
            return Poll::Ready(Ok(total));
        }
        ready!(held.poll_drain(cx))?;
        if held.hold(slices, total) {
            return Poll::Ready(Ok(total));
        }
        held.is_dirty = true;
        Pin::new(&mut held.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Whoever polls the library drains after it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        ready!(held.poll_drain(cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Takes so many bytes, and remembers in which pieces they came.
    #[derive(Clone, Default)]
    struct Peer(Rc<RefCell<Vec<Vec<u8>>>>, Rc<Cell<usize>>);

    impl AsyncWrite for Peer {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.1.get());
            if count == 0 {
                return Poll::Pending;
            }
            self.1.set(self.1.get() - count);
            self.0.borrow_mut().push(bytes[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn cork(takes: usize) -> (Peer, Cork<Peer>, Context<'static>) {
        let peer = Peer::default();
        peer.1.set(takes);
        (peer.clone(), Cork::new(peer), Context::from_waker(Waker::noop()))
    }

    fn write(cork: &mut Cork<Peer>, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        match Pin::new(cork).poll_write(cx, bytes) {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => 0,
        }
    }

    #[test]
    fn small_pieces_go_out_as_one_when_drained() {
        let (peer, mut cork, mut cx) = cork(usize::MAX);
        for piece in ["one ", "two ", "three"] {
            assert_eq!(write(&mut cork, &mut cx, piece.as_bytes()), piece.len());
            assert!(Pin::new(&mut cork).poll_flush(&mut cx).is_ready());
        }
        assert!(peer.0.borrow().is_empty(), "nothing before the turn is over");
        assert!(cork.poll_drain(&mut cx).is_ready());
        assert_eq!(*peer.0.borrow(), [b"one two three"]);
        assert_eq!(
            cork.0.borrow().block.capacity(),
            0,
            "an idle connection has no buffers"
        );
    }

    #[test]
    fn a_large_piece_is_not_copied_and_overtakes_nothing() {
        let (peer, mut cork, mut cx) = cork(usize::MAX);
        let large = vec![b'x'; COPIED_MAX + 1];
        assert_eq!(write(&mut cork, &mut cx, b"first"), 5);
        assert_eq!(write(&mut cork, &mut cx, &large), large.len());
        assert_eq!(*peer.0.borrow(), [b"first".to_vec(), large]);
    }

    #[test]
    fn a_socket_that_takes_no_more_holds_the_library_back() {
        let (peer, mut cork, mut cx) = cork(10);
        let piece = vec![b'x'; COPIED_MAX];
        let mut written = 0;
        for _ in 0..100 {
            written += write(&mut cork, &mut cx, &piece);
        }
        assert_eq!(written, BLOCK_BYTES, "what it took beyond is held");
        assert!(cork.poll_drain(&mut cx).is_pending());
        peer.1.set(usize::MAX);
        assert!(cork.poll_drain(&mut cx).is_ready());
        let all: usize = peer.0.borrow().iter().map(Vec::len).sum();
        assert_eq!(all, written);
    }
}
