//! One pool's source as it is asked again and again: the last good set, and what is known of the source.
//!
//! Owns the task that asks, the log line when a source begins or ceases to fail, and the counts.
//!
//! Invariant: nothing runs on after the [`Finder`] is dropped.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::{FOUND_MAX, Failure, Source, source};
use crate::config::{Backend, Discover};

/// A pool's source has another set now, which its [`Finder`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The pool's name.
    pub pool: String,
}

/// What is known of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sets that differ from the one before.
    pub updates: u64,
    /// Times that it failed.
    pub failures: u64,
    /// Why it fails just now; `None` if its last answer was good.
    pub error: Option<String>,
    /// How long ago its last good answer was.
    pub good: Option<Duration>,
    /// Backends in the last good set.
    pub backends: usize,
}

/// Asks a pool's source until it is dropped.
#[derive(Debug)]
pub struct Finder {
    /// What the configuration says of it.
    pub discover: Discover,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    pool: String,
    found: ArcSwapOption<Vec<Backend>>,
    updates: AtomicU64,
    failures: AtomicU64,
    last: Mutex<Last>,
    /// Turns true with the first answer, whatever it is.
    has_answered: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Last {
    error: Option<String>,
    good_at: Option<Instant>,
}

impl Finder {
    /// Begins to ask; must be called inside a tokio runtime. Until the first good answer, the set is that of `known`. Every
    /// other set is announced to `updates`.
    pub fn spawn(
        pool: &str,
        discover: &Discover,
        known: Option<Arc<Vec<Backend>>>,
        updates: mpsc::UnboundedSender<Update>,
    ) -> Self {
        Self::spawn_from(source(discover), (pool, discover), known, updates)
    }

    pub(super) fn spawn_from(
        source: Box<dyn Source>,
        (pool, discover): (&str, &Discover),
        known: Option<Arc<Vec<Backend>>>,
        updates: mpsc::UnboundedSender<Update>,
    ) -> Self {
        let shared = Arc::new(Shared {
            pool: pool.to_owned(),
            found: ArcSwapOption::new(known),
            updates: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last: Mutex::default(),
            has_answered: watch::Sender::new(false),
        });
        let task = tokio::spawn(follow(source, shared.clone(), updates));
        Self {
            discover: discover.clone(),
            shared,
            task: task.abort_handle(),
        }
    }

    /// Waits for the first answer, good or not, for so long at most.
    pub async fn first_answer(&self, within: Duration) {
        let mut answered = self.shared.has_answered.subscribe();
        let _ = tokio::time::timeout(within, answered.wait_for(|answered| *answered)).await;
    }

    /// The last good set; `None` if there has not been any.
    pub fn found(&self) -> Option<Arc<Vec<Backend>>> {
        self.shared.found.load_full()
    }

    /// How the source does.
    pub fn report(&self) -> Report {
        let last = self.shared.last();
        Report {
            updates: self.shared.updates.load(Relaxed),
            failures: self.shared.failures.load(Relaxed),
            error: last.error.clone(),
            good: last.good_at.map(|at| at.elapsed()),
            backends: self.found().map_or(0, |found| found.len()),
        }
    }

    /// A set that was found and cannot be used: it counts as a failure of the source.
    pub fn refuse(&self, error: &str) {
        self.shared.fail(error);
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logged when it is news: a name that fails for a day is one line, and not one every few seconds.
    fn fail(&self, error: &str) {
        self.failures.fetch_add(1, Relaxed);
        let mut last = self.last();
        if last.error.as_deref() != Some(error) {
            let kept = self.found.load().as_ref().map_or(0, |found| found.len());
            tracing::warn!(
                pool = self.pool,
                kept,
                "discovery failed, the last good set stays"
            );
            error
                .lines()
                .for_each(|line| tracing::warn!(pool = self.pool, "{line}"));
            last.error = Some(error.to_owned());
        }
    }

    /// True if the set is another one.
    fn find(&self, mut found: Vec<Backend>) -> bool {
        // Servers shuffle their answers, and an order is no news.
        found.sort_by(|one, other| one.address.cmp(&other.address));
        let mut last = self.last();
        last.good_at = Some(Instant::now());
        if last.error.take().is_some() {
            tracing::info!(pool = self.pool, backends = found.len(), "discovery works again");
        }
        drop(last);
        if self.found.load().as_deref() == Some(&found) {
            return false;
        }
        self.updates.fetch_add(1, Relaxed);
        self.found.store(Some(Arc::new(found)));
        true
    }
}

async fn follow(mut source: Box<dyn Source>, shared: Arc<Shared>, updates: mpsc::UnboundedSender<Update>) {
    loop {
        match source.next().await.and_then(check) {
            Ok(found) => {
                if shared.find(found) {
                    let pool = shared.pool.clone();
                    // Nobody follows any more: it ends soon.
                    let _ = updates.send(Update { pool });
                }
            }
            Err(Failure(error)) => shared.fail(&error),
        }
        shared.has_answered.send_replace(true);
    }
}

fn check(found: Vec<Backend>) -> Result<Vec<Backend>, Failure> {
    match found.len() {
        0 => Err(Failure("the answer names no backend".to_owned())),
        1..=FOUND_MAX => Ok(found),
        count => Err(Failure(format!(
            "the answer names {count} backends, more than {FOUND_MAX}"
        ))),
    }
}
