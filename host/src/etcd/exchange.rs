//! One request to one member, on a connection of its own.
//!
//! Owns connecting, TLS and HTTP. Requests are few, a handful a second at most, so nothing is kept: a member that came back is
//! as good as one that was never away. Files of `[etcd.tls]` are read each time, so another certificate needs no restart.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};

use crate::{
    config::{Etcd, PoolTls},
    tls::{Offer, Originator},
};

/// Of an answer. The largest honest one is ten thousand backends.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// A member that cannot be reached any more is noticed by a connection on which nothing is said after this, and so many tries.
const SILENT_AFTER: Duration = Duration::from_secs(2);
const TRY_EVERY: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// Of etcd's codes (those of gRPC): a deadline, a member that is behind, and one without a leader. Another may do it.
const ELSEWHERE: [i64; 3] = [4, 8, 14];
const PERMISSION_DENIED: i64 = 7;
const UNAUTHENTICATED: i64 = 16;
/// Not every refusal of somebody that is not known has its code: without a token, and with one from before a change of users.
const UNKNOWN: [&str; 3] = [
    "user name is empty",
    "revision of auth store is old",
    "revision in header is old",
];
/// Characters of an answer that is not the gateway's.
const TOLD_MAX: usize = 200;

/// What a member is asked.
pub(super) struct Question<'a> {
    pub(super) path: &'a str,
    pub(super) body: &'a Value,
    /// Who asks.
    pub(super) token: Option<&'a HeaderValue>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was not sent.
    Unsent(String),
    /// It was sent; whether it was done is not known.
    Unanswered(String),
    /// The same, and the member has ended the connection.
    Cut(String),
    /// The answer is no.
    Refused(String),
    /// The member does not know who asks, or no longer. Nothing was done.
    Unknown(String),
    /// Who asks may not. Nothing was done.
    Forbidden(String),
}

impl Failed {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Unsent(text)
            | Self::Unanswered(text)
            | Self::Cut(text)
            | Self::Refused(text)
            | Self::Unknown(text)
            | Self::Forbidden(text) => text,
        }
    }
}

/// What is answered bit by bit, and the connection that it comes by.
pub(super) struct Stream {
    pub(super) body: Incoming,
    /// When all of it has to be there, if it has an end.
    until: Instant,
    _connection: Driver,
}

/// Ends a connection when it is dropped.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks, and waits for the whole answer.
pub(super) async fn ask(config: &Etcd, endpoint: &str, question: &Question<'_>) -> Result<Value, Failed> {
    open(config, endpoint, question).await?.whole(config).await
}

/// Asks, and waits for the beginning of the answer.
pub(super) async fn open(config: &Etcd, endpoint: &str, question: &Question<'_>) -> Result<Stream, Failed> {
    let until = Instant::now() + config.timeout;
    let begun = tokio::time::timeout_at(until.into(), begin(config, endpoint, question)).await;
    let (body, connection) = begun.unwrap_or_else(|_| Err(late(config)))?;
    Ok(Stream {
        body,
        until,
        _connection: connection,
    })
}

impl Stream {
    /// Waits for the end of the answer.
    pub(super) async fn whole(self, config: &Etcd) -> Result<Value, Failed> {
        let read = tokio::time::timeout_at(self.until.into(), read(self.body)).await;
        let bytes = read.unwrap_or_else(|_| Err(late(config)))?;
        serde_json::from_slice(&bytes).map_err(|error| Failed::Unanswered(error.to_string()))
    }
}

fn late(config: &Etcd) -> Failed {
    Failed::Unanswered(format!("no answer in {:?}", config.timeout))
}

async fn read(body: Incoming) -> Result<Bytes, Failed> {
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let unanswered = |error: Box<dyn Error + Send + Sync>| Failed::Unanswered(with_causes(&*error));
    Ok(read.map_err(unanswered)?.to_bytes())
}

