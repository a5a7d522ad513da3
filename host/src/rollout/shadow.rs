//! A candidate that decides beside the version in service, and whose decisions nobody follows.
//!
//! Owns a thread for idle time in which it decides, by what workers saw when they decided, and the comparison. A worker
//! copies what it saw of a sample into a box of its own. It never waits and never wakes the thread, which looks into the
//! boxes by itself: what finds no room is dropped and counted. It must not change anything that is routed.
//!
//! Invariant: a candidate that fails costs nothing but its own thread's time, and little of that: it rests after each
//! fault, longer each time.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::split::is_sampled;
use crate::{
    http1::Head,
    policy::{Answer, Candidate, Facts, Trial, Tried},
    pool::{Figures, Snapshot, View},
    sched,
};

/// Observations of one worker that wait to be decided.
const WAITING_MAX: usize = 512;
/// How long the thread sleeps when there are none. A wake-up by a worker would be a system call of a request's.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(10);

/// A candidate in the shadow of the version in service.
#[derive(Debug)]
pub struct Shadow {
    pool: String,
    candidate: Arc<Candidate>,
    share: u64,
    began: Instant,
    shared: Arc<Shared>,
}

/// What workers and the thread know of each other.
#[derive(Debug)]
struct Shared {
    counts: Counts,
    /// By worker.
    boxes: Box<[Mutex<Vec<Observation>>]>,
    /// The thread takes nothing: the candidate failed a moment ago.
    is_resting: AtomicBool,
    is_over: AtomicBool,
}

/// A decision as a worker made it, with all that it saw.
#[derive(Debug)]
struct Observation {
    snapshot: Arc<Snapshot>,
    columns: Box<[Figures]>,
    facts: Facts,
    tried: Tried,
    head: Head,
    picked: usize,
}

#[derive(Debug)]
struct Counts {
    dropped: AtomicU64,
    compared: AtomicU64,
    agreed: AtomicU64,
    abstained: AtomicU64,
    rejected: AtomicU64,
    faults: AtomicU64,
    rests: AtomicU64,
    spent_ns: AtomicU64,
    /// Of both, by backend.
    picks: Box<[(AtomicU64, AtomicU64)]>,
}

/// How a candidate compares.
#[derive(Clone, Debug, Serialize)]
pub struct ShadowReport {
    /// The pool.
    pub pool: String,
    /// SHA-256 of the candidate's component, in hex.
    pub digest: String,
    /// The first 12 digits of it.
    pub version: String,
    /// The share of the decisions that it was to make too.
    pub share: f64,
    /// How long it has been.
    pub seconds: f64,
    /// Decisions of both.
    pub compared: u64,
    /// Share of them with the same answer.
    pub agreement: f64,
    /// Decisions in which the candidate had no opinion.
    pub abstained: u64,
    /// Requests that it would have refused.
    pub rejected: u64,
    /// Its faults, answers that the host would not accept included.
    pub faults: u64,
    /// How often it rested after one.
    pub rests: u64,
    /// Decisions that were not compared, because it was busy or resting.
    pub dropped: u64,
    /// Mean time of its decisions.
    pub decision_ns: f64,
    /// Its share of each backend less that of the version in service, as in the pool's configuration.
    pub drift: Vec<f64>,
}

impl Shadow {
    /// Starts its thread, which ends with this. `share` is in thousandths.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        candidate: Arc<Candidate>,
        pool: &str,
        (backends, workers): (usize, usize),
        share: u64,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            counts: Counts::new(backends),
            boxes: (0..workers).map(|_| Mutex::default()).collect(),
            is_resting: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let thread = Thread {
            candidate: candidate.clone(),
            shared: shared.clone(),
            trial: None,
            rest: REST_MIN,
        };
        std::thread::Builder::new()
            .name("trimtab-shadow".into())
            // As a worker's: guests may use 512 KiB of it.
            .stack_size(8 << 20)
            .spawn(move || thread.run())?;
        Ok(Self {
            pool: pool.to_owned(),
            candidate,
            share,
            began: Instant::now(),
            shared,
        })
    }

    /// Tells of a worker's decision, if it belongs to the sample. Never waits: in the moment in which the thread empties
    /// the box, the decision is dropped.
    #[inline]
    pub fn observe(
        &self,
        (worker, snapshot, view): (usize, &Arc<Snapshot>, &View),
        facts: &Facts,
        tried: &Tried,
        head: &Head,
        picked: usize,
    ) {
        if !is_sampled(facts.random, self.share) {
            return;
        }
        let Some(mut waiting) = self.shared.room(worker) else {
            self.shared.counts.dropped.fetch_add(1, Relaxed);
            return;
        };
        let figures = |index| Figures {
            active: view.active(index),
            latency_us: view.latency_us(index),
            throughput: view.throughput(index),
        };
        waiting.push(Observation {
            snapshot: snapshot.clone(),
            columns: (0..snapshot.members.len()).map(figures).collect(),
            facts: *facts,
            tried: *tried,
            head: head.copy(),
            picked,
        });
    }

    /// The comparison up to now.
    pub fn report(&self) -> ShadowReport {
        let Counts {
            dropped,
            compared,
            agreed,
            abstained,
            rejected,
            faults,
            rests,
            spent_ns,
            picks,
        } = &self.shared.counts;
        // Counted after the decision they belong to, so looked at before: no share is above 1.
        let (agreed, spent_ns) = (agreed.load(Relaxed), spent_ns.load(Relaxed));
        let all = compared.load(Relaxed);
        let mean = |sum: u64| sum as f64 / all.max(1) as f64;
        let (active, own): (Vec<u64>, Vec<u64>) = picks
            .iter()
            .map(|(active, own)| (active.load(Relaxed), own.load(Relaxed)))
            .unzip();
        let share = |of: u64, picks: &[u64]| of as f64 / picks.iter().sum::<u64>().max(1) as f64;
        let drift = own.iter().zip(&active);
        ShadowReport {
            pool: self.pool.clone(),
            digest: self.candidate.digest.to_string(),
            version: self.candidate.version.to_string(),
            share: self.share as f64 / 1000.0,
            seconds: self.began.elapsed().as_secs_f64(),
            compared: all,
            agreement: mean(agreed),
            abstained: abstained.load(Relaxed),
            rejected: rejected.load(Relaxed),
            faults: faults.load(Relaxed),
            rests: rests.load(Relaxed),
            dropped: dropped.load(Relaxed),
            decision_ns: mean(spent_ns),
            drift: drift
                .map(|(of, before)| share(*of, &own) - share(*before, &active))
                .collect(),
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
    }
}

