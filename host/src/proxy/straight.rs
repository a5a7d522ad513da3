//! One attempt of a request among many on its client's connection, over a plain connection to a backend: nothing of the
//! HTTP library is between the two.
//!
//! Owns which requests may go this way, sending them, and reading the response, whose body is a stream of pieces like any
//! other. It must not know whether another attempt follows.
//!
//! Invariant: the backend's connection is given back only after a complete response with nothing behind it.

use std::{
    future::{Future, poll_fn},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;

use super::{
    attempts::Freshness,
    body::{BodyError, ResponseBody},
    error::Error,
    forward::Failed,
    hedge::Outcome,
    ledger::Ledger,
    plain::{Input, Pipe, Plain},
    serve::Client,
};
use crate::{
    config::{Listener, PoolProtocol},
    http1::{Chunks, Framing, Head, Reply, is_straight, read_fields, write_straight},
};

/// What may come before the response; more is a backend that never answers.
const INTERIM_MAX: usize = 8;

/// Whether a request may go this way: one of many on a connection, without a body, and with nothing in its fields that only the
/// library can do.
#[inline]
pub(super) fn fits(client: &Client, head: &Head, pool: &crate::config::Pool) -> bool {
    client.is_stream
        && pool.protocol == PoolProtocol::Http1
        && pool.retry.hedge_after.is_none()
        && is_straight(head)
}

/// Sends the request and waits for the response's head. Says whether nothing of it was sent.
///
/// Dropping this future closes the connection, so the backend learns that nobody waits any more.
pub(super) async fn exchange(
    client: &Client,
    (head, listener): (&Head, &Listener),
    (mut ledger, freshness): (Ledger, Freshness),
    is_unsent: &mut bool,
) -> Outcome {
    *is_unsent = true;
    let connection = match connection(&ledger, freshness).await {
        Ok(connection) => connection,
        Err(error) => {
            ledger.fail(&error);
            let metrics = ledger.worker.metrics();
            metrics.count(|metrics| &metrics.upstream_connect_failures);
            return Err(Failed::for_good(error));
        }
    };
    ledger.expect_answer();
    let mut pipe = client.worker.scratch.take_pipe();
    pipe.begin();
    write_straight(
        &mut pipe.out,
        head,
        (listener.forwarded, listener.via),
        client.peer(),
    );
    // Boxed because it is handed on a dozen times until the response is over.
    let mut pieces = Box::new(Pieces {
        ledger,
        connection: Some(connection),
        pipe: Some(pipe),
        rest: Rest::Length(0),
        keeps_alive: false,
    });
    match pieces.reply(head.method() == "HEAD", is_unsent).await {
        Ok((reply, fields)) => Ok(pieces.answered(&reply, fields)),
        Err((error, has_answered)) => Err(pieces.failed(error, has_answered)),
    }
}

async fn connection(ledger: &Ledger, freshness: Freshness) -> Result<Plain, Error> {
    if freshness == Freshness::Any
        && let Some(connection) = ledger.upstream.take_plain(ledger.told.as_deref())
    {
        return Ok(connection);
    }
    ledger
        .worker
        .metrics()
        .count(|metrics| &metrics.upstream_connects);
    // Boxed because it is large and rare, and would make every request's future larger.
    let mut connecting = Box::pin(ledger.upstream.connect_plain(ledger.how()));
    poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened.map_err(|error| Error::Connect(error.to_string()))),
        Poll::Pending if ledger.watch.request_expired() => Poll::Ready(Err(Error::RequestTimeout)),
        Poll::Pending => {
            ledger.watch.remember(cx.waker());
            Poll::Pending
        }
    })
    .await
}

impl Pieces {
    /// The response's head; or why there is none, and whether anything came.
    async fn reply(
        &mut self,
        is_head: bool,
        is_unsent: &mut bool,
    ) -> Result<(Reply, HeaderMap), (Error, bool)> {
        let (Some(connection), Some(pipe)) = (&mut self.connection, &mut self.pipe) else {
            return Err((Error::Upstream("connection closed".into()), false));
        };
        let ledger = &self.ledger;
        let (mut written, mut interim) = (0, 0);
        let sent = poll_fn(
            |cx| match connection.poll_write_two(cx, &pipe.out, &[], &mut written) {
                Poll::Ready(sent) => Poll::Ready(sent.map_err(|error| Error::Upstream(error.to_string()))),
                Poll::Pending => wait(ledger, cx),
            },
        )
        .await;
        *is_unsent = written == 0;
        sent.map_err(|error| (error, false))?;
        loop {
            let read = {
                let known = &mut *ledger.worker.scratch.known.borrow_mut();
                read_fields(pipe.input.unread(), is_head, known)
            };
            let error = match read {
                Ok(Some((reply, _))) if reply.status == 101 => {
                    Error::BadResponse("backend switched protocols unasked")
                }
                Ok(Some((reply, fields))) => {
                    pipe.input.take(reply.len);
                    if !reply.is_interim() {
                        return Ok((reply, fields));
                    }
                    interim += 1;
                    if interim <= INTERIM_MAX {
                        continue;
                    }
                    Error::BadResponse("backend sent too many interim responses")
                }
                Ok(None) if !pipe.input.make_room() => {
                    Error::BadResponse("backend sent a head that is too large")
                }
                Ok(None) => match more(connection, &mut pipe.input, ledger).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(malformed) => Error::BadResponse(malformed.reason()),
            };
            return Err((error, !pipe.input.unread().is_empty()));
        }
    }

