//! Frames as they come and go, and the end of a connection that breaks a rule or sends too many of the useless kind.
//!
//! Owns one account for each connection: a frame that asks for work and brings none costs, bodies and time earn. The
//! HTTP library bounds what a connection can make us keep; this bounds what it can make us do. It must not change any
//! byte, but for the GOAWAY that ends a connection, what `fields.rs` makes of a path, the end of trailers that have what
//! only a head has (without it the library resets that request, and no other), and a client's GOAWAY, at which the library
//! would close while the client may still have a word to say. The rules are in `rules.rs`.
//!
//! Invariant: a GOAWAY of ours goes between two frames, never into one.

use std::{
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    PREFACE,
    cork::Cork,
    fields::{Block, Fields},
    rules::{Breach, Rules},
};
use crate::proxy::{
    client::{ClientStream, Socket},
    prefixed::Prefixed,
    serve::Client,
};

/// What a connection may spend at once: a browser that gives up a page full of images stays far below.
const CREDIT_MAX: u64 = 500;
/// What it earns by waiting.
const EARNED_PER_S: u64 = 200;
/// What of a body, in either direction, pays for one frame: a window update or a ping now and then.
const BYTES_PER_FRAME: u64 = 512;

const HEADER_BYTES: usize = 9;
const KIND_AT: usize = 3;
const FLAGS_AT: usize = 4;
const END_STREAM: u8 = 1;

/// Kinds of frames (RFC 9113, 6).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
    /// None that there is, so whoever meets it has to ignore it (RFC 9113, 4.1).
    pub(in super::super) const UNKNOWN: u8 = 0xff;
}

/// A connection whose frames are counted.
pub(super) struct Metered<S> {
    stream: Cork<Prefixed<ClientStream<S>>>,
    client: Rc<Client>,
    received: Frames,
    sent: Frames,
    account: Account,
    rules: Rules,
    fields: Fields,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: Cork<Prefixed<ClientStream<S>>>, client: Rc<Client>) -> Self {
        Self {
            stream,
            account: Account::new(client.worker.coarse_ms()),
            client,
            received: Frames {
                skip: PREFACE.len() as u64,
                ..Frames::default()
            },
            sent: Frames::default(),
            rules: Rules::default(),
            fields: Fields::default(),
        }
    }

    /// Counts what came, up to what breaks a rule.
    fn count(&mut self, bytes: &mut [u8]) -> Result<(), Breach> {
        let now_ms = self.client.worker.coarse_ms();
        let mut at = 0;
        // Of the last head or trailers, if they are still here to be changed.
        let mut flags = None;
        while let Some(part) = self.received.next(bytes, &mut at) {
            match part {
                Part::Frame(frame) => {
                    self.account.received(&frame, now_ms);
                    let block = match frame.stream > self.rules.last() {
                        true => Block::Head,
                        false => Block::Trailers,
                    };
                    self.rules.frame(&frame)?;
                    // The client closes when it is done; until then its pings are answered. Where the byte has gone on
                    // already, the library closes, which is as right (RFC 9113, 6.8).
                    if frame.kind == kind::GOAWAY
                        && frame.stream == 0
                        && let Some(kind) = at
                            .checked_sub(HEADER_BYTES - KIND_AT)
                            .and_then(|at| bytes.get_mut(at))
                    {
                        *kind = kind::UNKNOWN;
                    }
                    if frame.kind == kind::HEADERS {
                        flags = at.checked_sub(HEADER_BYTES - FLAGS_AT);
                    }
                    if matches!(frame.kind, kind::HEADERS | kind::CONTINUATION) {
                        self.fields.begin(&frame, block)?;
                    }
                }
                Part::Settings(range) => self.rules.settings(&bytes[range])?,
                Part::Fields(range) => {
                    self.fields.piece(&mut bytes[range])?;
                    if self.fields.is_misplaced() {
                        // Trailers without an end are what the library resets. What it has already, only an end
                        // of the connection takes back.
                        *flags.and_then(|at| bytes.get_mut(at)).ok_or(Breach::Protocol)? &= !END_STREAM;
                    }
                }
            }
        }
        if self.account.is_overdrawn() {
            return Err(Breach::Calm);
        }
        Ok(())
    }

    fn count_sent(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(part) = self.sent.next(bytes, &mut at) {
            if let Part::Frame(frame) = part {
                self.account.sent(&frame);
            }
        }
    }
}

impl<S: Socket> Metered<S> {
    /// Ends the connection with a word, where one can be put between what was written.
    fn refuse(&mut self, breach: Breach) -> io::Error {
        if breach == Breach::Calm {
            let metrics = self.client.worker.metrics();
            metrics.count(|metrics| &metrics.http2_floods);
        }
        if self.sent.is_between() {
            let mut frame = [0; HEADER_BYTES + 8];
            (frame[2], frame[3], frame[16]) = (8, kind::GOAWAY, breach as u8);
            frame[9..13].copy_from_slice(&self.rules.last().to_be_bytes());
            self.stream.say(&frame);
        }
        tracing::debug!(client = %self.client.address, "HTTP/2 connection closed: {}", breach.text());
        io::Error::other(breach.text())
    }
}

impl<S: Socket> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let counted = self.count(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        Poll::Ready(counted.map_err(|breach| self.refuse(breach)))
    }
}

