//! A directory that nobody else writes into, and its files, which nobody else reads.
//!
//! Owns modes, owners and replacing a file in one step. Two balancers may share it, an old one that drains and its
//! successor: each file appears as a whole or not at all, and one that is gone is no error.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rustix::{fs::OFlags, process::geteuid};

use super::Distrust;

const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;
/// What group and others may do with a file: nothing.
const OTHERS: u32 = 0o077;
/// What they may not do with a directory. Listing is harmless, since the files are private; service managers make
/// directories that can be listed.
const OTHERS_WRITE: u32 = 0o022;
/// Beginning of the names of files that are being written.
const UNFINISHED: &str = ".unfinished-";
/// A file that was not finished in this time never will be: its writer has died.
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(600);

/// A private directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// A file in it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, or last [touched](Directory::touch).
    pub used: SystemTime,
}

/// What a written file survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process: enough for what can be made again.
    Process,
    /// A power failure.
    Power,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE_DIRECTORY)
            .create(path)?;
        let metadata = path.metadata()?;
        let denied = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        if metadata.uid() != geteuid().as_raw() {
            return denied(format!(
                "the directory belongs to user {}, not to the balancer's",
                metadata.uid()
            ));
        }
        if metadata.mode() & OTHERS_WRITE != 0 {
            let mode = metadata.mode() & 0o777;
            return denied(format!(
                "others may write into the directory (mode {mode:03o}; expected 700)"
            ));
        }
        let directory = Self {
            path: path.to_owned(),
        };
        directory.remove_unfinished();
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's content; `None` if there is no such file.
    ///
    /// # Errors
    /// Every reason not to believe it.
    pub fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, Distrust> {
        let opened = OpenOptions::new()
            .read(true)
            // Neither through a link, nor waiting for the other end of a pipe.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(self.path.join(name));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(Distrust::NotAFile);
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = check(&file)?;
        if bytes > bytes_max as u64 {
            return Err(Distrust::Size(bytes));
        }
        let mut content = Vec::with_capacity(bytes as usize);
        Read::take(&mut file, bytes).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Writes a file in one step; its content is the parts one after another.
    ///
    /// # Errors
    /// What the system says. The file is then as it was before.
    pub fn write(&self, name: &str, parts: &[&[u8]], durability: Durability) -> io::Result<()> {
        let unfinished = self.unfinished(parts, durability)?;
        let renamed = std::fs::rename(&unfinished, self.path.join(name));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        } else if durability == Durability::Power {
            File::open(&self.path)?.sync_all()?;
        }
        renamed
    }

    /// Writes a file unless there is one; false if there is.
    pub(super) fn create(&self, name: &str, content: &[u8]) -> io::Result<bool> {
        let unfinished = self.unfinished(&[content], Durability::Power)?;
        // A link, unlike a rename, fails when the name is taken.
        let linked = std::fs::hard_link(&unfinished, self.path.join(name));
        let _ = std::fs::remove_file(&unfinished);
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn unfinished(&self, parts: &[&[u8]], durability: Durability) -> io::Result<PathBuf> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{}-{number}", std::process::id());
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(PRIVATE_FILE);
        let mut file = options.open(&path)?;
        let mut write = || {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            match durability {
                Durability::Process => Ok(()),
                Durability::Power => file.sync_all(),
            }
        };
        match write() {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Notes that a file was of use just now.
    pub fn touch(&self, name: &str) {
        let now = SystemTime::now();
        // It only delays its removal.
        let _ = File::open(self.path.join(name)).and_then(|file| file.set_modified(now));
    }

    /// Removes a file. One that is not there is as good as removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The files, those that are being written left out.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.list();
        entries.retain(|entry| !entry.name.starts_with(UNFINISHED));
        entries
    }

    fn list(&self) -> Vec<Entry> {
        let found = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        found
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some(Entry {
                    name: entry.file_name().into_string().ok()?,
                    bytes: metadata.len(),
                    used: metadata.modified().ok()?,
                })
            })
            .collect()
    }

    fn remove_unfinished(&self) {
        let is_left = |entry: &Entry| {
            entry.name.starts_with(UNFINISHED)
                && entry.used.elapsed().is_ok_and(|age| age > UNFINISHED_AGE_MAX)
        };
        for entry in self.list().into_iter().filter(is_left) {
            // Somebody else may do the same.
            let _ = self.remove(&entry.name);
        }
    }
}

/// The size of a file that is as private as it has to be.
fn check(file: &File) -> Result<u64, Distrust> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Distrust::NotAFile);
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(Distrust::Owner(metadata.uid()));
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(Distrust::Mode(metadata.mode() & 0o777));
    }
    Ok(metadata.len())
}
