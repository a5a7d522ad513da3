//! What the bytes to and from a backend go over: a socket, plain or with TLS.
//!
//! Owns opening it, in time. It must not know what is spoken.

use std::{
    io::{self, IoSlice},
    num::NonZeroU32,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::uri::Scheme;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    pool::Backend,
    proxy_header::{self, Endpoints},
    tls::{ALPN_H2, Connectors, Offer},
};

/// How connections to the backends of a pool are opened.
pub(in crate::proxy) struct Dialing {
    /// Who counts them.
    pub(in crate::proxy) worker: usize,
    /// Most connections to one backend.
    pub(in crate::proxy) most: Option<NonZeroU32>,
    /// The whole of it, handshake included.
    pub(in crate::proxy) within: Duration,
    /// `None` for plain text.
    pub(in crate::proxy) tls: Option<Rc<Connectors>>,
    /// How each connection begins.
    pub(in crate::proxy) send_proxy: Option<proxy_header::Version>,
}

impl Dialing {
    /// As a request to the backend would name it.
    pub(in crate::proxy) fn scheme(&self) -> Scheme {
        match self.tls {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }
}

/// A connection to a backend.
pub(in crate::proxy) struct Wire {
    link: Link,
    /// `None` of one of many on a connection.
    _open: Option<Open>,
}

/// Counts as one of the connections to its backend until it is dropped.
struct Open {
    backend: Arc<Backend>,
    worker: usize,
}

impl Open {
    fn new(backend: &Arc<Backend>, worker: usize) -> Self {
        backend.load(worker).connection_opened();
        Self {
            backend: backend.clone(),
            worker,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.backend.load(self.worker).connection_closed();
    }
}

enum Link {
    Plain(TcpStream),
    /// Boxed because it is large, and connections move between their store and exchanges.
    Tls(Box<TlsStream<TcpStream>>),
    /// One of many on a connection of HTTP/2, as a tunnel.
    Stream(Box<TokioIo<Upgraded>>),
}

impl Wire {
    /// Opens a connection. Dropping this future closes what there is of it.
    pub(super) async fn open(
        backend: &Arc<Backend>,
        (dialing, told): (&Dialing, Option<Endpoints>),
        offer: Offer,
    ) -> io::Result<Self> {
        // Counted from the begin, so that no more are begun than may be.
        let open = Some(Open::new(backend, dialing.worker));
        let opening = tokio::time::timeout(dialing.within, Link::open(backend, (dialing, told), offer));
        let opened = opening
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok(Self {
            link: opened?,
            _open: open,
        })
    }

    /// One of many on a connection of HTTP/2, as a tunnel.
    pub(in crate::proxy) fn of_stream(stream: Upgraded) -> Self {
        Self {
            link: Link::Stream(Box::new(TokioIo::new(stream))),
            _open: None,
        }
    }

    /// Whether the backend has agreed to HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.link.speaks_http2()
    }

    /// What is dropped after this looks cut off, and not ended.
    pub(in crate::proxy) fn cut(&self) {
        self.link.cut();
    }

    /// Whether it is good, as far as can be known without asking the network. An unused connection has nothing to read.
    #[inline]
    pub(in crate::proxy) fn is_quiet(&mut self) -> bool {
        self.link.is_quiet()
    }
}

impl Link {
    async fn open(
        backend: &Backend,
        (dialing, told): (&Dialing, Option<Endpoints>),
        offer: Offer,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(backend.socket).await?;
        stream.set_nodelay(true)?;
        if let Some(version) = dialing.send_proxy {
            let mut header = Vec::new();
            proxy_header::write(version, told, &mut header);
            stream.write_all(&header).await?;
        }
        let Some(tls) = &dialing.tls else {
            return Ok(Self::Plain(stream));
        };
        let name = tls.originator().name_of(&backend.address)?;
        let shaken = tls.to(offer).connect(name, stream).await;
        let stream = shaken.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?;
        let link = Self::Tls(Box::new(stream));
        if offer == Offer::Http2 && !link.speaks_http2() {
            return Err(io::Error::other(
                "TLS: the backend does not agree to HTTP/2 (ALPN)",
            ));
        }
        Ok(link)
    }

    fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Stream(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(ALPN_H2),
        }
    }

    fn cut(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            // What is dropped there is reset.
            Self::Stream(_) => return,
        };
        // A connection that is gone needs no word.
        let _ = stream.set_zero_linger();
    }

    fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            // What TLS itself has to say, as a new ticket, is read and is nothing.
            Self::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                let mut byte = [0];
                Pin::new(stream)
                    .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
                    .is_pending()
            }
            // A tunnel is never unused.
            Self::Stream(_) => false,
        }
    }
}

impl AsyncRead for Wire {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().link {
            Link::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Link::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Link::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().link {
            Link::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Link::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Link::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().link {
            Link::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Link::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Link::Stream(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.link {
            Link::Plain(stream) => stream.is_write_vectored(),
            Link::Tls(stream) => stream.is_write_vectored(),
            Link::Stream(stream) => stream.is_write_vectored(),
        }
    }

    /// What TLS has encrypted may still be on our side.
    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().link {
            Link::Plain(_) => Poll::Ready(Ok(())),
            Link::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Link::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().link {
            Link::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
