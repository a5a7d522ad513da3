//! Machine code that was compiled before, on disk.
//!
//! Owns what a file is valid for (a component, and everything that the compiler's work depends on) and how much is kept.
//! It must not load code, nor judge it: the seal of `state.rs` says that this program wrote it, and that is all there is
//! to say. Whatever is wrong with a file, the component is compiled again; whatever is wrong with the disk, nothing is
//! kept.

use std::{
    hash::{Hash, Hasher},
    path::PathBuf,
};

use sha2::{Digest, Sha256};

use super::{Engine, code::hex, compile, wasi};
use crate::state::{Durability, Sealed};

/// Most bytes of one file, as of one compile (`compile/parent.rs`).
const CODE_BYTES_MAX: usize = 512 << 20;

/// The files.
#[derive(Debug)]
pub struct CodeCache {
    files: Sealed,
    /// What the compiler's work depends on besides the component.
    settings: String,
    bytes_max: u64,
}

impl CodeCache {
    /// Over a directory that holds nothing else.
    pub fn new(files: Sealed, engine: &Engine, bytes_max: u64) -> Self {
        Self {
            files,
            settings: settings(engine),
            bytes_max,
        }
    }

    /// The file of a component's machine code, if it is there and to be trusted. Its first bytes are the code; what lies
    /// behind it does not concern who maps it.
    pub(super) fn find(&self, component: &str) -> Option<PathBuf> {
        let name = self.name(component);
        let path = self.files.directory().path().join(&name);
        match self.files.read(&name, CODE_BYTES_MAX) {
            Ok(None) => None,
            Ok(Some(_)) => {
                self.files.directory().touch(&name);
                Some(path)
            }
            Err(distrust) => {
                tracing::warn!(file = %path.display(), %distrust, "compiled code is not trusted; compiling again");
                None
            }
        }
    }

    /// Keeps machine code, in place of what was used longest ago: in this file.
    pub(super) fn write(&self, component: &str, code: &[u8]) -> Option<PathBuf> {
        if code.len() as u64 > self.bytes_max {
            return None;
        }
        let name = self.name(component);
        let written = self.files.write(&name, code, Durability::Process);
        self.remove_oldest();
        let directory = self.files.directory().path();
        match written {
            Ok(()) => Some(directory.join(name)),
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "compiled code cannot be kept");
                None
            }
        }
    }

    /// Removes a file that has turned out to be of no use.
    pub(super) fn remove(&self, component: &str) {
        let _ = self.files.directory().remove(&self.name(component));
    }

    fn remove_oldest(&self) {
        let mut entries = self.files.directory().entries();
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_by_key(|entry| entry.used);
        for entry in entries {
            if bytes <= self.bytes_max {
                return;
            }
            bytes -= entry.bytes;
            if let Err(error) = self.files.directory().remove(&entry.name) {
                tracing::warn!(file = entry.name, %error, "compiled code cannot be removed");
            }
        }
    }

    fn name(&self, component: &str) -> String {
        format!("{component}-{}", self.settings)
    }
}

/// Of the versions of trimtab and of wasmtime, the engine's settings and this machine's processor.
fn settings(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    // Turns core modules into components, in a way that may change with it.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    wasi::PREVIEW1_ADAPTER.hash(&mut hasher);
    compile::SHORTCUT_PARTS.hash(&mut hasher);
    engine.inner.precompile_compatibility_hash().hash(&mut hasher);
    hex(&hasher.0.finalize()[..8])
}

/// The standard library's own hasher may change with it.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
