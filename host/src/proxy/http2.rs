//! HTTP/2 with a client, by way of the HTTP library: one connection with many requests at once.
//!
//! Owns how a connection begins and ends, and what one may use. Each request is served like any other (`serve.rs`), as a
//! client of its own with a watch of its own, since each waits for somebody else.
//!
//! Invariant: a request is counted as open from its head until its task ends, however that comes about; a connection
//! without open requests is quiet, and ends after a while.
//! Read next: `http2/streams.rs`, then `http2/cork.rs`, `http2/meter.rs`, `http2/rules.rs` and `http2/fields.rs`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::server::{self, Handshake};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::{ClientStream, Socket},
    prefixed::Prefixed,
    serve::Client,
};
use crate::config::{self, Http2};

mod cork;
mod fields;
mod meter;
mod rules;
mod stream;
mod streams;
mod through;
mod upload;
mod wakes;

use cork::Cork;
use meter::Metered;
use streams::Streams;

pub(super) use stream::Server;
pub(super) use upload::Upload;

/// How every connection begins (RFC 9113, 3.4). As HTTP/1.1 it would be a request that nobody makes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests that were given up before we came to look at them.
const UNSEEN_RESETS_MAX: usize = 20;
/// Requests that we gave up because of what the client sent.
const OWN_RESETS_MAX: usize = 100;
/// What of responses is kept for each request until the client takes it.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// As much of a request's body as its client may put into one frame: what every peer has to take (RFC 9113, 6.5.2).
const FRAME_BYTES: u32 = 16 << 10;
/// How often in a turn the library and the requests take turns before others of the worker do: what the one hands to the other
/// is mostly done by the second time.
const ROUNDS_MAX: usize = 8;

/// Whether a connection that began with these bytes, of which HTTP/1.1 makes nothing, is one of HTTP/2.
pub(super) fn begins(bytes: &[u8]) -> bool {
    !bytes.is_empty() && (bytes.starts_with(PREFACE) || PREFACE.starts_with(bytes))
}

/// Serves the connection to its end.
pub(super) async fn serve_connection<S: Socket>(
    client: Rc<Client>,
    stream: Prefixed<ClientStream<S>>,
    listener: &config::Listener,
    http2: &Http2,
) {
    let watch = client.watch.clone();
    client
        .worker
        .metrics()
        .count(|metrics| &metrics.http2_connections);
    watch.all_ended();
    let cork = Cork::new(stream);
    let metered = Metered::new(cork.clone(), client.clone());
    let mut serving = Serving {
        stage: Stage::Handshake(Box::new(builder(listener, http2).handshake(metered))),
        streams: poll_fn(|cx| Poll::Ready(Streams::new(client.clone(), cx.waker()))).await,
        ends: false,
    };
    // How a connection ends is the client's business; what matters of it is counted where it happens.
    poll_fn(|_| {
        watch.remember(serving.streams.waker());
        let was_quiet = watch.take_quiet();
        if was_quiet && serving.ends {
            // It does not even answer to that.
            return Poll::Ready(());
        }
        if (was_quiet || watch.is_stopping()) && !serving.ends {
            watch.begin_stopping();
            serving.end();
        }
        cork.begin();
        let served = serving.poll();
        // All that came of this turn goes out at once. A socket that takes no more wakes this task when it does.
        let drained = cork.poll_drain(&mut Context::from_waker(serving.streams.waker()));
        serving.streams.wakes().rest();
        match drained {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => served,
        }
    })
    .await;
}

/// A connection and its requests, as one task.
struct Serving<T> {
    stage: Stage<T>,
    streams: Streams,
    /// The client has been told, or will be.
    ends: bool,
}

enum Stage<T> {
    /// Until the client's settings have come.
    Handshake(Box<Handshake<T, Bytes>>),
    Open(Box<server::Connection<T, Bytes>>),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Serving<T> {
    /// GOAWAY: what is under way is finished, and the client knows what was not looked at.
    fn end(&mut self) {
        self.ends = true;
        self.streams.waker().wake_by_ref();
        if let Stage::Open(connection) = &mut self.stage {
            connection.graceful_shutdown();
        }
    }

    /// Looks at the library and at the requests until neither has anything to do.
    fn poll(&mut self) -> Poll<()> {
        self.streams.wakes().begin();
        for _ in 0..ROUNDS_MAX {
            if self.streams.take_connection() && self.poll_library().is_ready() {
                return Poll::Ready(());
            }
            self.streams.poll();
            if !self.streams.wakes().is_any_marked() {
                break;
            }
        }
        Poll::Pending
    }

    /// Lets the library read and write. Ready when the connection has ended.
    fn poll_library(&mut self) -> Poll<()> {
        let waker = self.streams.waker().clone();
        let mut cx = Context::from_waker(&waker);
        loop {
            match &mut self.stage {
                Stage::Handshake(handshake) => match ready!(Pin::new(&mut **handshake).poll(&mut cx)) {
                    Ok(mut connection) => {
                        if self.ends {
                            connection.graceful_shutdown();
                        }
                        self.stage = Stage::Open(Box::new(connection));
                    }
                    Err(_) => return Poll::Ready(()),
                },
                Stage::Open(connection) => match ready!(connection.poll_accept(&mut cx)) {
                    Some(Ok((request, respond))) => self.streams.begin(request, respond),
                    Some(Err(_)) | None => return Poll::Ready(()),
                },
            }
        }
    }
}

fn builder(listener: &config::Listener, http2: &Http2) -> server::Builder {
    let header_bytes = u32::try_from(listener.limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(http2.streams)
        .initial_window_size(http2.stream_window)
        .initial_connection_window_size(http2.window)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(header_bytes)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(OWN_RESETS_MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_begins_with_the_preface_or_a_part_of_it() {
        assert!(begins(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"));
        assert!(begins(b"PRI * HTTP/2"));
        for other in [
            &b""[..],
            b"PRI * HTTP/2.0\r\n\r\nGET /",
            b"PRI / HTTP/1.1\r\n",
            b"GET",
        ] {
            assert!(!begins(other), "{other:?}");
        }
    }
}
