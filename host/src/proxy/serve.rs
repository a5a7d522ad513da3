//! The way of a request that the HTTP library has read, top to bottom.
//!
//! Owns the order of the steps: route, pick, forward, observe, retry. Each step is elsewhere. It must not know how any of
//! them works. Ordinary requests go the same way in `lane.rs`.
//!
//! Invariant: every request is answered (or reset, which is HTTP/2's answer to some), and its [`Journey`] ends exactly once.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::Poll,
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};

use super::{
    accept::{ListenerState, Rules},
    address,
    attempts::{Attempts, Freshness},
    body::{Arriving, RequestBody, ResponseBody},
    client::Watch,
    error::Error,
    forward::{Exchange, Failed},
    headers::{self, Glance},
    hedge::{self, Outcome},
    journey::Journey,
    ledger::Ledger,
    relay::Tunnel,
    route, straight,
    upgrade::{self, Question},
    worker::WorkerState,
};
use crate::{
    config,
    http1::{Head, Peer},
    policy::client_bits,
    proxy_header::Endpoints,
};

/// What all requests of a client's connection share.
pub(super) struct Client {
    pub(super) worker: Rc<WorkerState>,
    pub(super) listener: Rc<ListenerState>,
    pub(super) watch: Rc<Watch>,
    pub(super) address: SocketAddr,
    /// Where it has connected to; to be told to backends only.
    pub(super) destination: SocketAddr,
    /// What the worker knows the connection by.
    pub(super) key: u64,
    /// The address as policies see it.
    pub(super) bits: u128,
    /// The address as `X-Forwarded-For` says it.
    pub(super) text: HeaderValue,
    /// What it speaks to us: `http` or `https`.
    pub(super) scheme: &'static str,
    /// It is one of many requests on a connection, and not the whole of that.
    pub(super) is_stream: bool,
    /// The request that comes next has been counted on the other way already.
    pub(super) is_counted: Cell<bool>,
    /// Where its bytes go once a backend has agreed to another protocol. Boxed because it is large and rare.
    pub(super) tunnel: RefCell<Option<Box<Tunnel>>>,
    /// What some pools tell their backends, from the first such request on.
    told: OnceCell<Rc<Endpoints>>,
}

impl Client {
    /// Of a connection that is new to the worker, which watches it until it is told to forget it.
    pub(super) fn new(
        worker: Rc<WorkerState>,
        listener: Rc<ListenerState>,
        Endpoints {
            source: address,
            destination,
        }: Endpoints,
        scheme: &'static str,
    ) -> Self {
        let (key, watch) = worker.register(&listener);
        Self {
            worker,
            listener,
            watch,
            address,
            destination,
            key,
            bits: client_bits(address.ip()),
            text: address::text(address.ip()),
            scheme,
            is_stream: false,
            is_counted: Cell::new(false),
            tunnel: RefCell::new(None),
            told: OnceCell::new(),
        }
    }

    /// One of many requests on this connection, which the worker watches by this key.
    pub(super) fn stream(&self, (key, watch): (u64, Rc<Watch>)) -> Self {
        Self {
            worker: self.worker.clone(),
            listener: self.listener.clone(),
            watch,
            address: self.address,
            destination: self.destination,
            key,
            bits: self.bits,
            text: self.text.clone(),
            scheme: self.scheme,
            is_stream: true,
            is_counted: Cell::new(false),
            tunnel: RefCell::new(None),
            told: OnceCell::new(),
        }
    }

    /// As good as new, for another request on the same connection. False if somebody has a part of it.
    pub(super) fn renew(&mut self) -> bool {
        self.is_counted.set(false);
        *self.tunnel.get_mut() = None;
        Rc::get_mut(&mut self.watch).map(Watch::renew).is_some()
    }

    /// What backends are told of it by the PROXY protocol.
    pub(super) fn told(&self) -> Rc<Endpoints> {
        let told = self.told.get_or_init(|| {
            Rc::new(Endpoints {
                source: self.address,
                destination: self.destination,
            })
        });
        told.clone()
    }

    /// What backends are told of it in a request's fields.
    #[inline]
    pub(super) fn peer(&self) -> Peer<'_> {
        Peer {
            address: self.text.as_bytes(),
            scheme: self.scheme,
        }
    }
}

