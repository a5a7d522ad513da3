//! Backends that another program lists in a file.
//!
//! Owns when the file is read again. What it may say is the configuration's business, and so are the words about its
//! mistakes. The file is looked at and not watched: a look costs one system call, and sees what events do not (network file
//! systems, links that are replaced two levels up, a directory made anew).

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Failure, Finding, Source};
use crate::config::{Backend, listed_backends};

/// Between two looks. A file has to be the same in two looks before it is read, so that one that is being written is not.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What tells two versions of a file apart; `None` while it does not exist.
type Stamp = Option<(u64, Option<SystemTime>, u64)>;

pub(super) struct File {
    path: PathBuf,
    /// What was read last; `None` before the first reading.
    read: Option<Stamp>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: None }
    }

    /// Waits until the file is another one, and complete.
    async fn change(&self) -> Stamp {
        let mut seen = stamp(&self.path);
        if self.read.is_none() {
            return seen;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamp(&self.path);
            if now == seen && Some(&now) != self.read.as_ref() {
                return now;
            }
            seen = now;
        }
    }

    async fn read(&mut self) -> Result<Vec<Backend>, Failure> {
        let stamp = self.change().await;
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || listed_backends(&path)).await;
        self.read = Some(stamp);
        let read = read.map_err(|error| Failure(error.to_string()))?;
        read.map_err(|mistakes| Failure(mistakes.to_string()))
    }
}

impl Source for File {
    fn next(&mut self) -> Finding<'_> {
        Box::pin(self.read())
    }
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok(), metadata.ino()))
}
