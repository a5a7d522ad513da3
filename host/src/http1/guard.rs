//! A second reader of what goes to the HTTP library, stricter than that.
//!
//! Owns where each message of a connection begins and ends, and the refusal of those that another reader could see
//! elsewhere: of RFC 9112's choices between refusing and mending, always the first. It must not know sockets.
//!
//! Invariant: a byte passes only when its message is known to be unambiguous up to it. The library reads the same bytes
//! by itself, so a request is served only if both readers agree.

use std::mem::MaybeUninit;

use http::{Request, request::Parts};
use httparse::{Header, Status};

use super::{
    chunked::Chunks,
    fields::{Token, is_framing, members, token},
    request::strict_length,
};

/// As many as a listener may allow.
const FIELDS_MAX: usize = 1000;
/// What the library refuses in place of a head that it would not.
pub const POISON: &[u8] = b"\0\r\n\r\n";

/// Where in its client's messages a connection is.
#[derive(Debug, Default)]
pub struct Guard {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Length(u64),
    Chunked(Chunks),
    /// Another protocol, or nothing that is ever read as a message.
    Open,
}

/// What may be done with the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// So many may go on, at least one.
    Pass(usize),
    /// None, before there are more.
    Wait,
    /// None, ever: the head that they begin with is ambiguous.
    RefuseHead,
    /// None, ever: the body that they go on with is malformed.
    RefuseBody,
    /// All, and then none: the library refuses them by itself, and knows the right word.
    Last,
}

impl Guard {
    /// How many bytes pass whatever they are.
    pub fn ahead(&self) -> u64 {
        match &self.state {
            State::Length(left) => *left,
            State::Open => u64::MAX,
            State::Head | State::Chunked(_) => 0,
        }
    }

    /// So many of those went by.
    pub fn skip(&mut self, bytes: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::Head;
            }
        }
    }

    /// Judges the bytes that did not pass yet. A head may have so many bytes. `switches` tells whether a request ends the
    /// messages of this connection, if the backend agrees.
    pub fn judge(&mut self, bytes: &[u8], bytes_max: usize, switches: impl Fn(&Parts) -> bool) -> Passage {
        if bytes.is_empty() {
            return Passage::Wait;
        }
        match &mut self.state {
            State::Open | State::Length(_) => {
                let count = bytes
                    .len()
                    .min(usize::try_from(self.ahead()).unwrap_or(usize::MAX));
                self.skip(count as u64);
                Passage::Pass(count)
            }
            State::Chunked(chunks) => {
                let mut passed = 0;
                while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
                    match chunks.next(rest) {
                        Ok((_, used)) => passed += used,
                        Err(_) if passed > 0 => break,
                        Err(_) => return Passage::RefuseBody,
                    }
                    if chunks.is_over() {
                        self.state = State::Head;
                        break;
                    }
                }
                Passage::Pass(passed)
            }
            State::Head => self.head(bytes, bytes_max, switches),
        }
    }

    fn head(&mut self, bytes: &[u8], bytes_max: usize, switches: impl Fn(&Parts) -> bool) -> Passage {
        // One empty line may be left over from before (RFC 9112, 2.2); what has more of them is no client of HTTP.
        let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        match bytes.get(start) {
            Some(b'\r' | b'\n') if bytes != b"\r" => return Passage::RefuseHead,
            _ => {}
        }
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let end = match request.parse_with_uninit_headers(bytes, &mut fields) {
            Ok(Status::Complete(end)) if end <= bytes_max => end,
            Ok(Status::Partial) if bytes.len() < bytes_max => return Passage::Wait,
            _ => return Passage::Last,
        };
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Passage::Last;
        };
        let Some(framing) = Framing::of(bytes, &request) else {
            return Passage::RefuseHead;
        };
        if target.contains('#') {
            return Passage::RefuseHead;
        }
        self.state = match framing {
            Framing::Chunked => State::Chunked(Chunks::default()),
            Framing::Length(0) if asks(method, target, request.headers, switches) => State::Open,
            Framing::Length(0) => State::Head,
            Framing::Length(length) => State::Length(length),
        };
        Passage::Pass(end)
    }
}

/// Where a request's body ends.
enum Framing {
    Length(u64),
    Chunked,
}

