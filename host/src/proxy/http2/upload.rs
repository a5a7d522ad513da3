//! The body of a request that is one of many on a connection, as it comes.
//!
//! Owns what is taken of it, which makes room for more in the client's windows. It must not know where it goes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};

/// A request's body.
pub(in crate::proxy) struct Upload {
    stream: RecvStream,
    /// How many bytes are to come, if the client has said so; that it keeps its word is the library's to see.
    left: Option<u64>,
    is_data_over: bool,
}

impl Upload {
    pub(super) fn new(stream: RecvStream, fields: &HeaderMap) -> Self {
        let length = || fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        Self {
            left: if stream.is_end_stream() { Some(0) } else { length() },
            stream,
            is_data_over: false,
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_data_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // Fails only where nothing more comes anyway.
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(failed(error)),
                None => self.is_data_over = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => failed(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A reset without an error says that no more is needed (RFC 9113, 8.1).
fn failed(error: h2::Error) -> Option<Result<Frame<Bytes>, h2::Error>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
}
