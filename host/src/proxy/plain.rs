//! A connection to a backend as it is, without a library around it, and the buffers of an exchange over it.
//!
//! Owns reading and writing without blocking. It must not know HTTP.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{scratch::Scratch, upstream::Wire};

/// Room for most responses.
const INPUT_BYTES: usize = 16 << 10;
/// Room for a response's head, and for the pieces of a long body.
pub(super) const INPUT_MAX: usize = 128 << 10;
const OUT_BYTES: usize = 4 << 10;

/// A connection to a backend.
pub(super) struct Plain {
    wire: Wire,
    /// When it was opened, as its store counts.
    pub(super) era: u64,
    /// It has carried a request before, so the backend may have closed it meanwhile.
    pub(super) is_reused: bool,
}

impl Plain {
    pub(super) fn new(wire: Wire, era: u64) -> Self {
        Self {
            wire,
            era,
            is_reused: false,
        }
    }

    /// Whether it is good, as far as can be known without asking the network.
    #[inline]
    pub(super) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Reads once. 0 at the end of the stream.
    #[inline]
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, input: &mut Input) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(input.space());
        ready!(Pin::new(&mut self.wire).poll_read(cx, &mut space))?;
        let read = space.filled().len();
        input.filled += read;
        Poll::Ready(Ok(read))
    }

    /// Writes one slice after the other; `written` counts over both.
    #[inline]
    pub(super) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        ready!(poll_write_two(&mut self.wire, cx, first, second, written))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }
}

/// Writes one slice after the other; `written` counts over both.
#[inline]
pub(super) fn poll_write_two<W: AsyncWrite + Unpin>(
    stream: &mut W,
    cx: &mut Context<'_>,
    first: &[u8],
    second: &[u8],
    written: &mut usize,
) -> Poll<io::Result<()>> {
    while *written < first.len() + second.len() {
        let stream = Pin::new(&mut *stream);
        let count = match first.get(*written..) {
            Some(rest) if rest.is_empty() || second.is_empty() => {
                let rest = if rest.is_empty() { second } else { rest };
                ready!(stream.poll_write(cx, rest))?
            }
            Some(rest) => {
                let slices = [IoSlice::new(rest), IoSlice::new(second)];
                ready!(stream.poll_write_vectored(cx, &slices))?
            }
            None => {
                let rest = second.get(*written - first.len()..).unwrap_or_default();
                ready!(stream.poll_write(cx, rest))?
            }
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        *written += count;
    }
    Poll::Ready(Ok(()))
}

/// What was read of a backend and not yet passed on.
pub(super) struct Input {
    bytes: Vec<u8>,
    at: usize,
    filled: usize,
    /// What it had before it was widened; empty otherwise.
    narrow: Vec<u8>,
}

impl Input {
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.at..self.filled).unwrap_or_default()
    }

    /// So many bytes were passed on.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        self.at += bytes;
        if self.at >= self.filled {
            (self.at, self.filled) = (0, 0);
        }
    }

    /// Makes room for more of a head. False if it is too large.
    pub(super) fn make_room(&mut self) -> bool {
        if self.at > 0 {
            self.bytes.copy_within(self.at..self.filled, 0);
            (self.at, self.filled) = (0, self.filled - self.at);
        }
        if self.filled == self.bytes.len() && self.filled < INPUT_MAX {
            self.bytes.resize(self.filled * 2, 0);
        }
        self.filled < self.bytes.len()
    }

    /// Larger pieces for a body of which so much is left, in a buffer of the worker's: to grow one for each response would
    /// have it cleared each time. Only once all that was read has been passed on: what is in that buffer is somebody else's.
    #[inline]
    pub(super) fn widen(&mut self, left: u64, scratch: &Scratch) {
        let is_small = left > self.bytes.len() as u64 && self.bytes.len() < INPUT_MAX;
        if is_small && self.unread().is_empty() {
            self.narrow = std::mem::replace(&mut self.bytes, scratch.take_wide());
        }
    }

    /// The opposite of [`Self::widen`]: the buffer that goes back to the worker.
    fn narrow(&mut self) -> Option<Vec<u8>> {
        let is_wide = !self.narrow.is_empty();
        is_wide.then(|| std::mem::replace(&mut self.bytes, std::mem::take(&mut self.narrow)))
    }

    #[inline]
    fn space(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    fn clear(&mut self) {
        (self.at, self.filled) = (0, 0);
    }
}