impl Shared {
    /// A worker's box, if the thread will take what is put there.
    #[inline]
    fn room(&self, worker: usize) -> Option<MutexGuard<'_, Vec<Observation>>> {
        if self.is_resting.load(Relaxed) {
            return None;
        }
        let waiting = match self.boxes.get(worker)?.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        (waiting.len() < WAITING_MAX).then_some(waiting)
    }
}

impl Counts {
    fn new(backends: usize) -> Self {
        Self {
            dropped: AtomicU64::new(0),
            compared: AtomicU64::new(0),
            agreed: AtomicU64::new(0),
            abstained: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            rests: AtomicU64::new(0),
            spent_ns: AtomicU64::new(0),
            picks: (0..backends).map(|_| Default::default()).collect(),
        }
    }
}

/// Where the candidate decides.
struct Thread {
    candidate: Arc<Candidate>,
    shared: Arc<Shared>,
    /// The candidate, and the backends it knows.
    trial: Option<(Trial, Arc<Snapshot>)>,
    rest: Duration,
}

impl Thread {
    fn run(mut self) {
        // Where the kernel does not know of idle time, or refuses, it competes like anyone else.
        sched::run_in_idle_time();
        while !self.shared.is_over.load(Relaxed) {
            if !self.look() {
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
    }

    /// Decides what waits; whether anything did.
    fn look(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut found = false;
        for waiting in &shared.boxes {
            // Workers only try, so this is held for a moment at most. The box's memory goes and comes with the load.
            let taken = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
            found |= !taken.is_empty();
            let mut taken = taken.into_iter();
            while let Some(observation) = taken.next()
                && !shared.is_over.load(Relaxed)
            {
                if self.decide(observation).is_none() {
                    shared.counts.faults.fetch_add(1, Relaxed);
                    shared.counts.dropped.fetch_add(taken.len() as u64, Relaxed);
                    self.take_rest();
                    break;
                }
            }
        }
        found
    }

    /// Begins anew after a pause that grows.
    fn take_rest(&mut self) {
        self.shared.counts.rests.fetch_add(1, Relaxed);
        self.trial = None;
        self.shared.is_resting.store(true, Relaxed);
        let until = Instant::now() + self.rest;
        while !self.shared.is_over.load(Relaxed)
            && let Some(rest) = until.checked_duration_since(Instant::now())
        {
            std::thread::park_timeout(rest.min(REST_MIN));
        }
        self.shared.is_resting.store(false, Relaxed);
        self.rest = (self.rest * 2).min(REST_MAX);
    }

    /// `None` if the candidate failed and is beyond use.
    fn decide(&mut self, observation: Observation) -> Option<()> {
        let Observation {
            snapshot,
            columns,
            facts,
            tried,
            mut head,
            picked,
        } = observation;
        let trial = self.trial(&snapshot)?;
        for (index, figures) in columns.iter().enumerate() {
            trial.set_load(index, *figures);
        }
        let started = Instant::now();
        let answer = trial.pick(&facts, &tried, &mut head).ok()?;
        let spent = started.elapsed();
        let accepted = match answer {
            Answer::Index(index) => Some(trial.accept(index, &tried)),
            _ => None,
        };
        let counts = &self.shared.counts;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Relaxed);
        counts.spent_ns.fetch_add(spent.as_nanos() as u64, Relaxed);
        count(&counts.compared);
        if let Some((active, _)) = counts.picks.get(picked) {
            count(active);
        }
        match (answer, accepted) {
            (_, Some(Ok(index))) => {
                if index == picked {
                    count(&counts.agreed);
                }
                if let Some((_, own)) = counts.picks.get(index) {
                    count(own);
                }
            }
            (_, Some(Err(_))) => drop(count(&counts.faults)),
            (Answer::Reject(_), None) => drop(count(&counts.rejected)),
            (_, None) => drop(count(&counts.abstained)),
        }
        Some(())
    }

    /// The candidate, with these backends.
    fn trial(&mut self, snapshot: &Arc<Snapshot>) -> Option<&mut Trial> {
        match &mut self.trial {
            Some((_, known)) if Arc::ptr_eq(known, snapshot) => {}
            Some((trial, known)) => {
                trial.update(snapshot).ok()?;
                *known = snapshot.clone();
            }
            empty => {
                let trial = Trial::new(&self.candidate, snapshot).ok()?;
                *empty = Some((trial, snapshot.clone()));
            }
        }
        self.trial.as_mut().map(|(trial, _)| trial)
    }
}
