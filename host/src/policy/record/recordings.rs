//! All recordings of the process: where recorders come from, and where what they recorded can be found.
//!
//! Owns the queue between the workers and the thread that writes, which begins with the first recording. It must not
//! know when something is to be recorded.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    Batch, LogWriter, Recorded, Recorder, StreamState,
    recent::Recent,
    writer::{self, Job, OpenStream},
};
use crate::policy::Candidate;

/// Batches that may wait for the thread that writes: 4 MiB.
const QUEUE_BATCHES: usize = 128;

/// What may be kept, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Where files go; `None` keeps recordings in memory only.
    pub directory: Option<PathBuf>,
    /// All files together; the oldest are removed.
    pub disk_bytes: u64,
    /// The last streams in memory.
    pub memory_bytes: usize,
}

/// Which decisions to record.
pub struct Segment {
    /// Of this pool, ...
    pub pool: Arc<str>,
    /// ... made by this version, ...
    pub candidate: Arc<Candidate>,
    /// ... in so many workers, ...
    pub workers: usize,
    /// ... so many in each of them.
    pub picks: u32,
    /// Header fields to record although the policy does not read them, in lower case.
    pub headers: Arc<[String]>,
    /// Header fields whose values may be shown, in lower case.
    pub show: Arc<[String]>,
}

/// The recordings of a process. Cheap to clone.
#[derive(Clone)]
pub struct Recordings {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Mutex<Storage>,
    running: Mutex<Option<Running>>,
    recent: Arc<Mutex<Recent>>,
    next_stream: AtomicU64,
}

struct Running {
    queue: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl std::fmt::Debug for Recordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recordings").finish_non_exhaustive()
    }
}

/// Recorders of a segment, one for each worker, and where what they record is written.
pub struct Opened {
    /// For the workers, in order.
    pub recorders: Vec<Recorder>,
    /// The file; `None` in memory only.
    pub path: Option<PathBuf>,
}

impl Recordings {
    /// Nothing is recorded yet, and no thread is started.
    pub fn new(storage: Storage) -> Self {
        let recent = Recent::new(storage.memory_bytes);
        let inner = Inner {
            storage: Mutex::new(storage),
            running: Mutex::new(None),
            recent: Arc::new(Mutex::new(recent)),
            // Other processes, and this one after a restart, have other ids.
            next_stream: AtomicU64::new(u64::from(fastrand::u32(..)) << 24),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// From the next segment on.
    pub fn set_storage(&self, storage: Storage) {
        lock(&self.inner.recent).bytes_max = storage.memory_bytes;
        *lock(&self.inner.storage) = storage;
    }

    /// Makes recorders, and the file that they fill. Touches the disk, so not on a worker.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn open(&self, segment: &Segment) -> io::Result<Opened> {
        let storage = lock(&self.inner.storage).clone();
        let Some(directory) = &storage.directory else {
            return self.open_with(segment, None, None);
        };
        let (path, file) = writer::create(directory, &segment.pool)?;
        let output = LogWriter::new(Box::new(BufWriter::new(file)) as Box<dyn Write + Send>)?;
        let file = writer::File::new(output, path.clone(), storage.disk_bytes);
        self.open_with(segment, Some(file), Some(path))
    }

    /// The same with a file that is there.
    pub(super) fn open_with(
        &self,
        segment: &Segment,
        file: Option<writer::File>,
        path: Option<PathBuf>,
    ) -> io::Result<Opened> {
        let queue = self.queue()?;
        let mut streams = Vec::with_capacity(segment.workers);
        let mut recorders = Vec::with_capacity(segment.workers);
        for worker in 0..segment.workers {
            let stream = self.inner.next_stream.fetch_add(1, Ordering::Relaxed);
            let state = Arc::new(StreamState::default());
            let recorded = Recorded::new(
                stream,
                segment.pool.clone(),
                segment.candidate.clone(),
                segment.show.clone(),
            );
            streams.push(OpenStream::new(recorded, state.clone()));
            let outlet = queue.clone();
            recorders.push(Recorder::new(
                (stream, worker as u32),
                state,
                segment.picks,
                segment.headers.clone(),
                move |batch: Batch| outlet.try_send(Job::Batch(batch)).is_ok(),
            ));
        }
        let is_full = |_| io::Error::other("too much waits to be written");
        queue.try_send(Job::Open { file, streams }).map_err(is_full)?;
        Ok(Opened { recorders, path })
    }

    /// The streams that are still in memory, the latest first.
    pub fn recent(&self) -> Vec<Recorded> {
        lock(&self.inner.recent).all()
    }

    /// Writes what waits, closes all files, and ends the thread. Waits for it, so not on a runtime.
    pub fn finish(&self) {
        let running = lock(&self.inner.running).take();
        if let Some(Running { queue, thread }) = running {
            // Fails only if the thread has ended; then there is nothing to wait for either.
            let _ = queue.send(Job::Stop);
            let _ = thread.join();
        }
    }

    fn queue(&self) -> io::Result<SyncSender<Job>> {
        let mut running = lock(&self.inner.running);
        if let Some(running) = &*running {
            return Ok(running.queue.clone());
        }
        let (queue, jobs) = sync_channel(QUEUE_BATCHES);
        let recent = self.inner.recent.clone();
        let thread = std::thread::Builder::new()
            .name("trimtab-record".into())
            .spawn(move || writer::run(&jobs, &recent, QUEUE_BATCHES))?;
        *running = Some(Running {
            queue: queue.clone(),
            thread,
        });
        Ok(queue)
    }
}

/// Nothing that holds these locks can panic half way through a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
