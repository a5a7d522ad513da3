//! The file of a log: a line that says what it is, then frames, each with a digest of everything before it.
//!
//! Owns the framing and what is said about a file that is not whole. It must not know what events mean.
//!
//! ```text
//! trimtab decisions 1\n
//! { length: u32 little-endian | payload: length bytes | SHA-256(digest of the frame before || payload) } ...
//! ```
//!
//! The digest before the first frame is that of the line. The payload is a [`Frame`], encoded by postcard.
//!
//! Invariant: a reader gives no event of a frame whose digest is wrong.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const HEADER: &[u8] = b"trimtab decisions 1\n";
const DIGEST_BYTES: usize = 32;
/// A batch of a worker has 32 KiB and one event more, which may be a snapshot of thousands of backends with labels.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A frame's payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame<'a> {
    /// Some events of a stream, one encoded after the other.
    Events {
        /// Which stream.
        stream: u64,
        /// The number of the first of them in the stream, from 0.
        first: u64,
        /// For [`super::decode_events`].
        events: &'a [u8],
    },
    /// A stream has ended.
    End {
        /// Which stream.
        stream: u64,
        /// Why.
        ending: Ending,
    },
    /// The file has ended.
    Close,
}

/// Why a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// As many picks as were wanted are recorded.
    Complete,
    /// The instance has left: another one took its place, or it failed.
    Replaced,
    /// What followed could not be written in time, so it is lost.
    Gap,
    /// There was no more room on the disk than the limit allows.
    Full,
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system says so.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It begins with something else.
    #[error(
        "not a log of decisions, or one of another version: expected the first line \"trimtab decisions 1\""
    )]
    Header,
    /// A byte of it is not what was written.
    #[error("frame {0} was changed after it was written: its digest is wrong")]
    Digest(u64),
    /// It ends where nothing ends.
    #[error("truncated: frame {0} is not complete")]
    Truncated(u64),
    /// It ends after a frame, but was not closed.
    #[error("truncated, or still being written: it ends after {0} frames without being closed")]
    Unclosed(u64),
    /// Something follows the end.
    #[error("something follows frame {0}, which closes the file")]
    AfterClose(u64),
    /// The digest is right and the content makes no sense: a writer's bug, or another version.
    #[error("frame {0} cannot be understood: {1}")]
    Content(u64, String),
}

/// Writes a log.
pub struct LogWriter<W> {
    output: W,
    digest: [u8; DIGEST_BYTES],
    /// Bytes written.
    pub bytes: u64,
}

impl<W: Write> LogWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// What the output says.
    pub fn new(mut output: W) -> io::Result<Self> {
        output.write_all(HEADER)?;
        Ok(Self {
            output,
            digest: Sha256::digest(HEADER).into(),
            bytes: HEADER.len() as u64,
        })
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// What the output says; the file is then of no use beyond its last whole frame.
    pub fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let payload = postcard::to_stdvec(frame).map_err(io::Error::other)?;
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.digest = chain(&self.digest, &payload);
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(&payload)?;
        self.output.write_all(&self.digest)?;
        self.bytes += (size_of::<u32>() + payload.len() + DIGEST_BYTES) as u64;
        Ok(())
    }

    /// Has the system take what was written.
    ///
    /// # Errors
    /// What the output says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// The digest of everything written. Whoever keeps it can tell a file that was written anew from this one.
    pub fn digest(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The output.
    pub fn into_inner(self) -> W {
        self.output
    }
}

/// Reads a log, frame by frame.
pub struct LogReader<R> {
    input: R,
    digest: [u8; DIGEST_BYTES],
    payload: Vec<u8>,
    frames: u64,
    is_closed: bool,
}

impl<R: Read> LogReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is another file's.
    pub fn new(mut input: R) -> Result<Self, LogError> {
        let mut header = [0; HEADER.len()];
        match input.read_exact(&mut header) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ if header != HEADER => return Err(LogError::Header),
            _ => {}
        }
        Ok(Self {
            input,
            digest: Sha256::digest(HEADER).into(),
            payload: Vec::new(),
            frames: 0,
            is_closed: false,
        })
    }

    /// How many frames were read.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The next frame; `None` after the one that closes the file.
    ///
    /// # Errors
    /// What is wrong with the file, and in which frame, counted from 1.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, LogError> {
        let number = self.frames + 1;
        let mut length = [0; size_of::<u32>()];
        match read_up_to(&mut self.input, &mut length)? {
            0 if self.is_closed => return Ok(None),
            0 => return Err(LogError::Unclosed(self.frames)),
            _ if self.is_closed => return Err(LogError::AfterClose(self.frames)),
            read if read < length.len() => return Err(LogError::Truncated(number)),
            _ => {}
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(LogError::Digest(number));
        }
        // What is claimed and not there is not allocated either.
        self.payload.clear();
        let wanted = (length + DIGEST_BYTES) as u64;
        if (&mut self.input).take(wanted).read_to_end(&mut self.payload)? as u64 != wanted {
            return Err(LogError::Truncated(number));
        }
        let digest = self.payload.split_off(length);
        self.digest = chain(&self.digest, &self.payload);
        if self.digest[..] != digest[..] {
            return Err(LogError::Digest(number));
        }
        self.frames = number;
        let content = |error: postcard::Error| LogError::Content(number, error.to_string());
        let frame = postcard::from_bytes(&self.payload).map_err(content)?;
        self.is_closed = matches!(frame, Frame::Close);
        Ok(Some(frame))
    }
}

fn chain(before: &[u8], payload: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(payload);
    hasher.finalize().into()
}

/// Reads until the buffer is full or the input has ended.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
