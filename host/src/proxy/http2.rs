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
    pin::pin,
    rc::Rc,
    task::Poll,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    client::{ClientStream, Socket},
    prefixed::Prefixed,
    serve::{Client, serve},
};
use crate::config::{self, Http2};

mod cork;
mod fields;
mod meter;
mod rules;
mod streams;

use cork::Cork;
use meter::Metered;
use streams::Streams;

/// How every connection begins (RFC 9113, 3.4). As HTTP/1.1 it would be a request that nobody makes.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests that were given up before we came to look at them.
const UNSEEN_RESETS_MAX: usize = 20;
/// Requests that we gave up because of what the client sent.
const OWN_RESETS_MAX: usize = 100;
/// What of responses is kept for each request until the client takes it.
const SEND_BUFFER_BYTES: usize = 128 << 10;

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
    let streams = Streams::new(client.clone());
    let service = {
        let streams = streams.clone();
        // Boxed because it is large, and the library moves it four times before it is first polled.
        service_fn(move |request| Box::pin(serve(streams.begin(), request)))
    };
    let cork = Cork::new(stream);
    let stream = Metered::new(cork.clone(), client);
    let server = builder(streams, listener, http2);
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    let mut was_told = false;
    // How a connection ends is the client's business; what matters of it is counted where it happens.
    let _ = poll_fn(|cx| {
        watch.remember(cx.waker());
        let was_quiet = watch.take_quiet();
        if was_quiet && was_told {
            // It does not even answer to that.
            return Poll::Ready(Ok(()));
        }
        if (was_quiet || watch.is_stopping()) && !was_told {
            was_told = true;
            watch.begin_stopping();
            // GOAWAY: what is under way is finished, and the client knows what was not looked at.
            serving.as_mut().graceful_shutdown();
        }
        let served = serving.as_mut().poll(cx);
        // All that came of this turn goes out at once. A socket that takes no more wakes this task when it does.
        match cork.poll_drain(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
            _ => served,
        }
    })
    .await;
}

fn builder(streams: Streams, listener: &config::Listener, http2: &Http2) -> http2::Builder<Streams> {
    let header_bytes = u32::try_from(listener.limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(streams);
    builder
        .max_concurrent_streams(http2.streams)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.window)
        .max_header_list_size(header_bytes)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES);
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
