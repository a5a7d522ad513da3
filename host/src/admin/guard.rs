//! Who may ask, as long as there are no passwords.
//!
//! Owns the defence against web pages: a browser on this machine reaches the loopback address for any page it shows. A
//! page under a name of its own that leads here (DNS rebinding) is told by its Host; one that only sends (CSRF) by its
//! Origin, or by a content type that it may send without asking. It must not know any endpoint.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Request, StatusCode, Version, header, uri::Authority};

use super::answer::{Refusal, refusal};

/// Refuses what no honest client of an admin listener at this address sends.
pub(super) fn check<B>(request: &Request<B>, address: SocketAddr) -> Result<(), Refusal> {
    if address.ip().to_canonical().is_loopback() {
        check_host(request)?;
    }
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_reads && request.headers().contains_key(header::ORIGIN) {
        let error = "requests of web pages (with Origin) may not change anything";
        return Err(refusal(StatusCode::FORBIDDEN, error.to_owned()));
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let hosts = request.headers().get_all(header::HOST);
    if hosts.iter().count() != 1 && request.version() != Version::HTTP_10 {
        let error = "exactly one Host is expected".to_owned();
        return Err(refusal(StatusCode::BAD_REQUEST, error));
    }
    let is_local_text = |text: &str| text.parse::<Authority>().is_ok_and(|host| is_local(&host));
    let hosts_fit = hosts.iter().all(|host| host.to_str().is_ok_and(is_local_text));
    if hosts_fit && request.uri().authority().is_none_or(is_local) {
        return Ok(());
    }
    let error =
        "Host must be an IP address or localhost, so that no web page can come here by a name of its own";
    Err(refusal(StatusCode::FORBIDDEN, error.to_owned()))
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost") || bare.unwrap_or(host).parse::<IpAddr>().is_ok()
}

/// What an endpoint takes; the types that pages send without asking are others.
pub(super) const JSON: &str = "application/json";
pub(super) const WASM: &str = "application/wasm";
pub(super) const TOML: &str = "application/toml";

/// Refuses a body that does not say that it is what the endpoint takes.
pub(super) fn check_content_type(
    headers: &HeaderMap,
    body: &[u8],
    expected: &'static str,
) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return if body.is_empty() {
            Ok(())
        } else {
            Err(unsupported("none", expected))
        };
    };
    let text = value.to_str().unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(unsupported(&format!("\"{kind}\""), expected))
    }
}

fn unsupported(found: &str, expected: &str) -> Refusal {
    refusal(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("content-type must be {expected}, not {found}"),
    )
}
