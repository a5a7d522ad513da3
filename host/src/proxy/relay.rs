//! Bytes between a client and a backend, both ways, as they are.
//!
//! Owns the copying, and that an end on one side becomes an end on the other while the other way goes on. It must not
//! know what the bytes mean, nor how the two came together.
//!
//! Invariants: a way holds a buffer only while there is something in it, so a silent pair of connections has none; what
//! was read is written before an end is passed on.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    client::Watch,
    forward::Exchange,
    scratch::{BLOCK_BYTES, Scratch},
    upstream::Wire,
};

/// A way to a backend for bytes as they are.
pub(super) struct Tunnel {
    wire: Wire,
    /// What the backend has already said.
    late: Vec<u8>,
    /// Counts as a request until the tunnel ends.
    exchange: Exchange,
}

impl Tunnel {
    pub(super) fn new(wire: Wire, late: impl Into<Vec<u8>>, exchange: Exchange) -> Self {
        Self {
            wire,
            late: late.into(),
            exchange,
        }
    }

    /// Passes bytes until both sides have ended, or one breaks, or both are silent for too long. `early` is what the client
    /// has already said. Gives how many went to the backend and came from it, and why it ended before both sides did.
    pub(super) async fn run<C: AsyncRead + AsyncWrite + Unpin>(
        self,
        client: &mut C,
        early: Vec<u8>,
        (watch, scratch): (&Watch, &Scratch),
    ) -> ((u64, u64), io::Result<()>) {
        let Self {
            mut wire,
            late,
            mut exchange,
        } = self;
        exchange.tunnel_began();
        let ways = (Way::with(early), Way::with(late));
        let ended = relay((client, &mut wire), ways, &mut exchange, (watch, scratch)).await;
        if ended.as_ref().is_err_and(is_cut) {
            wire.cut();
        }
        (exchange.passed(), ended)
    }
}

/// Whether a side has gone in the middle, so that the other must not take that for an end.
pub(super) fn is_cut(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::TimedOut
}

/// Dropping this future leaves both sides as they are.
async fn relay<C, B>(
    (client, backend): (&mut C, &mut B),
    (mut up, mut down): (Way, Way),
    exchange: &mut Exchange,
    (watch, scratch): (&Watch, &Scratch),
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    watch.tunnel_moved();
    // What it has become is no request any more.
    watch.limit_request(None);
    poll_fn(|cx| {
        watch.remember(cx.waker());
        if watch.has_expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let mut moved = (0, 0);
        let polls = (
            up.poll(cx, client, backend, (scratch, &mut moved.0)),
            down.poll(cx, backend, client, (scratch, &mut moved.1)),
        );
        if moved != (0, 0) {
            exchange.sent(moved.0);
            exchange.received(moved.1);
            watch.tunnel_moved();
        }
        match polls {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                let broken = up.broken.take().or_else(|| down.broken.take());
                Poll::Ready(broken.map_or(Ok(()), Err))
            }
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => {
                watch.tunnel_half_ended();
                Poll::Pending
            }
        }
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Borrowed from the worker; empty while there is nothing in it.
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    stage: Stage,
    /// Why nothing can be written any more. What the other side has said before is still passed on.
    broken: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// There may be more to read.
    #[default]
    Open,
    /// The source has ended, and the other side is being told.
    Ending,
    /// It has been told.
    Ended,
}

impl Way {
    /// One with something in it.
    fn with(bytes: Vec<u8>) -> Self {
        Self {
            filled: bytes.len(),
            buffer: bytes,
            ..Self::default()
        }
    }

    /// Reads and writes as long as both go on; counts what was written. An error is one of the source, and ends both ways.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        (scratch, moved): (&Scratch, &mut usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            let written = match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Open | Stage::Ending if self.at < self.filled => {
                    ready!(self.poll_drain(cx, to, moved))
                }
                Stage::Ending => {
                    let told = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.stage = Stage::Ended;
                    told
                }
                Stage::Open => {
                    if self.poll_fill(cx, from, scratch)?.is_ready() {
                        continue;
                    }
                    // What TLS has encrypted may still be on our side. If it stays there, this task is woken for it.
                    match Pin::new(&mut *to).poll_flush(cx) {
                        Poll::Ready(Err(error)) => Err(error),
                        _ => return Poll::Pending,
                    }
                }
            };
            if let Err(error) = written {
                self.broken = Some(error);
                self.stage = Stage::Ended;
            }
        }
    }

    /// Writes what is there.
    fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        moved: &mut usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .buffer
            .get(self.at..self.filled)
            .filter(|rest| !rest.is_empty())
        {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
            *moved += count;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once into a buffer of the worker's, which is given back if there was nothing.
    fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        scratch: &Scratch,
    ) -> Poll<io::Result<()>> {
        if self.buffer.len() != BLOCK_BYTES {
            self.buffer = scratch.take_block();
        }
        (self.at, self.filled) = (0, 0);
        let mut space = ReadBuf::new(&mut self.buffer);
        let poll = Pin::new(from).poll_read(cx, &mut space);
        self.filled = space.filled().len();
        if poll.is_ready() && self.filled == 0 {
            self.stage = Stage::Ending;
        }
        if self.filled == 0 {
            scratch.put_block(std::mem::take(&mut self.buffer));
        }
        poll
    }
}
