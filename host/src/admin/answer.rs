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
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(super) fn refusal(status: StatusCode, error: String) -> Answer {
    let body = serde_json::json!({ "error": error });
    with_body(status, JSON, format!("{body}\n"))
}

pub(super) fn wrong_method(allow: &'static str) -> Answer {
    let mut answer = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("the method must be one of: {allow}"),
    );
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}
