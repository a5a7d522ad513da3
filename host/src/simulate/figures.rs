//! What is measured of one policy.
//!
//! Owns the counts and their division into buckets of time. It must not know what a figure is good for; that is
//! `report.rs`.

use hdrhistogram::Histogram;

use super::{
    agenda::Ns,
    server::{Server, Sums},
};

/// Points of a line in a plot, and columns of a heat map.
pub(super) const BUCKETS: usize = 120;
/// Of all latencies: three digits are more than a plot shows.
const DIGITS: u8 = 3;
/// Of those of a bucket, of which there are many.
const BUCKET_DIGITS: u8 = 2;
/// Longer latencies count as this: a day.
const LATENCY_US_MAX: u64 = 86_400_000_000;

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A backend's answer, with its status.
    Answered(u16),
    /// No backend could be reached, or the last one broke off.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// No backend was usable.
    NoBackend,
    /// The policy refused it.
    Rejected,
}

/// Requests by their ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// With a status below 500.
    pub(super) answered: u64,
    /// With one from 500.
    pub(super) failed: u64,
    pub(super) unreachable: u64,
    pub(super) timed_out: u64,
    pub(super) no_backend: u64,
    pub(super) rejected: u64,
}

impl Counts {
    pub(super) fn all(&self) -> u64 {
        self.answered + self.errors()
    }

    pub(super) fn errors(&self) -> u64 {
        self.failed + self.unreachable + self.timed_out + self.no_backend + self.rejected
    }

    fn count(&mut self, ending: Ending) {
        *match ending {
            Ending::Answered(..500) => &mut self.answered,
            Ending::Answered(_) => &mut self.failed,
            Ending::Unreachable => &mut self.unreachable,
            Ending::TimedOut => &mut self.timed_out,
            Ending::NoBackend => &mut self.no_backend,
            Ending::Rejected => &mut self.rejected,
        } += 1;
    }
}

/// A part of the time.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Requests that ended well, by their latency.
    pub(super) latency_us: Histogram<u64>,
    pub(super) errors: u64,
    pub(super) arrivals: u64,
    /// For each backend: the average in flight for each request that it can work on at a time; `None` if it was not there
    /// or dead at the end of the bucket.
    pub(super) load: Vec<Option<f32>>,
    /// For each backend: attempts sent there.
    pub(super) sent: Vec<u32>,
    sums: Vec<Sums>,
}

impl Bucket {
    fn new() -> Self {
        Self {
            latency_us: histogram(BUCKET_DIGITS),
            errors: 0,
            arrivals: 0,
            load: Vec::new(),
            sent: Vec::new(),
            sums: Vec::new(),
        }
    }
}

/// One backend over the whole time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerFigures {
    /// Attempts sent there.
    pub(super) sent: u64,
    /// Of those, answered with a status below 500.
    pub(super) answered: u64,
}

/// Requests of the same key, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Homing {
    /// Went where the one before went.
    pub(super) stayed: u64,
    /// Went elsewhere.
    pub(super) moved: u64,
}

/// An attempt that is sent to a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) server: u32,
    /// The request's key, if this is its first attempt.
    pub(super) key: Option<u32>,
    /// Whether balancer and backend are in the same zone, if both are in one.
    pub(super) is_local: Option<bool>,
    pub(super) is_retry: bool,
    pub(super) is_counted: bool,
}

/// Everything that is measured.
#[derive(Debug)]
pub(super) struct Figures {
    bucket_ns: Ns,
    pub(super) latency_us: Histogram<u64>,
    pub(super) latency_sum_us: u128,
    pub(super) counts: Counts,
    pub(super) retries: u64,
    pub(super) servers: Vec<ServerFigures>,
    pub(super) homing: Homing,
    /// Attempts within the balancer's zone, and beyond.
    pub(super) zones: (u64, u64),
    pub(super) buckets: Vec<Bucket>,
    /// For each key, the backend of its last request.
    homes: Vec<u32>,
}

/// No backend.
const NOWHERE: u32 = u32::MAX;