/// Body bytes that went to a backend.
pub(super) type Sent = Rc<Cell<u64>>;

/// Serves one request.
///
/// Dropping this future, as happens when the client goes away, drops the attempt under way and with it the upstream
/// connection.
///
/// # Errors
/// How a stream of HTTP/2 is to be reset whose request is malformed. All else is answered.
pub(super) async fn serve(
    client: Rc<Client>,
    request: Request<Arriving>,
) -> Result<Response<ResponseBody>, h2::Error> {
    client.watch.request_began();
    let (mut parts, body) = request.into_parts();
    let mut glance = Glance::at(&parts);
    if client.is_stream && headers::join_cookies(&mut parts.headers, &glance) {
        glance = Glance::at(&parts);
    }
    let listener = client.listener.rules();
    let checked = headers::check(&parts, &glance, &listener.config)
        .and_then(|()| headers::settle(&mut parts, &glance, &listener.config, client.scheme));
    let mut head = client.worker.scratch.take_head();
    head.read_parts(&parts);
    let mut journey = Journey::begin(&client, &head);
    if parts.version == http::Version::HTTP_10 {
        journey.is_old();
    }
    let result = match checked {
        Ok(()) => handle(&client, &listener, (&parts, &mut head), body, &mut journey).await,
        Err(error) => Err(error),
    };
    drop(listener);
    client.worker.scratch.put_head(head);
    if let Err(error @ Error::Malformed(_)) = &result {
        journey.fail(error);
        journey.status = error.status().as_u16();
        // The client has been told, and has not gone away.
        journey.complete();
        return Err(h2::Reason::PROTOCOL_ERROR.into());
    }
    let mut response = result.unwrap_or_else(|error| {
        journey.fail(&error);
        let mut answer = error.answer();
        upgrade::refuse(&mut answer, &parts, &client.listener.rules().config);
        if client.is_stream {
            // Such a field means nothing to a connection with many requests (RFC 9113, 8.2.2).
            answer.headers_mut().remove(header::CONNECTION);
        }
        answer.map(ResponseBody::full)
    });
    journey.status = response.status().as_u16();
    // Of the backend's own version nothing follows for the client.
    *response.version_mut() = http::Version::HTTP_11;
    if client.watch.is_stopping() && !client.is_stream && client.tunnel.borrow().is_none() {
        let closes = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, closes);
    }
    let body = response.body_mut();
    if client.is_stream {
        body.watch(&client.watch);
    }
    body.carry(journey, parts.method == http::Method::HEAD);
    Ok(response)
}

/// Everything large is lent and not given: what a future is given it keeps twice, and futures are moved for each request.
async fn handle(
    client: &Rc<Client>,
    listener: &Rules,
    (parts, head): (&Parts, &mut Head),
    body: Arriving,
    journey: &mut Journey,
) -> Result<Response<ResponseBody>, Error> {
    client.keep_rate(listener, head, journey.began_us)?;
    let question = upgrade::asked(parts, &listener.config)?;
    let pool = route::find(&listener.routes, head).ok_or(Error::NoRoute)?;
    let is_empty = body.is_over();
    let mut attempts = Attempts::new(client, pool, head, is_empty, journey.began_us);
    if attempts.settings.config.protocol != config::PoolProtocol::Http1 && headers::is_call(&parts.headers) {
        client.watch.free_body();
    }
    client
        .watch
        .limit_request(attempts.settings.config.request_timeout);
    if is_empty && question.is_none() && straight::fits(client, head, &attempts.settings.config) {
        return handle_straight((client, listener), head, attempts, journey).await;
    }
    let sent = Sent::default();
    let mut body = Some(RequestBody::new(body, &client.watch, &sent));
    if client.is_stream {
        poll_fn(|cx| {
            client.watch.gate.lead_to(cx);
            Poll::Ready(())
        })
        .await;
    }
    loop {
        let (target, freshness) = attempts.pick_in_turn(head, journey).await?;
        let config = &attempts.settings.config;
        let question = question
            .as_ref()
            .filter(|question| question.fits(config.protocol));
        let mut request = Some(for_backend(client, parts, body.take(), &listener.config));
        if let (Some(question), Some(request)) = (question, &mut request) {
            question.announce(request.headers_mut());
        }
        let ledger = attempts.begin(&target);
        let attempt = forward((client, question), (ledger, freshness), &mut request, &sent);
        let (target, outcome) = match attempts.hedge_after().filter(|_| question.is_none()) {
            None => (target, attempt.await),
            // Boxed because it is large, and most pools never need it.
            Some(after) => {
                Box::pin(hedge::race(
                    (client, &sent),
                    (&mut attempts, &mut *head, &mut *journey),
                    (target, after, attempt),
                    || for_backend(client, parts, None, &listener.config),
                ))
                .await
            }
        };
        match outcome {
            Ok(response) if attempts.give_up(&target, response.status().as_u16()) => {
                response.into_body().discard().await;
            }
            Ok(mut response) => {
                let version = response.version();
                headers::for_client(response.headers_mut(), &listener.config, version);
                if let Some(question) = question {
                    question.answer(&mut response, parts);
                }
                return Ok(response);
            }
            Err(failed) => {
                attempts.allow_another(target, failed, request.is_some())?;
                body = request.map(Request::into_body);
            }
        }
    }
}

