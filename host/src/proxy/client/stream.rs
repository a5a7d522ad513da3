//! A client's socket under watch: what is read and written notes what the connection waits for.
//!
//! Owns the sockets that there are, plain and with TLS, and the ends that the watch makes. It must not know HTTP beyond
//! the text of a 408 and a 414.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use rustix::net::{SendFlags, Shutdown, send, shutdown};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{Expired, Phase, Watch};
use crate::{http1::Inbox, proxy::plain::poll_write_two};

/// For the last bytes of a connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
const TIMEOUT_RESPONSE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// How the HTTP library's answer to a head that is too large begins. It does not say which part of it is.
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 ";
const TARGET_TOO_LONG_RESPONSE: &[u8] =
    b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What clients' bytes come from and go to.
pub(in crate::proxy) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Whether it has a last word: without it, a client with TLS cannot tell an end from a cut.
    const SAYS_GOODBYE: bool;

    /// Waits until a read would give something, without a buffer for it.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes what can be written at once. If the socket takes no more bytes there is nobody to tell.
    fn say(&mut self, bytes: &[u8]);

    /// As a write, of bytes that [`Self::end`] follows at once: where it can, the system sends both in one piece.
    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Sends what was held back for the end, and the end, whatever the client has sent that nobody reads.
    fn end(&self);

    /// What is dropped after this looks cut off, and not ended.
    fn cut(&self);
}

impl Socket for TcpStream {
    const SAYS_GOODBYE: bool = false;

