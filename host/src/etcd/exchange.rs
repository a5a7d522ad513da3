//! One request to one member, on a connection of its own.
//!
//! Owns what a request looks like, when its answer is late, and which kind of failure it is. Connections are `outgoing`'s.

use std::{error::Error, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::{
    config::Etcd,
    outgoing::{self, Broken, Driver, with_causes},
};

/// Of an answer. The largest honest one is ten thousand backends.
const ANSWER_BYTES_MAX: usize = 32 << 20;
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
    let sent = outgoing::send(endpoint, config.tls.as_ref(), request).await;
    sent.map_err(|broken| match broken {
        Broken::Unsent(text) => Failed::Unsent(text),
        Broken::Cut(text) => Failed::Cut(text),
    })
}
