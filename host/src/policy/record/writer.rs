//! The thread that writes recordings: into memory, and into a file for each segment.
//!
//! Owns the files, their names, and how much of the disk they may use together. It is the only one that waits for the
//! disk.
//!
//! Invariant: every stream of a closed file has an end, and the file says why it ended.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, SystemTime},
};

use super::{Batch, Ending, Frame, LogWriter, Recorded, StreamState, recent::Recent, recordings::lock};

const EXTENSION: &str = "decisions";
/// Streams whose recorders are gone are looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the thread is to do.
pub(super) enum Job {
    /// Streams begin, that one file is for.
    Open {
        file: Option<File>,
        streams: Vec<OpenStream>,
    },
    /// More of a stream.
    Batch(Batch),
    /// Nothing more comes.
    Stop,
}

/// A file under way.
pub(super) struct File {
    log: LogWriter<Box<dyn Write + Send>>,
    path: PathBuf,
    /// For this one and all others in its directory.
    bytes_max: u64,
    streams: usize,
}

impl File {
    pub(super) fn new(log: LogWriter<Box<dyn Write + Send>>, path: PathBuf, bytes_max: u64) -> Self {
        Self {
            log,
            path,
            bytes_max,
            streams: 0,
        }
    }
}

/// A stream under way.
pub(super) struct OpenStream {
    recorded: Option<Recorded>,
    id: u64,
    state: Arc<StreamState>,
    /// By its number.
    file: Option<usize>,
}

impl OpenStream {
    pub(super) fn new(recorded: Recorded, state: Arc<StreamState>) -> Self {
        Self {
            id: recorded.stream,
            recorded: Some(recorded),
            state,
            file: None,
        }
    }
}

/// Makes a file that only its owner can read: requests are nobody else's business.
pub(super) fn create(directory: &Path, pool: &str) -> io::Result<(PathBuf, fs::File)> {
    static FILES: AtomicU64 = AtomicU64::new(0);
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix_ms = age.map_or(0, |age| age.as_millis());
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
    let pool: String = pool.chars().filter(is_plain).collect();
    // Names in order are files in order.
    let path = directory.join(format!("{unix_ms:013}-{number:04}-{pool}.{EXTENSION}"));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    Ok((path, file))
}

