//! One running copy of a policy.
//!
//! Owns the calls into the guest: each is armed with a deadline, and a host panic inside one is caught. It must not know
//! what happens after a fault; `seat.rs` does. State that outlives an instance is in `instance/state.rs`.
//!
//! Invariant: after a fault that is not merely a bad answer the store is poisoned, and the instance must be dropped.

mod columns;
mod recording;
mod shortcut;
mod state;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use wasmtime::{Store, Trap, component::TypedFunc};

use super::{
    Candidate, Facts, Fault, FaultKind, Tried,
    bindings::Policy,
    changes::Known,
    engine::ticks,
    fault,
    imports::Guest,
    record::Recorder,
    store::{Overtime, Owner, new_store},
    text::tame,
};
use crate::{
    http1::Head,
    pool::{Pool, Snapshot, View},
};

use columns::columns;
use shortcut::Shortcut;
pub(super) use shortcut::ShortcutExport;
use state::Stateful;
pub(super) use state::{Handover, StateExports};

/// Time for each step of a new instance, which is built off the data path.
pub(super) const BUILD_DEADLINE: Duration = Duration::from_millis(500);
/// Time for an update of a live instance: its worker waits.
const UPDATE_DEADLINE: Duration = Duration::from_millis(10);
/// Outcomes are handed over at the latest in these numbers, and after this time.
const OUTCOMES_MAX: usize = 64;
const OUTCOMES_AGE_US: u64 = 100_000;
/// Of a guest's words about the settings that it refuses.
const REFUSAL_BYTES_MAX: usize = 4096;

/// A policy's answer, not yet checked against the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This backend, by its index in the last `update`.
    Index(u32),
    /// None: the host is to choose.
    Abstain,
    /// The request is to be refused with this status.
    Reject(u16),
}

/// What comes of a checked answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request goes to this backend, which may be picked.
    Send(usize),
    /// The host is to choose.
    Abstain,
    /// The request is to be refused with this status.
    Reject(u16),
}

/// One running copy of a policy.
pub struct Instance {
    store: Store<Guest>,
    policy: Policy,
    shortcut: Option<Shortcut>,
    outcomes: Option<TypedFunc<OutcomeColumns, ()>>,
    stateful: Option<Stateful>,
    pending: Outcomes,
    pick_ticks: u64,
    update_deadline: Duration,
    /// What goes in and comes out is recorded for a while.
    recorder: Option<Box<Recorder>>,
}

type OutcomeColumns = (Vec<u32>, Vec<u32>, Vec<u64>, Vec<u16>, u64);

#[derive(Default)]
struct Outcomes {
    index: Vec<u32>,
    latency_us: Vec<u32>,
    bytes: Vec<u64>,
    status: Vec<u16>,
    since_us: u64,
}

impl Instance {
    /// Instantiates, configures, shows the backends, and asks for a trial pick. Runs guest code for up to 2 s, so not on
    /// a worker.
    ///
    /// # Errors
    /// The fault of the step that failed.
    pub fn build(candidate: &Candidate, pool: &Pool) -> Result<Self, Fault> {
        Self::build_at(candidate, pool, &Facts::of_trial(crate::clock::now_us()))
    }

    /// As [`Instance::build`], with these facts for the trial pick, which are also the time: all that an instance would
    /// otherwise have from the machine.
    ///
    /// # Errors
    /// As [`Instance::build`].
    pub fn build_at(candidate: &Candidate, pool: &Pool, facts: &Facts) -> Result<Self, Fault> {
        let snapshot = pool.snapshot();
        let view = Arc::new(View::new(&snapshot, facts.now_us));
        let mut instance = Self::start(candidate, &Owner::of(pool), &snapshot, &view)?;
        instance.try_out(facts)?;
        Ok(instance)
    }

    /// The same instance, whose updates may take as long as this: where no worker waits for them.
    #[must_use]
    pub fn with_update_deadline(self, update_deadline: Duration) -> Self {
        Self {
            update_deadline,
            ..self
        }
    }

