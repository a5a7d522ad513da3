//! Everything that can end a request early, whose fault it was, and what the client is told.
//!
//! Owns the one place where an error becomes a response. A policy's fault is not among them: it never ends a request.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client's.
    Downstream,
    /// A backend's, or the lack of one.
    Upstream,
    /// Nobody's: the policy refused the request on purpose.
    Policy,
}

/// Why a request got no response from a backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not HTTP as RFC 9110 and 9112 want it.
    #[error("{0}")]
    BadRequest(&'static str),
    /// A request of HTTP/2 that RFC 9113, 8.1.1, calls malformed. Its stream is reset, others go on.
    #[error("{0}")]
    Malformed(&'static str),
    /// CONNECT and TRACE are not proxied.
    #[error("method {0} is not allowed")]
    Method(&'static str),
    /// An expectation other than 100-continue.
    #[error("unknown expectation")]
    Expectation,
    /// A WebSocket of another version than 13, the only one there is.
    #[error("only version 13 of WebSocket is spoken")]
    WebSocketVersion,
    /// It has been here before.
    #[error("the request goes in circles")]
    Loop,
    /// More header fields than the listener allows.
    #[error("too many header fields")]
    TooManyFields,
    /// One header field alone is larger than any backend takes.
    #[error("a header field is too large")]
    FieldTooLarge,
    /// More than the listener's rates let in; some are let in again after so many seconds.
    #[error("too many requests")]
    TooMany(u64),
    /// No route of the listener takes it.
    #[error("no route for this host and path")]
    NoRoute,
    /// The policy refused it.
    #[error("refused by policy")]
    Rejected(u16),
    /// No backend of the pool is usable.
    #[error("no usable backend")]
    NoBackend,
    /// Every backend is full, and the queue as well, or the request has waited in it for too long.
    #[error("{0}")]
    Full(&'static str),
    /// The backend could not be reached. Nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke before a response head came.
    #[error("backend failed before it answered: {0}")]
    Upstream(String),
    /// The response head did not come in time.
    #[error("backend did not answer in time")]
    ResponseTimeout,
    /// The same, in the shorter time of an attempt that another one may follow; that one is paid for.
    #[error("backend did not answer in time")]
    TryTimeout,
    /// The request has taken longer than one may as a whole.
    #[error("request took too long")]
    RequestTimeout,
    /// What came is not a response that can be passed on.
    #[error("{0}")]
    BadResponse(&'static str),
}

impl Error {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::BadRequest(_)
            | Self::Malformed(_)
            | Self::Method(_)
            | Self::Expectation
            | Self::WebSocketVersion
            | Self::TooManyFields
            | Self::FieldTooLarge
            | Self::Loop
            | Self::TooMany(_)
            | Self::NoRoute => Fault::Downstream,
            Self::Rejected(_) => Fault::Policy,
            Self::NoBackend
            | Self::Full(_)
            | Self::Connect(_)
            | Self::Upstream(_)
            | Self::ResponseTimeout
            | Self::TryTimeout
            | Self::RequestTimeout
            | Self::BadResponse(_) => Fault::Upstream,
        }
    }

    /// The status that the client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::TooManyFields | Self::FieldTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Rejected(status) => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::NoBackend | Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Upstream(_) | Self::BadResponse(_) => StatusCode::BAD_GATEWAY,
            Self::ResponseTimeout | Self::TryTimeout | Self::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The response. Its text names the kind of error and nothing of the inside: no address, no library's message.
    pub(super) fn answer(&self) -> Response<Bytes> {
        let text = match self {
            Self::Connect(_) | Self::Upstream(_) => "bad gateway".to_owned(),
            other => other.to_string(),
        };
        let mut response = Response::new(Bytes::from(format!("{text}\n")));
        *response.status_mut() = self.status();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        match self {
            // What was left unread of a request that is not understood must not become the next one.
            Self::BadRequest(_) | Self::Expectation | Self::FieldTooLarge => {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::WebSocketVersion => {
                let fields = response.headers_mut();
                fields.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::TooMany(seconds) => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            // Well-behaved clients and crawlers come back, and not at once (RFC 9110, 10.2.3).
            Self::Full(_) => {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Method(_) => {
                let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH");
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            _ => {}
        }
        response
    }
}
