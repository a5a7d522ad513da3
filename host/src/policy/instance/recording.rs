//! An instance that is recorded.
//!
//! Owns the places where events are noted. What they say and where they go is `record.rs`. An instance that is not
//! recorded comes here for nothing but one look at its recorder, and not even for that at a pick.

use std::time::SystemTime;

use super::{
    super::{
        Candidate, Facts, Tried,
        grants::Restrictions,
        record::{Asked, Reads, Recorder, StartEvent},
        store::Owner,
    },
    Answer, Fault, Instance, OutcomeColumns,
};
use crate::{clock, config, http1::Head, pool::Pool};

impl Instance {
    /// As [`Instance::build`]; everything from `configure` to the recorder's last pick is recorded.
    ///
    /// # Errors
    /// As [`Instance::build`].
    pub fn build_recorded(candidate: &Candidate, pool: &Pool, recorder: Recorder) -> Result<Self, Fault> {
        let snapshot = pool.snapshot();
        let now_us = clock::now_us();
        let view = crate::pool::View::new(&snapshot, now_us).into();
        let mut instance = Self::start(candidate, &Owner::of(pool), &snapshot, &view)?;
        instance.attach(candidate, pool.name(), recorder, now_us);
        instance.try_out(&Facts::of_trial(now_us))?;
        if let Some(recorder) = &mut instance.recorder {
            recorder.tried_out();
        }
        Ok(instance)
    }

    /// Notes what has happened to it so far: it was configured, and shown the backends that it has.
    pub(in crate::policy) fn attach(
        &mut self,
        candidate: &Candidate,
        pool: &str,
        mut recorder: Recorder,
        now_us: u64,
    ) {
        let spec = &candidate.spec;
        recorder.start(StartEvent {
            recorded_by: concat!("trimtab ", env!("CARGO_PKG_VERSION")).into(),
            pool: pool.into(),
            worker: recorder.worker,
            policy: spec.name.as_str().into(),
            digest: (&*candidate.digest).into(),
            config_json: spec.config_json.as_str().into(),
            memory_bytes: spec.memory_bytes as u64,
            has_wasi: spec.wasi == config::Wasi::Empty,
            grants: spec.grants.clone(),
            unix_ms: unix_ms(),
            now_us,
        });
        self.recorder = Some(Box::new(recorder));
        self.record_backends();
    }

    #[inline]
    pub(super) fn record_backends(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            let guest = self.store.data();
            recorder.backends(&guest.snapshot, &guest.view);
        }
    }

    #[inline]
    pub(super) fn record_outcomes(&mut self, columns: &OutcomeColumns) {
        if let Some(recorder) = &mut self.recorder {
            let (index, latency_us, bytes, status, now_us) = columns;
            let columns = (&**index, &**latency_us, &**bytes, &**status);
            recorder.outcomes(&self.store.data().view, columns, *now_us);
        }
    }

    /// It took this state of another instance.
    pub(super) fn record_state(&mut self, schema: &str, state: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.state(schema, state);
        }
    }

    /// Of a call that is not a pick.
    #[inline]
    pub(super) fn record_fault(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        if let (Err(fault), Some(recorder)) = (&result, &mut self.recorder) {
            recorder.fault(fault);
        }
        result
    }

    #[cold]
    pub(super) fn pick_and_record(
        &mut self,
        facts: &Facts,
        tried: &Tried,
        head: &mut Head,
    ) -> Result<Answer, Fault> {
        let recorder = self.recorder.take().filter(|recorder| !recorder.is_over());
        let Some(mut recorder) = recorder else {
            return self.call_pick(facts, tried, head);
        };
        let guest = self.store.data_mut();
        // A note of an earlier pick, which nobody took, is not this one's.
        guest.note = None;
        guest.reads = Some(recorder.take_reads());
        let answer = self.call_pick(facts, tried, head);
        let guest = self.store.data_mut();
        let reads = guest.reads.take().unwrap_or_default();
        let restrictions = guest.restrictions.as_deref();
        // As the guest was told them.
        let facts = restrictions.map_or(*facts, |restrictions: &Restrictions| restrictions.facts(facts));
        let asked = Asked {
            facts: &facts,
            tried,
            head,
            view: &guest.view,
            restrictions,
        };
        recorder.pick(&asked, reads, &answer, guest.note.as_deref());
        self.recorder = Some(recorder);
        answer
    }

    /// What the guest asked for since the last call; nothing was noted before the first.
    pub(in crate::policy) fn take_reads(&mut self) -> Reads {
        self.store
            .data_mut()
            .reads
            .replace(Reads::default())
            .unwrap_or_default()
    }

    /// What the last pick is known by in its log, once; `None` if it is in none.
    pub(in crate::policy) fn take_recorded_id(&mut self) -> Option<String> {
        self.recorder.as_mut()?.take_id()
    }

    /// Whether it is recorded.
    pub(in crate::policy) fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// Nothing that happens to it from here on is recorded.
    pub(in crate::policy) fn end_recording(&mut self) {
        self.recorder = None;
    }

    /// Hands over what is recorded so far.
    pub(in crate::policy) fn flush_recording(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
    }
}

fn unix_ms() -> u64 {
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    age.map_or(0, |age| age.as_millis() as u64)
}
