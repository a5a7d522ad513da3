//! Bodies on their way through, piece by piece, in both directions.
//!
//! Owns the streaming: nothing is held back or collected, a piece is read when the other side has taken the last. It must
//! not know why a body ends; dropping one early means that its reader went away.
//!
//! Invariant: a [`ResponseBody`] that reaches its end gives its upstream connection back exactly once; one that does not
//! closes it.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{client::Watch, forward::Exchange, http2::Upload, journey::Journey, straight::Pieces};
use crate::http1::is_about_message;

/// Of a response that nobody gets; a longer one ends with its connection.
const DISCARDED_PIECES_MAX: usize = 4;

/// The body of a request to a backend.
pub(super) enum RequestBody {
    /// None, so the request can be sent again.
    Empty,
    /// The client's, as it arrives.
    Client(ClientBody),
}

/// What brings a request's body.
pub(super) enum Arriving {
    /// The HTTP library's whole connection.
    Library(Incoming),
    /// One of many on a connection.
    Stream(Upload),
    /// There is none.
    Nothing,
}

/// A request body as it arrives from the client.
pub(super) struct ClientBody {
    arriving: Arriving,
    watch: Rc<Watch>,
    bytes: Rc<Cell<u64>>,
}

impl RequestBody {
    /// `bytes` counts what has gone through.
    pub(super) fn new(arriving: Arriving, watch: &Rc<Watch>, bytes: &Rc<Cell<u64>>) -> Self {
        if arriving.is_over() {
            return Self::Empty;
        }
        Self::Client(ClientBody {
            arriving,
            watch: watch.clone(),
            bytes: bytes.clone(),
        })
    }
}

impl Arriving {
    /// Whether there is nothing of it to come. Then the request can be sent again.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Library(incoming) => incoming.is_end_stream(),
            Self::Stream(upload) => upload.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self {
            Self::Library(incoming) => {
                let poll = Pin::new(incoming).poll_frame(cx);
                poll.map(|frame| frame.map(|frame| frame.map_err(UploadError::Library)))
            }
            Self::Stream(upload) => {
                let poll = Pin::new(upload).poll_frame(cx);
                poll.map(|frame| frame.map(|frame| frame.map_err(UploadError::Stream)))
            }
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Library(incoming) => incoming.size_hint(),
            Self::Stream(upload) => upload.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

/// What ends a request's body early. A backend with HTTP/2 is told the reason that is in the cause.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The client's connection failed, or what it sent is no body.
    #[error("{0}")]
    Library(#[source] hyper::Error),
    /// The same, of one request among many; or its client gave it up.
    #[error("{0}")]
    Stream(#[source] h2::Error),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Self::Client(body) = &mut *self else {
            return Poll::Ready(None);
        };
        let mut poll = body.arriving.poll_frame(cx);
        match &mut poll {
            Poll::Ready(Some(Ok(frame))) => drop_forbidden(frame),
            Poll::Ready(Some(Err(_))) => body.watch.fail_body(),
            _ => {}
        }
        body.watch.wait_for_body(poll.is_pending());
        if let Poll::Ready(Some(Ok(frame))) = &poll
            && let Some(data) = frame.data_ref()
        {
            body.bytes.set(body.bytes.get() + data.len() as u64);
            body.watch.body_moved(data.len() as u64);
            body.watch.extend_backend();
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.arriving.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.arriving.size_hint(),
        }
    }
}

/// Trailers must not say what was decided before the body came.
fn drop_forbidden(frame: &mut Frame<Bytes>) {
    let Some(trailers) = frame.trailers_mut() else {
        return;
    };
    while let Some(name) = trailers
        .keys()
        .find(|name| is_about_message(name.as_str()))
        .cloned()
    {
        trailers.remove(name);
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.watch.wait_for_body(false);
    }
}

/// The body of a response to a client.
pub(super) struct ResponseBody {
    source: Source,
    /// Ends with the body.
    journey: Option<Journey>,
    /// Of a request among many on a connection: that its client takes what is handed on cannot be seen at a socket.
    watch: Option<Rc<Watch>>,
}

/// What is large is boxed: bodies are handed on a dozen times, and an allocation costs less than that.
enum Source {
    /// Made here.
    Full(Option<Bytes>),
    /// A backend's, as it arrives.
    Backend {
        incoming: Incoming,
        exchange: Box<Exchange>,
    },
    /// The same, without the library.
    Straight(Box<Pieces>),
    /// Over.
    Done,
}

impl ResponseBody {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self {
            source: Source::Full(Some(bytes)),
            journey: None,
            watch: None,
        }
    }

