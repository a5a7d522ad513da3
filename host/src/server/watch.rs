//! Files that change: the configuration and the components it names.
//!
//! Owns the decision when a change is complete. Directories are watched, not files, because most programs replace a file
//! instead of writing into it, and some replace a link two levels up. An event only means "look": a reload is asked for
//! when the size, time or identity of a watched file differs and has stayed the same for a while. It must not read files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, oneshot};

use crate::control::Command;

/// A file that did not change for this long is taken to be complete. Longer than any sensible pause in writing one.
const SETTLE: Duration = Duration::from_millis(150);
/// Between two looks that find nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// Looking again without an event: file systems without events, events that were lost, directories made anew.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Watches until dropped.
pub(super) struct Watcher {
    files: mpsc::UnboundedSender<Vec<PathBuf>>,
    task: tokio::task::JoinHandle<()>,
}

/// What tells two versions of a file apart; `None` while it does not exist.
type Stamp = Option<(u64, Option<SystemTime>, u64)>;

impl Watcher {
    /// Starts watching. Changes are sent to `commands` as reloads.
    pub(super) fn start(files: &[PathBuf], commands: mpsc::Sender<Command>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(watch(files.to_vec(), receiver, commands));
        Self { files: sender, task }
    }

    /// Watches these files from now on.
    pub(super) fn set(&self, files: &[PathBuf]) {
        // The task ends only with the watcher.
        let _ = self.files.send(files.to_vec());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(
    mut files: Vec<PathBuf>,
    mut changes: mpsc::UnboundedReceiver<Vec<PathBuf>>,
    commands: mpsc::Sender<Command>,
) {
    let (events, mut event) = mpsc::channel::<()>(1);
    let mut inotify = notify::recommended_watcher(move |_| {
        // One waiting event says all that many would.
        let _ = events.try_send(());
    });
    if let Err(error) = &inotify {
        tracing::warn!(%error, "no file events here; files are looked at every {LOOK_AGAIN:?}");
    }
    let mut directories = BTreeSet::new();
    if let Ok(inotify) = &mut inotify {
        follow(inotify, &mut directories, &files);
    }
    // Nothing is taken to be known: a change between the reading and the watching would be lost otherwise. The price is
    // one reload that finds nothing new.
    let mut known = BTreeMap::new();
    loop {
        tokio::select! {
            Some(new) = changes.recv() => {
                files = new;
                known.retain(|file, _| files.contains(file));
                if let Ok(inotify) = &mut inotify {
                    follow(inotify, &mut directories, &files);
                }
                continue;
            }
            Some(()) = event.recv() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        let mut seen = stamps(&files);
        if seen == known {
            // A log in the same directory would have it look all the time.
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        seen = settled(&files, seen).await;
        known = seen;
        let (done, answer) = oneshot::channel();
        if commands.send(Command::Reload(done)).await.is_err() {
            return;
        }
        // The outcome is logged by the control task; waiting for it keeps a second reload from piling up behind.
        let _ = answer.await;
    }
}

/// Waits until the files have been the same for a while.
async fn settled(files: &[PathBuf], mut seen: BTreeMap<PathBuf, Stamp>) -> BTreeMap<PathBuf, Stamp> {
    loop {
        tokio::time::sleep(SETTLE).await;
        let now = stamps(files);
        if now == seen {
            return now;
        }
        seen = now;
    }
}

fn stamps(files: &[PathBuf]) -> BTreeMap<PathBuf, Stamp> {
    files.iter().map(|file| (file.clone(), stamp(file))).collect()
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.len(), metadata.modified().ok(), metadata.ino()))
}

/// Watches the directories of the files, and those of what links point to.
fn follow(inotify: &mut RecommendedWatcher, watched: &mut BTreeSet<PathBuf>, files: &[PathBuf]) {
    let real = files.iter().filter_map(|file| file.canonicalize().ok());
    let wanted: BTreeSet<PathBuf> = files
        .iter()
        .cloned()
        .chain(real)
        .filter_map(|file| file.parent().map(Path::to_path_buf))
        .collect();
    for gone in watched.difference(&wanted) {
        // A directory that no longer exists is not watched anyway.
        let _ = inotify.unwatch(gone);
    }
    for new in wanted.difference(watched) {
        let directory = if new.as_os_str().is_empty() {
            Path::new(".")
        } else {
            new
        };
        if let Err(error) = inotify.watch(directory, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, directory = %directory.display(), "cannot watch for changes; looking every {LOOK_AGAIN:?}");
        }
    }
    *watched = wanted;
}
