//! A candidate that decides beside the version in service, and whose decisions nobody follows.
//!
//! Owns a thread of low priority in which it decides, by what workers saw when they decided, and the comparison. A worker
//! copies what it saw of a sample and never waits: what the thread cannot take is dropped and counted. It must not change
//! anything that is routed.
//!
//! Invariant: a candidate that fails costs nothing but its own thread's time, and little of that: it rests after each
//! fault, longer each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::split::is_sampled;
use crate::{
    http1::Head,
    policy::{Answer, Candidate, Facts, Trial, Tried},
    pool::{Figures, Snapshot, View},
};

/// Observations that wait to be decided.
const WAITING_MAX: usize = 1024;
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(10);
/// Of all priorities the last.
const NICE: i32 = 19;

/// A candidate in the shadow of the version in service.
#[derive(Debug)]
pub struct Shadow {
    pool: String,
    candidate: Arc<Candidate>,
    share: u64,
    began: Instant,
    counts: Arc<Counts>,
    observations: SyncSender<Box<Observation>>,
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
    /// Starts its thread, which ends with the last reference to this.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        candidate: Arc<Candidate>,
        pool: &str,
        backends: usize,
        share: u64,
    ) -> std::io::Result<Self> {
        let counts = Arc::new(Counts::new(backends));
        let (observations, received) = sync_channel(WAITING_MAX);
        let thread = Thread {
            candidate: candidate.clone(),
            counts: counts.clone(),
            received,
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
            counts,
            observations,
        })
    }

    /// Tells of a decision, if it belongs to the sample. Never waits.
    #[inline]
    pub fn observe(
        &self,
        (snapshot, view): (&Arc<Snapshot>, &View),
        facts: &Facts,
        tried: &Tried,
        head: &Head,
        picked: usize,
    ) {
        if !is_sampled(facts.random, self.share) {
            return;
        }
        let figures = |index| Figures {
            active: view.active(index),
            latency_us: view.latency_us(index),
            throughput: view.throughput(index),
        };
        let observation = Observation {
            snapshot: snapshot.clone(),
            columns: (0..snapshot.members.len()).map(figures).collect(),
            facts: *facts,
            tried: *tried,
            head: head.copy(),
            picked,
        };
        if self.observations.try_send(Box::new(observation)).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
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
        } = &*self.counts;
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
    counts: Arc<Counts>,
    received: Receiver<Box<Observation>>,
    /// The candidate, and the backends it knows.
    trial: Option<(Trial, Arc<Snapshot>)>,
    rest: Duration,
}

impl Thread {
    fn run(mut self) {
        // Without the right to it, it competes like anyone else.
        let _ = rustix::process::nice(NICE);
        while let Ok(observation) = self.received.recv() {
            if self.decide(*observation).is_none() {
                self.counts.faults.fetch_add(1, Relaxed);
                self.counts.rests.fetch_add(1, Relaxed);
                self.trial = None;
                std::thread::park_timeout(self.rest);
                self.rest = (self.rest * 2).min(REST_MAX);
            }
        }
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
        let counts = &self.counts;
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
