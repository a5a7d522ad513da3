//! What was pulled: manifests and components, each by its digest.
//!
//! Owns where they are, and which go when they are too many: those that were used longest ago. They need no seal, since each is looked at
//! against its digest whenever it is read. It must not know which belong together.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    policy::digest,
    state::{Directory, Durability},
};

/// Above any `compile.size`.
const BYTES_MAX: usize = 1 << 30;
/// As of versions that are kept in memory (`server/archive.rs`).
const MEMORY_BYTES_MAX: usize = 256 << 20;

#[derive(Debug)]
pub(super) enum Kept {
    /// What was used last is first.
    Memory(Mutex<VecDeque<(String, Arc<[u8]>)>>),
    Disk(Directory, u64),
}

impl Kept {
    pub(super) fn in_memory() -> Self {
        Self::Memory(Mutex::default())
    }

    pub(super) fn on_disk(directory: Directory, bytes_max: u64) -> Self {
        Self::Disk(directory, bytes_max)
    }

    /// What has this digest, if it is there and still what it was.
    pub(super) fn find(&self, wanted: &str) -> Option<Arc<[u8]>> {
        match self {
            Self::Memory(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let at = known.iter().position(|(digest, _)| digest == wanted)?;
                let found = known.remove(at)?;
                let bytes = found.1.clone();
                known.push_front(found);
                Some(bytes)
            }
            Self::Disk(directory, _) => {
                let file = directory.path().join(wanted);
                let read = directory.read(wanted, BYTES_MAX);
                let read = read.inspect_err(|distrust| {
                    tracing::error!(file = %file.display(), %distrust, "what was pulled is not trusted");
                });
                let bytes = read.ok()??;
                if digest(&bytes) != wanted {
                    tracing::error!(file = %file.display(), "what was pulled is not what it was");
                    // So that it can be kept again.
                    let _ = directory.remove(wanted);
                    return None;
                }
                directory.touch(wanted);
                Some(bytes.into())
            }
        }
    }

    /// Keeps a component with its manifest, which is written last: where it is, both are.
    pub(super) fn keep(&self, manifest: &[u8], component: &Arc<[u8]>) {
        let all = [component.clone(), manifest.into()].map(|bytes: Arc<[u8]>| (digest(&bytes), bytes));
        match self {
            Self::Memory(known) => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                for (digest, bytes) in all {
                    known.retain(|(old, _)| *old != digest);
                    known.push_front((digest, bytes));
                }
                let sum = |known: &VecDeque<(String, Arc<[u8]>)>| -> usize {
                    known.iter().map(|(_, bytes)| bytes.len()).sum()
                };
                // The two that came just now stay, however large.
                while known.len() > 2 && sum(&known) > MEMORY_BYTES_MAX {
                    known.pop_back();
                }
            }
            Self::Disk(directory, bytes_max) => {
                for (digest, bytes) in all {
                    if let Err(error) = directory.write(&digest, &[&bytes], Durability::Power) {
                        let directory = directory.path().display();
                        tracing::warn!(%directory, %error, "what was pulled cannot be kept; a restart needs the registry");
                        return;
                    }
                }
                remove_oldest(directory, *bytes_max);
            }
        }
    }
}

fn remove_oldest(directory: &Directory, bytes_max: u64) {
    let mut entries = directory.entries();
    let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    entries.sort_by_key(|entry| entry.used);
    // The two that came just now stay, however large.
    let older = entries.len().saturating_sub(2);
    for entry in &entries[..older] {
        if bytes <= bytes_max {
            return;
        }
        bytes -= entry.bytes;
        if let Err(error) = directory.remove(&entry.name) {
            tracing::warn!(file = entry.name, %error, "what was pulled cannot be removed");
        }
    }
}
