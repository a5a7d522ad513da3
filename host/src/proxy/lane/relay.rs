//! A response on its way to the client: its head, and its body piece by piece.
//!
//! Owns the streaming: a piece is read when the client has taken the last. It must not know what the head says beyond its
//! framing.
//!
//! Invariant: the backend's connection is given back only after a complete response with nothing behind it; a response
//! that breaks off ends the client's connection, and never looks complete.

use std::{future::poll_fn, task::Poll};

use super::{End, Lane};
use crate::{
    http1::{Chunks, Framing, Reply, write_chunk},
    proxy::{
        client::Socket,
        ledger::Ledger,
        plain::{Input, Pipe, Plain},
    },
};

/// So many bytes are copied faster than the system takes a second slice.
const COPIED_MAX: usize = 4096;
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl<S: Socket> Lane<'_, S> {
    /// Gives the client the head that is in the pipe, and the body. True if the client's connection goes on.
    pub(super) async fn relay(
        &mut self,
        mut ledger: Ledger,
        mut connection: Plain,
        reply: &Reply,
        pipe: &mut Pipe,
    ) -> Result<bool, End> {
        // As the head in the pipe says it.
        let goes_on = !self.closes();
        let ends = !goes_on && self.has_uploaded();
        let is_told = match reply.framing {
            Framing::Empty if ends => self.tell_last(&pipe.out).await,
            Framing::Empty => self.tell((&pipe.out, &[]), &mut ledger, &mut connection).await,
            Framing::Length(length) => {
                self.relay_length((&mut ledger, &mut connection), (length, ends), pipe)
                    .await
            }
            Framing::Chunked => self.relay_chunks(&mut ledger, &mut connection, pipe).await,
            Framing::Close => self.relay_rest(&mut ledger, &mut connection, pipe).await,
        };
        if !is_told {
            return Err(End::Gone);
        }
        // A backend that took no more of the body is in the middle of it.
        if reply.keeps_alive && pipe.input.unread().is_empty() && !self.upload.is_refused() {
            if !self.has_uploaded() && !self.finish_upload(&mut ledger, &mut connection).await {
                return Ok(false);
            }
            ledger.keep(connection);
        }
        Ok(goes_on)
    }

    /// `ends`: so does the connection.
    async fn relay_length(
        &mut self,
        (ledger, connection): (&mut Ledger, &mut Plain),
        (length, ends): (u64, bool),
        pipe: &mut Pipe,
    ) -> bool {
        let mut left = length;
        loop {
            let piece = pipe.input.unread();
            let piece = &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            let taken = piece.len();
            ledger.received(taken);
            let is_told = if taken <= COPIED_MAX {
                pipe.out.extend_from_slice(piece);
                if ends && taken as u64 == left {
                    pipe.input.take(taken);
                    return self.tell_last(&pipe.out).await;
                }
                self.tell((&pipe.out, &[]), ledger, connection).await
            } else {
                self.tell((&pipe.out, piece), ledger, connection).await
            };
            if !is_told {
                return false;
            }
            pipe.out.clear();
            pipe.input.take(taken);
            left -= taken as u64;
            if left == 0 {
                return true;
            }
            pipe.input.widen(left, &self.client.worker.scratch);
            if self
                .fill(ledger, connection, &mut pipe.input)
                .await
                .is_none_or(|read| read == 0)
            {
                return false;
            }
        }
    }

    async fn relay_chunks(&mut self, ledger: &mut Ledger, connection: &mut Plain, pipe: &mut Pipe) -> bool {
        let mut chunks = Chunks::default();
        loop {
            while let Ok((run, used)) = chunks.next(pipe.input.unread()) {
                let run = run
                    .inspect(|run| write_chunk(&mut pipe.out, run))
                    .map(<[u8]>::len);
                pipe.input.take(used);
                match run {
                    Some(bytes) => ledger.received(bytes),
                    None => break,
                }
            }
            if chunks.is_over() {
                pipe.out.extend_from_slice(LAST_CHUNK);
                return self.tell((&pipe.out, &[]), ledger, connection).await;
            }
            if !pipe.input.unread().is_empty() || !self.tell((&pipe.out, &[]), ledger, connection).await {
                return false;
            }
            pipe.out.clear();
            if self
                .fill(ledger, connection, &mut pipe.input)
                .await
                .is_none_or(|read| read == 0)
            {
                return false;
            }
        }
    }

    /// A body that ends with the connection goes on in chunks.
    async fn relay_rest(&mut self, ledger: &mut Ledger, connection: &mut Plain, pipe: &mut Pipe) -> bool {
        loop {
            let piece = pipe.input.unread();
            let taken = piece.len();
            write_chunk(&mut pipe.out, piece);
            ledger.received(taken);
            pipe.input.take(taken);
            if !self.tell((&pipe.out, &[]), ledger, connection).await {
                return false;
            }
            pipe.out.clear();
            match self.fill(ledger, connection, &mut pipe.input).await {
                None => return false,
                Some(0) => return self.tell((LAST_CHUNK, &[]), ledger, connection).await,
                Some(_) => {}
            }
        }
    }

    /// Waits for more of the body: how many bytes, 0 at the connection's end. `None` if there will be no more.
    async fn fill(
        &mut self,
        ledger: &mut Ledger,
        connection: &mut Plain,
        input: &mut Input,
    ) -> Option<usize> {
        poll_fn(|cx| {
            if self.pump(cx, ledger, connection).is_err() {
                return Poll::Ready(None);
            }
            match connection.poll_fill(cx, input) {
                Poll::Ready(read) => Poll::Ready(read.ok()),
                Poll::Pending if ledger.has_stalled() || self.is_gone(cx) => Poll::Ready(None),
                Poll::Pending => {
                    ledger.wait(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Writes to the client, whose body goes on meanwhile if there is more of it. False if the client is gone.
    async fn tell(
        &mut self,
        (first, second): (&[u8], &[u8]),
        ledger: &mut Ledger,
        connection: &mut Plain,
    ) -> bool {
        let mut written = 0;
        poll_fn(|cx| {
            let poll = self.stream.poll_write_two(cx, first, second, &mut written);
            if poll.is_pending() && self.pump(cx, ledger, connection).is_err() {
                return Poll::Ready(false);
            }
            poll
        })
        .await
    }

    /// Writes the last of a response that the connection ends with, and that is all there is of the request. False if the
    /// client is gone.
    async fn tell_last(&mut self, bytes: &[u8]) -> bool {
        let mut written = 0;
        poll_fn(|cx| self.stream.poll_write_last(cx, bytes, &mut written)).await
    }
}