impl Framing {
    /// `None` if it is not the same for all readers.
    fn of(bytes: &[u8], request: &httparse::Request<'_, '_>) -> Option<Self> {
        let (mut length, mut is_chunked) = (None, false);
        for field in request.headers.iter() {
            match token(field.name) {
                Token::ContentLength => {
                    let said = strict_length(field.value)?;
                    if length.replace(said).is_some() {
                        return None;
                    }
                }
                Token::TransferEncoding => {
                    let is_plain = field.value.eq_ignore_ascii_case(b"chunked") && is_tight(bytes, field);
                    if !is_plain || request.version != Some(1) || std::mem::replace(&mut is_chunked, true) {
                        return None;
                    }
                }
                Token::Connection if members(field.value).any(is_framing) => return None,
                _ => {}
            }
        }
        match (length, is_chunked) {
            (Some(_), true) => None,
            (None, true) => Some(Self::Chunked),
            (length, false) => Some(Self::Length(length.unwrap_or(0))),
        }
    }
}

/// Whether nothing but one space lies around the value, so that no reader sees another one.
fn is_tight(bytes: &[u8], field: &Header<'_>) -> bool {
    let at = |part: &[u8]| part.as_ptr() as usize - bytes.as_ptr() as usize;
    let (name_end, start) = (at(field.name.as_bytes()) + field.name.len(), at(field.value));
    let before = bytes.get(name_end..start);
    let after = bytes.get(start + field.value.len()..);
    matches!(before, Some(b":" | b": ")) && after.is_some_and(|after| matches!(after, [b'\r' | b'\n', ..]))
}

/// Whether a request asks for another protocol in a way that may be granted.
fn asks(method: &str, target: &str, fields: &[Header<'_>], switches: impl Fn(&Parts) -> bool) -> bool {
    if method != "CONNECT" && !fields.iter().any(|field| token(field.name) == Token::Upgrade) {
        return false;
    }
    let mut request = Request::builder().method(method).uri(target);
    for field in fields {
        request = request.header(field.name, field.value);
    }
    request
        .body(())
        .is_ok_and(|request| switches(&request.into_parts().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes of a stream of bytes that comes in pieces, and how it ends.
    fn passed(stream: &[u8], piece: usize) -> (Vec<u8>, Passage) {
        let (mut guard, mut passed, mut held) = (Guard::default(), Vec::new(), Vec::new());
        for piece in stream.chunks(piece) {
            held.extend_from_slice(piece);
            loop {
                match guard.judge(&held, 8192, |_| true) {
                    Passage::Pass(count) => passed.extend(held.drain(..count)),
                    Passage::Wait => break,
                    end => return (passed, end),
                }
            }
        }
        (passed, Passage::Wait)
    }

    #[test]
    fn unambiguous_messages_pass_however_they_are_cut() {
        let stream =
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
            \r\nPUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nx: y\r\n\r\n\
            GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\0\0anything\r\n";
        for piece in 1..stream.len() {
            assert_eq!(passed(stream, piece), (stream.to_vec(), Passage::Wait), "{piece}");
        }
    }

    #[test]
    fn nothing_of_an_ambiguous_head_passes() {
        for fields in [
            "content-length: 4\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 4",
            "content-length: 4\r\ncontent-length: 4",
            "content-length: 04",
            "content-length: ",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: identity\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: ,chunked",
            "transfer-encoding:  chunked",
            "transfer-encoding: chunked\t",
            "connection: close, content-length",
        ] {
            let stream = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
            for piece in [1, 7, 1000] {
                assert_eq!(
                    passed(stream.as_bytes(), piece),
                    (vec![], Passage::RefuseHead),
                    "{fields}"
                );
            }
        }
        for stream in [
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(
                passed(stream.as_bytes(), 1000),
                (vec![], Passage::RefuseHead),
                "{stream:?}"
            );
        }
    }

    #[test]
    fn a_malformed_body_passes_up_to_its_flaw() {
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (body, good) in [("2\r\nab\nc", "2\r\nab"), ("2\n", ""), ("x", ""), ("1;\na", "")] {
            for piece in [1, 1000] {
                let (went, end) = passed(format!("{head}{body}").as_bytes(), piece);
                let went = String::from_utf8(went).unwrap();
                assert!(
                    went.starts_with(&format!("{head}{good}")) && !went.ends_with('c'),
                    "{went:?}"
                );
                assert_eq!(end, Passage::RefuseBody, "{body:?}");
            }
        }
    }

    #[test]
    fn what_the_library_refuses_is_left_to_it() {
        for stream in [
            "GET  / HTTP/1.1\r\n\r\n",
            "\0",
            "GET / HTTP/1.1\r\nx y: z\r\n\r\n",
        ] {
            assert_eq!(passed(stream.as_bytes(), 1000).1, Passage::Last, "{stream:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(9000));
        assert_eq!(passed(long.as_bytes(), 100), (vec![], Passage::Last));
    }
}
