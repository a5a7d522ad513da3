//! Requests that ask for another protocol on their connection (RFC 9110, 7.8), and the tunnel that comes of a 101.
//!
//! Owns which of them may ask, and the passing of bytes once both sides have agreed. It must not know the protocols, but
//! for what a WebSocket's request must have.
//!
//! Invariants: nothing that the client sends after its request reaches the backend before the backend's 101; without
//! one, the connection ends with the answer, so that those bytes never become a request.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    net::TcpStream,
};

use super::{
    client::{Socket, Watch},
    error::Error,
    forward::Exchange,
    guarded::Guarded,
};
use crate::config::Listener;

const WEBSOCKET: &str = "websocket";
const KEY: &str = "sec-websocket-key";
const VERSION: &str = "sec-websocket-version";

/// The protocol that a request asks for, if it may. What may not is an ordinary request without the question.
pub(super) fn asked(head: &Parts, listener: &Listener) -> Result<Option<HeaderValue>, Error> {
    if listener.upgrades.is_empty()
        || head.version != Version::HTTP_11
        || head.method != Method::GET
        || !names_upgrade(&head.headers)
        || has_body(&head.headers)
    {
        return Ok(None);
    }
    let mut protocols = head.headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
        return Ok(None);
    };
    let is_asked = |allowed: &&String| protocol.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
    let Some(allowed) = listener.upgrades.iter().find(is_asked) else {
        return Ok(None);
    };
    if allowed == WEBSOCKET {
        check_websocket(&head.headers)?;
    }
    Ok(Some(protocol.clone()))
}

/// RFC 6455, 4.2.1.
fn check_websocket(fields: &HeaderMap) -> Result<(), Error> {
    let mut keys = fields.get_all(KEY).iter();
    // 16 bytes in base64.
    if keys.next().is_none_or(|key| key.len() != 24) || keys.next().is_some() {
        return Err(Error::BadRequest(
            "a WebSocket needs a Sec-WebSocket-Key of 16 bytes",
        ));
    }
    match fields.get(VERSION) {
        Some(version) if version == "13" => Ok(()),
        _ => Err(Error::WebSocketVersion),
    }
}

fn names_upgrade(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

fn has_body(fields: &HeaderMap) -> bool {
    let length = fields.get(header::CONTENT_LENGTH);
    fields.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Puts the question, or its answer, among the fields that go on.
pub(super) fn announce(fields: &mut HeaderMap, protocol: &HeaderValue) {
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, protocol.clone());
}

/// Whether a backend agrees to what it was asked, and to nothing else.
pub(super) fn is_agreed<B>(response: &Response<B>, protocol: &HeaderValue) -> bool {
    let answered = response.headers().get(header::UPGRADE);
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        && answered.is_some_and(|answered| answered.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()))
}

/// Gives the client the backend's word. One that does not agree is the connection's last.
pub(super) fn answer<B>(response: &mut Response<B>, protocol: &HeaderValue) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        announce(response.headers_mut(), protocol);
    } else {
        close(response);
    }
}

/// An error in place of a backend's word is the connection's last just as well.
pub(super) fn refuse<B>(response: &mut Response<B>, head: &Parts, listener: &Listener) {
    if !matches!(asked(head, listener), Ok(None)) {
        close(response);
    }
}

fn close<B>(response: &mut Response<B>) {
    let closes = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, closes);
}

/// What is left of an exchange whose sides have agreed: the way to the backend.
pub(super) struct Tunnel {
    pub(super) stream: TcpStream,
    /// What the backend sent right after its 101.
    pub(super) early: Bytes,
    /// Counts as a request until the tunnel ends.
    pub(super) exchange: Exchange,
}

impl Tunnel {
    /// Passes bytes both ways until both sides have ended, or one breaks, or both are silent for too long. `early` is what
    /// the client sent before the backend agreed.
    pub(super) async fn run<S: Socket>(
        self,
        mut client: Guarded<S>,
        early: &[u8],
        watch: &Rc<Watch>,
    ) -> io::Result<()> {
        let Self {
            stream,
            early: late,
            exchange,
        } = self;
        watch.tunnel_moved();
        let mut backend = Counted {
            stream,
            exchange,
            watch: watch.clone(),
        };
        backend.write_all(early).await?;
        backend.exchange.received(late.len());
        client.write_all(&late).await?;
        client.flush().await?;
        copy_bidirectional(&mut client, &mut backend).await.map(drop)
    }
}

/// A backend's end of a tunnel: what passes here has passed the tunnel.
struct Counted {
    stream: TcpStream,
    exchange: Exchange,
    watch: Rc<Watch>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.exchange.received(buffer.filled().len() - before);
        self.watch.tunnel_moved();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.exchange.sent(count);
        self.watch.tunnel_moved();
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.exchange.sent(count);
        self.watch.tunnel_moved();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
