//! Responses as they arrive from a backend.
//!
//! Owns their framing (RFC 9112, 6.3) and what of their heads goes on to the client.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{Header, Status};

use super::{
    fields::{Token, is_protected, members, token},
    known::Known,
    request::length,
    runs::{Runs, place, write_field},
};

const FIELDS_MAX: usize = 128;

/// Not a response that can be passed on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend sent a {0}")]
pub struct Malformed(pub(super) &'static str);

impl Malformed {
    /// What is wrong with it.
    pub fn reason(self) -> &'static str {
        self.0
    }
}

/// Where a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// Where its chunks say.
    Chunked,
    /// Where the connection does.
    Close,
}

/// A response's head, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 100 to 999.
    pub status: u16,
    /// Its body.
    pub framing: Framing,
    /// Whether the backend's connection can carry another request.
    pub keeps_alive: bool,
    /// Bytes of the head.
    pub len: usize,
}

impl Reply {
    /// Whether another one follows that is the answer.
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// What happens to a head on its way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The request was HEAD: whatever the head says, no body follows.
    pub is_head: bool,
    /// The client's connection ends with this response.
    pub closes: bool,
    /// `Via` is added.
    pub via: bool,
    /// For a response without `Date` (RFC 9110, 6.6.1).
    pub date: &'a [u8],
    /// The value of a `Set-Cookie` field to add.
    pub cookie: Option<&'a str>,
}

/// Reads a response's head from the front of `bytes`, and writes it as the client gets it. Nothing is written of an
/// interim one. `None` while it is not complete.
///
/// # Errors
/// When it cannot be passed on.
pub fn read_reply(bytes: &[u8], rules: &Rules<'_>, out: &mut Vec<u8>) -> Result<Option<Reply>, Malformed> {
    let read = read(bytes, rules.is_head, |reply, said, (fields, reason)| {
        if !reply.is_interim() {
            let runs = Runs::begin(fields.bytes, write_line(out, fields.bytes, reply.status, reason));
            said.write_fields(out, fields, runs, reply.status, rules);
            write_own(out, reply, said, rules);
        }
        Ok(())
    })?;
    Ok(read.map(|(reply, ())| reply))
}

/// The same, with the fields of the head that the client gets but for those that are ours to add. A length is there once.
///
/// # Errors
/// When it cannot be passed on.
pub fn read_fields(
    bytes: &[u8],
    is_head: bool,
    known: &mut Known,
) -> Result<Option<(Reply, HeaderMap)>, Malformed> {
    read(bytes, is_head, |reply, said, (read, _)| {
        let mut fields = HeaderMap::new();
        if reply.is_interim() {
            return Ok(fields);
        }
        // And ours.
        fields.reserve(read.read.len() + 2);
        let mut whole = None;
        let mut has_length = false;
        for (field, token) in read.iter() {
            if !said.goes(read, (field, token), reply.status, &mut has_length) {
                continue;
            }
            let made = known.field(field.name.as_bytes(), field.value).or_else(|| {
                let whole = whole.get_or_insert_with(|| {
                    Bytes::copy_from_slice(bytes.get(..reply.len).unwrap_or_default())
                });
                let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
                let at = field.value.as_ptr() as usize - bytes.as_ptr() as usize;
                let value = HeaderValue::from_maybe_shared(whole.slice(at..at + field.value.len())).ok()?;
                Some((name, value))
            });
            let (name, value) = made.ok_or(Malformed("malformed head"))?;
            fields.append(name, value);
        }
        Ok(fields)
    })
}

/// Reads a response's head of which nobody gets the fields.
///
/// # Errors
/// When it could not be passed on.
pub fn skim_reply(bytes: &[u8]) -> Result<Option<Reply>, Malformed> {
    let read = read(bytes, false, |_, _, _| Ok(()))?;
    Ok(read.map(|(reply, ())| reply))
}

/// Reads a head, and lets somebody look at it.
#[inline]
fn read<T>(
    bytes: &[u8],
    is_head: bool,
    mut look: impl FnMut(&Reply, &Said, (&Fields<'_, '_>, Option<&str>)) -> Result<T, Malformed>,
) -> Result<Option<(Reply, T)>, Malformed> {
    // As it is each time before the first read.
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let len = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("head with too many fields")),
        Err(_) => return Err(Malformed("malformed head")),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(Malformed("malformed status line"));
    };
    if status < 100 {
        return Err(Malformed("status below 100"));
    }
    let mut tokens = [Token::Other; FIELDS_MAX];
    for (slot, field) in tokens.iter_mut().zip(response.headers.iter()) {
        *slot = token(field.name);
    }
    let fields = Fields {
        bytes,
        read: response.headers,
        tokens: &tokens,
    };
    let said = Said::by(&fields)?;
    let framing = said.framing(status, minor, is_head)?;
    let reply = Reply {
        status,
        framing,
        keeps_alive: framing != Framing::Close && !said.closes && (minor == 1 || said.keeps_alive),
        len,
    };
    let reason = response.reason.filter(|reason| !reason.is_empty());
    let looked = look(&reply, &said, (&fields, reason))?;
    Ok(Some((reply, looked)))
}

