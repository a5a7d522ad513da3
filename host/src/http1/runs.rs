//! Parts of a head that go on untouched, copied in runs.
//!
//! Owns the judgement whether a part is written as we write it ourselves; what is not is written anew. So what goes on is the
//! same as if each field were written by itself. It must not know what a field means.

use std::ops::Range;

/// Neighbouring parts of a message that are not yet copied.
pub(super) struct Runs<'a> {
    bytes: &'a [u8],
    run: Range<usize>,
}

impl<'a> Runs<'a> {
    /// Of a message that begins with so many bytes that go on.
    #[inline]
    pub(super) fn begin(bytes: &'a [u8], first: usize) -> Self {
        Self { bytes, run: 0..first }
    }

    /// This field goes on.
    #[inline]
    pub(super) fn field(&mut self, out: &mut Vec<u8>, name: Range<usize>, value: Range<usize>) {
        let end = value.end.saturating_add(2);
        let is_ours = self.part(&(name.end..value.start)) == b": " && self.part(&(value.end..end)) == b"\r\n";
        if is_ours && name.start == self.run.end {
            self.run.end = end;
            return;
        }
        self.flush(out);
        if is_ours {
            self.run = name.start..end;
        } else {
            write_field(out, self.part(&name), self.part(&value));
        }
    }

    /// Nothing more goes on.
    #[inline]
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.part(&self.run));
        self.run.start = self.run.end;
    }

    #[inline]
    fn part(&self, range: &Range<usize>) -> &'a [u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

#[inline]
pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Where a part of `bytes` is. Nowhere in it, if it is none.
#[inline]
pub(super) fn place(bytes: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
    start..start.saturating_add(part.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields between the slashes, all of which go on but those called `drop`.
    fn written(message: &str) -> String {
        let (mut out, bytes) = (Vec::new(), message.as_bytes());
        let first = message.find("\r\n").unwrap() + 2;
        let mut runs = Runs::begin(bytes, first);
        for line in message[first..].split_inclusive('\n') {
            let (name, value) = line.split_once(':').unwrap();
            if name != "drop" {
                let value = place(bytes, value.trim().as_bytes());
                runs.field(&mut out, place(bytes, name.as_bytes()), value);
            }
        }
        runs.flush(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_goes_on_is_the_same_as_field_by_field() {
        for (message, expected) in [
            ("first\r\n", "first\r\n"),
            ("first\r\na: 1\r\nb: 2\r\n", "first\r\na: 1\r\nb: 2\r\n"),
            ("first\r\ndrop: 1\r\nb: 2\r\n", "first\r\nb: 2\r\n"),
            (
                "first\r\na: 1\r\ndrop: 2\r\nc: 3\r\n",
                "first\r\na: 1\r\nc: 3\r\n",
            ),
            (
                "first\r\na:1\r\nb: 2\r\nc:  3\r\n",
                "first\r\na: 1\r\nb: 2\r\nc: 3\r\n",
            ),
            (
                "first\r\na: 1 \r\nb: 2\nc: 3\r\n",
                "first\r\na: 1\r\nb: 2\r\nc: 3\r\n",
            ),
            (
                "first\r\na: \r\nb:\r\nc: 3\t\r\n",
                "first\r\na: \r\nb: \r\nc: 3\r\n",
            ),
        ] {
            assert_eq!(written(message), expected, "{message:?}");
        }
    }

    #[test]
    fn a_place_outside_is_quiet() {
        let (mut out, bytes) = (Vec::new(), b"first\r\n");
        let mut runs = Runs::begin(bytes, 7);
        runs.field(&mut out, place(bytes, b"x"), usize::MAX..usize::MAX);
        runs.flush(&mut out);
        assert_eq!(out, b"first\r\n: \r\n");
    }
}
