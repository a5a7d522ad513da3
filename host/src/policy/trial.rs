//! A policy on trial: one instance outside of any worker, asked by hand.
//!
//! Owns a way to see what a component answers when everything it can look at is scripted: backends, live load, request.
//! Conformance tests compare it with the native build, benchmarks time it, `check` can ask it before it serves. Calls go
//! the same way into the guest as those of a [`super::Seat`], but faults are given to the caller, and no decision is
//! made in the policy's place.
//!
//! Invariant: the guest sees what the caller gave and nothing else, so the same calls give the same answers.

use std::sync::Arc;

use super::{
    Candidate, Facts, Fault, Instance, Reads, Recorder, Tried, fallback,
    instance::{Answer, BUILD_DEADLINE},
};
use crate::{
    http1::Head,
    pool::{Figures, Snapshot, View},
};

/// What the policy's log lines say where the pool's name is.
const TRIAL: &str = "trial";

/// A policy on trial.
pub struct Trial {
    instance: Instance,
    view: Arc<View>,
}

/// How an attempt of a request ended, for policies that observe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The backend, by its index in the last update.
    pub index: usize,
    /// Time to the response head, or to the failure.
    pub latency_us: u32,
    /// Body bytes both ways.
    pub bytes: u64,
    /// The response's status, if one came.
    pub status: Option<u16>,
}

impl Trial {
    /// Instantiates, configures and shows the backends. Unlike [`Instance::build`] it asks for no pick: the first one is
    /// the caller's. No backend has any load.
    ///
    /// # Errors
    /// The fault of the step that failed.
    pub fn new(candidate: &Candidate, snapshot: &Arc<Snapshot>) -> Result<Self, Fault> {
        Self::with_load(candidate, snapshot, Arc::new(View::without_load(snapshot)))
    }

    /// As [`Trial::new`], with this load of the backends.
    ///
    /// # Errors
    /// As [`Trial::new`].
    pub fn with_load(
        candidate: &Candidate,
        snapshot: &Arc<Snapshot>,
        view: Arc<View>,
    ) -> Result<Self, Fault> {
        let instance = Instance::start(candidate, TRIAL, snapshot, &view)?;
        Ok(Self { instance, view })
    }

    /// Has everything recorded from here on, as far as the recorder goes. To be called before anything else is done.
    pub fn record(&mut self, candidate: &Candidate, mut recorder: Recorder, now_us: u64) {
        recorder.tried_out();
        self.instance.attach(candidate, TRIAL, recorder, now_us);
    }

    /// Shows the policy other backends, or the same in another condition. None has any load afterwards. The deadline is
    /// that of a new instance, since no worker waits.
    ///
    /// # Errors
    /// The policy's fault, after which it is beyond use.
    pub fn update(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Fault> {
        self.update_with_load(snapshot, Arc::new(View::without_load(snapshot)))
    }

    /// As [`Trial::update`], with this load of the backends.
    ///
    /// # Errors
    /// As [`Trial::update`].
    pub fn update_with_load(&mut self, snapshot: &Arc<Snapshot>, view: Arc<View>) -> Result<(), Fault> {
        self.view = view;
        self.instance.update_within(BUILD_DEADLINE, snapshot, &self.view)
    }

    /// Says what the policy finds when it asks for a backend's live load. Nothing happens for an index out of range.
    pub fn set_load(&self, index: usize, figures: Figures) {
        self.view.set(index, figures);
    }

    /// What the host chooses when the policy does not.
    pub fn host_choice(&self, snapshot: &Snapshot, tried: &Tried, random: u64) -> Option<usize> {
        fallback::choose(snapshot, &self.view, tried, random)
    }

    /// Which parts of the head the policy asked for since the last call. The first call only begins to look.
    pub fn take_reads(&mut self) -> Reads {
        self.instance.take_reads()
    }

    /// The policy's answer, unchecked. A decision of the data path ends with the host's own choice if this fails or if
    /// [`Trial::accept`] does.
    ///
    /// # Errors
    /// The policy's fault, after which it is beyond use.
    #[inline]
    pub fn pick(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Result<Answer, Fault> {
        self.instance.pick(facts, tried, head)
    }

    /// Whether the host would accept this answer: a backend that exists, is usable, and was not tried while another was
    /// not.
    ///
    /// # Errors
    /// The fault that it would be; the policy can go on.
    #[inline]
    pub fn accept(&self, index: u32, tried: &Tried) -> Result<usize, Fault> {
        self.instance.check(index, tried)
    }

    /// The reason that the policy gave for its last pick.
    pub fn take_note(&mut self) -> Option<String> {
        self.instance.take_note()
    }

    /// Tells the policy how attempts ended, in one batch (of 128 at most, as on the data path). Nothing happens when it
    /// does not observe.
    ///
    /// # Errors
    /// The policy's fault, after which it is beyond use.
    pub fn observe(&mut self, outcomes: &[Outcome], now_us: u64) -> Result<(), Fault> {
        for outcome in outcomes {
            let Outcome {
                index,
                latency_us,
                bytes,
                status,
            } = *outcome;
            self.instance
                .observe(index, latency_us.into(), bytes, status, now_us);
        }
        self.instance.hand_over_outcomes(now_us)
    }
}
