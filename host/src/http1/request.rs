//! Requests as they arrive on a connection.
//!
//! Owns the judgement which requests are ordinary. An ordinary one is HTTP/1.1 with a common method, a path of common
//! characters, one Host, no body or one of a stated length, and nothing that changes how the connection works. What has
//! not come of a body is only counted here, and passed on by whoever reads it.
//!
//! Invariant: of a request that is not ordinary nothing is lost: its bytes are still in the inbox.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::{
    fields::{FIELD_BYTES_MAX, Token, token},
    head::{Field, Head, Span},
    runs::place,
    target::{HostForm, host_form, is_settled, settle_path},
    write::is_own_via,
};
use crate::config::Paths;

/// Most requests, with a small body, fit.
const INITIAL_BYTES: usize = 16 << 10;
/// As many as the HTTP library looks at.
const FIELDS_MAX: usize = 100;

/// A longer target is the library's to refuse.
const TARGET_MAX: usize = 8 << 10;

/// What was received of a connection and not yet served: at most one request with what has come of its body, and what
/// the client has sent after it.
pub struct Inbox {
    /// Its bytes are the whole buffer, of which `filled` are received.
    head: Head,
    filled: usize,
    /// Where the head ends; 0 while it is not complete.
    end: usize,
    /// What of the body is in here.
    body: usize,
    /// What of the body has not come, or went by.
    rest: u64,
    closes: bool,
}

/// What an inbox has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Not yet a whole head.
    Part,
    /// An ordinary request, of whose body there may be more to come.
    Request,
    /// Something for the HTTP library: unusual or malformed.
    Unusual,
}

impl Default for Inbox {
    fn default() -> Self {
        let head = Head {
            bytes: vec![0; INITIAL_BYTES],
            ..Head::default()
        };
        Self {
            head,
            filled: 0,
            end: 0,
            body: 0,
            rest: 0,
            closes: false,
        }
    }
}

impl Inbox {
    /// Where the next bytes go. Empty when the inbox is full.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        self.head.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many bytes were put into the space.
    #[inline]
    pub fn add(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(self.head.bytes.len());
        let body = self.rest.min(bytes as u64);
        self.rest -= body;
        self.body += body as usize;
    }

    /// Makes room, as long as no more than `limit` bytes have been received. True if there is room.
    pub fn grow(&mut self, limit: usize) -> bool {
        let len = self.head.bytes.len();
        if self.filled == len && len < limit {
            self.head.bytes.resize((len * 2).min(limit), 0);
        }
        self.filled < self.head.bytes.len()
    }

    /// Whether it has not grown.
    #[inline]
    pub fn is_small(&self) -> bool {
        self.head.bytes.len() <= INITIAL_BYTES
    }

    /// Whether nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Everything that is in it.
    pub fn bytes(&self) -> &[u8] {
        self.head.bytes.get(..self.filled).unwrap_or_default()
    }

    /// The request's head, once [`Inbox::read`] has found one.
    #[inline]
    pub fn head(&mut self) -> &mut Head {
        &mut self.head
    }

    /// What is here of the request's body.
    #[inline]
    pub fn body(&self) -> &[u8] {
        self.head
            .bytes
            .get(self.end..self.end + self.body)
            .unwrap_or_default()
    }

    /// What of the request's body is still to come.
    #[inline]
    pub fn rest(&self) -> u64 {
        self.rest
    }

    /// So much of the rest went by, and is not in here.
    #[inline]
    pub fn skip(&mut self, bytes: u64) {
        self.rest = self.rest.saturating_sub(bytes);
    }

    /// What is here of a body that goes on has been passed on: its room is for what the client sends next.
    #[inline]
    pub fn forget_body(&mut self) {
        if self.rest > 0 {
            (self.filled, self.body) = (self.end, 0);
        }
    }

