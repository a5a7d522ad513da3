//! The bytes of components that may be gone back to.
//!
//! Owns where they are: in a private directory if there is one, in memory otherwise. They need no seal: each is known by
//! its digest, and whoever gets one has it compiled like any stranger's. It must not know which are wanted, or why.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use super::code::digest;
use crate::state::{Directory, Durability};

/// Above any `compile.size`.
const COMPONENT_BYTES_MAX: usize = 1 << 30;
const SUFFIX: &str = ".wasm";

/// Components by their digests.
#[derive(Debug)]
pub enum Components {
    /// Kept until the process ends.
    Memory(Mutex<HashMap<String, Arc<[u8]>>>),
    /// Kept over restarts.
    Disk(Directory),
}

impl Components {
    /// Kept until the process ends.
    pub fn in_memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// Keeps a component. It may block.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self, digest: &str, wasm: &Arc<[u8]>) -> io::Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        match self {
            Self::Memory(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(digest.to_owned(), wasm.clone());
                Ok(())
            }
            Self::Disk(directory) => {
                directory.write(&format!("{digest}{SUFFIX}"), &[wasm], Durability::Power)
            }
        }
    }

    /// Whether there is one of this digest. It may block.
    pub fn has(&self, digest: &str) -> bool {
        match self {
            Self::Memory(known) => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.contains_key(digest)
            }
            Self::Disk(directory) => directory.path().join(format!("{digest}{SUFFIX}")).exists(),
        }
    }

    /// The component of this digest, if it is there and still what it was. It may block.
    pub fn find(&self, wanted: &str) -> Option<Arc<[u8]>> {
        match self {
            Self::Memory(known) => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.get(wanted).cloned()
            }
            Self::Disk(directory) => {
                let name = format!("{wanted}{SUFFIX}");
                let read = directory.read(&name, COMPONENT_BYTES_MAX);
                let file = directory.path().join(&name);
                let found = read
                    .inspect_err(|distrust| {
                        tracing::error!(file = %file.display(), %distrust, "a kept component is not trusted");
                    })
                    .ok()??;
                if digest(&found) != wanted {
                    tracing::error!(file = %file.display(), "a kept component is not what it was");
                    // So that it can be kept again.
                    let _ = directory.remove(&name);
                    return None;
                }
                Some(found.into())
            }
        }
    }

    /// Forgets all others. It may block.
    pub fn retain(&self, wanted: &BTreeSet<String>) {
        match self {
            Self::Memory(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|digest, _| wanted.contains(digest));
            }
            Self::Disk(directory) => {
                for entry in directory.entries() {
                    let digest = entry.name.strip_suffix(SUFFIX);
                    if digest.is_some_and(|digest| !wanted.contains(digest))
                        && let Err(error) = directory.remove(&entry.name)
                    {
                        tracing::warn!(file = entry.name, %error, "a component cannot be removed");
                    }
                }
            }
        }
    }
}
