//! A directory that goes away with its test.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// An empty directory of the test's own, removed when dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes one.
    ///
    /// # Panics
    /// When the system has no room for it.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that touches the disk would surprise"
    )]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trimtab-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes into a file in place, as some editors do.
    ///
    /// # Panics
    /// When the disk does not want it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).expect("a written file");
        path
    }

    /// Replaces a file in one step, as careful programs do.
    ///
    /// # Panics
    /// When the disk does not want it.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let temporary = self.write(&format!(".{name}.new"), content);
        std::fs::rename(temporary, self.path.join(name)).expect("a renamed file");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left-overs in a temporary directory are no reason to fail.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