/// The attempts without the library on the backend's side.
async fn handle_straight(
    (client, listener): (&Rc<Client>, &Rules),
    head: &mut Head,
    mut attempts: Attempts<'_>,
    journey: &mut Journey,
) -> Result<Response<ResponseBody>, Error> {
    loop {
        let (target, freshness) = attempts.pick_in_turn(head, journey).await?;
        let ledger = attempts.begin(&target);
        let mut is_unsent = true;
        let asked = (&*head, &*listener.config);
        match straight::exchange(client, asked, (ledger, freshness), &mut is_unsent).await {
            Ok(response) if attempts.give_up(&target, response.status().as_u16()) => {
                response.into_body().discard().await;
            }
            Ok(mut response) => {
                if listener.config.via {
                    let version = response.version();
                    headers::append_via(response.headers_mut(), version);
                }
                return Ok(response);
            }
            Err(failed) => attempts.allow_another(target, failed, is_unsent)?,
        }
    }
}

fn for_backend(
    client: &Client,
    parts: &Parts,
    body: Option<RequestBody>,
    listener: &config::Listener,
) -> Request<RequestBody> {
    let mut request = Request::new(body.unwrap_or(RequestBody::Empty));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = match parts.method {
        http::Method::CONNECT => parts.uri.clone(),
        _ => origin_form(&parts.uri),
    };
    *request.headers_mut() = headers::for_backend(parts, listener, &client.text, client.scheme);
    request
}

/// Takes the request, and leaves it where it was if nothing of it was sent.
pub(super) async fn forward(
    (client, question): (&Client, Option<&Question>),
    (ledger, freshness): (Ledger, Freshness),
    request: &mut Option<Request<RequestBody>>,
    sent: &Sent,
) -> Outcome {
    let mut exchange = Exchange::new(ledger, sent, question.is_some());
    let mut response = exchange.send(request, freshness).await?;
    exchange.set_cookie(response.headers_mut());
    let wrong = if question.is_some_and(|question| question.is_agreed(&response)) {
        *client.tunnel.borrow_mut() = exchange.into_tunnel(&mut response).await.map(Box::new);
        return Ok(response.map(|_| ResponseBody::none()));
    } else if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        "backend switched protocols unasked"
    } else if is_framed_twice(response.headers()) {
        "backend gave its response both a length and chunks"
    } else {
        return Ok(response.map(|body| ResponseBody::backend(body, exchange)));
    };
    exchange.record_failure();
    Err(Failed::for_good(Error::BadResponse(wrong)))
}

/// Which of the two holds is where readers differ, so what follows such a response cannot be trusted (RFC 9112, 6.1).
fn is_framed_twice(fields: &HeaderMap) -> bool {
    fields.contains_key(header::TRANSFER_ENCODING) && fields.contains_key(header::CONTENT_LENGTH)
}

/// Path and query only, as a request to an origin server has it (RFC 9112, 3.2.1). `*` stays.
fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() {
        return uri.clone();
    }
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    Uri::from(path)
}
