//! The way of a request, top to bottom.
//!
//! Owns the order of the steps: route, admit, pick, forward, observe, retry. Each step is elsewhere. It must not know
//! how any of them works.
//!
//! Invariant: every request is answered, and its [`Journey`] ends exactly once.

use std::{cell::Cell, convert::Infallible, net::SocketAddr, rc::Rc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use hyper::body::Incoming;

use super::{
    accept::ListenerState,
    access::{Line, unix_ms},
    body::{RequestBody, ResponseBody},
    client::Watch,
    error::{Error, Fault},
    forward::{Exchange, Failed, Freshness, Target},
    headers, route,
    worker::{PoolSettings, WorkerPool, WorkerState},
};
use crate::{
    clock, config,
    policy::{self, Chooser, Decision, Facts, Tried},
};

/// What all requests of a client's connection share.
pub(super) struct Client {
    pub(super) worker: Rc<WorkerState>,
    pub(super) listener: Rc<ListenerState>,
    pub(super) watch: Rc<Watch>,
    pub(super) address: SocketAddr,
    /// The address as policies see it.
    pub(super) bits: u128,
    /// The address as `X-Forwarded-For` says it.
    pub(super) text: HeaderValue,
}

/// Serves one request.
///
/// Dropping this future, as happens when the client goes away, drops the attempt under way and with it the upstream
/// connection.
pub(super) async fn serve(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    client.watch.request_began();
    let (mut head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let mut journey = Journey::begin(&client, &head);
    let result = handle(&client, &mut head, body, &mut journey).await;
    let mut response = result.unwrap_or_else(|error| {
        journey.fail(&error);
        error.into_response()
    });
    journey.status = response.status().as_u16();
    response.body_mut().carry(journey, is_head);
    Ok(response)
}

/// Everything large is lent and not given: what a future is given it keeps twice, and futures are moved for each request.
async fn handle(
    client: &Rc<Client>,
    head: &mut Parts,
    body: Incoming,
    journey: &mut Journey,
) -> Result<Response<ResponseBody>, Error> {
    headers::check(head)?;
    let listener = client.listener.rules();
    let host = policy::host_of(policy::authority(head));
    let pool = route::find(&listener.routes, host, head.uri.path()).ok_or(Error::NoRoute)?;
    let mut attempts = Attempts::new(client, pool, head, body, journey.began_us);
    loop {
        let target = attempts.pick(head, journey)?;
        let mut request = Some(attempts.request(head, &listener.config));
        match attempts.forward(&target, &mut request).await {
            Ok(mut response) => {
                headers::for_client(response.headers_mut(), &listener.config);
                return Ok(response);
            }
            Err(failed) => attempts.allow_another(target, failed, request)?,
        }
    }
}

/// The attempts to serve one request.
struct Attempts<'a> {
    client: &'a Rc<Client>,
    pool: &'a Rc<WorkerPool>,
    settings: Rc<PoolSettings>,
    key: u64,
    tried: Tried,
    now_us: u64,
    /// Sending it twice does no harm, and nothing of it is lost by sending it once.
    is_repeatable: bool,
    /// The body, while no attempt has it.
    body: Option<RequestBody>,
    /// The backend to try again, on a new connection: a stored one was closed under the last attempt.
    again: Option<Target>,
    sent: Rc<Cell<u64>>,
}

impl<'a> Attempts<'a> {
    fn new(
        client: &'a Rc<Client>,
        pool: &'a Rc<WorkerPool>,
        head: &Parts,
        body: Incoming,
        now_us: u64,
    ) -> Self {
        let settings = pool.settings();
        let random = client.worker.random();
        let sent = Rc::new(Cell::new(0));
        let body = RequestBody::new(body, &client.watch, &sent);
        Self {
            client,
            pool,
            key: policy::key_of(&settings.config.hash_on, head, client.bits, random),
            settings,
            tried: Tried::default(),
            now_us,
            is_repeatable: is_idempotent(&head.method) && body.is_empty(),
            body: Some(body),
            again: None,
            sent,
        }
    }

    /// Which backend is next.
    fn pick(&mut self, head: &mut Parts, journey: &mut Journey) -> Result<Target, Error> {
        if self.tried.attempts() > 0 || self.again.is_some() {
            self.now_us = clock::now_us();
            self.client.worker.metrics().count(|metrics| &metrics.retries);
        }
        if let Some(again) = &self.again {
            return Ok(again.clone());
        }
        let random = self.client.worker.random();
        let facts = Facts {
            key: self.key,
            random,
            client: self.client.bits,
            now_us: self.now_us,
        };
        let (decision, target) = self.pool.decide(&facts, &self.tried, head);
        journey.decided(self.pool, &decision, target.as_ref());
        match decision {
            Decision::Reject(status) => Err(Error::Rejected(status)),
            Decision::NoBackend => Err(Error::NoBackend),
            Decision::Send(_) => target.ok_or(Error::NoBackend),
        }
    }

    fn request(&mut self, head: &Parts, listener: &config::Listener) -> Request<RequestBody> {
        let mut request = Request::new(self.body.take().unwrap_or(RequestBody::Empty));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = origin_form(&head.uri);
        *request.headers_mut() = headers::for_backend(head, listener, &self.client.text);
        request
    }

    /// Takes the request, and leaves it where it was if nothing of it was sent.
    async fn forward(
        &mut self,
        target: &Target,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let Client { worker, watch, .. } = &**self.client;
        let freshness = if self.again.take().is_some() {
            Freshness::New
        } else {
            Freshness::Any
        };
        let mut exchange = Exchange::begin(
            worker,
            self.pool,
            &self.settings,
            target,
            watch,
            &self.sent,
            self.now_us,
        );
        let response = exchange.send(request, freshness).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            exchange.record_failure();
            return Err(Failed::for_good(Error::BadResponse(
                "backend switched protocols unasked",
            )));
        }
        if is_framed_twice(response.headers()) {
            exchange.record_failure();
            return Err(Failed::for_good(Error::BadResponse(
                "backend gave its response both a length and chunks",
            )));
        }
        Ok(response.map(|body| ResponseBody::backend(body, exchange)))
    }

    /// Whether the request may be sent again, and what is remembered for it. Gives the error if it may not.
    fn allow_another(
        &mut self,
        target: Target,
        failed: Failed,
        unsent: Option<Request<RequestBody>>,
    ) -> Result<(), Error> {
        let Failed { error, was_stale } = failed;
        if let Some(request) = unsent {
            self.body = Some(request.into_body());
        } else if !self.is_repeatable || !matches!(error, Error::Upstream(_)) {
            return Err(error);
        }
        if was_stale {
            self.again = Some(target);
            return Ok(());
        }
        self.tried.push(target.upstream.backend.id);
        if self.tried.attempts() < self.settings.config.retry.attempts.get() {
            Ok(())
        } else {
            Err(error)
        }
    }
}

