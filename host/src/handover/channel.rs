//! What two processes of this program say to each other, over a pair of sockets that nobody else has.
//!
//! Owns the form: a length, the descriptors that come with it, and JSON. Words that a later version says are ignored by
//! an earlier one, so that an upgrade may go either way.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::{config::Backend, pool::Standing};

/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
pub(super) const DESCRIPTORS_MAX: usize = 128;
/// A pool of ten thousand backends takes 2 MB. More is no word of ours.
const WORD_BYTES_MAX: usize = 256 << 20;

/// What is said.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(super) enum Word {
    /// Old to new: listening sockets, which come with it, by their keys.
    Sockets {
        /// One for each.
        keys: Vec<String>,
    },
    /// Old to new: what is known of a pool's backends.
    Standings {
        /// Its name.
        pool: String,
        /// By address.
        standings: Vec<Standing>,
    },
    /// Old to new: the backends that a pool's source named last.
    Found {
        /// Its name.
        pool: String,
        /// The last good set.
        backends: Vec<Backend>,
    },
    /// Old to new: this process is a member of a cluster, and gives its place to whoever asks for it.
    Member,
    /// Old to new: that was all.
    All,
    /// New to old: it could serve, and waits for the member's place.
    Waits,
    /// Old to new: nobody is that member any more.
    Place,
    /// New to old: it serves.
    Ready,
    /// New to old: it does not, and why.
    Refused {
        /// A line for each mistake.
        reason: String,
    },
    /// Old to new: nobody else accepts any more.
    Yours,
    /// Said by another version.
    #[serde(other)]
    Unknown,
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Both directions; a process that hangs must not keep the other one.
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// What is said next may take as long as it takes.
    pub(super) fn wait_for_ever(&self) -> io::Result<()> {
        self.0.set_read_timeout(None)
    }

    pub(super) fn say(&mut self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let slices = [IoSlice::new(&length)];
        let sent =
            rustix::io::retry_on_intr(|| sendmsg(&self.0, &slices, &mut control, SendFlags::NOSIGNAL))?;
        if sent != length.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.write_all(&text)
    }

    /// The next word, with its descriptors. At the end of the other process, `UnexpectedEof`.
    pub(super) fn hear(&mut self) -> io::Result<(Word, Vec<OwnedFd>)> {
        let mut length = [0; 4];
        let mut descriptors = Vec::new();
        let mut filled = 0;
        while filled < length.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut length[filled..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let heard = rustix::io::retry_on_intr(|| recvmsg(&self.0, &mut slices, &mut control, flags))?;
            if heard.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += heard.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > WORD_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a word of trimtab's",
            ));
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        Ok((serde_json::from_slice(&text)?, descriptors))
    }
}