    #[inline]
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn say(&mut self, bytes: &[u8]) {
        let _ = self.try_write(bytes);
    }

    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_io(Interest::WRITABLE, || Ok(send(&*self, bytes, flags)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn end(&self) {
        // A client that is gone needs no end.
        let _ = shutdown(self, Shutdown::Write);
    }

    fn cut(&self) {
        // A connection that is gone needs no word.
        let _ = self.set_zero_linger();
    }
}

/// Boxed because it is large, and connections go to a desk for each request.
pub(in crate::proxy) type Encrypted = Box<TlsStream<TcpStream>>;

impl Socket for Encrypted {
    const SAYS_GOODBYE: bool = true;

    #[inline]
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_fill_buf(cx).map_ok(drop)
    }

    fn say(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        if Pin::new(&mut *self).poll_write(&mut cx, bytes).is_ready() {
            let _ = Pin::new(self).poll_flush(&mut cx);
        }
    }

    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    /// Its end is a word of its own, which [`ClientStream::close`] waits for.
    fn end(&self) {}

    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

/// A client's socket under watch.
pub(in crate::proxy) struct ClientStream<S> {
    inner: S,
    watch: Rc<Watch>,
    /// Bytes may be held back for the connection's end.
    holds_last: bool,
}

impl<S: Socket> ClientStream<S> {
    pub(in crate::proxy) fn new(inner: S, watch: Rc<Watch>) -> Self {
        Self {
            inner,
            watch,
            holds_last: false,
        }
    }

    /// What a read gives on a connection that was ended by the watch.
    fn expire(&mut self) -> Option<io::Result<()>> {
        match self.watch.expired.get()? {
            Expired::Idle => None,
            Expired::Head => {
                if self.watch.phase.get() == Phase::Head {
                    self.inner.say(TIMEOUT_RESPONSE);
                }
                Some(Ok(()))
            }
            Expired::Body => Some(Err(self.give_up())),
        }
    }

    /// The client has taken too long. What it has not taken goes with the connection: closed in order, the system would
    /// keep it for as long as the client likes to take a byte now and then.
    #[cold]
    fn give_up(&self) -> io::Error {
        if self.watch.write_wait_ms.get() > 0 {
            self.inner.cut();
        }
        io::ErrorKind::TimedOut.into()
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
    fn replace_answer(&mut self, bytes: &[u8]) -> bool {
        let is_wrong = self.watch.line_is_open.get()
            && self.watch.phase.get() == Phase::Head
            && bytes.starts_with(TOO_LARGE);
        if is_wrong {
            self.inner.say(TARGET_TOO_LONG_RESPONSE);
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

impl<S: Socket> ClientStream<S> {
    /// Writes what can be written at once; if the socket takes no more bytes there is nobody to tell.
    pub(in crate::proxy) fn say(&mut self, bytes: &[u8]) {
        self.inner.say(bytes);
    }

    /// What is dropped after this looks cut off, and not ended.
    pub(in crate::proxy) fn cut(&self) {
        self.inner.cut();
    }

    /// Ends the connection in order.
    pub(in crate::proxy) async fn close(&mut self) {
        if !S::SAYS_GOODBYE {
            if self.holds_last {
                self.inner.end();
            }
            return;
        }
        // A client that takes nothing any more is not waited for.
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.inner.shutdown()).await;
    }
}

/// For those who read the bytes themselves (`lane.rs`).
impl<S: Socket> ClientStream<S> {
    /// Waits for the next request's first bytes, or the end, without a buffer for them.
    pub(in crate::proxy) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = self.expire() {
            return Poll::Ready(end);
        }
        let poll = self.inner.poll_readable(cx);
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
    pub(in crate::proxy) fn poll_fill(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<bool> {
        let mut space = ReadBuf::new(inbox.space());
        let result = ready!(Pin::new(self).poll_read(cx, &mut space));
        let read = space.filled().len();
        inbox.add(read);
        Poll::Ready(result.is_ok() && read > 0)
    }

    /// Whether the client went away while it was waiting. What it sends meanwhile is kept.
    #[inline]
    pub(in crate::proxy) fn is_gone(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> bool {
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

    /// Writes the connection's last bytes, which [`Self::close`] has to follow at once; `written` counts over all calls.
    /// False if the client is gone.
    pub(in crate::proxy) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<bool> {
        self.holds_last = true;
        while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
            if let Some(Expired::Body) = self.watch.expired.get() {
                self.give_up();
                return Poll::Ready(false);
            }
            let poll = self.inner.poll_write_last(cx, rest);
            self.watch_write(cx, &poll);
            match ready!(poll) {
                Ok(count) if count > 0 => *written += count,
                _ => return Poll::Ready(false),
            }
        }
        Pin::new(self).poll_flush(cx).map(|result| result.is_ok())
    }

    /// Writes one slice after the other; `written` counts over both. False if the client is gone.
    #[inline]
    pub(in crate::proxy) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
        written: &mut usize,
    ) -> Poll<bool> {
        let poll = poll_write_two(self, cx, first, second, written).map(|result| result.is_ok());
        match poll {
            // What TLS has encrypted may still be on our side; a plain socket has nothing to flush.
            Poll::Ready(true) => Pin::new(self).poll_flush(cx).map(|result| result.is_ok()),
            poll => poll,
        }
    }
}

impl<S: Socket> AsyncRead for ClientStream<S> {
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

impl<S: Socket> AsyncWrite for ClientStream<S> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(Expired::Body) = self.watch.expired.get() {
            return Poll::Ready(Err(self.give_up()));
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
            return Poll::Ready(Err(self.give_up()));
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
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        if poll.is_pending() {
            if let Some(Expired::Body) = self.watch.expired.get() {
                return Poll::Ready(Err(self.give_up()));
            }
            self.watch_write(cx, &poll);
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A client, and its connection as we see it.
    async fn connected() -> (TcpStream, ClientStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let watch = Rc::new(Watch::new(Rc::new(Cell::new(1))));
        (client, ClientStream::new(accepted, watch))
    }

    #[tokio::test]
    async fn the_last_bytes_and_the_end_arrive_though_the_client_has_said_more() {
        let (mut client, mut stream) = connected().await;
        client.write_all(b"more that nobody reads").await.unwrap();
        stream.inner.readable().await.unwrap();
        // Less than a segment, so that all of it is held back.
        let last = [b'x'; 1000];
        let mut written = 0;
        let mut read = Vec::new();
        let (is_told, _) = tokio::join!(
            async {
                let is_told = poll_fn(|cx| stream.poll_write_last(cx, &last, &mut written)).await;
                stream.close().await;
                drop(stream);
                is_told
            },
            // Ends with an error, since what nobody has read is lost.
            client.read_to_end(&mut read),
        );
        assert!(is_told);
        assert_eq!(read.len(), last.len());
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_not_told() {
        let (client, mut stream) = connected().await;
        client.set_zero_linger().unwrap();
        drop(client);
        stream.inner.readable().await.unwrap();
        let mut written = 0;
        assert!(!poll_fn(|cx| stream.poll_write_last(cx, b"bytes", &mut written)).await);
    }
}
