//! The head of a request, as routes and policies see it.
//!
//! Owns the bytes and where in them each part is. Nothing is copied out of them or translated: names keep their case, and
//! values may be any bytes that HTTP allows.

use std::ops::Range;

use http::{HeaderMap, header, request::Parts};

use super::fields::{Token, token};

/// Room for most requests' method, target and authority.
const LINE_BYTES: usize = 128;

/// A part of a [`Head`]'s bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, len: usize) -> Self {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        Self {
            start,
            end: start.saturating_add(u32::try_from(len).unwrap_or(u32::MAX)),
        }
    }

    #[inline]
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    #[inline]
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }

    #[inline]
    fn text_of(self, bytes: &[u8]) -> &str {
        std::str::from_utf8(self.of(bytes)).unwrap_or_default()
    }
}

/// One header field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
    /// What it is to a proxy.
    pub(super) token: Token,
}

/// The head of a request: method, target and fields, in bytes of its own.
#[derive(Debug, Default)]
pub struct Head {
    pub(super) bytes: Vec<u8>,
    pub(super) method: Span,
    /// Path and query as sent; `*` of an OPTIONS request.
    pub(super) target: Span,
    /// The target's authority, or else the Host field.
    pub(super) authority: Span,
    pub(super) fields: Vec<Field>,
}

impl Head {
    /// A copy of what the HTTP library has read.
    pub fn from_parts(parts: &Parts) -> Self {
        let mut head = Self::default();
        head.read_parts(parts);
        head
    }

    /// Becomes a copy of what the HTTP library has read, in the same memory if there is enough of it.
    pub fn read_parts(&mut self, parts: &Parts) {
        let sizes = parts
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        let bytes = sizes.sum::<usize>() + LINE_BYTES;
        self.bytes.clear();
        self.fields.clear();
        // Room for the rest of it, too, so that it need not grow.
        self.bytes.reserve(bytes);
        self.fields.reserve(parts.headers.len());
        self.method = self.push(parts.method.as_str().as_bytes());
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        self.target = self.push(target.as_bytes());
        self.push_fields(&parts.headers);
        self.authority = match parts.uri.authority() {
            Some(authority) => self.push(authority.as_str().as_bytes()),
            None => self.span(header::HOST.as_str()),
        };
    }

    /// How many bytes it has room for.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// A copy that holds nothing else: the bytes of this one may be a connection's, with more behind the head.
    pub fn copy(&self) -> Self {
        let spans = self.fields.iter().flat_map(|field| [field.name, field.value]);
        let spans = spans.chain([self.method, self.target, self.authority]);
        let end = spans.map(|span| span.end as usize).max().unwrap_or(0);
        Self {
            bytes: self.bytes.get(..end).unwrap_or_default().to_vec(),
            fields: self.fields.clone(),
            ..*self
        }
    }

