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
    Algorithm, Candidate, Facts, Fault, Instance, Reads, Recorder, Step, Tried, fallback,
    instance::{Answer, BUILD_DEADLINE, Handover},
    native::{Ground, Native},
    store::Owner,
};
use crate::{
    http1::Head,
    pool::{Figures, Pool, Snapshot, Told, View},
};

/// What the policy's log lines say where the pool's name is.
const TRIAL: &str = "trial";

/// A policy on trial.
pub struct Trial {
    instance: Instance,
    view: Arc<View>,
    native: Native,
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
        let view = Arc::new(View::without_load(snapshot));
        Self::start(candidate, &Owner::nobody(TRIAL), snapshot, view)
    }

    /// As [`Trial::new`], with this load of the backends, and told of requests what it would be told in this pool. What
    /// it uses is not its tenant's.
    ///
    /// # Errors
    /// As [`Trial::new`].
    pub fn in_pool(
        candidate: &Candidate,
        pool: &Pool,
        snapshot: &Arc<Snapshot>,
        view: Arc<View>,
    ) -> Result<Self, Fault> {
        let owner = Owner {
            hash_on: &pool.config.hash_on,
            ..Owner::nobody(TRIAL)
        };
        Self::start(candidate, &owner, snapshot, view)
    }

    /// As [`Trial::new`], with this load of the backends, for requests as they were recorded.
    ///
    /// # Errors
    /// As [`Trial::new`].
    pub fn of_recorded(
        candidate: &Candidate,
        snapshot: &Arc<Snapshot>,
        view: Arc<View>,
    ) -> Result<Self, Fault> {
        let owner = Owner {
            is_recorded: true,
            ..Owner::nobody(TRIAL)
        };
        Self::start(candidate, &owner, snapshot, view)
    }

    fn start(
        candidate: &Candidate,
        owner: &Owner<'_>,
        snapshot: &Arc<Snapshot>,
        view: Arc<View>,
    ) -> Result<Self, Fault> {
        let instance = Instance::start(candidate, owner, snapshot, &view)?;
        Ok(Self {
            instance,
            view,
            native: Native::default(),
        })
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
        self.native.forget_pool();
        self.instance.update_within(BUILD_DEADLINE, snapshot, &self.view)
    }

    /// Says what the policy finds when it asks for a backend's live load. Nothing happens for an index out of range.
    pub fn set_load(&self, index: usize, figures: Figures) {
        self.view.set(index, figures);
    }

    /// Says what of a backend's requests in flight the policy finds to be other nodes'. Nothing happens for an index out of
    /// range.
    pub fn set_others(&self, index: usize, told: Told) {
        self.view.set_others(index, told);
    }

    /// Gives the policy the state of another instance. It goes on without if it keeps none of this schema.
    ///
    /// # Errors
    /// Why it does not take it, after which it may be beyond use.
    pub fn take_over(&mut self, schema: &str, state: &[u8]) -> Result<(), String> {
        match self.instance.take_over(schema, state.to_vec(), BUILD_DEADLINE) {
            Handover::None | Handover::Done => Ok(()),
            Handover::Refused(message) => Err(message),
            Handover::Lost(fault) => Err(fault.to_string()),
        }
    }

    /// What the policy would leave to its next version at this moment: the schema, and the state. `None` if it keeps none.
    ///
    /// # Errors
    /// The policy's fault, after which it is beyond use.
    pub fn state(&mut self, now_us: u64) -> Result<Option<(String, Vec<u8>)>, Fault> {
        self.instance.state(now_us)
    }

    /// Bytes of memory and tables that the policy uses.
    pub fn memory_bytes(&self) -> usize {
        self.instance.memory_bytes()
    }

    /// WebAssembly instructions that the policy has executed, in wasmtime's units of fuel. `None` unless the engine counts
    /// ([`super::Engine::counting`]).
    pub fn work(&self) -> Option<u64> {
        self.instance.work()
    }

    /// What the host chooses when the policy does not and there is no last good version, in a pool whose `fallback` is
    /// this one; and which step of the chain it is.
    pub fn host_choice(
        &mut self,
        algorithm: Algorithm,
        snapshot: &Snapshot,
        (facts, tried, head): (&Facts, &Tried, &Head),
    ) -> Option<(usize, Step)> {
        let ground = Ground {
            snapshot,
            view: &self.view,
            tried,
            facts,
            head,
            among: None,
        };
        let built_in = self.native.choose(algorithm, &ground);
        let any = || fallback::choose(snapshot, &self.view, tried, facts.random);
        built_in
            .map(|index| (index, Step::BuiltIn))
            .or_else(|| Some((any()?, Step::Any)))
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
