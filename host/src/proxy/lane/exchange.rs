//! One attempt on the way of ordinary requests: a connection, the request, the response's head.
//!
//! Owns the order in which these can fail, and what each failure means. It must not know whether another attempt
//! follows.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
};

use super::{Answered, Broken, Lane};
use crate::{
    config::Listener,
    http1::{Malformed, Reply, Rules, read_reply, write_request},
    proxy::{
        attempts::Freshness,
        client::Socket,
        error::Error,
        forward::Failed,
        ledger::Ledger,
        plain::{Pipe, Plain},
    },
};

/// A body of this size goes out with the head in one piece; a larger one as a second piece.
const COPIED_MAX: usize = 1024;
/// What may come before the response; more is a backend that never answers.
const INTERIM_MAX: usize = 8;

impl<S: Socket> Lane<'_, S> {
    /// Sends the request and waits for the response's head, which is then in the pipe as the client gets it.
    pub(super) async fn exchange(
        &mut self,
        ledger: &mut Ledger,
        freshness: Freshness,
        listener: &Listener,
        pipe: &mut Pipe,
    ) -> Result<Answered, Broken> {
        let mut connection = self.connection(ledger, freshness).await?;
        ledger.expect_answer();
        self.send(ledger, &mut connection, listener, pipe).await?;
        let reply = self.reply(ledger, &mut connection, listener, pipe).await?;
        self.client.watch.release_backend();
        // Both may take turns from here on.
        self.client.watch.free_body();
        ledger.record(Some(reply.status));
        Ok((connection, reply))
    }

    async fn connection(&mut self, ledger: &mut Ledger, freshness: Freshness) -> Result<Plain, Broken> {
        if freshness == Freshness::Any
            && let Some(connection) = ledger.upstream.take_plain(ledger.told.as_deref())
        {
            return Ok(connection);
        }
        // Boxed because it is large and rare, and would make every connection's task larger.
        Box::pin(self.connect(ledger)).await
    }

    async fn connect(&mut self, ledger: &mut Ledger) -> Result<Plain, Broken> {
        ledger
            .worker
            .metrics()
            .count(|metrics| &metrics.upstream_connects);
        let connected = {
            let mut connecting = pin!(ledger.upstream.connect_plain(ledger.how()));
            poll_fn(|cx| match connecting.as_mut().poll(cx) {
                Poll::Ready(connected) => {
                    Poll::Ready(Some(connected.map_err(|error| Error::Connect(error.to_string()))))
                }
                Poll::Pending if self.client.watch.request_expired() => {
                    Poll::Ready(Some(Err(Error::RequestTimeout)))
                }
                Poll::Pending if self.stream.is_gone(cx, self.inbox) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        match connected {
            Some(Ok(connection)) => Ok(connection),
            None => Err(Broken::Client),
            Some(Err(error)) => {
                ledger.fail(&error);
                let metrics = ledger.worker.metrics();
                metrics.count(|metrics| &metrics.upstream_connect_failures);
                Err(Broken::Backend {
                    failed: Failed::for_good(error),
                    is_unsent: true,
                })
            }
        }
    }

    async fn send(
        &mut self,
        ledger: &mut Ledger,
        connection: &mut Plain,
        listener: &Listener,
        pipe: &mut Pipe,
    ) -> Result<(), Broken> {
        pipe.take_back(&self.client.worker.scratch);
        pipe.begin();
        self.upload.begin();
        let Self {
            client,
            inbox,
            stream,
            ..
        } = self;
        write_request(
            &mut pipe.out,
            inbox.head(),
            listener.forwarded,
            listener.via,
            client.peer(),
        );
        let mut copied = 0;
        if inbox.body().len() <= COPIED_MAX {
            copied = inbox.body().len();
            pipe.out.extend_from_slice(inbox.body());
        }
        let mut written = 0;
        let sent = poll_fn(|cx| {
            let body = inbox.body().get(copied..).unwrap_or_default();
            match connection.poll_write_two(cx, &pipe.out, body, &mut written) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(true)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Error::Upstream(error.to_string()))),
                Poll::Pending => match ledger.ran_out() {
                    Some(error) => Poll::Ready(Err(error)),
                    None if stream.is_gone(cx, inbox) => Poll::Ready(Ok(false)),
                    None => Poll::Pending,
                },
            }
        })
        .await;
        ledger.sent = self.inbox.body().len() as u64;
        match sent {
            Ok(true) => {
                // Without room for what follows, nobody would see that the client goes.
                self.inbox.forget_body();
                Ok(())
            }
            Ok(false) => Err(Broken::Client),
            Err(error) => Err(failed(ledger, connection, error, written == 0, false)),
        }
    }

    async fn reply(
        &mut self,
        ledger: &mut Ledger,
        connection: &mut Plain,
        listener: &Listener,
        pipe: &mut Pipe,
    ) -> Result<Reply, Broken> {
        pipe.out.clear();
        let mut interim = 0;
        loop {
            let error = match self.read(ledger, listener, pipe) {
                Ok(Some(reply)) if reply.status == 101 => {
                    Error::BadResponse("backend switched protocols unasked")
                }
                Ok(Some(reply)) => {
                    pipe.input.take(reply.len);
                    if !reply.is_interim() {
                        return Ok(reply);
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
                Ok(None) => match self.more(ledger, connection, pipe).await? {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(malformed) => Error::BadResponse(malformed.reason()),
            };
            let has_answered = !pipe.input.unread().is_empty();
            return Err(failed(ledger, connection, error, false, has_answered));
        }
    }

    #[inline]
    fn read(
        &mut self,
        ledger: &Ledger,
        listener: &Listener,
        pipe: &mut Pipe,
    ) -> Result<Option<Reply>, Malformed> {
        let date = self.client.worker.date();
        let rules = Rules {
            is_head: self.inbox.head().is("HEAD"),
            closes: self.closes(),
            via: listener.via,
            date: date.as_bytes(),
            cookie: ledger.cookie.as_deref(),
        };
        read_reply(pipe.input.unread(), &rules, &mut pipe.out)
    }

    /// Waits for more of the response's head.
    async fn more(
        &mut self,
        ledger: &mut Ledger,
        connection: &mut Plain,
        pipe: &mut Pipe,
    ) -> Result<Result<(), Error>, Broken> {
        poll_fn(|cx| {
            if let Err(broken) = self.pump(cx, ledger, connection) {
                return Poll::Ready(Err(broken));
            }
            let scratch = &self.client.worker.scratch;
            pipe.take_back(scratch);
            let poll = connection.poll_fill(cx, &mut pipe.input);
            if poll.is_pending() && pipe.input.unread().is_empty() {
                pipe.lend(scratch);
            }
            match poll {
                Poll::Ready(Ok(0)) => Poll::Ready(Ok(Err(Error::Upstream("connection closed".into())))),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(Ok(()))),
                Poll::Ready(Err(error)) => Poll::Ready(Ok(Err(Error::Upstream(error.to_string())))),
                Poll::Pending => match ledger.ran_out() {
                    Some(error) => Poll::Ready(Ok(Err(error))),
                    None if self.is_gone(cx) => Poll::Ready(Err(Broken::Client)),
                    None => Poll::Pending,
                },
            }
        })
        .await
    }

    /// Whether the client went away while it was waiting. One that has more of its body to send is not looked at: what it
    /// sends is read when the backend takes it.
    #[inline]
    pub(super) fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        if self.has_uploaded() {
            return self.stream.is_gone(cx, self.inbox);
        }
        self.client.watch.remember(cx.waker());
        false
    }
}

/// Records a failure, unless it only says that a stored connection had been closed.
#[cold]
fn failed(
    ledger: &mut Ledger,
    connection: &Plain,
    error: Error,
    is_unsent: bool,
    has_answered: bool,
) -> Broken {
    ledger.watch.release_backend();
    let was_stale = connection.is_reused && !has_answered && matches!(error, Error::Upstream(_));
    if !was_stale {
        ledger.fail(&error);
    }
    Broken::Backend {
        failed: Failed { error, was_stale },
        is_unsent,
    }
}
