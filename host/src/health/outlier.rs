//! Passive detection: failures of real requests, and how they are forgiven.
//!
//! Owns which streak of failures is worth a report, and when a backend's past ejections no longer count. It must not
//! know what an ejection does, nor how long it lasts: that is `Pool`'s.
//!
//! Invariant: reporting never waits and never allocates; it may lose reports. See [`Reporter::failures`].

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{config, pool::State};

/// Reports that wait at most. More than every worker of a large machine sends about one pool while the supervisor logs
/// a line; what does not fit is lost without harm.
const REPORTS_MAX: usize = 256;

/// One worker saw a backend fail this many times in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The backend's id, which is the same over reloads: a report stays true whatever the pool did meanwhile.
    pub(super) backend: u64,
    pub(super) in_a_row: u32,
}

/// A worker's way to report failures. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// `consecutive_failures`; `None` without outlier detection.
    threshold: Option<NonZeroU32>,
    reports: mpsc::Sender<Report>,
}

impl Reporter {
    pub(super) fn new(rule: Option<&config::Outlier>) -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        (
            Self {
                threshold: rule.map(|rule| rule.consecutive_failures),
                reports,
            },
            receiver,
        )
    }

    /// To be called with what `Load::record_status` gave, after every attempt; most calls are two comparisons. Reports
    /// when the streak reaches `consecutive_failures` or a multiple of it, so that a long streak does not flood.
    ///
    /// A report that finds the queue full, or the supervisor gone, is dropped. That loses nothing: a backend that goes
    /// on failing reaches the next multiple and is reported again, and one that does not needs no ejection.
    #[inline]
    pub fn failures(&self, backend: u64, in_a_row: u32) {
        if in_a_row > 0
            && self
                .threshold
                .is_some_and(|threshold| in_a_row.is_multiple_of(threshold.get()))
        {
            let _ = self.reports.try_send(Report { backend, in_a_row });
        }
    }
}

/// A backend's way to have its ejections forgiven: to serve for `max_ejection` without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Nothing to forgive. Ends with an ejection.
    Clean,
    /// Out, for whatever cause, with an ejection not forgiven. Ends when the backend serves again.
    Out,
    /// Serves again since then. Ends when forgiven, or out again.
    Serving {
        /// When it began to.
        since: Instant,
    },
}

impl Conduct {
    /// The backend is in this state at `now`.
    pub(crate) fn observe(&mut self, state: State, now: Instant) {
        *self = match (*self, state) {
            (_, State::Ejected { .. }) => Self::Out,
            (Self::Clean, _) => Self::Clean,
            (Self::Out, State::Ready) => Self::Serving { since: now },
            (serving, State::Ready) => serving,
            (_, State::Down | State::Draining) => Self::Out,
        };
    }

    /// When it will be forgiven if it goes on like this.
    pub(crate) fn forgiven_at(self, max_ejection: Duration) -> Option<Instant> {
        match self {
            Self::Serving { since } => Some(since + max_ejection),
            Self::Clean | Self::Out => None,
        }
    }
}
