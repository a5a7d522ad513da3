//! What happens to header fields on their way through.
//!
//! Owns hop-by-hop fields (RFC 9110, 7.6.1), `X-Forwarded-*` and `Via`. It must not know where a request goes.
//!
//! Invariant: client fields named by `Connection` go first and ours are added after, so that a client cannot make us drop
//! what we say about it.

use std::sync::LazyLock;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, Version,
    header::{self, Entry},
    request::Parts,
    uri::{Authority, Scheme},
};

use super::error::Error;
use crate::{
    config::{Forwarded, Listener, Underscores},
    http1::{FIELD_BYTES_MAX, HostForm, host_form, is_about_client, settle_host, settle_path, via_name},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// By the version of the message as it was received.
static VIA: LazyLock<[HeaderValue; 2]> = LazyLock::new(|| {
    ["1.1", "2.0"].map(|version| {
        let text = format!("{version} {}", via_name());
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("1.1 trimtab"))
    })
});

/// Whether it is a call of gRPC, by whose rules a stream may be quiet on purpose.
pub(super) fn is_call(fields: &HeaderMap) -> bool {
    let kind = fields.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Which fields there are that are looked for here: nearly all requests have none of most, and to look each up in the map costs
/// more than to look at all fields once.
#[derive(Default)]
pub(super) struct Glance {
    /// Of the target's authority, if it has one.
    authority: Option<HostForm>,
    has_host: bool,
    has_via: bool,
    has_expect: bool,
    has_underscore: bool,
    is_too_large: bool,
    is_padded: bool,
    cookies: usize,
}

impl Glance {
    #[inline]
    pub(super) fn at(head: &Parts) -> Self {
        let authority = head.uri.authority();
        let mut glance = Self {
            authority: authority.map(|authority| host_form(authority.as_str().as_bytes())),
            ..Self::default()
        };
        for (name, value) in &head.headers {
            let bytes = value.as_bytes();
            glance.is_too_large |= bytes.len() > FIELD_BYTES_MAX;
            glance.is_padded |= is_blank(bytes.first()) || is_blank(bytes.last());
            match *name {
                header::HOST => glance.has_host = true,
                header::VIA => glance.has_via = true,
                header::EXPECT => glance.has_expect = true,
                header::COOKIE => glance.cookies += 1,
                _ => glance.has_underscore |= name.as_str().bytes().any(|byte| byte == b'_'),
            }
        }
        glance
    }
}

fn is_blank(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// Refuses what RFC 9112 has a server refuse and the HTTP library lets through.
#[inline]
pub(super) fn check(head: &Parts, glance: &Glance, listener: &Listener) -> Result<(), Error> {
    let is_http2 = head.version == Version::HTTP_2;
    if is_http2 && head.headers.len() > listener.limits.headers {
        return Err(Error::TooManyFields);
    }
    if glance.is_too_large {
        return Err(Error::FieldTooLarge);
    }
    if is_http2 {
        check_malformed(head, glance)?;
    }
    match head.method {
        http::Method::CONNECT if !listener.connect => return Err(Error::Method("CONNECT")),
        http::Method::CONNECT => check_connect(head)?,
        http::Method::TRACE => return Err(Error::Method("TRACE")),
        _ => {}
    }
    if head.uri.path() == "*" && head.method != http::Method::OPTIONS {
        return Err(Error::BadRequest("an asterisk is for OPTIONS only"));
    }
    if glance.has_via {
        let mut vias = head.headers.get_all(header::VIA).iter();
        if vias.any(|via| via.to_str().is_ok_and(|via| via.contains(via_name()))) {
            return Err(Error::Loop);
        }
    }
    // RFC 9110, 4.2.4: user information has no meaning here, and it would tell another host to some readers.
    if glance.authority == Some(HostForm::Bad) {
        return Err(Error::BadRequest("malformed host in the target"));
    }
    let mut hosts = glance
        .has_host
        .then(|| head.headers.get_all(header::HOST).iter())
        .into_iter()
        .flatten();
    match (hosts.next(), hosts.next()) {
        // RFC 9113, 8.3.1: the two must not differ, or two readers would see two hosts.
        (host, None) if is_http2 => check_authority(&head.uri, host)?,
        (Some(host), None) => check_host(host)?,
        (None, _) if head.version >= Version::HTTP_11 => {
            return Err(Error::BadRequest("a request must have a Host header"));
        }
        (Some(_), Some(_)) => return Err(Error::BadRequest("a request must have one Host header")),
        (None, _) => {}
    }
    if !glance.has_expect {
        return Ok(());
    }
    match head.headers.get(header::EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Err(Error::Expectation),
        _ => Ok(()),
    }
}

/// What the HTTP library lets through of what RFC 9113 calls malformed.
fn check_malformed(head: &Parts, glance: &Glance) -> Result<(), Error> {
    // 8.2.1
    if glance.is_padded {
        return Err(Error::Malformed("a field begins or ends with a blank"));
    }
    // 8.5
    if head.method == http::Method::CONNECT && head.uri.authority().is_none() {
        return Err(Error::Malformed("CONNECT without an :authority"));
    }
    Ok(())
}

/// RFC 9110, 9.3.6: host and port are all that it names, and nothing that follows is a body.
fn check_connect(head: &Parts) -> Result<(), Error> {
    let port = head.uri.authority().and_then(Authority::port_u16);
    if port.is_none_or(|port| port == 0) || head.uri.scheme().is_some() || head.uri.path_and_query().is_some()
    {
        return Err(Error::BadRequest("CONNECT takes a host and a port"));
    }
    let fields = &head.headers;
    if fields.contains_key(header::TRANSFER_ENCODING) || fields.contains_key(header::CONTENT_LENGTH) {
        return Err(Error::BadRequest("CONNECT has no body"));
    }
    Ok(())
}

fn check_authority(uri: &Uri, host: Option<&HeaderValue>) -> Result<(), Error> {
    match (uri.authority(), host) {
        (None, None) => return Err(Error::BadRequest("a request must have an :authority")),
        (Some(authority), Some(host)) if authority.as_str().as_bytes() != host.as_bytes() => {
            return Err(Error::Malformed("a Host header that is not the :authority"));
        }
        _ => {}
    }
    host.map_or(Ok(()), check_host)
}

fn check_host(host: &HeaderValue) -> Result<(), Error> {
    match host_form(host.as_bytes()) {
        HostForm::Bad => Err(Error::BadRequest("malformed Host header")),
        HostForm::Settled | HostForm::Other => Ok(()),
    }
}

/// Brings what route, policy and backend decide by into the one form that all of them see.
///
/// # Errors
/// When the path has none.
#[inline]
pub(super) fn settle(
    head: &mut Parts,
    glance: &Glance,
    listener: &Listener,
    scheme: &'static str,
) -> Result<(), Error> {
    if glance.has_underscore && listener.underscores == Underscores::Drop {
        while let Some(name) = head
            .headers
            .keys()
            .find(|name| name.as_str().contains('_'))
            .cloned()
        {
            head.headers.remove(name);
        }
    }
    if glance.has_host
        && let Some(host) = head.headers.get(header::HOST)
        && host_form(host.as_bytes()) == HostForm::Other
        && let Ok(settled) = HeaderValue::from_str(&settle_host(host.to_str().unwrap_or_default(), scheme))
    {
        head.headers.insert(header::HOST, settled);
    }
    if head.method == http::Method::CONNECT {
        // Its target is the host.
        return Ok(());
    }
    let authority = head.uri.authority().map(Authority::as_str);
    let authority = authority.filter(|_| glance.authority == Some(HostForm::Other));
    let authority = authority.map(|authority| settle_host(authority, scheme));
    let path = settle_path(head.uri.path(), listener.paths).map_err(Error::BadRequest)?;
    if authority.is_none() && path == head.uri.path() {
        return Ok(());
    }
    let target = match head.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    let mut parts = head.uri.clone().into_parts();
    let is_new = |_| Error::BadRequest("malformed target");
    parts.path_and_query = Some(target.parse().map_err(is_new)?);
    if let Some(authority) = authority {
        parts.authority = Some(authority.parse().map_err(is_new)?);
    }
    head.uri = Uri::from_parts(parts).map_err(|_| Error::BadRequest("malformed target"))?;
    Ok(())
}

/// HTTP/2 lets a client cut its cookies up, which HTTP/1.1 does not (RFC 9113, 8.2.3). True if it did.
pub(super) fn join_cookies(fields: &mut HeaderMap, glance: &Glance) -> bool {
    if glance.cookies < 2 {
        return false;
    }
    let pieces: Vec<&[u8]> = fields
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        fields.insert(header::COOKIE, whole);
    }
    true
}

/// The fields that go to the backend. `client` is the client's address as text, `scheme` what it speaks to us.
pub(super) fn for_backend(
    head: &Parts,
    listener: &Listener,
    client: &HeaderValue,
    scheme: &'static str,
) -> HeaderMap {
    let mut fields = head.headers.clone();
    let wants_trailers = head
        .headers
        .get(header::TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(&mut fields);
    if wants_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    // The target's authority wins over Host (RFC 9112, 3.2.2), and the backend must see the same one as the route.
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        fields.insert(header::HOST, host);
    }
    forwarded(
        &mut fields,
        listener.forwarded,
        client,
        HeaderValue::from_static(scheme),
    );
    if listener.via {
        append_via(&mut fields, head.version);
    }
    fields
}

/// Gives a request for HTTP/1.1 the form that HTTP/2 wants: the host in the target, and no word about the connection.
pub(super) fn into_http2<B>(request: &mut Request<B>, scheme: Scheme) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    let fields = request.headers_mut();
    fields.remove(header::CONNECTION);
    if request.method() == http::Method::CONNECT {
        // It has neither a scheme nor a path (RFC 9113, 8.5).
        return;
    }
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(scheme);
    target.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if target.authority.is_none() {
        // HTTP/1.0 may do without a host, and HTTP/2 may not.
        target.authority = Some(Authority::from_static("unknown"));
    }
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
}

