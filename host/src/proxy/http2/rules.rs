//! Rules of frames that the HTTP library does not keep, or whose breach it calls by another name.
//!
//! Owns what one frame must be by its header, by the settings that it brings, and by what its client has said of its
//! request before. It must not judge what the library judges rightly: what it lets pass here is not yet good.
//!
//! Invariant: only what RFC 9113 has a server refuse is refused, so a client that keeps the rules never meets this.

use super::meter::{Frame, kind};

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_MAX: u32 = i32::MAX as u32;
/// An identifier and a value.
const SETTING_BYTES: usize = 6;
/// Requests that are remembered after their client's last word. Whoever is confused is so soon after it; what comes
/// later is the library's to judge.
const ENDED_MAX: usize = 16;

/// Why a connection is ended, as its client is told (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// What only servers send (8.4), or trailers with what only a head has (8.1).
    Protocol = 0x1,
    /// A window larger than any may be (6.5.2).
    FlowControl = 0x3,
    /// More of a request that its client has ended (5.1).
    StreamClosed = 0x5,
    /// A frame of another length than its kind has (4.2 and 6).
    FrameSize = 0x6,
    /// Fields that cannot be unpacked (4.3).
    Compression = 0x9,
    /// Too much that does nothing; the account's verdict.
    Calm = 0xb,
}

impl Breach {
    /// In words, for the log.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Protocol => "a frame that no client may send",
            Self::FlowControl => "a window that is too large",
            Self::StreamClosed => "more of a request that had ended",
            Self::FrameSize => "a frame of the wrong length",
            Self::Compression => "fields that cannot be unpacked",
            Self::Calm => "too many frames that do nothing",
        }
    }
}

/// What is remembered of a connection in order to judge its next frame.
#[derive(Default)]
pub(super) struct Rules {
    /// The highest request so far.
    last: u32,
    /// Requests whose client has said its last word, the oldest at `next`.
    ended: [u32; ENDED_MAX],
    next: usize,
    /// A head has begun, and only its continuation may follow: all else is the library's to judge (6.2).
    is_in_head: bool,
    setting: [u8; SETTING_BYTES],
    filled: usize,
}

