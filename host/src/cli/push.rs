//! `trimtab policy push`: from a folder or a component to a running balancer, once or at each save.
//!
//! Owns what is done at a save, and when a save is complete. It must not know how a balancer is asked.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};

use super::{PolicyVerb, author};
use crate::say;

/// Files that did not change for this long are taken to be complete.
const SETTLE: Duration = Duration::from_millis(200);
/// Looking again without an event: file systems without events, events that were lost.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Folders that builds write into.
const BUILT: [&str; 5] = ["target", "build", "dist", "node_modules", "__pycache__"];

/// What is to be pushed.
pub(crate) struct Push<'a> {
    pub(crate) from: &'a Path,
    pub(crate) pool: &'a str,
    pub(crate) promotes: bool,
}

/// Pushes; with `watches` again at each save, for ever, since mistakes are only told then. `ask` asks the balancer.
pub(crate) fn push(
    push: &Push<'_>,
    watches: bool,
    ask: impl Fn(&PolicyVerb) -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    if !watches {
        return push.once(&ask);
    }
    // Before the first look, or a save during the first build would be missed.
    let mut saves = Saves::of(push.from)?;
    loop {
        match push.once(&ask) {
            Ok(text) => say(text.trim_end()),
            Err(error) => eprintln!("{error:#}"),
        }
        say(&format!("watching {}", push.from.display()));
        saves.next();
    }
}

impl Push<'_> {
    fn once(&self, ask: &impl Fn(&PolicyVerb) -> anyhow::Result<String>) -> anyhow::Result<String> {
        let file = if self.from.is_dir() {
            author::build_quietly(self.from)?.component
        } else {
            self.from.to_owned()
        };
        let wasm = std::fs::read(&file).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
        let pushed = ask(&PolicyVerb::Push {
            file,
            pool: self.pool.to_owned(),
            promote: false,
            watch: false,
        })?;
        if !self.promotes {
            return Ok(pushed);
        }
        ask(&PolicyVerb::Promote {
            digest: trimtab::policy::digest(&wasm),
            pool: self.pool.to_owned(),
        })
    }
}

/// What tells two versions of a file apart: its content. A build may well write a source anew that stays what it was.
type Stamp = String;

/// The saves of a policy's files.
struct Saves {
    from: PathBuf,
    known: BTreeMap<PathBuf, Stamp>,
    events: Receiver<()>,
    /// Kept alive; `None` where there are no events.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Saves {
    fn of(from: &Path) -> anyhow::Result<Self> {
        let (sender, events) = channel();
        let watcher = notify::recommended_watcher(move |_| {
            // Nobody listens any more at the end.
            let _ = sender.send(());
        });
        let folder = if from.is_dir() {
            from
        } else {
            from.parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."))
        };
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(folder, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            eprintln!("no file events here ({error}); files are looked at every {LOOK_AGAIN:?}");
        }
        let known = stamps(from);
        anyhow::ensure!(!known.is_empty(), "{}: no such file or folder", from.display());
        Ok(Self {
            from: from.to_owned(),
            known,
            events,
            _watcher: watcher.ok(),
        })
    }

    /// Waits for a save, and until it is complete.
    fn next(&mut self) {
        while stamps(&self.from) == self.known {
            // Without a watcher this is only a pause.
            if self.events.recv_timeout(LOOK_AGAIN) == Err(RecvTimeoutError::Disconnected) {
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
        loop {
            self.known = stamps(&self.from);
            while self.events.recv_timeout(SETTLE) == Ok(()) {}
            if stamps(&self.from) == self.known {
                return;
            }
        }
    }
}

/// The sources below a folder, or the file itself.
fn stamps(from: &Path) -> BTreeMap<PathBuf, Stamp> {
    let mut found = BTreeMap::new();
    note(from, &mut found);
    found
}

fn note(path: &Path, found: &mut BTreeMap<PathBuf, Stamp>) {
    let Ok(metadata) = path.metadata() else { return };
    if !metadata.is_dir() {
        let content = std::fs::read(path).unwrap_or_default();
        found.insert(path.to_owned(), trimtab::policy::digest(&content));
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_left = name.ends_with('~') || name.ends_with(".wasm");
        let is_source = !name.starts_with('.') && !is_left && !BUILT.contains(&&*name);
        if is_source {
            note(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests;