/// Works until it is told to stop.
pub(super) fn run(jobs: &Receiver<Job>, recent: &Mutex<Recent>, queue_max: usize) {
    let mut writer = Writer {
        recent,
        streams: Vec::new(),
        files: Vec::new(),
    };
    loop {
        let first = jobs.recv_timeout(LOOK_EVERY);
        // Noted before the queue is emptied: whatever these streams handed over is then written before their end.
        let ended = writer.ended();
        let is_over = match first {
            Ok(job) => {
                let mut jobs = std::iter::once(job).chain(jobs.try_iter().take(queue_max));
                // Nothing follows the order to stop.
                jobs.any(|job| writer.take(job))
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        writer.finish(&ended);
        if is_over {
            return writer.stop();
        }
        writer.flush();
    }
}

struct Writer<'a> {
    recent: &'a Mutex<Recent>,
    streams: Vec<OpenStream>,
    /// Places of closed files are empty, and used again.
    files: Vec<Option<File>>,
}

impl Writer<'_> {
    /// True if nothing more comes.
    fn take(&mut self, job: Job) -> bool {
        match job {
            Job::Open { file, streams } => self.open(file, streams),
            Job::Batch(batch) => self.batch(&batch),
            Job::Stop => return true,
        }
        false
    }

    fn open(&mut self, file: Option<File>, streams: Vec<OpenStream>) {
        let place = file.map(|mut file| {
            file.streams = streams.len();
            let free = self.files.iter().position(Option::is_none);
            let place = free.unwrap_or(self.files.len());
            if free.is_none() {
                self.files.push(None);
            }
            self.files[place] = Some(file);
            place
        });
        for mut stream in streams {
            if let Some(recorded) = stream.recorded.take() {
                lock(self.recent).open(recorded);
            }
            stream.file = place;
            self.streams.push(stream);
        }
    }

    fn batch(&mut self, batch: &Batch) {
        lock(self.recent).add(batch.stream, &batch.events);
        let stream = self.streams.iter().find(|stream| stream.id == batch.stream);
        let Some(place) = stream.and_then(|stream| stream.file) else {
            return;
        };
        let frame = Frame::Events {
            stream: batch.stream,
            first: batch.first,
            events: &batch.events,
        };
        self.write(place, &frame);
        let file = self.files.get(place).and_then(Option::as_ref);
        let limits = file.map(|file| (file.path.clone(), file.bytes_max));
        if let Some((path, bytes_max)) = limits
            && self.keep_limit(&path, bytes_max).is_err()
        {
            self.abandon(place, Ending::Full);
        }
    }

    /// A file that cannot be written ends with its streams.
    fn write(&mut self, place: usize, frame: &Frame<'_>) {
        let Some(file) = self.files.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        if let Err(error) = file.log.write(frame) {
            tracing::warn!(file = %file.path.display(), %error, "a recording cannot be written, and ends");
            self.abandon(place, Ending::Gap);
            self.files[place] = None;
        }
    }

    fn abandon(&self, place: usize, ending: Ending) {
        let of_file = |stream: &&OpenStream| stream.file == Some(place);
        self.streams
            .iter()
            .filter(of_file)
            .for_each(|stream| stream.state.end(ending));
    }

    /// Removes the oldest files beside this one when there is too much. Fails when the rest is still being written.
    fn keep_limit(&self, path: &Path, bytes_max: u64) -> Result<(), ()> {
        let open: Vec<&Path> = self.files.iter().flatten().map(|file| &*file.path).collect();
        let open_bytes: u64 = self.files.iter().flatten().map(|file| file.log.bytes).sum();
        let closed = path.parent().map(|directory| closed_files(directory, &open));
        let mut closed = closed.unwrap_or_default();
        let mut bytes = open_bytes + closed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        closed.sort();
        for (path, size) in closed {
            if bytes <= bytes_max {
                return Ok(());
            }
            // One that cannot be removed is counted again the next time.
            if fs::remove_file(&path).is_ok() {
                bytes -= size;
            }
        }
        if bytes > bytes_max { Err(()) } else { Ok(()) }
    }

    fn ended(&self) -> Vec<u64> {
        let is_over = |stream: &&OpenStream| stream.state.ending().is_some();
        self.streams
            .iter()
            .filter(is_over)
            .map(|stream| stream.id)
            .collect()
    }

    /// Writes the ends of these streams, and closes files without any other.
    fn finish(&mut self, ended: &[u64]) {
        for id in ended {
            let Some(at) = self.streams.iter().position(|stream| stream.id == *id) else {
                continue;
            };
            let stream = self.streams.swap_remove(at);
            let Some(place) = stream.file else { continue };
            let frame = Frame::End {
                stream: *id,
                ending: stream.state.ending().unwrap_or(Ending::Replaced),
            };
            self.write(place, &frame);
            self.leave(place);
        }
    }

    /// One stream less; the last one closes the file.
    fn leave(&mut self, place: usize) {
        let Some(file) = self.files.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        file.streams -= 1;
        if file.streams > 0 {
            return;
        }
        self.write(place, &Frame::Close);
        if let Some(mut file) = self.files.get_mut(place).and_then(Option::take) {
            let digest = file.log.digest();
            match file.log.flush() {
                Ok(()) => {
                    tracing::info!(file = %file.path.display(), bytes = file.log.bytes, digest, "recording closed");
                    // It counts as one that can be removed from here on.
                    let _ = self.keep_limit(&file.path, file.bytes_max);
                }
                Err(error) => {
                    tracing::warn!(file = %file.path.display(), %error, "a recording cannot be written");
                }
            }
        }
    }

    fn flush(&mut self) {
        for file in self.files.iter_mut().flatten() {
            // A failure shows at the next write, too.
            let _ = file.log.flush();
        }
    }

    fn stop(mut self) {
        let all: Vec<u64> = self.streams.iter().map(|stream| stream.id).collect();
        self.finish(&all);
    }
}

fn closed_files(directory: &Path, open: &[&Path]) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
        .filter(|path| !open.contains(&&**path))
        .filter_map(|path| {
            let bytes = fs::metadata(&path).ok()?.len();
            Some((path, bytes))
        })
        .collect()
}