impl Figures {
    /// For a simulation whose last request arrives after `span`.
    pub(super) fn new(span: Ns, keys: u32) -> Self {
        Self {
            bucket_ns: (span / BUCKETS as Ns).max(1),
            latency_us: histogram(DIGITS),
            latency_sum_us: 0,
            counts: Counts::default(),
            retries: 0,
            servers: Vec::new(),
            homing: Homing::default(),
            zones: (0, 0),
            buckets: vec![Bucket::new()],
            homes: vec![NOWHERE; keys as usize],
        }
    }

    /// When the present bucket ends, while there is one to follow it.
    pub(super) fn bucket_end(&self) -> Option<Ns> {
        let number = self.buckets.len();
        (number <= BUCKETS).then(|| self.bucket_ns * number as Ns)
    }

    pub(super) fn bucket_s(&self) -> f64 {
        self.bucket_ns as f64 / 1e9
    }

    fn bucket(&mut self) -> &mut Bucket {
        // There is one from the beginning.
        let last = self.buckets.len() - 1;
        &mut self.buckets[last]
    }

    /// The present bucket ends at `now`.
    pub(super) fn close_bucket(&mut self, now: Ns, servers: &mut [Server]) {
        let sums: Vec<Sums> = servers.iter_mut().map(|server| server.touch(now)).collect();
        let before = match self.buckets.len().checked_sub(2) {
            Some(before) => std::mem::take(&mut self.buckets[before].sums),
            None => Vec::new(),
        };
        let bucket_ns = self.bucket_ns as f64;
        let load = servers
            .iter()
            .zip(&sums)
            .enumerate()
            .map(|(place, (server, sums))| {
                let before = before.get(place).copied().unwrap_or_default();
                let average = (sums.in_flight - before.in_flight) as f64 / bucket_ns;
                let is_there = server.is_present && !server.condition.is_dead;
                is_there.then_some((average / f64::from(server.concurrency)) as f32)
            });
        let load = load.collect();
        let bucket = self.bucket();
        (bucket.load, bucket.sums) = (load, sums);
        self.buckets.push(Bucket::new());
    }

    pub(super) fn arrived(&mut self) {
        self.bucket().arrivals += 1;
    }

    pub(super) fn sent(&mut self, sent: &Sent) {
        let place = sent.server as usize;
        let of_bucket = &mut self.bucket().sent;
        if of_bucket.len() <= place {
            of_bucket.resize(place + 1, 0);
        }
        of_bucket[place] += 1;
        let home = sent.key.map(|key| &mut self.homes[key as usize]);
        let last = home.map(|home| std::mem::replace(home, sent.server));
        if !sent.is_counted {
            return;
        }
        if self.servers.len() <= place {
            self.servers.resize(place + 1, ServerFigures::default());
        }
        self.servers[place].sent += 1;
        self.retries += u64::from(sent.is_retry);
        match last {
            None | Some(NOWHERE) => {}
            Some(last) if last == sent.server => self.homing.stayed += 1,
            Some(_) => self.homing.moved += 1,
        }
        match sent.is_local {
            None => {}
            Some(true) => self.zones.0 += 1,
            Some(false) => self.zones.1 += 1,
        }
    }

    /// An attempt that is counted was answered well.
    pub(super) fn answered(&mut self, server: u32) {
        if let Some(server) = self.servers.get_mut(server as usize) {
            server.answered += 1;
        }
    }

    /// A request has ended, this long after its arrival.
    pub(super) fn ended(&mut self, took: Ns, ending: Ending, is_counted: bool) {
        let took_us = (took / 1000).clamp(1, LATENCY_US_MAX);
        let is_good = matches!(ending, Ending::Answered(..500));
        let bucket = self.bucket();
        if is_good {
            record(&mut bucket.latency_us, took_us);
        } else {
            bucket.errors += 1;
        }
        if !is_counted {
            return;
        }
        self.counts.count(ending);
        if is_good {
            record(&mut self.latency_us, took_us);
            self.latency_sum_us += u128::from(took / 1000);
        }
    }
}

fn record(histogram: &mut Histogram<u64>, took_us: u64) {
    // It grows as needed, so this cannot fail; clipping would falsify silently.
    let recorded = histogram.record(took_us);
    debug_assert!(recorded.is_ok(), "{took_us} us does not fit");
}

fn histogram(digits: u8) -> Histogram<u64> {
    let mut histogram = Histogram::new(digits).expect("it takes up to five digits");
    histogram.auto(true);
    histogram
}
