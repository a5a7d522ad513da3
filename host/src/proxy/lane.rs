//! The way of an ordinary request, top to bottom: read, route, pick, forward, relay, observe, retry.
//!
//! Owns the order of the steps for requests that `http1` reads itself, which are nearly all. A connection comes here first
//! and stays until a request is not ordinary; then the HTTP library has it, with what was read, to its end. It must not
//! know how the steps work.
//!
//! Invariant: every request is answered, and its [`Journey`] ends exactly once.

use std::{future::poll_fn, rc::Rc, task::Poll};

use super::{
    accept::Rules,
    attempts::{Attempts, Freshness},
    client::{ClientStream, Socket},
    error::Error,
    forward::{Failed, Target},
    journey::Journey,
    ledger::Ledger,
    plain::{Pipe, Plain},
    route,
    serve::Client,
    spares::Spares,
};
use crate::{
    config::PoolProtocol,
    http1::{Framing, Inbox, Received, Reply, write_answer},
};

mod desk;
mod exchange;
mod relay;
mod upload;

pub(super) use desk::Desk;

use desk::Visit;
use upload::Upload;

/// What comes of a connection.
pub(super) enum Next {
    /// It is over.
    Close,
    /// The HTTP library goes on with it.
    Library {
        /// They come before those of the socket.
        bytes: Vec<u8>,
        /// No request was served before.
        is_first: bool,
    },
}

/// What comes after a request.
enum Done {
    /// The next one.
    GoesOn,
    /// The connection's end.
    Closes,
    /// The same one again, by way of the HTTP library.
    Library,
}

/// How waiting at the desk ends.
enum Stayed {
    /// Something has come.
    More,
    /// It waits for longer, and does so elsewhere.
    Leaves,
    /// The connection is over.
    Ended,
}

/// Why a request ended early.
enum End {
    /// There is an answer to it.
    Error(Error),
    /// Nobody is there to answer, or the answer has already begun.
    Gone,
    /// Its backends speak, or its pool does, what only the way of the HTTP library has.
    Library,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A client's connection on this way.
struct Lane<'a, S> {
    client: &'a Rc<Client>,
    stream: ClientStream<S>,
    inbox: &'a mut Inbox,
    upload: Upload,
}

/// Serves the ordinary requests of a connection.
pub(super) async fn serve<S: Socket + 'static>(
    client: &Rc<Client>,
    mut stream: ClientStream<S>,
    desks: &Spares<Desk<S>>,
) -> (ClientStream<S>, Next) {
    let mut is_first = true;
    loop {
        // A connection that is idle for longer has no desk, and so no buffers and no room for what a request needs.
        if poll_fn(|cx| stream.poll_readable(cx)).await.is_err() {
            return (stream, Next::Close);
        }
        let mut desk = desks.take().unwrap_or_default();
        desk.admit(Visit {
            client: client.clone(),
            stream,
            is_first,
        });
        let left = poll_fn(|cx| desk.poll_leave(cx)).await;
        desks.put(desk);
        (stream, is_first) = (left.stream, left.is_first);
        if let Some(next) = left.next {
            return (stream, next);
        }
    }
}