    /// Whether the client asked for the connection to end with this request.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// Looks at what has been received. A head may have so many bytes, and so many fields.
    #[inline]
    pub fn read(&mut self, bytes_max: usize, fields_max: usize) -> Received {
        let Self { head, filled, .. } = self;
        let bytes = head.bytes.get(..*filled).unwrap_or_default();
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let fields = &mut fields[..fields_max.min(FIELDS_MAX)];
        let mut request = httparse::Request::new(&mut []);
        let end = match request.parse_with_uninit_headers(bytes, fields) {
            Ok(Status::Complete(end)) if end <= bytes_max => end,
            Ok(Status::Partial) if bytes.len() < bytes_max => return Received::Part,
            _ => return Received::Unusual,
        };
        if !bytes.first().is_some_and(u8::is_ascii_uppercase) {
            // Empty lines before it.
            return Received::Unusual;
        }
        let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version) else {
            return Received::Unusual;
        };
        let at = |part: &[u8]| Span::new(place(bytes, part).start, part.len());
        head.fields.clear();
        head.fields.extend(request.headers.iter().map(|field| Field {
            name: at(field.name.as_bytes()),
            value: at(field.value),
            token: token(field.name),
        }));
        let Some(plain) = judge(method, target, request.headers, &head.fields) else {
            return Received::Unusual;
        };
        let body = plain.body.min((*filled - end) as u64);
        (head.method, head.target) = (at(method.as_bytes()), at(target.as_bytes()));
        head.authority = at(plain.host);
        (self.end, self.body, self.closes) = (end, body as usize, plain.closes);
        self.rest = plain.body - body;
        Received::Request
    }

    /// The request is served: what the client has sent after it moves to the front. True if there is something.
    #[inline]
    pub fn finish(&mut self) -> bool {
        let served = (self.end + self.body).min(self.filled);
        self.head.bytes.copy_within(served..self.filled, 0);
        self.filled -= served;
        (self.end, self.body, self.rest, self.closes) = (0, 0, 0, false);
        self.filled > 0
    }

    /// Empties it for another connection.
    pub fn clear(&mut self) {
        (self.filled, self.end, self.body, self.rest, self.closes) = (0, 0, 0, 0, false);
        self.head.fields.clear();
        self.head.bytes.truncate(INITIAL_BYTES);
        self.head.bytes.shrink_to(INITIAL_BYTES);
    }
}

/// What makes a request ordinary.
struct Plain<'a> {
    host: &'a [u8],
    body: u64,
    closes: bool,
}

/// `None` of a request that is not ordinary.
#[inline]
fn judge<'a>(method: &str, target: &str, fields: &[Header<'a>], read: &[Field]) -> Option<Plain<'a>> {
    if !matches!(
        method,
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH"
    ) {
        return None;
    }
    if !target.starts_with('/') || target.len() > TARGET_MAX || !is_ordinary(target) {
        return None;
    }
    let (mut host, mut body, mut closes) = (None, None, false);
    for (field, Field { token, .. }) in fields.iter().zip(read) {
        if field.value.len() > FIELD_BYTES_MAX {
            return None;
        }
        match token {
            Token::Host => set_once(&mut host, field.value)?,
            Token::ContentLength => set_once(&mut body, strict_length(field.value)?)?,
            Token::Connection if field.value.eq_ignore_ascii_case(b"keep-alive") => {}
            Token::Connection if field.value.eq_ignore_ascii_case(b"close") => closes = true,
            Token::Connection
            | Token::TransferEncoding
            | Token::Te
            | Token::Upgrade
            | Token::Expect
            | Token::Http2Settings => return None,
            Token::Via if is_own_via(field.value) => return None,
            Token::Other if field.name.as_bytes().contains(&b'_') => return None,
            _ => {}
        }
    }
    let host = host.filter(|host| host_form(host) == HostForm::Settled)?;
    Some(Plain {
        host,
        body: body.unwrap_or(0),
        closes,
    })
}

/// `None` the second time.
#[inline]
fn set_once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// Whether it has only what RFC 3986 has in a path and query, in its one form. More is possible, and the library's to
/// judge, as is any other form.
#[inline]
fn is_ordinary(target: &str) -> bool {
    let end = target.bytes().position(|byte| byte == b'?');
    let path = end.and_then(|end| target.get(..end)).unwrap_or(target);
    target.bytes().all(is_common)
        && (is_settled(path) || settle_path(path, Paths::Strict).is_ok_and(|settled| settled == path))
}

#[inline]
fn is_common(byte: u8) -> bool {
    /// One look for each byte of every request's target.
    const COMMON: [bool; 256] = {
        let (mut common, mut byte) = ([false; 256], 0);
        while byte < 256 {
            common[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"/-._~!$&'()*+,;=:@?%";
        let mut at = 0;
        while at < others.len() {
            common[others[at] as usize] = true;
            at += 1;
        }
        common
    };
    COMMON[usize::from(byte)]
}

/// As [`length`], and in its one form.
pub(super) fn strict_length(value: &[u8]) -> Option<u64> {
    length(value).filter(|_| value.len() == 1 || value.first() != Some(&b'0'))
}

/// Digits only: no sign, no list, no space.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0, |sum: u64, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests;