/// Which of the two holds is where readers differ, so what follows such a response cannot be trusted (RFC 9112, 6.1).
fn is_framed_twice(fields: &HeaderMap) -> bool {
    fields.contains_key(header::TRANSFER_ENCODING) && fields.contains_key(header::CONTENT_LENGTH)
}

/// RFC 9110, 9.2.2. An unknown method may do anything.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
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

/// A request from its head to the end of its response: what is counted and logged of it.
pub(super) struct Journey {
    client: Rc<Client>,
    began_us: u64,
    status: u16,
    is_complete: bool,
    line: Option<Box<Line>>,
}

impl Journey {
    fn begin(client: &Rc<Client>, head: &Parts) -> Self {
        let line = client.worker.access_log().map(|_| {
            Box::new(Line {
                at_ms: unix_ms(),
                listener: client.listener.rules().config.name.clone(),
                client: client.address.ip().to_string(),
                method: head.method.to_string(),
                host: policy::authority(head).to_owned(),
                path: head
                    .uri
                    .path_and_query()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                ..Line::default()
            })
        });
        Self {
            client: client.clone(),
            began_us: client.worker.tick(),
            status: 0,
            is_complete: false,
            line,
        }
    }

    fn decided(&mut self, pool: &WorkerPool, decision: &Decision, target: Option<&Target>) {
        let Some(line) = &mut self.line else { return };
        line.attempts += 1;
        line.pool = Some(pool.name().to_owned());
        line.backend = target.map(|target| target.upstream.backend.address.to_string());
        let candidate = pool.seat().deployment().candidate.clone();
        line.policy = Some(candidate.spec.name.clone());
        line.version = Some(candidate.version.to_string());
        if let Decision::Send(choice) = decision {
            line.note.clone_from(&choice.note);
            line.chosen_by = Some(match choice.chooser {
                Chooser::Policy => "policy",
                Chooser::Host(reason) => reason.name(),
            });
        }
    }

    fn fail(&mut self, error: &Error) {
        self.client.worker.metrics().count(|metrics| &metrics.errors);
        if let Some(line) = &mut self.line {
            line.error = Some(error.to_string());
        }
        if error.fault() == Fault::Upstream {
            tracing::debug!(%error, "request failed");
        }
    }

    /// The client has been given the whole response.
    pub(super) fn complete(mut self) {
        self.is_complete = true;
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        let worker = &self.client.worker;
        let duration_us = worker.tick().saturating_sub(self.began_us);
        worker.metrics().record(self.status, duration_us);
        if self.is_complete {
            self.client.watch.request_ended();
        } else {
            worker.metrics().count(|metrics| &metrics.aborted);
        }
        if let (Some(mut line), Some(log)) = (self.line.take(), worker.access_log()) {
            line.status = self.status;
            line.complete = self.is_complete;
            line.duration_us = duration_us;
            log.write(*line);
        }
    }
}