    /// The same without the trial pick: an instance to which nothing has happened but its first `update`.
    pub(super) fn start(
        candidate: &Candidate,
        owner: &Owner<'_>,
        snapshot: &Arc<Snapshot>,
        view: &Arc<View>,
    ) -> Result<Self, Fault> {
        let mut store = new_store(candidate, owner, snapshot, view);
        let started = guarded(&mut store, "instantiate", ticks(BUILD_DEADLINE), |store| {
            let instance = candidate.pre.instance_pre().instantiate(&mut *store)?;
            let policy = Policy::new(&mut *store, &instance)?;
            // The interface was found by name; a wrong signature is the guest's mistake and refused here.
            let outcomes = candidate
                .outcomes
                .map(|export| instance.get_typed_func(&mut *store, export));
            let shortcut = Shortcut::of(candidate.shortcut, &instance, store)?;
            let stateful = Stateful::find(candidate, &instance, store)?;
            Ok((policy, shortcut, outcomes.transpose()?, stateful))
        });
        let (policy, shortcut, outcomes, stateful) = started?;
        let mut instance = Self {
            store,
            policy,
            shortcut,
            outcomes,
            stateful,
            pending: Outcomes::default(),
            pick_ticks: ticks(candidate.spec.deadline),
            update_deadline: UPDATE_DEADLINE,
            recorder: None,
        };
        instance.configure(&candidate.spec.config_json)?;
        instance.learn_schema(candidate)?;
        instance.call_update(ticks(BUILD_DEADLINE))?;
        Ok(instance)
    }

    fn configure(&mut self, json: &str) -> Result<(), Fault> {
        let picker = self.policy.trimtab_policy_picker();
        let answer = guarded(&mut self.store, "configure", ticks(BUILD_DEADLINE), |store| {
            picker.call_configure(store, json)
        })?;
        answer.map_err(|message| Fault {
            kind: FaultKind::Configure,
            call: "configure",
            message: tame(message, REFUSAL_BYTES_MAX),
        })
    }

    /// One pick that counts for nothing, so that a policy that cannot answer at all never goes into service.
    fn try_out(&mut self, facts: &Facts) -> Result<(), Fault> {
        if self.store.data().snapshot.usable == 0 {
            return Ok(());
        }
        let mut head = Head::default();
        if let Answer::Index(index) = self.pick(facts, &Tried::default(), &mut head)? {
            self.check(index, &Tried::default())?;
        }
        self.store.data_mut().note = None;
        Ok(())
    }

    /// Shows the instance a new set of backends, with the columns that go with it, while its worker waits.
    pub(super) fn update(&mut self, snapshot: &Arc<Snapshot>, view: &Arc<View>) -> Result<(), Fault> {
        self.update_within(self.update_deadline, snapshot, view)
    }

    /// The same with another deadline.
    pub(super) fn update_within(
        &mut self,
        deadline: Duration,
        snapshot: &Arc<Snapshot>,
        view: &Arc<View>,
    ) -> Result<(), Fault> {
        self.remap_outcomes(snapshot);
        let is_known = Arc::ptr_eq(&self.store.data().snapshot, snapshot);
        let guest = self.store.data_mut();
        guest.snapshot = snapshot.clone();
        guest.view = view.clone();
        guest.known = Known::default();
        guest.column.forget();
        guest.native.forget_pool();
        if is_known {
            Ok(())
        } else {
            self.call_update(ticks(deadline))
        }
    }

    fn call_update(&mut self, ticks: u64) -> Result<(), Fault> {
        self.record_backends();
        let guest = self.store.data_mut();
        guest.facts.now_us = guest.view.merged_ms() * 1000;
        let columns = columns(&guest.snapshot);
        let picker = self.policy.trimtab_policy_picker();
        let updated = guarded(&mut self.store, "update", ticks, |store| {
            picker.call_update(store, &columns)
        });
        self.record_fault(updated)
    }

