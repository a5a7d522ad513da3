//! A reader of requests that knows one form of each thing only, and nothing of how trimtab reads or writes them.
//!
//! By hand, because a library that is lenient anywhere could not tell what another backend would see; and because the
//! two that serve here are httparse and hyper already.

use std::str::from_utf8;

/// A request as a backend has to understand it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Request {
    /// The values of all fields of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(found, _)| found == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// What a connection had: whole requests, and whether an unfinished one comes after them.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Request>,
    pub(crate) is_cut: bool,
}

/// Reads all that a connection received. An error says what no backend should ever get.
pub(crate) fn read(mut bytes: &[u8]) -> Result<Seen, String> {
    let mut seen = Seen::default();
    while !bytes.is_empty() {
        match request(bytes)? {
            Some((request, used)) => {
                seen.requests.push(request);
                bytes = &bytes[used..];
            }
            None => {
                seen.is_cut = true;
                break;
            }
        }
    }
    Ok(seen)
}

fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some((line, mut at)) = line(bytes, 0)? else {
        return Ok(None);
    };
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return Err(format!("request line {line:?}"));
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("method {method:?}"));
    }
    if !(target.starts_with('/') || target == "*") || !target.bytes().all(|byte| (0x21..0x7f).contains(&byte))
    {
        return Err(format!("target {target:?}"));
    }
    let Some((fields, after)) = fields(bytes, at)? else {
        return Ok(None);
    };
    at = after;
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        ..Request::default()
    };
    if request.all("host").len() != 1 {
        return Err(format!("hosts {:?}", request.all("host")));
    }
    let is_whole = match (
        &request.all("content-length")[..],
        &request.all("transfer-encoding")[..],
    ) {
        ([], []) => true,
        ([length], []) => {
            let number: usize = length.parse().map_err(|_| format!("length {length:?}"))?;
            if number.to_string() != *length {
                return Err(format!("length {length:?}"));
            }
            let body = bytes.get(at..at + number);
            request.body = body.unwrap_or_default().to_vec();
            at += number;
            body.is_some()
        }
        ([], ["chunked"]) => match chunks(bytes, at)? {
            Some((body, trailers, after)) => {
                (request.body, request.trailers, at) = (body, trailers, after);
                true
            }
            None => false,
        },
        framing => return Err(format!("framing {framing:?}")),
    };
    Ok(is_whole.then_some((request, at)))
}

/// A line without its CRLF, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&str, usize)>, String> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
        return Ok(None);
    };
    match rest.get(end..end + 2) {
        Some(b"\r\n") => {}
        None => return Ok(None),
        Some(other) => return Err(format!("line end {other:?}")),
    }
    let text = from_utf8(&rest[..end]).map_err(|_| format!("bytes {:?}", &rest[..end]))?;
    if text
        .bytes()
        .any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
    {
        return Err(format!("controls in {text:?}"));
    }
    Ok(Some((text, at + end + 2)))
}

/// Fields with the place after them.
type Fields = (Vec<(String, String)>, usize);
/// A body and its trailers, with the place after them.
type Chunked = (Vec<u8>, Vec<(String, String)>, usize);

fn fields(bytes: &[u8], mut at: usize) -> Result<Option<Fields>, String> {
    let mut fields = Vec::new();
    loop {
        let Some((text, after)) = line(bytes, at)? else {
            return Ok(None);
        };
        at = after;
        if text.is_empty() {
            return Ok(Some((fields, at)));
        }
        let (name, value) = text.split_once(": ").ok_or_else(|| format!("field {text:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) || value.trim() != value {
            return Err(format!("field {text:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

fn chunks(bytes: &[u8], mut at: usize) -> Result<Option<Chunked>, String> {
    let mut body = Vec::new();
    loop {
        let Some((size, after)) = line(bytes, at)? else {
            return Ok(None);
        };
        let number = usize::from_str_radix(size, 16).map_err(|_| format!("chunk {size:?}"))?;
        if format!("{number:x}") != size.to_ascii_lowercase() {
            return Err(format!("chunk {size:?}"));
        }
        at = after;
        if number == 0 {
            let trailers = fields(bytes, at)?;
            return Ok(trailers.map(|(trailers, at)| (body, trailers, at)));
        }
        let (Some(data), Some(end)) = (
            bytes.get(at..at + number),
            bytes.get(at + number..at + number + 2),
        ) else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err(format!("chunk end {end:?}"));
        }
        body.extend_from_slice(data);
        at += number + 2;
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[test]
fn it_reads_whole_requests_and_tells_an_unfinished_one() {
    let bytes = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi\
        PUT /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\nGET /d HT";
    let seen = read(bytes).unwrap();
    let targets: Vec<_> = seen
        .requests
        .iter()
        .map(|request| request.target.as_str())
        .collect();
    assert_eq!(targets, ["/a", "/b", "/c"]);
    assert!(seen.is_cut);
    assert_eq!(seen.requests[2].body, b"hi");
    assert_eq!(seen.requests[2].trailers, [("x".to_owned(), "y".to_owned())]);
}

#[test]
fn it_refuses_all_other_forms() {
    for bytes in [
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 02\r\n\r\nhi",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nhi",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n02\r\nhi\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
    ] {
        assert!(read(bytes.as_bytes()).is_err(), "{bytes:?}");
    }
}
