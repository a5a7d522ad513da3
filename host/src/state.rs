//! What the balancer keeps on disk for itself: a private directory, and files in it that only it can have written.
//!
//! Owns the checks of owner and mode, writing in one step, and the seal: HMAC-SHA256 with a key that lies in the same
//! directory. It must not know what the files are for.
//!
//! Invariant: a payload that [`Sealed::read`] gives was written under that very name and purpose by somebody who has the
//! key. Whatever else lies there is [`Distrust`], never content.

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

mod directory;
mod key;
#[cfg(test)]
mod tests;

pub use directory::{Directory, Durability, Entry};
use key::Key;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// A link, a directory, a device.
    #[error("not a regular file")]
    NotAFile,
    /// It may be somebody else's work.
    #[error("owned by user {0}, not by the balancer's")]
    Owner(u32),
    /// Others could read or write it.
    #[error("mode {0:03o} lets others in; expected 600")]
    Mode(u32),
    /// Too short to hold what it should, or larger than it may be.
    #[error("{0} bytes, which cannot be right")]
    Size(u64),
    /// Changed, cut short, made with another key, or written under another name.
    #[error("its seal does not fit")]
    Seal,
    /// The system does not let it be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Tells our files from others, and this layout from later ones.
const MAGIC: &[u8; 8] = b"trimtab2";
const SEAL_BYTES: usize = 32;
/// Behind the payload, so that a file can be mapped into memory as what its payload is.
const TAIL_BYTES: usize = MAGIC.len() + SEAL_BYTES;

/// The private directory with its key.
#[derive(Debug)]
pub struct State {
    root: Directory,
    key: Key,
}

/// A directory whose files carry a seal.
#[derive(Debug)]
pub struct Sealed {
    directory: Directory,
    key: Key,
    purpose: &'static str,
}

impl State {
    /// Opens the directory, and makes what is missing of it: the directory itself, and the key.
    ///
    /// # Errors
    /// When it cannot be made, or others could write into it.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let root = Directory::open(path)?;
        let key = Key::open(&root)?;
        Ok(Self { root, key })
    }

    /// A secret for one purpose, which lasts as long as the key.
    pub fn derived(&self, purpose: &str) -> [u8; SEAL_BYTES] {
        let mut mac = Hmac::<Sha256>::new(&(*self.key.bytes()).into());
        // No file's seal begins like this: those begin with the magic.
        mac.update(b"derived ");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// A directory in it for one purpose.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn directory(&self, purpose: &'static str) -> std::io::Result<Directory> {
        Directory::open(&self.root.path().join(purpose))
    }

    /// The same, for files with a seal.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn sealed(&self, purpose: &'static str) -> std::io::Result<Sealed> {
        Ok(Sealed {
            directory: self.directory(purpose)?,
            key: self.key.clone(),
            purpose,
        })
    }
}

impl Sealed {
    /// The files, for those who count and remove them.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A file's payload; `None` if there is no such file.
    ///
    /// # Errors
    /// Every reason not to believe it.
    pub fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Distrust> {
        let Some(mut bytes) = self.directory.read(name, bytes_max.saturating_add(TAIL_BYTES))? else {
            return Ok(None);
        };
        let payload_bytes = bytes.len().checked_sub(TAIL_BYTES);
        let payload_bytes = payload_bytes.ok_or(Distrust::Size(bytes.len() as u64))?;
        let (payload, tail) = bytes.split_at(payload_bytes);
        let (magic, seal) = tail.split_at(MAGIC.len());
        let mac = self.mac(name, payload);
        if magic != MAGIC || mac.verify_slice(seal).is_err() {
            return Err(Distrust::Seal);
        }
        bytes.truncate(payload_bytes);
        Ok(Some(bytes))
    }

    /// Writes a file in one step.
    ///
    /// # Errors
    /// What the system says. The file is then as it was before.
    pub fn write(&self, name: &str, payload: &[u8], durability: Durability) -> std::io::Result<()> {
        let seal = self.mac(name, payload).finalize().into_bytes();
        self.directory.write(name, &[payload, MAGIC, &seal], durability)
    }

    /// Over the name too, so that a good file under another name is a bad file.
    fn mac(&self, name: &str, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&(*self.key.bytes()).into());
        mac.update(MAGIC);
        for text in [self.purpose, name] {
            mac.update(&(text.len() as u64).to_le_bytes());
            mac.update(text.as_bytes());
        }
        mac.update(payload);
        mac
    }
}