impl<S: Socket> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.count_sent(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut left = count;
        for slice in slices {
            let piece = left.min(slice.len());
            self.count_sent(slice.get(..piece).unwrap_or_default());
            left -= piece;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a connection has left to spend.
struct Account {
    credit: u64,
    /// Body bytes that have not yet earned a whole frame.
    bytes: u64,
    since_ms: u64,
}

impl Account {
    fn new(now_ms: u64) -> Self {
        Self {
            credit: CREDIT_MAX,
            bytes: 0,
            since_ms: now_ms,
        }
    }

    fn received(&mut self, frame: &Frame, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.since_ms) * EARNED_PER_S / 1000;
        if earned > 0 {
            self.since_ms = now_ms;
            self.earn(earned);
        }
        match frame.kind {
            kind::DATA if frame.length > 0 => self.earn_bytes(frame.length),
            // The end of a body may well be empty.
            kind::DATA if frame.flags & END_STREAM != 0 => {}
            // A request is work, and bounded elsewhere; an empty piece of one is neither.
            kind::HEADERS | kind::CONTINUATION if frame.length > 0 => {}
            _ => self.credit = self.credit.saturating_sub(1),
        }
    }

    fn sent(&mut self, frame: &Frame) {
        if frame.kind == kind::DATA {
            self.earn_bytes(frame.length);
        }
    }

    fn earn_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.earn(self.bytes / BYTES_PER_FRAME);
        self.bytes %= BYTES_PER_FRAME;
    }

    fn earn(&mut self, frames: u64) {
        self.credit = (self.credit + frames).min(CREDIT_MAX);
    }

    fn is_overdrawn(&self) -> bool {
        self.credit == 0
    }
}

/// A frame's header (RFC 9113, 4.1).
pub(super) struct Frame {
    pub(super) length: u64,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// What is found in a stream of bytes.
enum Part {
    Frame(Frame),
    /// Where a piece of what the last frame brings is, if that is settings.
    Settings(Range<usize>),
    /// The same of a head or of trailers.
    Fields(Range<usize>),
}

/// Where frames begin in a stream of bytes.
#[derive(Default)]
struct Frames {
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// Bytes until the next header, of a frame of this kind.
    skip: u64,
    kind: u8,
}

impl Frames {
    /// The next part that matters of these bytes, of which those before `at` were looked at.
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<Part> {
        while let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) {
            if self.skip > 0 {
                let skipped = rest.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                let range = *at..*at + skipped;
                self.skip -= skipped as u64;
                *at = range.end;
                match self.kind {
                    kind::SETTINGS => return Some(Part::Settings(range)),
                    kind::HEADERS | kind::CONTINUATION => return Some(Part::Fields(range)),
                    _ => continue,
                }
            }
            let taken = rest.len().min(HEADER_BYTES - self.filled);
            self.header[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
            self.filled += taken;
            *at += taken;
            if self.filled == HEADER_BYTES {
                let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header;
                let length = u64::from(u32::from_be_bytes([0, l0, l1, l2]));
                (self.filled, self.skip, self.kind) = (0, length, kind);
                return Some(Part::Frame(Frame {
                    length,
                    kind,
                    flags,
                    stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
                }));
            }
        }
        None
    }

    /// Whether the next byte begins a frame.
    fn is_between(&self) -> bool {
        self.filled == 0 && self.skip == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{
        kind::{DATA, HEADERS},
        *,
    };

    fn feed(frames: &mut Frames, bytes: &[u8], mut each: impl FnMut(Frame)) {
        let mut at = 0;
        while let Some(part) = frames.next(bytes, &mut at) {
            if let Part::Frame(frame) = part {
                each(frame);
            }
        }
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, 5], &vec![0; length]].concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [frame(DATA, 0, 300), frame(6, 1, 8), frame(HEADERS, 5, 0)].concat();
        for piece in [1, 2, 8, 9, 10, 100, 1000] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(piece) {
                feed(&mut frames, piece, |frame| {
                    found.push((frame.kind, frame.flags, frame.length, frame.stream));
                });
            }
            assert_eq!(
                found,
                [(DATA, 0, 300, 5), (6, 1, 8, 5), (HEADERS, 5, 0, 5)],
                "{piece}"
            );
            assert!(frames.is_between());
        }
    }

    fn spend(account: &mut Account, frames: &[u8], times: usize, now_ms: u64) {
        for _ in 0..times {
            feed(&mut Frames::default(), frames, |frame| {
                account.received(&frame, now_ms)
            });
        }
    }

    #[test]
    fn frames_that_do_nothing_cost_and_time_and_bodies_earn() {
        let ping = frame(6, 0, 8);
        let mut account = Account::new(0);
        spend(&mut account, &ping, 499, 0);
        assert!(!account.is_overdrawn());
        spend(&mut account, &ping, 1, 0);
        assert!(account.is_overdrawn());
        for useless in [
            frame(DATA, 0, 0),
            frame(HEADERS, 0, 0),
            frame(3, 0, 4),
            frame(4, 0, 0),
            frame(99, 0, 9),
        ] {
            let mut account = Account::new(0);
            spend(&mut account, &useless, 500, 0);
            assert!(account.is_overdrawn(), "{useless:?}");
        }
        for useful in [
            frame(DATA, 0, 1),
            frame(DATA, END_STREAM, 0),
            frame(HEADERS, 4, 20),
        ] {
            let mut account = Account::new(0);
            spend(&mut account, &useful, 10_000, 0);
            assert!(!account.is_overdrawn(), "{useful:?}");
        }
        let mut account = Account::new(0);
        for second in 0..100 {
            spend(&mut account, &ping, 199, second * 1000);
        }
        assert!(!account.is_overdrawn(), "200 a second are earned");
        let mut account = Account::new(0);
        for _ in 0..10_000 {
            spend(&mut account, &frame(8, 0, 4), 1, 0);
            feed(&mut Frames::default(), &frame(DATA, 0, 512), |frame| {
                account.sent(&frame)
            });
        }
        assert!(!account.is_overdrawn(), "a download pays for its window updates");
    }
}
