//! What answers look like.
//!
//! Owns their form: JSON or text, and an error as `{"error": "..."}`. It must not know any endpoint.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;

pub(super) type Answer = Response<Full<Bytes>>;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The Prometheus text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn with_body(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A browser must not find HTML in what is not.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

pub(super) fn text(status: StatusCode, body: String) -> Answer {
    with_body(status, TEXT, body)
}

pub(super) fn metrics(body: String) -> Answer {
    with_body(StatusCode::OK, METRICS, body)
}

pub(super) fn json(body: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(body) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            with_body(StatusCode::OK, JSON, bytes)
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into(),
    }
}

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    allow: Option<&'static str>,
}

pub(super) fn refusal(status: StatusCode, error: String) -> Refusal {
    Refusal {
        status,
        error,
        allow: None,
    }
}

pub(super) fn wrong_method(allow: &'static str) -> Refusal {
    Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error: format!("the method must be one of: {allow}"),
        allow: Some(allow),
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let body = serde_json::json!({ "error": refusal.error });
        let mut answer = with_body(refusal.status, JSON, format!("{body}\n"));
        if let Some(allow) = refusal.allow {
            let allow = HeaderValue::from_static(allow);
            answer.headers_mut().insert(header::ALLOW, allow);
        }
        answer
    }
}
