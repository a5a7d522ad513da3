//! What the balancer counts about itself.
//!
//! Owns the counters of the data path (one block for each worker) and of the control plane. What belongs to a backend or
//! to a policy is counted there (`pool::Load`, `policy::Stats`). It must not decide anything, nor know how numbers are
//! shown (`admin/metrics.rs` does).
//!
//! Invariant: a worker's block has one writer, so counting is a plain load and store.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use crate::pool::add;

mod listener;

pub use listener::{Listener, ListenerWorker};

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    /// One block for each worker.
    pub workers: Box<[CachePadded<Worker>]>,
    /// Configurations put into service, the first included.
    pub reloads: AtomicU64,
    /// Configurations or components refused while another was serving.
    pub reloads_refused: AtomicU64,
    /// Processes that were started to take over and do not serve.
    pub upgrades_failed: AtomicU64,
    /// Policy versions put into service in place of another.
    pub swaps: AtomicU64,
    /// Access log lines that were dropped because the log's reader was too slow, or it could not be written.
    pub access_dropped: AtomicU64,
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct Worker {
    /// Client connections accepted.
    pub connections: AtomicU64,
    /// Client connections closed.
    pub connections_closed: AtomicU64,
    /// Client connections closed for being slow: header, idle or body time-out.
    pub connections_expired: AtomicU64,
    /// Connections of trusted proxies that did not begin as they should (PROXY protocol).
    pub proxy_header_failures: AtomicU64,
    /// TLS handshakes with clients that succeeded.
    pub tls_handshakes: AtomicU64,
    /// TLS handshakes with clients that failed, or took too long.
    pub tls_handshake_failures: AtomicU64,
    /// HTTP/2 connections of clients.
    pub http2_connections: AtomicU64,
    /// HTTP/2 connections closed for frames that do nothing.
    pub http2_floods: AtomicU64,
    /// Tunnels: connections that went on with another protocol, after a 101 or a CONNECT.
    pub upgrades: AtomicU64,
    /// Connections that were passed on to a backend as bytes.
    pub tcp_connections: AtomicU64,
    /// Requests answered, by hundreds of the status.
    pub responses: [AtomicU64; 6],
    /// Responses that the balancer made itself, because something failed.
    pub errors: AtomicU64,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Requests whose client went away before the end of the response.
    pub aborted: AtomicU64,
    /// Upstream connections opened.
    pub upstream_connects: AtomicU64,
    /// Upstream connections that could not be opened.
    pub upstream_connect_failures: AtomicU64,
    /// Time from a request's head to the end of its response.
    pub duration: Histogram,
    /// When it looked at the clock last, by [`crate::clock`]; 0 before the first time. Ten times a second at least, unless it hangs.
    pub ticked_us: AtomicU64,
}

/// Upper bounds of the histogram's buckets in microseconds; the last bucket has none.
pub const DURATION_BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// Counts of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By bucket, not cumulative.
    pub buckets: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    /// Sum of all durations in microseconds.
    pub sum_us: AtomicU64,
}

impl Metrics {
    /// All zero.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers)
                .map(|_| CachePadded::new(Worker::default()))
                .collect(),
            reloads: AtomicU64::new(0),
            reloads_refused: AtomicU64::new(0),
            upgrades_failed: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
            access_dropped: AtomicU64::new(0),
        }
    }

    /// The sum over all workers.
    pub fn total(&self, read: impl Fn(&Worker) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| read(worker).load(Relaxed)).sum()
    }
}

impl Worker {
    /// Counts one more. Only the worker itself may call this.
    #[inline]
    pub fn count(&self, counter: impl Fn(&Self) -> &AtomicU64) {
        add(counter(self), 1);
    }

    /// A response has ended.
    #[inline]
    pub fn record(&self, status: u16, duration_us: u64) {
        add(&self.responses[usize::from(status / 100).min(5)], 1);
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < duration_us);
        add(&self.duration.buckets[bucket], 1);
        add(&self.duration.sum_us, duration_us);
    }
}
