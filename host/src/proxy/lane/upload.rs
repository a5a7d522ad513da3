//! What of a request's body had not come with its head, on its way to the backend.
//!
//! Owns the streaming: a piece is read when the backend has taken the last, whatever else the exchange waits for
//! meanwhile, since a backend may answer before it has it all. It must not know what is answered.
//!
//! Invariant: a byte of the body is read here or into the inbox, and never twice; a client is waited for only while its
//! backend could take more.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::{Broken, Lane};
use crate::proxy::{client::Socket, ledger::Ledger, plain::Plain};

/// What is read of a body that nobody takes, to keep the connection; a client with more to say is let go.
const SKIPPED_MAX: u64 = 256 << 10;

/// A piece that was read and not yet passed on.
#[derive(Default)]
pub(super) struct Upload {
    /// A buffer of the worker's while there is a piece; empty otherwise.
    piece: Vec<u8>,
    at: usize,
    filled: usize,
    /// The backend takes no more.
    is_refused: bool,
}

impl Upload {
    /// An attempt begins.
    #[inline]
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }

    /// Whether the backend has had a part of the body, and takes no more.
    #[inline]
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    fn unsent(&self) -> &[u8] {
        self.piece.get(self.at..self.filled).unwrap_or_default()
    }
}

impl<S: Socket> Lane<'_, S> {
    /// Whether nothing more of the body goes to the backend.
    #[inline]
    pub(super) fn has_uploaded(&self) -> bool {
        (self.inbox.rest() == 0 && self.upload.at == self.upload.filled) || self.upload.is_refused
    }

    /// Moves the body on as far as it goes.
    ///
    /// # Errors
    /// When the client has broken it off.
    #[inline]
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        ledger: &mut Ledger,
        connection: &mut Plain,
    ) -> Result<(), Broken> {
        if self.has_uploaded() {
            return Ok(());
        }
        let moved = self.move_on(cx, ledger, connection);
        if self.upload.unsent().is_empty() {
            let scratch = &self.client.worker.scratch;
            scratch.put_wide(std::mem::take(&mut self.upload.piece));
        }
        moved
    }

    fn move_on(
        &mut self,
        cx: &mut Context<'_>,
        ledger: &mut Ledger,
        connection: &mut Plain,
    ) -> Result<(), Broken> {
        let watch = &self.client.watch;
        loop {
            match self.upload.poll_send(cx, ledger, connection) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    watch.wait_for_body(false);
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
            let rest = usize::try_from(self.inbox.rest()).unwrap_or(usize::MAX);
            if rest == 0 {
                return Ok(());
            }
            let upload = &mut self.upload;
            if upload.piece.is_empty() {
                upload.piece = self.client.worker.scratch.take_wide();
            }
            let size = rest.min(upload.piece.len());
            let mut space = ReadBuf::new(&mut upload.piece[..size]);
            let poll = Pin::new(&mut self.stream).poll_read(cx, &mut space);
            let read = space.filled().len();
            watch.wait_for_body(poll.is_pending());
            match poll {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if read > 0 => {
                    (upload.at, upload.filled) = (0, read);
                    self.inbox.skip(read as u64);
                    watch.body_moved(read as u64);
                    watch.extend_backend();
                }
                Poll::Ready(_) => return Err(Broken::Body),
            }
        }
    }

    /// After a response that was quicker than the body: the rest of that, as long as the backend takes it. True if both
    /// connections can carry another request.
    pub(super) async fn finish_upload(&mut self, ledger: &mut Ledger, connection: &mut Plain) -> bool {
        poll_fn(|cx| {
            if self.pump(cx, ledger, connection).is_err() {
                return Poll::Ready(false);
            }
            if self.has_uploaded() {
                return Poll::Ready(!self.upload.is_refused);
            }
            if ledger.has_stalled() {
                return Poll::Ready(false);
            }
            ledger.wait(cx);
            Poll::Pending
        })
        .await
    }

    /// Takes what is there of a body that nobody wants. True if that was all of it.
    pub(super) async fn skip_body(&mut self) -> bool {
        if self.inbox.rest() == 0 {
            return true;
        }
        let mut piece = self.client.worker.scratch.take_wide();
        let mut skipped = 0;
        let is_whole = poll_fn(|cx| {
            while self.inbox.rest() > 0 && skipped < SKIPPED_MAX {
                let rest = usize::try_from(self.inbox.rest()).unwrap_or(usize::MAX);
                let size = rest.min(piece.len());
                let mut space = ReadBuf::new(&mut piece[..size]);
                let poll = Pin::new(&mut self.stream).poll_read(cx, &mut space);
                let read = space.filled().len() as u64;
                if read == 0 || !matches!(poll, Poll::Ready(Ok(()))) {
                    break;
                }
                self.inbox.skip(read);
                skipped += read;
            }
            Poll::Ready(self.inbox.rest() == 0)
        })
        .await;
        self.client.worker.scratch.put_wide(piece);
        // What was read looked like the next request.
        self.client.watch.request_ended();
        is_whole
    }
}

impl Upload {
    /// Sends the piece at hand. False if the backend takes no more, which its response or its end tells the reason of.
    fn poll_send(&mut self, cx: &mut Context<'_>, ledger: &mut Ledger, connection: &mut Plain) -> Poll<bool> {
        while self.at < self.filled {
            let unsent = self.piece.get(self.at..self.filled).unwrap_or_default();
            let mut written = 0;
            let poll = connection.poll_write_two(cx, unsent, &[], &mut written);
            self.at += written;
            ledger.uploaded(written);
            match poll {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => {
                    (self.at, self.filled, self.is_refused) = (0, 0, true);
                    return Poll::Ready(false);
                }
            }
        }
        Poll::Ready(true)
    }
}