    /// None.
    pub(super) fn none() -> Self {
        Self {
            source: Source::Done,
            journey: None,
            watch: None,
        }
    }

    /// A backend's body. The exchange ends with it, at once if there is none.
    pub(super) fn backend(incoming: Incoming, exchange: Exchange) -> Self {
        if incoming.is_end_stream() {
            exchange.complete();
            return Self {
                source: Source::Done,
                journey: None,
                watch: None,
            };
        }
        Self {
            source: Source::Backend {
                incoming,
                exchange: Box::new(exchange),
            },
            journey: None,
            watch: None,
        }
    }

    /// A backend's body that is read here.
    pub(super) fn straight(pieces: Box<Pieces>) -> Self {
        let source = match pieces.left() {
            Some(0) => {
                pieces.complete();
                Source::Done
            }
            _ => Source::Straight(pieces),
        };
        Self {
            source,
            journey: None,
            watch: None,
        }
    }

    /// A backend's that is read here, whose own fields say all of it that is known.
    pub(super) fn is_straight(&self) -> bool {
        matches!(self.source, Source::Straight(_))
    }

    /// Nobody gets it. What of it has arrived is read, so that a connection whose response is whole is kept.
    pub(super) async fn discard(mut self) {
        poll_fn(|cx| {
            for _ in 0..DISCARDED_PIECES_MAX {
                if !matches!(Pin::new(&mut self).poll_frame(cx), Poll::Ready(Some(Ok(_)))) {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Notes whether the next piece is asked for.
    pub(super) fn watch(&mut self, watch: &Rc<Watch>) {
        self.watch = Some(watch.clone());
    }

    /// Ties the request's end to the body's. Of a response to HEAD, nobody reads the body.
    pub(super) fn carry(&mut self, journey: Journey, is_head: bool) {
        match self.source {
            Source::Done => journey.complete(),
            Source::Full(_) if is_head => {
                // With HTTP/2 the library would send it all the same.
                if self.watch.is_some() {
                    self.source = Source::Done;
                }
                journey.complete();
            }
            _ => self.journey = Some(journey),
        }
    }

    /// The last byte was handed on.
    fn complete(&mut self) {
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Backend { exchange, .. } => exchange.complete(),
            Source::Straight(pieces) => pieces.complete(),
            Source::Full(_) | Source::Done => {}
        }
        if let Some(journey) = self.journey.take() {
            journey.complete();
        }
    }
}

/// What ends a response early. The client sees a connection that breaks off, never a clean end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The backend's connection failed, or what it sent was not a body.
    #[error(transparent)]
    Backend(#[from] hyper::Error),
    /// The same, of one that was read here.
    #[error("backend broke its response off")]
    Broken,
    /// The backend stopped sending.
    #[error("backend stopped sending")]
    Timeout,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let (poll, is_last) = match &mut this.source {
            Source::Done => return Poll::Ready(None),
            Source::Full(bytes) => (
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
                true,
            ),
            Source::Backend { incoming, exchange } => {
                let poll = poll_backend(incoming, exchange, cx);
                let is_last = incoming.is_end_stream();
                (poll, is_last)
            }
            Source::Straight(pieces) => {
                let poll = pieces.poll_next(cx);
                (poll, pieces.left() == Some(0))
            }
        };
        match &poll {
            Poll::Ready(None) => this.complete(),
            // Nothing follows trailers, and not everybody asks again after them.
            Poll::Ready(Some(Ok(frame))) if is_last || frame.is_trailers() => this.complete(),
            _ => {}
        }
        if let Some(watch) = &this.watch {
            watch.wait_for_client(matches!(poll, Poll::Ready(Some(Ok(_)))));
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Done => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Backend { incoming, .. } => incoming.is_end_stream(),
            Source::Straight(pieces) => pieces.left() == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Done => SizeHint::with_exact(0),
            Source::Straight(pieces) => pieces.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Backend { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// The next piece, and what is noted of it.
#[inline]
fn poll_backend(
    incoming: &mut Incoming,
    exchange: &mut Exchange,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let poll = exchange.poll_body(incoming, cx);
    match poll {
        Poll::Ready(Some(Ok(frame))) => {
            exchange.received(frame.data_ref().map_or(0, Bytes::len));
            Poll::Ready(Some(Ok(frame)))
        }
        Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
        Poll::Ready(None) => Poll::Ready(None),
        Poll::Pending if exchange.has_stalled() => Poll::Ready(Some(Err(BodyError::Timeout))),
        Poll::Pending => {
            exchange.wait(cx);
            Poll::Pending
        }
    }
}
