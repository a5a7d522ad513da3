//! Who chooses when the policy does not: the last good version, then the built-in that the pool names, then any healthy
//! backend.
//!
//! Owns the order, and the record of who chose and why. It must not know why the policy did not, beyond the word for it.
//!
//! Invariant: each step is asked at most once for a decision, and the last one cannot fail while a backend is usable.

use super::{
    super::{
        Facts, Reason, Step, Tried, fallback, instance::Verdict, native::Ground, quarantine::Fingerprint,
    },
    Choice, Chooser, Decision, Seat,
};
use crate::http1::Head;

impl Seat {
    /// As `ask_policy`, after something went wrong: a request that the policy cannot stand is not shown to it, and a good
    /// answer speaks for the policy and for the request.
    #[cold]
    pub(super) fn ask_warily(&mut self, facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        let fingerprint = (!self.quarantine.is_empty()).then(|| Fingerprint::of(head));
        let is_held = |print| self.quarantine.holds(print, facts.now_us);
        if fingerprint.is_some_and(is_held) {
            return self.choose(Reason::Quarantined, facts, tried, head);
        }
        let decision = self.ask_policy(facts, tried, head);
        let is_good = match &decision {
            Decision::Send(choice) => match choice.chooser {
                Chooser::Policy | Chooser::Sticky => true,
                Chooser::Chain(reason, _) => reason == Reason::Abstained,
            },
            Decision::Reject(_) => self.instance.is_some(),
            Decision::NoBackend => false,
        };
        if is_good {
            self.trust(fingerprint, facts.now_us);
        }
        decision
    }

    /// A choice without the policy. It has no opinion on a request that it abstained from, so neither is its last good
    /// version asked for one.
    #[cold]
    pub(super) fn choose(
        &mut self,
        reason: Reason,
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Decision {
        if !matches!(reason, Reason::Abstained | Reason::Throttled)
            && let Some(decision) = self.ask_standby(reason, facts, tried, head)
        {
            return decision;
        }
        let built_in = self.ask_built_in(None, facts, tried, head);
        let (index, step) = match built_in {
            Some(index) => (Some(index), Step::BuiltIn),
            // All were tried, so one of them is tried again.
            None => (
                fallback::choose(&self.snapshot, &self.view, tried, facts.random),
                Step::Any,
            ),
        };
        let Some(index) = index else {
            return Decision::NoBackend;
        };
        self.chosen(index, reason, step, None)
    }

    /// The built-in's choice among these, because those that the policy named are full. None of them may be tried or
    /// unusable.
    pub fn choose_among(&mut self, among: &[u32], facts: &Facts, tried: &Tried, head: &mut Head) -> Decision {
        match self.ask_built_in(Some(among), facts, tried, head) {
            Some(index) => self.chosen(index, Reason::Full, Step::BuiltIn, None),
            None => Decision::NoBackend,
        }
    }

    fn ask_built_in(
        &mut self,
        among: Option<&[u32]>,
        facts: &Facts,
        tried: &Tried,
        head: &Head,
    ) -> Option<usize> {
        let ground = Ground {
            snapshot: &self.snapshot,
            view: &self.view,
            tried,
            facts,
            head,
            among,
        };
        self.native.choose(self.algorithm, &ground)
    }

    /// The last good version's decision, if there is one and it has one. One that fails is let go.
    fn ask_standby(
        &mut self,
        reason: Reason,
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Option<Decision> {
        let standby = self.standby.as_mut()?;
        match standby.ask(&self.snapshot, &self.view, facts, tried, head) {
            Ok(Verdict::Send(index)) => {
                let note = standby.instance.take_note();
                Some(self.chosen(index, reason, Step::LastGood, note))
            }
            Ok(Verdict::Reject(status)) => Some(self.reject(status)),
            Ok(Verdict::Abstain) => None,
            Err(fault) => {
                let standby = self.standby.take()?;
                standby.deployment.stats(self.worker).count_fault(fault.kind);
                self.reporter
                    .fault(&standby.deployment, self.worker, &fault, facts.now_us);
                None
            }
        }
    }

    fn chosen(&self, index: usize, reason: Reason, step: Step, note: Option<String>) -> Decision {
        self.deployment.stats(self.worker).count_host(reason, step);
        Decision::Send(Choice {
            index,
            chooser: Chooser::Chain(reason, step),
            note,
        })
    }
}
