//! One request to one member, on a connection of its own.
//!
//! Owns connecting, TLS and HTTP. Requests are few, a handful a second at most, so nothing is kept: a member that came back is
//! as good as one that was never away. Files of `[etcd.tls]` are read each time, so another certificate needs no restart.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
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

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was not sent.
    Unsent(String),
    /// It was sent; whether it was done is not known.
    Unanswered(String),
    /// The answer is no.
    Refused(String),
}

impl Failed {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Unsent(text) | Self::Unanswered(text) | Self::Refused(text) => text,
        }
    }
}

/// What is answered bit by bit, and the connection that it comes by.
pub(super) struct Stream {
    pub(super) body: Incoming,
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
pub(super) async fn ask(config: &Etcd, endpoint: &str, path: &str, body: &Value) -> Result<Value, Failed> {
    let (response, _connection) = send(config, endpoint, path, body).await?;
    let status = response.status();
    let unanswered = |error: &dyn std::fmt::Display| Failed::Unanswered(error.to_string());
    let read = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let bytes = read.map_err(|error| unanswered(&error))?.to_bytes();
    if status == StatusCode::OK {
        return serde_json::from_slice(&bytes).map_err(|error| unanswered(&error));
    }
    Err(refusal(status, &bytes))
}

/// Asks, and waits for the beginning of the answer.
pub(super) async fn open(config: &Etcd, endpoint: &str, path: &str, body: &Value) -> Result<Stream, Failed> {
    let (response, connection) = send(config, endpoint, path, body).await?;
    match response.status() {
        StatusCode::OK => Ok(Stream {
            body: response.into_body(),
            _connection: connection,
        }),
        status => Err(refusal(status, b"")),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Failed {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match answer["message"].as_str().or(answer["error"].as_str()) {
        Some(text) => text.to_owned(),
        None => format!("status {}", status.as_u16()),
    };
    let is_elsewhere = answer["code"]
        .as_i64()
        .is_some_and(|code| ELSEWHERE.contains(&code));
    match is_elsewhere || (answer["code"].is_null() && status.is_server_error()) {
        true => Failed::Unanswered(text),
        false => Failed::Refused(text),
    }
}

async fn send(
    config: &Etcd,
    endpoint: &str,
    path: &str,
    body: &Value,
) -> Result<(Response<Incoming>, Driver), Failed> {
    let request = Request::post(path)
        .header(header::HOST, endpoint)
        .header(header::CONTENT_TYPE, "application/json")
        // A member without a leader does not know what is new.
        .header("grpc-metadata-hasleader", "true")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| Failed::Refused(error.to_string()))?;
    let stream = connect(endpoint)
        .await
        .map_err(|error| Failed::Unsent(error.to_string()))?;
    match &config.tls {
        None => over(stream, request).await,
        Some(tls) => {
            let stream = secure(tls.clone(), endpoint.to_owned(), stream).await;
            over(
                stream.map_err(|error| Failed::Unsent(error.to_string()))?,
                request,
            )
            .await
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
    let unsent = |error: hyper::Error| Failed::Unsent(error.to_string());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(unsent)?;
    let driver = Driver(tokio::spawn(connection).abort_handle());
    let sent = sender.send_request(request).await;
    Ok((
        sent.map_err(|error| Failed::Unanswered(error.to_string()))?,
        driver,
    ))
}