    /// Asks for a decision. The request's head is lent to the imports for the time of the call.
    #[inline]
    pub(super) fn pick(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Result<Answer, Fault> {
        if self.recorder.is_some() {
            return self.pick_and_record(facts, tried, head);
        }
        self.call_pick(facts, tried, head)
    }

    #[inline]
    fn call_pick(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Result<Answer, Fault> {
        let guest = self.store.data_mut();
        let restricted = guest
            .restrictions
            .as_ref()
            .map(|restrictions| restrictions.facts(facts));
        let facts = restricted.as_ref().unwrap_or(facts);
        std::mem::swap(&mut guest.head, head);
        guest.is_picking = true;
        guest.tried = *tried;
        guest.facts = *facts;
        let answer = guarded(&mut self.store, "pick", self.pick_ticks, |store| {
            if let Some(shortcut) = &self.shortcut {
                return shortcut.pick(store, facts, tried);
            }
            let picker = self.policy.trimtab_policy_picker();
            let (high, low) = ((facts.client >> 64) as u64, facts.client as u64);
            picker.call_pick(
                store,
                facts.key,
                facts.random,
                high,
                low,
                tried.attempts(),
                facts.now_us,
            )
        });
        let guest = self.store.data_mut();
        std::mem::swap(&mut guest.head, head);
        guest.is_picking = false;
        let rejected = guest.rejected.take();
        Ok(match (answer?, rejected) {
            (Some(index), _) => Answer::Index(index),
            (None, Some(status)) => Answer::Reject(status),
            (None, None) => Answer::Abstain,
        })
    }

    /// Asks for a decision, and checks it.
    #[inline]
    pub(super) fn answer(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Result<Verdict, Fault> {
        Ok(match self.pick(facts, tried, head)? {
            Answer::Index(index) => Verdict::Send(self.check(index, tried)?),
            Answer::Abstain => Verdict::Abstain,
            Answer::Reject(status) => Verdict::Reject(status),
        })
    }

    /// Whether an answer names a backend that may be picked.
    #[inline]
    pub(super) fn check(&self, index: u32, tried: &Tried) -> Result<usize, Fault> {
        check(&self.store.data().snapshot, index, tried)
    }

    /// Linear memory in use.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().limits.bytes()
    }

    /// WebAssembly instructions so far, on an engine that counts them.
    pub(super) fn work(&self) -> Option<u64> {
        Some(u64::MAX - self.store.get_fuel().ok()?)
    }

    /// The reason the guest gave for its last pick.
    pub(super) fn take_note(&mut self) -> Option<String> {
        self.store.data_mut().note.take()
    }

    /// Notes how an attempt ended, for guests that want to know.
    pub(super) fn observe(
        &mut self,
        index: usize,
        latency_us: u64,
        bytes: u64,
        status: Option<u16>,
        now_us: u64,
    ) {
        let pending = &mut self.pending;
        // Without picks nothing is handed over, and outcomes without picks can only be few; the bound is for safety.
        let is_wanted = self.outcomes.is_some() || self.recorder.is_some();
        if !is_wanted || pending.index.len() >= 2 * OUTCOMES_MAX {
            return;
        }
        if pending.index.is_empty() {
            pending.since_us = now_us;
        }
        pending.index.push(index as u32);
        pending
            .latency_us
            .push(u32::try_from(latency_us).unwrap_or(u32::MAX));
        pending.bytes.push(bytes);
        pending.status.push(status.unwrap_or(0));
    }

    /// Hands over what was observed, if it is time.
    #[inline]
    pub(super) fn flush_outcomes(&mut self, now_us: u64) -> Result<(), Fault> {
        let waiting = self.pending.index.len();
        if waiting == 0 || (waiting < OUTCOMES_MAX && now_us < self.pending.since_us + OUTCOMES_AGE_US) {
            return Ok(());
        }
        self.hand_over_outcomes(now_us)
    }

    /// Hands over what was observed, now.
    pub(super) fn hand_over_outcomes(&mut self, now_us: u64) -> Result<(), Fault> {
        let Outcomes {
            index,
            latency_us,
            bytes,
            status,
            ..
        } = std::mem::take(&mut self.pending);
        let columns = (index, latency_us, bytes, status, now_us);
        self.record_outcomes(&columns);
        self.store.data_mut().facts.now_us = now_us;
        let Some(function) = self.outcomes else {
            return Ok(());
        };
        let told = guarded(&mut self.store, "outcomes", self.pick_ticks, |store| {
            function.call(store, columns)
        });
        self.record_fault(told)
    }

    /// Waiting outcomes are by the old indices; those of backends that left are dropped.
    fn remap_outcomes(&mut self, snapshot: &Snapshot) {
        if self.pending.index.is_empty() {
            return;
        }
        let old = self.store.data().snapshot.clone();
        let Outcomes {
            index,
            latency_us,
            bytes,
            status,
            since_us,
        } = std::mem::take(&mut self.pending);
        for (place, old_index) in index.into_iter().enumerate() {
            let Some(member) = old.members.get(old_index as usize) else {
                continue;
            };
            if let Some(new) = snapshot.position(member.backend.id) {
                self.observe(
                    new,
                    latency_us[place].into(),
                    bytes[place],
                    Some(status[place]),
                    since_us,
                );
            }
        }
    }
}

/// Whether an answer names a backend that may be picked.
///
/// # Errors
/// The fault that it is if not; the instance can go on.
#[inline]
pub fn check(snapshot: &Snapshot, index: u32, tried: &Tried) -> Result<usize, Fault> {
    let members = &snapshot.members;
    let fault = |kind, message| {
        Err(Fault {
            kind,
            call: "pick",
            message,
        })
    };
    let Some(member) = members.get(index as usize) else {
        return fault(
            FaultKind::BadIndex,
            format!("picked index {index} of {} backends", members.len()),
        );
    };
    if !member.usable {
        let state = member.state.name();
        let message = format!("picked {}, which is not usable ({state})", member.backend.address);
        return fault(FaultKind::Unusable, message);
    }
    let is_free = |member: &crate::pool::Member| member.usable && !tried.contains(member.backend.id);
    if tried.contains(member.backend.id) && members.iter().any(is_free) {
        let message = format!("picked {} again, with others untried", member.backend.address);
        return fault(FaultKind::Unusable, message);
    }
    Ok(index as usize)
}

/// Runs guest code with a deadline, and turns whatever goes wrong into a [`Fault`].
#[inline]
fn guarded<T>(
    store: &mut Store<Guest>,
    call: &'static str,
    ticks: u64,
    run: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
) -> Result<T, Fault> {
    store.set_epoch_deadline(ticks);
    let guest = store.data_mut();
    guest.overtime = Overtime::after(ticks);
    guest.log.forget();
    if let Some(wasi) = &guest.wasi {
        wasi.forget();
    }
    match catch_unwind(AssertUnwindSafe(|| run(store))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault(store, call, &error)),
        Err(_) => Err(Fault {
            kind: FaultKind::Host,
            call,
            message: "the host panicked in an import".into(),
        }),
    }
}

#[cold]
fn fault(store: &Store<Guest>, call: &'static str, error: &wasmtime::Error) -> Fault {
    let kind = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => FaultKind::Deadline,
        _ if store.data().limits.denied.is_some() => FaultKind::Memory,
        _ => FaultKind::Trap,
    };
    let message = match kind {
        FaultKind::Deadline => "did not answer within its deadline".into(),
        FaultKind::Memory => {
            let than = store.data().limits.denied.unwrap_or_default();
            format!("asked for more memory than {than}: {}", error.root_cause())
        }
        // The cause without the guest's stack, which would be many lines, and what the guest said about it.
        _ => error.root_cause().to_string(),
    };
    let message = match fault::place(error) {
        Some(place) => format!("{message}, in {place}"),
        None => message,
    };
    let output = || store.data().wasi.as_ref().and_then(|wasi| wasi.output());
    let words = store.data().log.last_words().map(str::to_owned).or_else(output);
    let message = match words {
        Some(words) => format!("{message}; its last words: {words}"),
        None => message,
    };
    Fault { kind, call, message }
}
