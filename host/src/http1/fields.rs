//! Header fields that mean something to a proxy.
//!
//! Owns their recognition, by length first, since nearly all fields mean nothing to it.

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
    /// Means only one connection, and nothing to us: goes no further.
    Dropped,
    /// Goes through.
    Other,
}

/// Which one this is.
#[inline]
pub(super) fn token(name: &str) -> Token {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Token::Te,
        4 if is("host") => Token::Host,
        4 if is("date") => Token::Date,
        // Not a hop-by-hop field but an attack on CGI programs.
        5 if is("proxy") => Token::Dropped,
        6 if is("expect") => Token::Expect,
        7 if is("upgrade") => Token::Upgrade,
        10 if is("connection") => Token::Connection,
        10 if is("keep-alive") => Token::Dropped,
        14 if is("content-length") => Token::ContentLength,
        14 if is("http2-settings") => Token::Http2Settings,
        15 if is("x-forwarded-for") => Token::ForwardedFor,
        16 if is("x-forwarded-host") => Token::ForwardedHost,
        16 if is("proxy-connection") => Token::Dropped,
        17 if is("transfer-encoding") => Token::TransferEncoding,
        17 if is("x-forwarded-proto") => Token::ForwardedProto,
        _ => Token::Other,
    }
}

/// Only what can be in a host and port: a comma, a path or user information would mean different hosts to different
/// readers.
#[inline]
pub(crate) fn is_host(host: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    host.iter().all(fits)
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
