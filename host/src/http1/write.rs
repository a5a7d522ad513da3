//! Requests as backends get them, and answers of our own.
//!
//! Owns `X-Forwarded-*`, `Via`, and what goes no further of a request (RFC 9110, 7.6.1), for ordinary requests; those of
//! the HTTP library have the same rules in `proxy/headers.rs`.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Response;

use super::{
    fields::Token,
    head::Head,
    response::write_status,
    runs::{Runs, write_field},
};
use crate::config::Forwarded;

/// What this process calls itself in `Via`. Two balancers in a row are no loop, so each has a name of its own.
static NAME: LazyLock<String> = LazyLock::new(|| format!("trimtab-{:06x}", fastrand::u32(..1 << 24)));
static VIA: LazyLock<String> = LazyLock::new(|| format!("1.1 {}", *NAME));

/// What this process calls itself in `Via`.
pub fn via_name() -> &'static str {
    &NAME
}

pub(super) fn own_via() -> &'static [u8] {
    VIA.as_bytes()
}

/// Whether a `Via` field has this process in it: the request was here before.
pub(super) fn is_own_via(value: &[u8]) -> bool {
    let name = NAME.as_bytes();
    value.windows(name.len()).any(|part| part == name)
}

/// What a backend is told of the client.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its address as text.
    pub address: &'a [u8],
    /// What it speaks to us: `http` or `https`.
    pub scheme: &'static str,
}

/// Writes an ordinary request's head.
#[inline]
pub fn write_request(out: &mut Vec<u8>, head: &Head, mode: Forwarded, via: bool, peer: Peer<'_>) {
    let mut runs = Runs::begin(&head.bytes, write_line(out, head));
    for field in &head.fields {
        let goes = match field.token {
            Token::Dropped | Token::Connection => false,
            Token::ForwardedFor => mode == Forwarded::Off,
            Token::ForwardedProto | Token::ForwardedHost | Token::ForwardedOther => {
                mode != Forwarded::Replace
            }
            _ => true,
        };
        if goes {
            runs.field(out, field.name.range(), field.value.range());
        }
    }
    runs.flush(out);
    if mode != Forwarded::Off {
        forwarded(out, head, mode, peer);
    }
    if via {
        write_field(out, b"via", own_via());
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a request of HTTP/2 has a common method, and no field that means something to a connection of HTTP/1.1.
#[inline]
pub fn is_straight(head: &Head) -> bool {
    let has_plain_method = matches!(
        head.method_bytes(),
        b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"OPTIONS" | b"PATCH"
    );
    let is_plain = |token| {
        !matches!(
            token,
            Token::TransferEncoding
                | Token::Connection
                | Token::Te
                | Token::Upgrade
                | Token::Expect
                | Token::Http2Settings
        )
    };
    has_plain_method
        && head.target_bytes().starts_with(b"/")
        && !head.authority_bytes().is_empty()
        && head.fields.iter().all(|field| is_plain(field.token))
}

/// Writes the head of a request that came by HTTP/2, if it is straight.
#[inline]
pub fn write_straight(out: &mut Vec<u8>, head: &Head, (mode, via): (Forwarded, bool), peer: Peer<'_>) {
    out.extend_from_slice(head.method_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(out, b"host", head.authority_bytes());
    for field in &head.fields {
        let goes = match field.token {
            Token::Dropped | Token::Host => false,
            Token::ForwardedFor => mode == Forwarded::Off,
            Token::ForwardedProto | Token::ForwardedHost | Token::ForwardedOther => {
                mode != Forwarded::Replace
            }
            _ => true,
        };
        if goes {
            write_field(out, head.name(field), head.value(field));
        }
    }
    if mode != Forwarded::Off {
        forwarded(out, head, mode, peer);
    }
    if via {
        out.extend_from_slice(b"via: 2.0 ");
        out.extend_from_slice(NAME.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// A request line, or how many bytes of the head's own are one.
#[inline]
fn write_line(out: &mut Vec<u8>, head: &Head) -> usize {
    const VERSION: &[u8] = b" HTTP/1.1\r\n";
    let (method, target) = (head.method.range(), head.target.range());
    let rest = head.bytes.get(target.end..).unwrap_or_default();
    let is_ours = method.start == 0
        && method.end + 1 == target.start
        && head.bytes.get(method.end) == Some(&b' ')
        && rest.starts_with(VERSION);
    if is_ours {
        return target.end + VERSION.len();
    }
    out.extend_from_slice(head.method().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target().as_bytes());
    out.extend_from_slice(VERSION);
    0
}

#[inline]
fn forwarded(out: &mut Vec<u8>, head: &Head, mode: Forwarded, peer: Peer<'_>) {
    let said = |token| head.fields.iter().filter(move |field| field.token == token);
    let is_open = |token| mode == Forwarded::Replace || said(token).next().is_none();
    out.extend_from_slice(b"x-forwarded-for: ");
    if mode != Forwarded::Replace {
        for field in said(Token::ForwardedFor) {
            out.extend_from_slice(head.value(field));
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(peer.address);
    out.extend_from_slice(b"\r\n");
    if is_open(Token::ForwardedProto) {
        write_field(out, b"x-forwarded-proto", peer.scheme.as_bytes());
    }
    if is_open(Token::ForwardedHost) {
        write_field(out, b"x-forwarded-host", head.authority_bytes());
    }
}

/// Writes an answer of our own. To HEAD, its body is left out and its length said.
pub fn write_answer(out: &mut Vec<u8>, answer: &Response<Bytes>, is_head: bool, date: &[u8]) {
    write_status(out, answer.status().as_u16(), None);
    for (name, value) in answer.headers() {
        write_field(out, name.as_ref(), value.as_bytes());
    }
    write_field(out, b"content-length", answer.body().len().to_string().as_bytes());
    write_field(out, b"date", date);
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(answer.body());
    }
}

#[cfg(test)]
mod tests;