impl<S: Socket> Lane<'_, S> {
    /// Serves what there is to read, and what arrives until all of it is served. `None` if the connection then waits for
    /// more.
    async fn run(&mut self, is_first: &mut bool) -> Option<Next> {
        match poll_fn(|cx| Poll::Ready(self.stream.poll_fill(cx, self.inbox))).await {
            Poll::Ready(true) => {}
            Poll::Ready(false) => return Some(Next::Close),
            // It has come for nothing.
            Poll::Pending => return None,
        }
        loop {
            let rules = self.client.listener.rules();
            let limits = &rules.config.limits;
            match self.inbox.read(limits.header_bytes, limits.headers) {
                Received::Unusual => {
                    return Some(Next::Library {
                        bytes: self.inbox.bytes().to_vec(),
                        is_first: *is_first,
                    });
                }
                Received::Part => {
                    if !self.inbox.grow(limits.header_bytes) || !self.receive().await {
                        return Some(Next::Close);
                    }
                    continue;
                }
                Received::Request => {}
            }
            *is_first = false;
            self.client.watch.request_began();
            match self.request(&rules).await {
                Done::GoesOn => {}
                Done::Closes => return Some(Next::Close),
                Done::Library => {
                    return Some(Next::Library {
                        bytes: self.inbox.bytes().to_vec(),
                        is_first: false,
                    });
                }
            }
            drop(rules);
            if self.inbox.finish() {
                self.client.watch.head_began();
                continue;
            }
            match self.stay().await {
                Stayed::More => {}
                Stayed::Leaves => return None,
                Stayed::Ended => return Some(Next::Close),
            }
        }
    }

    /// Waits for the next request without leaving the desk, which costs less if it comes soon.
    async fn stay(&mut self) -> Stayed {
        let watch = &self.client.watch;
        let Some(_place) = self
            .client
            .worker
            .scratch
            .stay()
            .filter(|_| self.inbox.is_small())
        else {
            return Stayed::Leaves;
        };
        watch.stay(true);
        let stayed = poll_fn(|cx| match self.stream.poll_fill(cx, self.inbox) {
            Poll::Ready(true) => Poll::Ready(Stayed::More),
            Poll::Ready(false) => Poll::Ready(Stayed::Ended),
            Poll::Pending if watch.has_stayed() => Poll::Ready(Stayed::Leaves),
            Poll::Pending => Poll::Pending,
        })
        .await;
        watch.stay(false);
        stayed
    }

    /// More of the client. False at its end.
    async fn receive(&mut self) -> bool {
        poll_fn(|cx| self.stream.poll_fill(cx, self.inbox)).await
    }

    /// Serves one request.
    async fn request(&mut self, rules: &Rules) -> Done {
        let mut journey = Journey::begin(self.client, self.inbox.head());
        let mut pipe = Pipe::HOLLOW;
        let done = self.handle(rules, &mut journey, &mut pipe).await;
        let goes_on = match done {
            Ok(goes_on) => {
                journey.complete();
                goes_on
            }
            Err(End::Gone) => false,
            Err(End::Error(error)) => self.refuse(error, journey, &mut pipe).await,
            Err(End::Library) => {
                journey.leave();
                self.client.worker.scratch.put_pipe(pipe);
                return Done::Library;
            }
        };
        self.client.worker.scratch.put_pipe(pipe);
        // What was left unread of a body must not become the next request.
        let goes_on = goes_on && self.skip_body().await;
        if goes_on { Done::GoesOn } else { Done::Closes }
    }

    async fn handle(&mut self, rules: &Rules, journey: &mut Journey, pipe: &mut Pipe) -> Result<bool, End> {
        let head = self.inbox.head();
        self.client.keep_rate(rules, head, journey.began_us)?;
        let pool = route::find(&rules.routes, head).ok_or(Error::NoRoute)?;
        // What comes later goes by, and cannot be sent again.
        let keeps_body = self.inbox.rest() == 0;
        let head = self.inbox.head();
        let mut attempts = Attempts::new(self.client, pool, head, keeps_body, journey.began_us);
        let config = &attempts.settings.config;
        if config.protocol != PoolProtocol::Http1 || config.retry.hedge_after.is_some() {
            self.client.is_counted.set(true);
            return Err(End::Library);
        }
        let within = attempts.settings.config.request_timeout;
        if within.is_some() {
            self.client.watch.limit_request(within);
        }
        loop {
            let (target, freshness) = match attempts.pick(self.inbox.head(), journey)? {
                Some(picked) => picked,
                // Boxed because it is rare, and would make every connection's task larger.
                None => Box::pin(self.wait_for_turn(&mut attempts, journey)).await?,
            };
            let mut ledger = Ledger::begin(self.client, &attempts, &target);
            match self.exchange(&mut ledger, freshness, &rules.config, pipe).await {
                Ok((connection, reply)) if attempts.give_up(&target, reply.status) => {
                    discard(&ledger, connection, &reply, pipe);
                }
                Ok((connection, reply)) => {
                    journey.status = reply.status;
                    return self.relay(ledger, connection, &reply, pipe).await;
                }
                Err(Broken::Client) => return Err(End::Gone),
                Err(Broken::Body) => return Err(Error::BadRequest("malformed body").into()),
                Err(Broken::Backend { failed, is_unsent }) => {
                    drop(ledger);
                    attempts.allow_another(target, failed, is_unsent)?;
                }
            }
        }
    }

    /// All backends are full, so the request waits, as long as its client does.
    async fn wait_for_turn(
        &mut self,
        attempts: &mut Attempts<'_>,
        journey: &mut Journey,
    ) -> Result<(Target, Freshness), End> {
        loop {
            attempts.enqueue()?;
            poll_fn(|cx| match attempts.poll_turn(cx) {
                Poll::Ready(turn) => Poll::Ready(turn.map_err(End::Error)),
                Poll::Pending if self.stream.is_gone(cx, self.inbox) => Poll::Ready(Err(End::Gone)),
                Poll::Pending => Poll::Pending,
            })
            .await?;
            if let Some(picked) = attempts.pick(self.inbox.head(), journey)? {
                return Ok(picked);
            }
        }
    }

    /// Whether this is the connection's last request.
    fn closes(&self) -> bool {
        self.inbox.closes() || self.client.watch.is_stopping()
    }

    /// Answers with an error. False if the connection ends with it.
    async fn refuse(&mut self, error: Error, mut journey: Journey, pipe: &mut Pipe) -> bool {
        journey.fail(&error);
        let mut answer = error.answer();
        journey.status = answer.status().as_u16();
        let closes = http::HeaderValue::from_static("close");
        if self.closes() {
            answer.headers_mut().insert(http::header::CONNECTION, closes);
        }
        let goes_on = !answer.headers().contains_key(http::header::CONNECTION);
        let is_head = self.inbox.head().method() == "HEAD";
        pipe.out.clear();
        write_answer(
            &mut pipe.out,
            &answer,
            is_head,
            self.client.worker.date().as_bytes(),
        );
        let is_told = self.write(&pipe.out, &[]).await;
        if is_told {
            journey.complete();
        }
        is_told && goes_on
    }

    /// Writes to the client. False if it is gone.
    async fn write(&mut self, first: &[u8], second: &[u8]) -> bool {
        let mut written = 0;
        poll_fn(|cx| self.stream.poll_write_two(cx, first, second, &mut written)).await
    }
}

/// Keeps the connection of a response that nobody gets, if all of that is there.
fn discard(ledger: &Ledger, connection: Plain, reply: &Reply, pipe: &mut Pipe) {
    let body = match reply.framing {
        Framing::Empty => Some(0),
        Framing::Length(length) => usize::try_from(length).ok(),
        Framing::Chunked | Framing::Close => None,
    };
    if reply.keeps_alive && body == Some(pipe.input.unread().len()) {
        ledger.keep(connection);
    }
}

/// Why an attempt came to nothing.
enum Broken {
    /// The client went away.
    Client,
    /// It broke its body off.
    Body,
    /// The backend's doing.
    Backend {
        failed: Failed,
        /// Nothing of the request reached it.
        is_unsent: bool,
    },
}

/// A backend's response, and the connection that it is on.
type Answered = (Plain, Reply);