/// The buffers of an exchange.
pub(super) struct Pipe {
    /// From the backend.
    pub(super) input: Input,
    /// To the backend, and then to the client: heads, and whatever is not passed on as it is.
    pub(super) out: Vec<u8>,
}

impl Default for Pipe {
    fn default() -> Self {
        let mut pipe = Self::HOLLOW;
        pipe.input.bytes = vec![0; INPUT_BYTES];
        pipe.out = Vec::with_capacity(OUT_BYTES);
        pipe
    }
}

impl Pipe {
    /// One without buffers.
    pub(super) const HOLLOW: Self = Self {
        input: Input {
            bytes: Vec::new(),
            at: 0,
            filled: 0,
            narrow: Vec::new(),
        },
        out: Vec::new(),
    };

    /// Lends the buffers to others while a response is waited for, which takes longer than all else: so the same few go from
    /// request to request, and stay in the processor's caches.
    #[inline]
    pub(super) fn lend(&mut self, scratch: &Scratch) {
        scratch.put_pipe(std::mem::replace(self, Self::HOLLOW));
    }

    /// Has buffers again, whosever they were.
    #[inline]
    pub(super) fn take_back(&mut self, scratch: &Scratch) {
        if self.is_hollow() {
            *self = scratch.take_pipe();
        }
    }

    /// Whether it has no buffers of its own.
    #[inline]
    pub(super) fn is_hollow(&self) -> bool {
        self.input.bytes.is_empty()
    }

    /// An attempt begins.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.input.clear();
        self.out.clear();
    }

    /// Gives back what it grew by, and what it borrowed.
    #[inline]
    pub(super) fn shrink(&mut self) -> Option<Vec<u8>> {
        self.begin();
        let wide = self.input.narrow();
        if self.input.bytes.len() > INPUT_BYTES {
            self.input.bytes.truncate(INPUT_BYTES);
            self.input.bytes.shrink_to_fit();
        }
        if self.out.capacity() > 2 * INPUT_BYTES {
            self.out = Vec::with_capacity(OUT_BYTES);
        }
        wide
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_buffer_goes_back_to_the_worker_and_comes_again() {
        let scratch = Scratch::default();
        let mut pipe = scratch.take_pipe();
        pipe.input.widen(1 << 20, &scratch);
        assert_eq!(pipe.input.space().len(), INPUT_MAX);
        pipe.input.space()[0] = b'x';
        scratch.put_pipe(pipe);
        let mut pipe = scratch.take_pipe();
        assert_eq!(pipe.input.space().len(), INPUT_BYTES);
        pipe.input.widen(INPUT_BYTES as u64 + 1, &scratch);
        assert_eq!(
            (pipe.input.space().len(), pipe.input.space()[0]),
            (INPUT_MAX, b'x')
        );
    }

    #[test]
    fn buffers_that_are_lent_serve_another_meanwhile() {
        let scratch = Scratch::default();
        let (mut one, mut other) = (scratch.take_pipe(), Pipe::HOLLOW);
        one.input.space()[0] = b'x';
        one.out.push(b'y');
        one.lend(&scratch);
        assert!(one.is_hollow());
        other.take_back(&scratch);
        assert_eq!((other.input.space()[0], other.out.len()), (b'x', 0));
        one.take_back(&scratch);
        assert_eq!((one.input.space().len(), one.input.space()[0]), (INPUT_BYTES, 0));
        // What has buffers keeps them.
        one.input.space()[0] = b'z';
        one.take_back(&scratch);
        assert_eq!(one.input.space()[0], b'z');
    }

    #[test]
    fn nothing_is_kept_of_what_has_no_buffers() {
        let scratch = Scratch::default();
        scratch.put_pipe(Pipe::HOLLOW);
        assert!(!scratch.take_pipe().is_hollow());
    }

    #[test]
    fn what_fits_needs_no_wide_buffer() {
        let scratch = Scratch::default();
        let mut pipe = scratch.take_pipe();
        pipe.input.widen(INPUT_BYTES as u64, &scratch);
        assert_eq!(pipe.input.space().len(), INPUT_BYTES);
    }
}