/// The fields of a head.
struct Fields<'a, 'b> {
    bytes: &'b [u8],
    read: &'a [Header<'b>],
    tokens: &'a [Token],
}

impl<'a, 'b> Fields<'a, 'b> {
    #[inline]
    fn iter(&self) -> impl Iterator<Item = (&'a Header<'b>, Token)> {
        self.read.iter().zip(self.tokens.iter().copied())
    }

    /// Whether a `Connection` field names this one.
    #[cold]
    fn name(&self, name: &str) -> bool {
        let mut named = self
            .iter()
            .filter(|(_, token)| *token == Token::Connection)
            .flat_map(|(field, _)| members(field.value));
        !is_protected(name.as_bytes()) && named.any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// What a head says about the connection and the message.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    names_fields: bool,
    has_date: bool,
}

impl Said {
    #[inline]
    fn by(fields: &Fields<'_, '_>) -> Result<Self, Malformed> {
        let mut said = Self::default();
        for (field, token) in fields.iter() {
            match token {
                Token::ContentLength => {
                    let length = length(field.value).ok_or(Malformed("malformed length"))?;
                    if said.length.is_some_and(|known| known != length) {
                        return Err(Malformed("response with two lengths"));
                    }
                    said.length = Some(length);
                }
                Token::TransferEncoding => {
                    if said.is_chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed("transfer coding that nobody asked for"));
                    }
                    said.is_chunked = true;
                }
                Token::Connection => said.connection(field.value),
                Token::Date => said.has_date = true,
                _ => {}
            }
        }
        Ok(said)
    }

    fn connection(&mut self, value: &[u8]) {
        for member in members(value) {
            if member.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if member.eq_ignore_ascii_case(b"keep-alive") {
                self.keeps_alive = true;
            } else {
                self.names_fields = true;
            }
        }
    }

    fn framing(&self, status: u16, minor: u8, is_head: bool) -> Result<Framing, Malformed> {
        // Which of the two holds is where readers differ, so what follows cannot be trusted (RFC 9112, 6.1).
        if self.is_chunked && (self.length.is_some() || minor == 0) {
            return Err(Malformed("response with both a length and chunks"));
        }
        Ok(match self.length {
            _ if is_head || status < 200 || status == 204 || status == 304 => Framing::Empty,
            _ if self.is_chunked => Framing::Chunked,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        })
    }

    /// Whether a field goes on to the client.
    #[inline]
    fn goes(
        &self,
        fields: &Fields<'_, '_>,
        (field, token): (&Header<'_>, Token),
        status: u16,
        has_length: &mut bool,
    ) -> bool {
        match token {
            Token::Dropped
            | Token::Connection
            | Token::TransferEncoding
            | Token::Te
            | Token::Upgrade
            | Token::Expect
            | Token::Http2Settings => false,
            // Once, and never where there can be no body (RFC 9110, 8.6).
            Token::ContentLength => status != 204 && !std::mem::replace(has_length, true),
            _ => !self.names_fields || !fields.name(field.name),
        }
    }

    #[inline]
    fn write_fields<'b>(
        &self,
        out: &mut Vec<u8>,
        fields: &Fields<'_, 'b>,
        mut runs: Runs<'b>,
        status: u16,
        rules: &Rules<'_>,
    ) {
        let mut has_length = false;
        for (field, token) in fields.iter() {
            if self.goes(fields, (field, token), status, &mut has_length) {
                let name = place(fields.bytes, field.name.as_bytes());
                runs.field(out, name, place(fields.bytes, field.value));
            }
        }
        runs.flush(out);
        if rules.via {
            write_field(out, b"via", super::write::own_via());
        }
    }
}

/// What every response has from us.
#[inline]
fn write_own(out: &mut Vec<u8>, reply: &Reply, said: &Said, rules: &Rules<'_>) {
    if !said.has_date {
        write_field(out, b"date", rules.date);
    }
    if matches!(reply.framing, Framing::Chunked | Framing::Close) {
        write_field(out, b"transfer-encoding", b"chunked");
    }
    if rules.closes {
        write_field(out, b"connection", b"close");
    }
    if let Some(cookie) = rules.cookie {
        write_field(out, b"set-cookie", cookie.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// A status line, or how many of a response's own bytes are one.
#[inline]
fn write_line(out: &mut Vec<u8>, bytes: &[u8], status: u16, reason: Option<&str>) -> usize {
    const BEFORE_REASON: &[u8] = b"HTTP/1.1 200 ";
    let place = reason.map_or(0..0, |reason| place(bytes, reason.as_bytes()));
    let rest = bytes.get(place.end..).unwrap_or_default();
    let is_ours = place.start == BEFORE_REASON.len()
        && bytes.starts_with(b"HTTP/1.1 ")
        && bytes.get(place.start - 1) == Some(&b' ')
        && rest.starts_with(b"\r\n");
    if is_ours {
        return place.end + 2;
    }
    write_status(out, status, reason);
    0
}

/// A status line. The reason is the backend's, or else the usual one.
pub(super) fn write_status(out: &mut Vec<u8>, status: u16, reason: Option<&str>) {
    let usual = || {
        let code = StatusCode::from_u16(status).ok()?;
        code.canonical_reason()
    };
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
    out.extend_from_slice(reason.or_else(usual).unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
