//! The key of the seals: 64 random bytes in a file of mode 600.
//!
//! Owns making it, and replacing one that others may have seen. With another key no old seal fits, which costs a compile
//! of each component and nothing else; it must never be a reason not to start.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Directory, Distrust};

const NAME: &str = "key";
/// One block of SHA-256, which is the most that a key of its HMAC can use.
const BYTES: usize = 64;

/// The secret. It is not shown.
#[derive(Clone)]
pub(super) struct Key([u8; BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The directory's key; a new one if there is none, or none that can be trusted.
    pub(super) fn open(directory: &Directory) -> io::Result<Self> {
        match read(directory) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {}
            Err(distrust) => {
                let path = directory.path().join(NAME);
                tracing::warn!(key = %path.display(), %distrust, "the key is replaced, and with it everything that it sealed is void");
                directory.remove(NAME)?;
            }
        }
        let mut bytes = [0; BYTES];
        if getrandom(&mut bytes, GetRandomFlags::empty())? != BYTES {
            return Err(io::Error::other("the system gave too few random bytes"));
        }
        if directory.create(NAME, &bytes)? {
            return Ok(Self(bytes));
        }
        // Another balancer was faster.
        let theirs = read(directory).map_err(io::Error::other)?;
        theirs.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn bytes(&self) -> &[u8; BYTES] {
        &self.0
    }
}

fn read(directory: &Directory) -> Result<Option<Key>, Distrust> {
    let Some(content) = directory.read(NAME, BYTES)? else {
        return Ok(None);
    };
    let bytes = content.as_slice().try_into();
    let bytes = bytes.map_err(|_| Distrust::Size(content.len() as u64))?;
    Ok(Some(Key(bytes)))
}
