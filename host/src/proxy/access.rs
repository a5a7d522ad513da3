//! The access log: a line for each request, with the backend, the policy and its version.
//!
//! Owns the line's form and the thread that writes. Workers never wait for it: a line that finds the queue full is
//! dropped and counted. It must not know where lines go.

use std::{
    io::{self, BufWriter, Write},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{clock, metrics::Metrics};

/// Lines that may wait for the writer. At 300 bytes a line that is 2.5 MiB.
const QUEUE_LINES: usize = 8192;

/// Between two lines in the other log that say that this one cannot be written.
const COMPLAIN_EVERY_US: u64 = 60_000_000;

/// Where workers hand in their lines.
#[derive(Clone)]
pub struct AccessLog {
    lines: SyncSender<Line>,
    metrics: Arc<Metrics>,
}

/// One request, as logged: one JSON object.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line {
    /// When it began, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) listener: String,
    pub(super) client: String,
    /// What the client speaks, by its name in TLS (RFC 7301), or `tcp`.
    pub(super) protocol: &'static str,
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) status: u16,
    /// Whether the client took the whole response.
    pub(super) complete: bool,
    pub(super) duration_us: u64,
    pub(super) attempts: u32,
    /// Bytes to the backend. Only of what is passed on as it is, as the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sent: Option<u64>,
    /// Bytes from the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// `policy`, or a step of the fallback chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chosen_by: Option<&'static str>,
    /// Why it was not the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// What the decision is known by, if it is recorded: of several attempts, the last recorded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// What the policy said about its pick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// Why there was no response of a backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl AccessLog {
    /// Starts the writer. It ends when the last clone of this is dropped, after all lines are written.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(output: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> io::Result<(Self, AccessWriter)> {
        let (lines, queue) = sync_channel(QUEUE_LINES);
        let (writes, ended) = sync_channel(0);
        let counts = metrics.clone();
        std::thread::Builder::new()
            .name("trimtab-access".into())
            .spawn(move || {
                write_lines(&queue, BufWriter::with_capacity(1 << 16, output), &counts);
                drop(writes);
            })?;
        Ok((Self { lines, metrics }, AccessWriter { ended }))
    }

    pub(super) fn write(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.metrics.access_dropped.fetch_add(1, Relaxed);
        }
    }
}

/// The thread that writes.
#[derive(Debug)]
pub struct AccessWriter {
    ended: Receiver<()>,
}

impl AccessWriter {
    /// Waits until the last line is written, for so long: whoever should read the log may never do so.
    pub fn wait(&self, within: Duration) {
        if self.ended.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the access log cannot be written to its end: nobody reads it");
        }
    }
}

/// Writes what is there in one go, and flushes when the queue is empty. What cannot be written, as on a full disk, is counted,
/// line by line, and the next line tries again.
fn write_lines(queue: &Receiver<Line>, mut output: impl Write, metrics: &Metrics) {
    let (mut text, mut complained_us) = (Vec::new(), 0);
    let mut check = |result: io::Result<()>, lines: u64| {
        let Err(error) = result else { return };
        metrics.access_dropped.fetch_add(lines, Relaxed);
        let now_us = clock::now_us();
        if complained_us == 0 || now_us >= complained_us + COMPLAIN_EVERY_US {
            complained_us = now_us;
            tracing::warn!(%error, "the access log cannot be written");
        }
    };
    while let Ok(first) = queue.recv() {
        for line in std::iter::once(first).chain(queue.try_iter()) {
            text.clear();
            // It is made of texts and numbers, which all have a form in JSON.
            let _ = serde_json::to_writer(&mut text, &line);
            text.push(b'\n');
            // Whole or not at all, so that no line is torn by an error.
            check(output.write_all(&text), 1);
        }
        // What is in the buffer stays there and is tried again.
        check(output.flush(), 0);
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as u64)
}
