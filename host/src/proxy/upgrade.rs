//! Requests that ask for another protocol on their connection (RFC 9110, 7.8), or for a way through (CONNECT).
//!
//! Owns which of them may ask, and what both sides are told. It must not know the protocols, but for what a WebSocket's
//! request must have, nor how bytes pass after a 101 (`relay.rs`).
//!
//! Invariants: nothing that the client sends after its request reaches the backend before the backend's 101; without
//! one, the connection ends with the answer, so that those bytes never become a request.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request::Parts};

use super::error::Error;
use crate::config::{Listener, PoolProtocol};

const WEBSOCKET: &str = "websocket";
const KEY: &str = "sec-websocket-key";
const VERSION: &str = "sec-websocket-version";

/// What a request asks for in place of an answer.
pub(super) enum Question {
    /// This protocol on its connection.
    Upgrade(HeaderValue),
    /// A way through the backend to somewhere else (RFC 9110, 9.3.6).
    Connect,
}

/// What a request asks for, if it may. What may not is an ordinary request without the question.
pub(super) fn asked(head: &Parts, listener: &Listener) -> Result<Option<Question>, Error> {
    // Whether it may was asked before.
    if head.method == Method::CONNECT {
        return Ok(Some(Question::Connect));
    }
    if listener.upgrades.is_empty()
        || head.version != Version::HTTP_11
        || head.method != Method::GET
        || !names_upgrade(&head.headers)
        || has_body(&head.headers)
    {
        return Ok(None);
    }
    let mut protocols = head.headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
        return Ok(None);
    };
    let is_asked = |allowed: &&String| protocol.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
    let Some(allowed) = listener.upgrades.iter().find(is_asked) else {
        return Ok(None);
    };
    if allowed == WEBSOCKET {
        check_websocket(&head.headers)?;
    }
    Ok(Some(Question::Upgrade(protocol.clone())))
}

/// RFC 6455, 4.2.1.
fn check_websocket(fields: &HeaderMap) -> Result<(), Error> {
    let mut keys = fields.get_all(KEY).iter();
    // 16 bytes in base64.
    if keys.next().is_none_or(|key| key.len() != 24) || keys.next().is_some() {
        return Err(Error::BadRequest(
            "a WebSocket needs a Sec-WebSocket-Key of 16 bytes",
        ));
    }
    match fields.get(VERSION) {
        Some(version) if version == "13" => Ok(()),
        _ => Err(Error::WebSocketVersion),
    }
}

fn names_upgrade(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

fn has_body(fields: &HeaderMap) -> bool {
    let length = fields.get(header::CONTENT_LENGTH);
    fields.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

impl Question {
    /// Whether backends that speak this can be asked.
    pub(super) fn fits(&self, protocol: PoolProtocol) -> bool {
        match self {
            Self::Upgrade(_) => protocol != PoolProtocol::Http2,
            Self::Connect => true,
        }
    }

    /// Puts the question, or its answer, among the fields that go on.
    pub(super) fn announce(&self, fields: &mut HeaderMap) {
        if let Self::Upgrade(protocol) = self {
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(header::UPGRADE, protocol.clone());
        }
    }

    /// Whether a backend agrees to what it was asked, and to nothing else.
    pub(super) fn is_agreed<B>(&self, response: &Response<B>) -> bool {
        match self {
            Self::Upgrade(protocol) => {
                let answered = response.headers().get(header::UPGRADE);
                response.status() == StatusCode::SWITCHING_PROTOCOLS
                    && answered
                        .is_some_and(|answered| answered.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()))
            }
            Self::Connect => response.status().is_success(),
        }
    }

    /// Gives the client the backend's word. One that does not agree is the connection's last.
    pub(super) fn answer<B>(&self, response: &mut Response<B>, head: &Parts) {
        // What the backend agreed to was looked at before its fields were made fit for the client.
        let is_agreed = match self {
            Self::Upgrade(_) => response.status() == StatusCode::SWITCHING_PROTOCOLS,
            Self::Connect => response.status().is_success(),
        };
        if is_agreed {
            let fields = response.headers_mut();
            // RFC 9110, 9.3.6 and 15.2.2: there is no body, whatever is said of it.
            fields.remove(header::CONTENT_LENGTH);
            self.announce(fields);
        } else {
            close(response, head);
        }
    }
}

/// An error in place of a backend's word is the connection's last just as well.
pub(super) fn refuse<B>(response: &mut Response<B>, head: &Parts, listener: &Listener) {
    if !matches!(asked(head, listener), Ok(None)) {
        close(response, head);
    }
}

/// What the client has sent after its question must not become a request. Of HTTP/2, that was never in the way.
fn close<B>(response: &mut Response<B>, head: &Parts) {
    if head.version != Version::HTTP_2 {
        let closes = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, closes);
    }
}
