//! Header fields that mean something to a proxy.
//!
//! Owns their recognition, by length first, since nearly all fields mean nothing to it.

/// Of one field's value. Backends commonly take half of it for all fields together.
pub const FIELD_BYTES_MAX: usize = 16 << 10;

/// A field by what it is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Te,
    Upgrade,
    Expect,
    Http2Settings,
    Date,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    /// What else a proxy says of a client, and we do not.
    ForwardedOther,
    Via,
    /// Means only one connection, and nothing to us: goes no further.
    Dropped,
    /// Goes through.
    Other,
}

/// Which one this is.
#[inline]
pub(super) fn token(name: &str) -> Token {
    // Most fields begin with another letter than those of their length.
    let first = name.as_bytes().first().map_or(0, |first| first | 0x20);
    let is = |other: &str| other.as_bytes()[0] == first && name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Token::Te,
        3 if is("via") => Token::Via,
        4 if is("host") => Token::Host,
        4 if is("date") => Token::Date,
        // Not a hop-by-hop field but an attack on CGI programs.
        5 if is("proxy") => Token::Dropped,
        6 if is("expect") => Token::Expect,
        7 if is("upgrade") => Token::Upgrade,
        9 if is("forwarded") || is("x-real-ip") => Token::ForwardedOther,
        10 if is("connection") => Token::Connection,
        10 if is("keep-alive") => Token::Dropped,
        14 if is("content-length") => Token::ContentLength,
        14 if is("http2-settings") => Token::Http2Settings,
        15 if is("x-forwarded-for") => Token::ForwardedFor,
        16 if is("x-forwarded-host") => Token::ForwardedHost,
        16 if is("proxy-connection") => Token::Dropped,
        17 if is("transfer-encoding") => Token::TransferEncoding,
        17 if is("x-forwarded-proto") => Token::ForwardedProto,
        13.. if first == b'x' && is_forwarded(name) => Token::ForwardedOther,
        _ => Token::Other,
    }
}

fn is_forwarded(name: &str) -> bool {
    let prefix = name.get(..12);
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case("x-forwarded-"))
}

/// Whether a field says who a client is, in the words of proxies. From strangers it is not believed.
pub fn is_about_client(name: &str) -> bool {
    use Token::{ForwardedFor, ForwardedHost, ForwardedOther, ForwardedProto};
    matches!(
        token(name),
        ForwardedFor | ForwardedHost | ForwardedOther | ForwardedProto
    )
}

/// Whether a field decides about a message as a whole, so that it may not come after the body (RFC 9110, 6.5.1).
pub fn is_about_message(name: &str) -> bool {
    const OTHERS: [&str; 17] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "max-forwards",
        "proxy-authorization",
        "range",
        "set-cookie",
        "trailer",
        "via",
    ];
    !matches!(token(name), Token::Other) || OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// What `Connection` must not name: without it, another reader sees another message, or another host.
pub(super) fn is_framing(name: &[u8]) -> bool {
    let framing: [&[u8]; 3] = [b"host", b"content-length", b"transfer-encoding"];
    framing.iter().any(|framing| framing.eq_ignore_ascii_case(name))
}

/// The members of a comma-separated list.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Fields that decide where a message ends or goes, which `Connection` cannot take away; and its own two words.
pub(super) fn is_protected(name: &[u8]) -> bool {
    let kept: [&[u8]; 5] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"keep-alive",
        b"close",
    ];
    kept.iter().any(|kept| kept.eq_ignore_ascii_case(name))
}