impl Rules {
    /// The highest request so far.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn frame(&mut self, frame: &Frame) -> Result<(), Breach> {
        let was_in_head = self.is_in_head;
        if matches!(frame.kind, kind::HEADERS | kind::CONTINUATION) {
            self.is_in_head = frame.flags & END_HEADERS == 0;
        }
        if was_in_head {
            return Ok(());
        }
        let fits = match frame.kind {
            kind::PRIORITY => frame.length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => frame.length == 4,
            kind::PING => frame.length == 8,
            kind::GOAWAY => frame.length >= 8,
            kind::SETTINGS if frame.flags & ACK != 0 => frame.length == 0,
            kind::SETTINGS => frame.length.is_multiple_of(SETTING_BYTES as u64),
            _ => true,
        };
        if !fits {
            return Err(Breach::FrameSize);
        }
        match frame.kind {
            kind::PUSH_PROMISE => return Err(Breach::Protocol),
            kind::SETTINGS => self.filled = 0,
            kind::RST_STREAM => self.end(frame.stream),
            kind::HEADERS | kind::DATA => return self.part(frame),
            _ => {}
        }
        Ok(())
    }

    /// A part of a request. What we ourselves gave up is none of our business here: its client may not know yet.
    fn part(&mut self, frame: &Frame) -> Result<(), Breach> {
        if frame.stream > self.last {
            self.last = frame.stream;
        } else if self.ended.contains(&frame.stream) && frame.stream != 0 {
            return Err(Breach::StreamClosed);
        }
        if frame.flags & END_STREAM != 0 {
            self.end(frame.stream);
        }
        Ok(())
    }

    fn end(&mut self, stream: u32) {
        self.ended[self.next] = stream;
        self.next = (self.next + 1) % ENDED_MAX;
    }

    /// A piece of the settings that the last frame brings.
    pub(super) fn settings(&mut self, bytes: &[u8]) -> Result<(), Breach> {
        for byte in bytes {
            self.setting[self.filled] = *byte;
            self.filled += 1;
            if self.filled < SETTING_BYTES {
                continue;
            }
            self.filled = 0;
            let [i0, i1, v0, v1, v2, v3] = self.setting;
            let is_window = u16::from_be_bytes([i0, i1]) == INITIAL_WINDOW_SIZE;
            if is_window && u32::from_be_bytes([v0, v1, v2, v3]) > WINDOW_MAX {
                return Err(Breach::FlowControl);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: u64) -> Frame {
        Frame {
            length,
            kind,
            flags,
            stream,
        }
    }

    #[test]
    fn frames_have_the_length_of_their_kind() {
        for (kind, flags, good, bad) in [
            (kind::PRIORITY, 0, &[5][..], &[4, 6][..]),
            (kind::RST_STREAM, 0, &[4], &[3, 5, 0]),
            (kind::WINDOW_UPDATE, 0, &[4], &[3, 5]),
            (kind::PING, 0, &[8], &[0, 6, 9]),
            (kind::PING, ACK, &[8], &[7]),
            (kind::GOAWAY, 0, &[8, 30], &[7]),
            (kind::SETTINGS, 0, &[0, 6, 60], &[1, 5, 7]),
            (kind::SETTINGS, ACK, &[0], &[6, 1]),
            (kind::DATA, 0, &[0, 1, 16_384], &[]),
            (0xee, 0, &[0, 3], &[]),
        ] {
            for length in good {
                let judged = Rules::default().frame(&frame(kind, flags, 1, *length));
                assert_eq!(judged, Ok(()), "{kind} {length}");
            }
            for length in bad {
                let judged = Rules::default().frame(&frame(kind, flags, 1, *length));
                assert_eq!(judged, Err(Breach::FrameSize), "{kind} {length}");
            }
        }
    }

    #[test]
    fn a_request_that_its_client_has_ended_goes_not_on() {
        for last_word in [
            frame(kind::HEADERS, END_STREAM | END_HEADERS, 3, 9),
            frame(kind::DATA, END_STREAM, 3, 9),
            frame(kind::RST_STREAM, 0, 3, 4),
        ] {
            let mut rules = Rules::default();
            rules.frame(&frame(kind::HEADERS, END_HEADERS, 3, 9)).unwrap();
            rules.frame(&frame(kind::DATA, 0, 3, 9)).unwrap();
            rules.frame(&last_word).unwrap();
            // Others go on, and these may follow.
            rules.frame(&frame(kind::HEADERS, END_HEADERS, 5, 9)).unwrap();
            rules.frame(&frame(kind::PRIORITY, 0, 3, 5)).unwrap();
            rules.frame(&frame(kind::WINDOW_UPDATE, 0, 3, 4)).unwrap();
            rules.frame(&frame(kind::RST_STREAM, 0, 3, 4)).unwrap();
            for more in [kind::DATA, kind::HEADERS] {
                assert_eq!(
                    rules.frame(&frame(more, END_HEADERS, 3, 9)),
                    Err(Breach::StreamClosed)
                );
                assert_eq!(rules.frame(&frame(more, END_HEADERS, 5, 9)), Ok(()));
            }
            // One that never was is the library's to judge.
            assert_eq!(rules.frame(&frame(kind::HEADERS, END_HEADERS, 1, 9)), Ok(()));
            assert_eq!(rules.last(), 5);
        }
    }

    #[test]
    fn what_interrupts_a_head_is_for_the_library_to_judge() {
        let mut rules = Rules::default();
        rules.frame(&frame(kind::HEADERS, END_STREAM, 1, 9)).unwrap();
        rules.frame(&frame(kind::DATA, 0, 1, 9)).unwrap();
        rules
            .frame(&frame(kind::CONTINUATION, END_HEADERS, 1, 9))
            .unwrap();
        assert_eq!(
            rules.frame(&frame(kind::DATA, 0, 1, 9)),
            Err(Breach::StreamClosed)
        );
        let push = frame(kind::PUSH_PROMISE, END_HEADERS, 1, 9);
        assert_eq!(Rules::default().frame(&push), Err(Breach::Protocol));
    }

    #[test]
    fn trailers_may_follow_a_body() {
        let mut rules = Rules::default();
        for stream in (1..1000).step_by(2) {
            rules
                .frame(&frame(kind::HEADERS, END_HEADERS, stream, 9))
                .unwrap();
            rules.frame(&frame(kind::DATA, 0, stream, 9)).unwrap();
            rules
                .frame(&frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, 9))
                .unwrap();
        }
    }

    #[test]
    fn a_window_has_a_largest_size_however_the_settings_are_cut() {
        let setting = |name: u8, value: u32| [&[0, name][..], &value.to_be_bytes()].concat();
        let good = [setting(4, WINDOW_MAX), setting(6, u32::MAX)].concat();
        let bad = [good.clone(), setting(4, WINDOW_MAX + 1)].concat();
        for piece in 1..20 {
            let judge = |bytes: &[u8]| {
                let mut rules = Rules::default();
                rules
                    .frame(&frame(kind::SETTINGS, 0, 0, bytes.len() as u64))
                    .unwrap();
                bytes.chunks(piece).try_for_each(|piece| rules.settings(piece))
            };
            assert_eq!(judge(&good), Ok(()), "{piece}");
            assert_eq!(judge(&bad), Err(Breach::FlowControl), "{piece}");
        }
    }
}