    /// A head of these parts, for requests that nobody sent: recorded ones, and those that are only asked about.
    pub fn of<'a>(
        method: &str,
        authority: &str,
        target: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut head = Self::default();
        head.method = head.push(method.as_bytes());
        head.authority = head.push(authority.as_bytes());
        head.target = head.push(target.as_bytes());
        for (name, value) in fields {
            head.push_field(name, value);
        }
        head
    }

    fn push_fields(&mut self, fields: &HeaderMap) {
        for (name, value) in fields {
            self.push_field(name.as_str(), value.as_bytes());
        }
    }

    fn push_field(&mut self, name: &str, value: &[u8]) {
        let field = Field {
            token: token(name),
            name: self.push(name.as_bytes()),
            value: self.push(value),
        };
        self.fields.push(field);
    }

    fn push(&mut self, part: &[u8]) -> Span {
        let span = Span::new(self.bytes.len(), part.len());
        self.bytes.extend_from_slice(part);
        span
    }

    /// Where the first field of this name has its value; nowhere if there is none.
    pub(super) fn span(&self, name: &str) -> Span {
        let found = self.fields.iter().find(|field| self.is_named(field, name));
        found.map(|field| field.value).unwrap_or_default()
    }

    #[inline]
    fn is_named(&self, field: &Field, name: &str) -> bool {
        field.name.of(&self.bytes).eq_ignore_ascii_case(name.as_bytes())
    }

    /// `GET`, `POST`, ...
    #[inline]
    pub fn method(&self) -> &str {
        self.method.text_of(&self.bytes)
    }

    /// Whether it is this method.
    #[inline]
    pub fn is(&self, method: &str) -> bool {
        self.method.of(&self.bytes) == method.as_bytes()
    }

    /// Path and query as sent.
    #[inline]
    pub fn target(&self) -> &str {
        self.target.text_of(&self.bytes)
    }

    /// The target up to its query.
    #[inline]
    pub fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// What follows the first `?` of the target.
    #[inline]
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// Host and port as the client addressed it: the target's authority if it has one, else the Host field (RFC 9112,
    /// 3.3). May be empty.
    #[inline]
    pub fn authority(&self) -> &str {
        self.authority.text_of(&self.bytes)
    }

    #[inline]
    pub(super) fn method_bytes(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    #[inline]
    pub(super) fn target_bytes(&self) -> &[u8] {
        self.target.of(&self.bytes)
    }

    #[inline]
    pub(super) fn authority_bytes(&self) -> &[u8] {
        self.authority.of(&self.bytes)
    }

    /// The authority without its port and trailing dot. Brackets of an IPv6 address stay.
    pub fn host(&self) -> &str {
        host_of(self.authority())
    }

    /// The value of the first field of this name, without regard to case.
    #[inline]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|field| self.is_named(field, name));
        found.map(|field| field.value.of(&self.bytes))
    }

    /// The name of a field.
    #[inline]
    pub(super) fn name(&self, field: &Field) -> &[u8] {
        field.name.of(&self.bytes)
    }

    /// The value of a field.
    #[inline]
    pub(super) fn value(&self, field: &Field) -> &[u8] {
        field.value.of(&self.bytes)
    }

    /// Names and values of all fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let read = |field: &Field| (field.name.text_of(&self.bytes), field.value.of(&self.bytes));
        self.fields.iter().map(read)
    }

    /// The value of the first cookie of this name (RFC 6265, 5.4: pairs separated by semicolons).
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let values = self
            .fields()
            .filter(|(field, _)| field.eq_ignore_ascii_case("cookie"));
        values
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The raw value of the first query parameter of this name; empty for a name without `=`.
    pub fn query_parameter(&self, name: &str) -> Option<&str> {
        let pairs = self
            .query()?
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .into_iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, fields: &[(&'static str, &str)]) -> Head {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Head::from_parts(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn parts_are_found_where_the_library_put_them() {
        let fields = [
            ("host", "shop.example:81"),
            ("cookie", "a=b; sid=1"),
            ("x-n", "1"),
        ];
        let head = head("/a/b?x=1&id=3", &fields);
        assert_eq!((head.method(), head.path()), ("GET", "/a/b"));
        assert_eq!(head.query(), Some("x=1&id=3"));
        assert_eq!(
            (head.authority(), head.host()),
            ("shop.example:81", "shop.example")
        );
        assert_eq!(head.field("X-N"), Some(&b"1"[..]));
        assert_eq!(head.cookie("sid"), Some("1"));
        assert_eq!(head.query_parameter("id"), Some("3"));
        assert_eq!((head.cookie("si"), head.query_parameter("i")), (None, None));
    }

    #[test]
    fn the_target_says_the_authority_before_host_does() {
        let head = head("http://a.example/x", &[("host", "b.example")]);
        assert_eq!((head.authority(), head.target()), ("a.example", "/x"));
    }

    #[test]
    fn host_is_compared_without_port_and_trailing_dot() {
        assert_eq!(host_of("shop.example:8080"), "shop.example");
        assert_eq!(host_of("shop.example."), "shop.example");
        assert_eq!(host_of("[::1]:80"), "[::1]");
        assert_eq!(host_of("[::1]"), "[::1]");
        assert_eq!(host_of(""), "");
    }

    #[test]
    fn an_empty_head_is_quiet() {
        let head = Head::default();
        assert_eq!((head.method(), head.path(), head.authority()), ("", "", ""));
        assert_eq!((head.query(), head.field("host")), (None, None));
    }
}
