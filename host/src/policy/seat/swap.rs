//! How instances follow each other in a seat: a replacement for one that failed, or another version.
//!
//! Owns the handing over of state, and which instance is kept as the last good one. It must not build instances.
//!
//! Invariant: state comes from an instance that has not failed, or from none; a version that does not take the state of
//! the one in service does not go into service while that one can serve.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    super::{
        Deployment, Fault, Instance, breaker::Breaker, instance::Handover, quarantine::Quarantine,
        standby::Standby,
    },
    Seat,
};
use crate::{clock, pool::add};

/// What a seat has no more use for.
type Retired = [Option<Instance>; 2];

impl Seat {
    /// Whether an instance of this version may be installed: that in service, or one that waits for its end.
    pub fn expects(&self, deployment: &Arc<Deployment>) -> bool {
        let is_refused = |refused: &Arc<Deployment>| Arc::ptr_eq(refused, deployment);
        Arc::ptr_eq(&self.deployment, deployment) || self.awaited.as_ref().is_some_and(is_refused)
    }

    /// Puts an instance into service: another version, or a replacement for one that failed. Gives what is of no use any
    /// more, so that it can be dropped where it costs no request anything.
    pub fn install(&mut self, deployment: Arc<Deployment>, instance: Instance) -> Retired {
        self.install_at(deployment, instance, clock::now_us())
    }

    /// As [`Seat::install`], at this time.
    pub fn install_at(&mut self, deployment: Arc<Deployment>, instance: Instance, now_us: u64) -> Retired {
        if !Arc::ptr_eq(&deployment, &self.deployment) {
            return self.swap(deployment, instance, now_us);
        }
        if instance.is_recorded() {
            return self.relieve(instance, now_us);
        }
        add(&self.deployment.stats(self.worker).rebuilds, 1);
        self.breaker.rebuilt();
        let old = self.instance.take();
        self.place(instance, now_us);
        self.note_condition(now_us);
        [old, None]
    }

    /// Shows an instance the backends, and has it serve.
    pub(super) fn place(&mut self, mut instance: Instance, now_us: u64) {
        match instance.update(&self.snapshot, &self.view) {
            Ok(()) => self.instance = Some(instance),
            Err(fault) => self.strike(&fault, None, now_us),
        }
    }

    /// An instance that is recorded takes the place of one of the same version, with its state. Where none serves, when
    /// there may be one again is the breaker's business, and nothing is recorded.
    fn relieve(&mut self, mut instance: Instance, now_us: u64) -> Retired {
        let Some(mut serving) = self.instance.take() else {
            return [Some(instance), None];
        };
        serving.end_recording();
        if let Err(fault) = instance.update(&self.snapshot, &self.view) {
            self.note_fault(&fault, now_us);
            self.instance = Some(serving);
            return [Some(instance), None];
        }
        match serving.leave_to(&mut instance, now_us) {
            Handover::None | Handover::Done => {}
            Handover::Lost(fault) => self.note_fault(&fault, now_us),
            Handover::Refused(message) => {
                tracing::warn!(
                    pool = self.pool.name(),
                    worker = self.worker,
                    "decisions are not recorded, the instance for it does not take the state: {message}"
                );
                self.instance = Some(serving);
                return [Some(instance), None];
            }
        }
        self.instance = Some(instance);
        [Some(serving), None]
    }

    /// A fault of the version in service that costs no decision.
    fn note_fault(&mut self, fault: &Fault, now_us: u64) {
        self.reporter.fault(&self.deployment, self.worker, fault, now_us);
        self.deployment.stats(self.worker).count_fault(fault.kind);
    }

    /// What the policy has learned, with the name of its layout, for another node. The instance goes on.
    pub fn carry(&mut self, now_us: u64) -> Option<(String, Vec<u8>)> {
        if self.is_mute || self.is_wary {
            return None;
        }
        match self.instance.as_mut()?.state(now_us) {
            Ok(state) => state,
            Err(fault) => {
                // Once is enough: requests are not to pay for it twice.
                self.is_mute = true;
                self.strike(&fault, None, now_us);
                None
            }
        }
    }

    /// Goes on with what the policy has learned at another node. False if it does not take it, and goes on with its own.
    pub fn go_on_with(&mut self, schema: &str, state: Vec<u8>, now_us: u64) -> bool {
        let Some(instance) = &mut self.instance else {
            return false;
        };
        match instance.go_on_with(schema, state) {
            Ok(taken) => taken,
            Err(fault) => {
                self.strike(&fault, None, now_us);
                false
            }
        }
    }

    fn swap(&mut self, deployment: Arc<Deployment>, mut instance: Instance, now_us: u64) -> Retired {
        // One that fails here is in service all the same, for a while: its faults are its own.
        let shown = instance.update(&self.snapshot, &self.view);
        let mut old = self.instance.take();
        // It may live on as the last good one, which is not what a recording is of.
        if let Some(serving) = &mut old {
            serving.end_recording();
        }
        if let Some(serving) = &mut old
            && shown.is_ok()
        {
            match serving.leave_to(&mut instance, now_us) {
                Handover::None | Handover::Done => {}
                Handover::Lost(fault) => {
                    self.note_fault(&fault, now_us);
                    old = None;
                }
                Handover::Refused(message) => {
                    self.refuse(deployment, &message);
                    self.instance = old;
                    return [Some(instance), None];
                }
            }
        }
        let has_served = self.deployment.stats(self.worker).decisions.load(Relaxed) > 0;
        let was_good = has_served && self.breaker.is_calm(now_us);
        let previous = std::mem::replace(&mut self.deployment, deployment);
        self.is_mute = false;
        self.breaker = Breaker::default();
        self.quarantine = Quarantine::default();
        self.awaited = None;
        let retired = self.keep_last_good(previous, old.filter(|_| was_good), now_us);
        match shown {
            Ok(()) => self.instance = Some(instance),
            Err(fault) => self.strike(&fault, None, now_us),
        }
        self.note_condition(now_us);
        retired
    }

    /// The version before becomes the last good one, if it was good; otherwise the last good one stays what it is.
    fn keep_last_good(&mut self, previous: Arc<Deployment>, old: Option<Instance>, now_us: u64) -> Retired {
        let Some(old) = old else {
            if let Some(standby) = &mut self.standby {
                standby.extend(now_us);
            }
            return [None, None];
        };
        let last = self.standby.take().map(|last| last.instance);
        if !Standby::has_room_for(&old) {
            return [last, Some(old)];
        }
        self.standby = Some(Standby::new(previous, old, now_us));
        [last, None]
    }

    fn refuse(&mut self, deployment: Arc<Deployment>, message: &str) {
        add(&deployment.stats(self.worker).state_refusals, 1);
        tracing::error!(
            pool = self.pool.name(),
            policy = %deployment.candidate.spec.name,
            version = %deployment.candidate.version,
            serving = %self.deployment.candidate.version,
            worker = self.worker,
            "the new version does not take the old one's state, the old one keeps serving: {message}"
        );
        self.awaited = Some(deployment);
    }
}