async fn begin(config: &Etcd, endpoint: &str, question: &Question<'_>) -> Result<(Incoming, Driver), Failed> {
    let (response, connection) = send(config, endpoint, question).await?;
    let status = response.status();
    match status {
        StatusCode::OK => Ok((response.into_body(), connection)),
        status => Err(refusal(status, &read(response.into_body()).await?)),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failed {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match answer["message"].as_str().or(answer["error"].as_str()) {
        Some(text) => text.to_owned(),
        None => {
            let told: String = String::from_utf8_lossy(body).chars().take(TOLD_MAX).collect();
            format!("status {} {}", status.as_u16(), told.trim())
        }
    };
    let code = answer["code"].as_i64();
    if code == Some(UNAUTHENTICATED) || UNKNOWN.iter().any(|reason| text.contains(reason)) {
        return Failed::Unknown(text);
    }
    if code == Some(PERMISSION_DENIED) {
        return Failed::Forbidden(text);
    }
    let is_elsewhere = code.is_some_and(|code| ELSEWHERE.contains(&code));
    match is_elsewhere || (code.is_none() && status.is_server_error()) {
        true => Failed::Unanswered(text),
        false => Failed::Refused(text),
    }
}

async fn send(
    config: &Etcd,
    endpoint: &str,
    question: &Question<'_>,
) -> Result<(Response<Incoming>, Driver), Failed> {
    let request = Request::post(question.path)
        .header(header::HOST, endpoint)
        .header(header::CONTENT_TYPE, "application/json")
        // A member without a leader does not know what is new.
        .header("grpc-metadata-hasleader", "true");
    let request = match question.token {
        Some(token) => request.header(header::AUTHORIZATION, token),
        None => request,
    };
    let request = request
        .body(Full::new(Bytes::from(question.body.to_string())))
        .map_err(|error| Failed::Refused(error.to_string()))?;
    let unsent = |error: io::Error| Failed::Unsent(error.to_string());
    let stream = connect(endpoint).await.map_err(unsent)?;
    match &config.tls {
        None => over(stream, request).await,
        Some(tls) => {
            let stream = secure(tls.clone(), endpoint.to_owned(), stream).await;
            over(stream.map_err(unsent)?, request).await
        }
    }
}

async fn connect(endpoint: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(endpoint).await?;
    stream.set_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(SILENT_AFTER)
        .with_interval(TRY_EVERY)
        .with_retries(TRIES);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
    Ok(stream)
}

async fn secure(
    tls: PoolTls,
    endpoint: String,
    stream: TcpStream,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let prepared = tokio::task::spawn_blocking(move || {
        let wrong = |mistakes: Vec<_>| {
            let first = mistakes.first().map(ToString::to_string);
            io::Error::other(first.unwrap_or_default())
        };
        let originator = Originator::load(&tls, &[], None).map_err(wrong)?;
        let name = originator.name_of(&endpoint)?;
        Ok((originator.connectors().to(Offer::Http1).clone(), name))
    });
    let (connector, name) = prepared
        .await
        .map_err(io::Error::other)?
        .map_err(|error: io::Error| error)?;
    connector.connect(name, stream).await
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Driver), Failed> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake
        .await
        .map_err(|error| Failed::Unsent(with_causes(&error)))?;
    let driver = Driver(tokio::spawn(connection).abort_handle());
    match sender.send_request(request).await {
        Ok(response) => Ok((response, driver)),
        Err(error) => Err(match is_alert(&error) {
            true => Failed::Unsent(with_causes(&error)),
            false => Failed::Cut(with_causes(&error)),
        }),
    }
}

/// An error of hyper's says itself only where it happened.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// Whether the member does not want the connection. In TLS 1.3 it says so of a client's certificate only when that may have
/// sent something, which it has not looked at.
fn is_alert(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref())
        .filter_map(|cause| cause.downcast_ref::<rustls::Error>())
        .any(|cause| matches!(cause, rustls::Error::AlertReceived(_)))
}
