//! The last recorded streams, in memory: what `explain` makes a decision again from.
//!
//! Owns which are kept. It must not look into events.
//!
//! Invariant: a stream is kept from its first event on or not at all, since it cannot be replayed from its middle.

use std::{collections::VecDeque, sync::Arc};

use crate::policy::Candidate;

/// A stream in memory.
#[derive(Clone)]
pub struct Recorded {
    /// Which.
    pub stream: u64,
    /// The pool that it is of.
    pub pool: Arc<str>,
    /// The version that decided.
    pub candidate: Arc<Candidate>,
    /// Header fields whose values may be shown, in lower case.
    pub show: Arc<[String]>,
    /// Its events so far, for [`super::decode_events`] one after the other.
    pub batches: Vec<Arc<[u8]>>,
    bytes: usize,
}

impl Recorded {
    pub(super) fn new(stream: u64, pool: Arc<str>, candidate: Arc<Candidate>, show: Arc<[String]>) -> Self {
        Self {
            stream,
            pool,
            candidate,
            show,
            batches: Vec::new(),
            bytes: 0,
        }
    }
}

/// The streams, oldest first.
pub(super) struct Recent {
    streams: VecDeque<Recorded>,
    bytes: usize,
    pub(super) bytes_max: usize,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            streams: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn open(&mut self, stream: Recorded) {
        self.streams.push_back(stream);
    }

    /// Takes more of a stream. Where that is too much, the oldest streams leave, this one included if it is the oldest.
    pub(super) fn add(&mut self, stream: u64, events: &[u8]) {
        let Some(kept) = self.streams.iter_mut().find(|kept| kept.stream == stream) else {
            return;
        };
        kept.batches.push(events.into());
        kept.bytes += events.len();
        self.bytes += events.len();
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.streams.pop_front()
        {
            self.bytes -= oldest.bytes;
        }
    }

    /// The latest first.
    pub(super) fn all(&self) -> Vec<Recorded> {
        self.streams.iter().rev().cloned().collect()
    }
}