    /// The response as the client gets it but for its connection's fields; its body reads on.
    fn answered(mut self: Box<Self>, reply: &Reply, fields: HeaderMap) -> Response<ResponseBody> {
        self.ledger.watch.release_backend();
        self.ledger.record(Some(reply.status));
        let cookie = self.ledger.cookie.take();
        self.rest = match reply.framing {
            Framing::Empty => Rest::Length(0),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunks(Chunks::with_trailers()),
            Framing::Close => Rest::UntilEnd,
        };
        self.keeps_alive = reply.keeps_alive;
        let mut response = Response::new(ResponseBody::straight(self));
        *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = fields;
        // It is made of what the configuration and hex have, which is always good for a field.
        if let Some(Ok(cookie)) = cookie.map(http::HeaderValue::try_from) {
            response.headers_mut().append(http::header::SET_COOKIE, cookie);
        }
        response
    }

    /// Records a failure, unless it only says that a stored connection had been closed.
    #[cold]
    fn failed(mut self: Box<Self>, error: Error, has_answered: bool) -> Failed {
        self.ledger.watch.release_backend();
        let is_reused = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.is_reused);
        let was_stale = is_reused && !has_answered && matches!(error, Error::Upstream(_));
        if !was_stale {
            self.ledger.fail(&error);
        }
        Failed { error, was_stale }
    }
}

async fn more(connection: &mut Plain, input: &mut Input, ledger: &Ledger) -> Result<(), Error> {
    poll_fn(|cx| match connection.poll_fill(cx, input) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(Error::Upstream("connection closed".into()))),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(Error::Upstream(error.to_string()))),
        Poll::Pending => wait(ledger, cx),
    })
    .await
}

/// Waits on, unless the time is over.
fn wait<T>(ledger: &Ledger, cx: &Context<'_>) -> Poll<Result<T, Error>> {
    ledger.watch.remember(cx.waker());
    ledger
        .ran_out()
        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
}

/// An attempt, and then its response's body as it arrives.
pub(super) struct Pieces {
    ledger: Ledger,
    /// `None` once it is over.
    connection: Option<Plain>,
    pipe: Option<Pipe>,
    rest: Rest,
    keeps_alive: bool,
}

/// What is to come of a body.
enum Rest {
    Length(u64),
    Chunks(Chunks),
    UntilEnd,
}

impl Pieces {
    /// How many bytes are to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.rest {
            Rest::Length(left) => Some(left),
            Rest::Chunks(_) | Rest::UntilEnd => None,
        }
    }

    /// The next piece, or the trailers after the last; `None` at the body's end.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (Some(connection), Some(pipe)) = (&mut self.connection, &mut self.pipe) else {
            return Poll::Ready(None);
        };
        loop {
            let unread = pipe.input.unread();
            let (piece, used, is_over) = match &mut self.rest {
                Rest::Length(left) => {
                    let size = unread.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= size as u64;
                    (unread.get(..size), size, *left == 0)
                }
                Rest::Chunks(chunks) => match chunks.next(unread) {
                    Ok((run, used)) => (run, used, chunks.is_over()),
                    Err(_) => return Poll::Ready(Some(Err(BodyError::Broken))),
                },
                Rest::UntilEnd => (Some(unread), unread.len(), false),
            };
            let piece = piece
                .filter(|piece| !piece.is_empty())
                .map(Bytes::copy_from_slice);
            pipe.input.take(used);
            if let Some(piece) = piece {
                self.ledger.received(piece.len());
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if is_over {
                let Rest::Chunks(chunks) = &mut self.rest else {
                    return Poll::Ready(None);
                };
                let trailers = chunks.take_trailers().map_err(|_| BodyError::Broken);
                return Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)));
            }
            if let Rest::Length(left) = self.rest {
                pipe.input.widen(left, &self.ledger.worker.scratch);
            }
            match connection.poll_fill(cx, &mut pipe.input) {
                Poll::Ready(Ok(0)) if matches!(self.rest, Rest::UntilEnd) => return Poll::Ready(None),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(BodyError::Broken))),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if self.ledger.has_stalled() => {
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
                Poll::Pending => {
                    self.ledger.wait(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The last byte was handed on: the connection can carry another request, if it may.
    pub(super) fn complete(mut self: Box<Self>) {
        let is_clean = self
            .pipe
            .as_ref()
            .is_some_and(|pipe| pipe.input.unread().is_empty());
        if let Some(connection) = self.connection.take().filter(|_| self.keeps_alive && is_clean) {
            self.ledger.keep(connection);
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.ledger.worker.scratch.put_pipe(pipe);
        }
    }
}