/// Makes a backend's fields fit for the client.
#[inline]
pub(super) fn for_client(fields: &mut HeaderMap, listener: &Listener, version: Version) {
    strip_hop_by_hop(fields);
    if listener.via {
        append_via(fields, version);
    }
}

fn forwarded(fields: &mut HeaderMap, mode: Forwarded, client: &HeaderValue, scheme: HeaderValue) {
    if mode == Forwarded::Off {
        return;
    }
    let host = fields.get(header::HOST).cloned();
    if mode == Forwarded::Replace {
        while let Some(name) = fields.keys().find(|name| is_about_client(name.as_str())).cloned() {
            fields.remove(name);
        }
        fields.insert(FORWARDED_FOR, client.clone());
        fields.insert(FORWARDED_PROTO, scheme);
        if let Some(host) = host {
            fields.insert(FORWARDED_HOST, host);
        }
        return;
    }
    let all: Vec<&[u8]> = fields
        .get_all(FORWARDED_FOR)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let list = all
        .into_iter()
        .chain([client.as_bytes()])
        .collect::<Vec<_>>()
        .join(&b", "[..]);
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        fields.insert(FORWARDED_FOR, list);
    }
    fields.entry(FORWARDED_PROTO).or_insert(scheme);
    if let Some(host) = host {
        fields.entry(FORWARDED_HOST).or_insert(host);
    }
}

