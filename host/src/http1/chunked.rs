//! The chunked transfer coding (RFC 9112, 7.1).
//!
//! Owns finding the data in it, and its end. Extensions are read and left out, and trailers where nobody wants them.
//!
//! Invariant: what is not exactly as the RFC has it is an error, since other readers might see other messages in it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::response::Malformed;

/// A chunk's size line: all digits that there can be, and extensions.
const LINE_MAX: usize = 16 + 256;
/// The extensions of a whole body.
const EXTENSIONS_MAX: usize = 16 << 10;
const TRAILERS_MAX: usize = 16 << 10;
/// As many fields as a head may have.
const TRAILER_FIELDS_MAX: usize = 100;

/// Where in a chunked body a reader is.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Of the chunk under way.
    left: u64,
    /// Bytes of the line or the trailers under way.
    seen: usize,
    extensions: usize,
    /// `None` where nobody wants them.
    trailers: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    /// After the size, where there may be space.
    Space,
    /// After the size, up to the line's end.
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    /// One that keeps the trailers.
    pub fn with_trailers() -> Self {
        Self {
            trailers: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// The trailers that were kept, if there are any, once the end was read.
    ///
    /// # Errors
    /// When they are no fields.
    pub fn take_trailers(&mut self) -> Result<Option<HeaderMap>, Malformed> {
        let bytes = self.trailers.take().filter(|bytes| !bytes.is_empty());
        let Some(mut bytes) = bytes else { return Ok(None) };
        bytes.extend_from_slice(b"\r\n");
        let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
        let malformed = Malformed("malformed trailer");
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&bytes, &mut fields) else {
            return Err(malformed);
        };
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed)?;
            trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| malformed)?);
        }
        Ok(Some(trailers))
    }

    /// Reads from the front of `input`. Gives the next run of data, if there is one, and how many bytes of input lie up
    /// to its end. Without data the input is used up, or the end of the body was found.
    ///
    /// # Errors
    /// When it is not a chunked body.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(Option<&'a [u8]>, usize), Malformed> {
        let mut at = 0;
        while self.state != State::End {
            if self.state == State::Data {
                let rest = input.get(at..).unwrap_or_default();
                let run = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                if run == 0 {
                    break;
                }
                self.left -= run as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok((rest.get(..run), at + run));
            }
            let Some(byte) = input.get(at) else { break };
            let before = self.state;
            self.state = self.step(*byte).ok_or(Malformed("malformed chunk"))?;
            let is_trailer = matches!(before, State::Trailer | State::TrailerLine | State::TrailerLf);
            if let Some(trailers) = self.trailers.as_mut().filter(|_| is_trailer)
                && self.state != State::EndLf
            {
                trailers.push(*byte);
            }
            at += 1;
        }
        Ok((None, at))
    }

    /// Whether the body's end was read.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, byte: u8) -> Option<State> {
        self.seen += 1;
        Some(match (self.state, byte) {
            (State::Start | State::Size, digit) if digit.is_ascii_hexdigit() && self.seen < LINE_MAX => {
                if self.state == State::Start {
                    (self.left, self.seen) = (0, 0);
                }
                let digit = (digit as char).to_digit(16)?;
                self.left = self.left.checked_mul(16)?.checked_add(digit.into())?;
                State::Size
            }
            (State::Size | State::Space | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Space, b' ' | b'\t') if self.seen < LINE_MAX => State::Space,
            (State::Size | State::Space, b';') => State::Extension,
            (State::Extension, byte) if is_text(byte) && self.seen < LINE_MAX => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_MAX {
                    return None;
                }
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left > 0 => State::Data,
            (State::SizeLf, b'\n') => {
                self.seen = 0;
                State::Trailer
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Trailer, b'\r') => State::EndLf,
            (State::Trailer | State::TrailerLine, byte)
                if !matches!(byte, b'\r' | b'\n' | 0) && self.seen < TRAILERS_MAX =>
            {
                State::TrailerLine
            }
            (State::TrailerLine, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::EndLf, b'\n') => State::End,
            _ => return None,
        })
    }
}

/// No control character, at which some readers end a line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// Writes a chunk; an empty one is left out, since it would be the last.
#[inline]
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = data.len();
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, and what is left of the input after the body.
    fn decode(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Malformed> {
        let (mut chunks, mut data) = (Chunks::default(), Vec::new());
        for mut piece in input.chunks(piece) {
            loop {
                let (run, used) = chunks.next(piece)?;
                piece = &piece[used..];
                match run {
                    Some(run) => data.extend_from_slice(run),
                    None => break,
                }
            }
        }
        Ok((data, chunks.is_over()))
    }

    #[test]
    fn data_is_found_however_the_input_is_cut() {
        let input = b"5\r\nhello\r\nA;x=\"y\"\r\n, world!!!\r\n00\r\nX-Sum: 1\r\nY: 2\r\n\r\n";
        for piece in 1..input.len() {
            assert_eq!(
                decode(input, piece),
                Ok((b"hello, world!!!".to_vec(), true)),
                "{piece}"
            );
        }
    }

    #[test]
    fn what_follows_the_end_is_left() {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.next(b"0\r\n\r\nHTTP/1.1"), Ok((None, 5)));
        assert!(chunks.is_over());
    }

    #[test]
    fn a_body_that_stops_early_is_not_over() {
        for input in ["5\r\nhell", "5\r\nhello\r\n", "0\r\n", "0\r\nX: 1\r\n"] {
            assert!(!decode(input.as_bytes(), 64).unwrap().1, "{input}");
        }
    }

    #[test]
    fn what_readers_could_disagree_about_is_refused() {
        for input in [
            "\r\n",
            "x\r\n",
            "-5\r\nhello",
            "0x5\r\nhello",
            "+5\r\n",
            " 5\r\nhello",
            "5\nhello",
            "5\r\nhello!",
            "5\r\nhelloXX0\r\n\r\n",
            "5\r\nhello\n",
            "10000000000000000\r\n",
            "5\r\rhello",
            "0\r\n\n",
            "0\r\nX\n",
            "5;a\nb\r\nhello",
            "5;a\rb\r\nhello",
            "5;\0\r\nhello",
            "5 5\r\nhello",
        ] {
            assert!(decode(input.as_bytes(), 64).is_err(), "{input:?}");
        }
        assert!(decode(&[b"5;".as_slice(), &[b'a'; LINE_MAX]].concat(), 64).is_err());
        let many = b"1;aaaaaaaaaaaaaaa\r\nx\r\n".repeat(EXTENSIONS_MAX / 15 + 1);
        assert!(decode(&many, 64).is_err());
        assert!(decode(&[b"0\r\n".as_slice(), &[b'a'; TRAILERS_MAX]].concat(), 64).is_err());
    }

    #[test]
    fn chunks_are_written_as_they_are_read() {
        let mut out = Vec::new();
        write_chunk(&mut out, b"");
        write_chunk(&mut out, &[b'x'; 26]);
        assert!(out.starts_with(b"1a\r\nxxx") && out.ends_with(b"x\r\n") && out.len() == 32);
        out.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(decode(&out, 7), Ok((vec![b'x'; 26], true)));
    }
}
