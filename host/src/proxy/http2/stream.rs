//! One request among many on its connection, from its head to the last of its response.
//!
//! Owns how a response becomes frames, and the end of a request that waits for its client in vain or that its client gives
//! up; and the future that does so, which is large and so serves one request after the other. It must not know which other
//! requests there are, nor how a response comes about (`serve.rs`).
//!
//! Invariant: of a body no more than a piece waits for the client's window, and the next is read when that has gone.

use std::{
    cell::Cell,
    error::Error as _,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Method, Request, Response, header};
use http_body::{Body, Frame};

use super::{through::Through, upload::Upload};
use crate::proxy::{
    body::{Arriving, BodyError, ResponseBody},
    relay::is_cut,
    serve::{Client, serve},
};

/// A piece of this size gets its room in the client's windows at once.
const RESERVED_MAX: usize = 4 << 10;

/// What serves one request after the other, of whichever connection.
///
/// Dropping it resets the request that it serves, and ends the attempt at a backend.
pub(in crate::proxy) struct Server {
    /// Never ends.
    future: Pin<Box<dyn Future<Output = ()>>>,
    desk: Rc<Desk>,
}

/// Where it gets its requests, and says that it is done with one.
#[derive(Default)]
struct Desk {
    next: Cell<Option<Job>>,
    is_done: Cell<bool>,
}

/// A request, and what its client gets.
pub(super) struct Job {
    pub(super) client: Rc<Client>,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Bytes>,
}

impl Server {
    pub(in crate::proxy) fn new() -> Self {
        let desk = Rc::new(Desk::default());
        Self {
            future: Box::pin(serve_all(desk.clone())),
            desk,
        }
    }

    /// The next request. The last one is done.
    pub(super) fn begin(&self, job: Job) {
        self.desk.next.set(Some(job));
    }

    /// Ready when the request is done, and whatever was held for it given back.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.future.as_mut().poll(cx) {
            Poll::Pending if !self.desk.is_done.take() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

async fn serve_all(desk: Rc<Desk>) {
    loop {
        let job = poll_fn(|_| desk.next.take().map_or(Poll::Pending, Poll::Ready)).await;
        run(job).await;
        desk.is_done.set(true);
    }
}

async fn run(
    Job {
        client,
        request,
        mut respond,
    }: Job,
) {
    let (parts, stream) = request.into_parts();
    let (body, through) = match parts.method {
        // What follows is no body.
        Method::CONNECT => (Arriving::Nothing, Some(stream)),
        _ if stream.is_end_stream() => (Arriving::Nothing, None),
        _ => (Arriving::Stream(Upload::new(stream, &parts.headers)), None),
    };
    let served = {
        let mut serving = pin!(serve(client.clone(), Request::from_parts(parts, body)));
        poll_fn(|cx| {
            if client.watch.has_expired() {
                return Poll::Ready(None);
            }
            match serving.as_mut().poll(cx) {
                Poll::Ready(served) => Poll::Ready(Some(served)),
                Poll::Pending => {
                    client.watch.remember(cx.waker());
                    // Its client gives it up, or is gone.
                    respond.poll_reset(cx).map(|_| None)
                }
            }
        })
        .await
    };
    match served {
        None => {}
        Some(Err(error)) => respond.send_reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
        Some(Ok(response)) => answer(&client, response, respond, through).await,
    }
}

async fn answer(
    client: &Client,
    response: Response<ResponseBody>,
    mut respond: SendResponse<Bytes>,
    through: Option<RecvStream>,
) {
    let (mut parts, body) = response.into_parts();
    let tunnel = through.and_then(|receive| Some((client.tunnel.take()?, receive)));
    let is_over = body.is_end_stream() && tunnel.is_none();
    parts
        .headers
        .entry(header::DATE)
        .or_insert_with(|| client.worker.scratch.date_value(client.worker.coarse_ms()));
    // A backend's own fields say it if it is known, and they are here.
    let length = || body.size_hint().exact();
    if !is_over
        && tunnel.is_none()
        && !body.is_straight()
        && let Some(length) = length()
    {
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    let mut send = match respond.send_response(Response::from_parts(parts, ()), is_over) {
        Ok(send) => send,
        // Its client is gone, or a backend's fields are none.
        Err(_) => return respond.send_reset(Reason::INTERNAL_ERROR),
    };
    if let Some((tunnel, receive)) = tunnel {
        client.worker.metrics().count(|metrics| &metrics.upgrades);
        let mut through = Through::new(receive, send);
        let with = (&*client.watch, &client.worker.scratch);
        // Boxed because it is large and rare.
        let (_, ended) = Box::pin(tunnel.run(&mut through, Vec::new(), with)).await;
        through.end(ended.is_err_and(|error| is_cut(&error)));
    } else if !is_over {
        let mut body = pin!(body);
        let mut waiting = None;
        poll_fn(|cx| {
            if client.watch.has_expired() {
                return Poll::Ready(());
            }
            let poll = poll_body(cx, body.as_mut(), &mut send, &mut waiting);
            if poll.is_pending() {
                client.watch.remember(cx.waker());
                // Its client gives it up, or is gone.
                return send.poll_reset(cx).map(|_| ());
            }
            poll
        })
        .await;
    }
}

/// A piece of a body, and whether it is the last.
type Piece = (Bytes, bool);

/// Hands the body to the library, piece by piece.
fn poll_body(
    cx: &mut Context<'_>,
    mut body: Pin<&mut ResponseBody>,
    send: &mut SendStream<Bytes>,
    waiting: &mut Option<Piece>,
) -> Poll<()> {
    loop {
        if waiting.is_some() {
            if !ready!(poll_room(cx, send)) {
                return Poll::Ready(());
            }
            if let Some((piece, is_last)) = waiting.take()
                && (send.send_data(piece, is_last).is_err() || is_last)
            {
                return Poll::Ready(());
            }
        }
        match ready!(body.as_mut().poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(piece))) if piece.is_empty() && !body.is_end_stream() => {}
            Some(Ok(Ok(piece))) if piece.is_empty() => return finish(send),
            Some(Ok(Ok(piece))) => {
                // Of a long piece no more than is needed to go on: what is reserved is nobody else's. The library asks for
                // the rest when it has the piece.
                send.reserve_capacity(if piece.len() > RESERVED_MAX {
                    1
                } else {
                    piece.len()
                });
                *waiting = Some((piece, body.is_end_stream()));
            }
            Some(Ok(Err(frame))) => {
                if let Ok(trailers) = frame.into_trailers() {
                    send.reserve_capacity(0);
                    // Fails where the client is gone.
                    let _ = send.send_trailers(trailers);
                    return Poll::Ready(());
                }
            }
            Some(Err(error)) => {
                send.send_reset(reason(&error));
                return Poll::Ready(());
            }
            None => return finish(send),
        }
    }
}

fn finish(send: &mut SendStream<Bytes>) -> Poll<()> {
    // Fails where the client is gone.
    let _ = send.send_data(Bytes::new(), true);
    Poll::Ready(())
}

/// Whether the client has room for more; false if it is gone.
fn poll_room(cx: &mut Context<'_>, send: &mut SendStream<Bytes>) -> Poll<bool> {
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(false),
        }
    }
    Poll::Ready(true)
}

/// What a backend has said about the end of its response, the client is told as well.
fn reason(error: &BodyError) -> Reason {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