/// `version` is that of the message as it was received.
pub(super) fn append_via(fields: &mut HeaderMap, version: Version) {
    let own = VIA[usize::from(version == Version::HTTP_2)].clone();
    match fields.entry(header::VIA) {
        Entry::Vacant(via) => {
            via.insert(own);
        }
        Entry::Occupied(mut via) => via.append(own),
    }
}

/// Removes the fields that mean only one connection: those that `Connection` names, and those that always do.
fn strip_hop_by_hop(fields: &mut HeaderMap) {
    for name in named_by_connection(fields) {
        fields.remove(name);
    }
    while let Some(name) = fields.keys().find(|name| is_hop_by_hop(name)).cloned() {
        fields.remove(name);
    }
}

/// The fields that `Connection` names, but for those that are never its to take away. Mostly none: it says
/// `keep-alive` or `close`.
fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let values = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !is_protected(name))
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// Fields that decide where a message ends or goes, which `Connection` cannot take away; and its own two words.
fn is_protected(name: &str) -> bool {
    [
        "host",
        "content-length",
        "transfer-encoding",
        "keep-alive",
        "close",
    ]
    .iter()
    .any(|kept| kept.eq_ignore_ascii_case(name))
}

/// `Proxy` is no hop-by-hop field but an attack on CGI programs; `Expect` is answered here, when the body is first
/// read. Transfer coding belongs to the HTTP library, which sets its own.
#[inline]
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "proxy"
            | "expect"
    )
}

#[cfg(test)]
mod tests;
