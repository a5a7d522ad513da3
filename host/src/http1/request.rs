//! Requests as they arrive on a connection.
//!
//! Owns the judgement which requests are ordinary. An ordinary one is HTTP/1.1 with a common method, a path of common
//! characters, one Host, no body or one of a stated length, and nothing that changes how the connection works.
//!
//! Invariant: of a request that is not ordinary nothing is lost: its bytes are still in the inbox.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::{
    fields::{Token, is_host, token},
    head::{Field, Head, Span},
};

/// Most requests, with a small body, fit.
const INITIAL_BYTES: usize = 16 << 10;
/// As many as the HTTP library looks at.
const FIELDS_MAX: usize = 100;

/// A longer target is the library's to refuse.
const TARGET_MAX: usize = 8 << 10;

/// What was received of a connection and not yet served: at most one request with its small body, and what the client
/// has sent after it.
pub struct Inbox {
    /// Its bytes are the whole buffer, of which `filled` are received.
    head: Head,
    filled: usize,
    /// Where the head ends; 0 while it is not complete.
    end: usize,
    body: usize,
    closes: bool,
}

/// What an inbox has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Not yet a whole head.
    Part,
    /// An ordinary request, whole.
    Request,
    /// Something for the HTTP library: unusual, malformed, or with a body that has not arrived.
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
    }

    /// Makes room, as long as no more than `limit` bytes have been received. True if there is room.
    pub fn grow(&mut self, limit: usize) -> bool {
        let len = self.head.bytes.len();
        if self.filled == len && len < limit {
            self.head.bytes.resize((len * 2).min(limit), 0);
        }
        self.filled < self.head.bytes.len()
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

    /// The request's body.
    #[inline]
    pub fn body(&self) -> &[u8] {
        self.head
            .bytes
            .get(self.end..self.end + self.body)
            .unwrap_or_default()
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
        let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version) else {
            return Received::Unusual;
        };
        let Some(plain) = judge(method, target, request.headers) else {
            return Received::Unusual;
        };
        if plain.body > (*filled - end) as u64 {
            return Received::Unusual;
        }
        let at = |part: &[u8]| Span::new(part.as_ptr() as usize - bytes.as_ptr() as usize, part.len());
        let read = |field: &Header<'_>| Field {
            name: at(field.name.as_bytes()),
            value: at(field.value),
        };
        (head.method, head.target) = (at(method.as_bytes()), at(target.as_bytes()));
        head.authority = at(plain.host);
        head.fields.clear();
        head.fields.extend(request.headers.iter().map(read));
        (self.end, self.body, self.closes) = (end, plain.body as usize, plain.closes);
        Received::Request
    }

    /// The request is served: what the client has sent after it moves to the front. True if there is something.
    #[inline]
    pub fn finish(&mut self) -> bool {
        let served = (self.end + self.body).min(self.filled);
        self.head.bytes.copy_within(served..self.filled, 0);
        self.filled -= served;
        (self.end, self.body, self.closes) = (0, 0, false);
        self.filled > 0
    }

    /// Empties it for another connection.
    pub fn clear(&mut self) {
        (self.filled, self.end, self.body, self.closes) = (0, 0, 0, false);
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
fn judge<'a>(method: &str, target: &str, fields: &[Header<'a>]) -> Option<Plain<'a>> {
    if !matches!(
        method,
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH"
    ) {
        return None;
    }
    if !target.starts_with('/') || target.len() > TARGET_MAX || !target.bytes().all(is_target) {
        return None;
    }
    let (mut host, mut body, mut closes) = (None, None, false);
    for field in fields {
        match token(field.name) {
            Token::Host => set_once(&mut host, field.value)?,
            Token::ContentLength => set_once(&mut body, length(field.value)?)?,
            Token::Connection if field.value.eq_ignore_ascii_case(b"keep-alive") => {}
            Token::Connection if field.value.eq_ignore_ascii_case(b"close") => closes = true,
            Token::Connection
            | Token::TransferEncoding
            | Token::Te
            | Token::Upgrade
            | Token::Expect
            | Token::Http2Settings => return None,
            _ => {}
        }
    }
    let host = host.filter(|host| is_host(host))?;
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

/// What RFC 3986 has in a path and query. More is possible, and the library's to judge.
#[inline]
fn is_target(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@?%".contains(&byte)
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
