//! State that outlives an instance: what one version of a policy leaves to the next.
//!
//! Owns the calls of the contract's `stateful`, and when state is handed over: between equal schemas, from an instance
//! that has not failed. It must not know when a swap happens; `seat/swap.rs` does.
//!
//! Invariant: whatever either side does, one of the two instances can serve afterwards.

use std::{sync::Arc, time::Duration};

use wasmtime::{
    Store,
    component::{Component, ComponentExportIndex, TypedFunc},
};

use super::{
    super::{Candidate, store::HOSTCALL_BYTES_MAX},
    BUILD_DEADLINE, Fault, FaultKind, Guest, Instance, UPDATE_DEADLINE, guarded, ticks,
};

const STATEFUL: &str = "trimtab:policy/stateful@0.1.0";
/// More is not carried over: it is copied twice while a worker waits.
const STATE_BYTES_MAX: usize = 1 << 20;

/// Where a component has its `stateful`.
#[derive(Clone, Copy)]
pub(in crate::policy) struct StateExports {
    schema: ComponentExportIndex,
    export: ComponentExportIndex,
    import: ComponentExportIndex,
}

impl StateExports {
    /// `None` for a component that keeps no state. One with half of the interface does not keep any either.
    pub(in crate::policy) fn find(component: &Component) -> Option<Self> {
        let stateful = component.get_export_index(None, STATEFUL)?;
        let function = |name| component.get_export_index(Some(&stateful), name);
        Some(Self {
            schema: function("schema")?,
            export: function("export-state")?,
            import: function("import-state")?,
        })
    }
}

/// The functions of one instance's `stateful`.
pub(super) struct Stateful {
    schema: TypedFunc<(), (String,)>,
    export: TypedFunc<(), (Vec<u8>,)>,
    import: TypedFunc<(Vec<u8>,), (Result<(), String>,)>,
    /// The answer of `schema`.
    layout: Arc<str>,
}

impl Stateful {
    /// A wrong signature is the guest's mistake and refused here.
    pub(super) fn find(
        candidate: &Candidate,
        instance: &wasmtime::component::Instance,
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<Option<Self>> {
        let Some(exports) = candidate.stateful else {
            return Ok(None);
        };
        Ok(Some(Self {
            schema: instance.get_typed_func(&mut *store, exports.schema)?,
            export: instance.get_typed_func(&mut *store, exports.export)?,
            import: instance.get_typed_func(&mut *store, exports.import)?,
            layout: "".into(),
        }))
    }
}

/// What became of the state at a swap.
#[derive(Debug)]
pub(in crate::policy) enum Handover {
    /// There was none to hand over: one of the two keeps none, or they keep another one.
    None,
    /// The new instance has it.
    Done,
    /// It could not be had, so the new instance begins without it. After a fault the old one is beyond use.
    Lost(Fault),
    /// The new instance does not take it.
    Refused(String),
}

impl Instance {
    /// Asks for the name of the state's layout.
    pub(super) fn learn_schema(&mut self, candidate: &Candidate) -> Result<(), Fault> {
        if let Some(stateful) = &mut self.stateful {
            let schema = stateful.schema;
            let answer = guarded(&mut self.store, "schema", ticks(BUILD_DEADLINE), |store| {
                schema.call(store, ())
            });
            stateful.layout = answer?.0.into();
            // The first instance tells it for all.
            let _ = candidate.schema.set(stateful.layout.clone());
        }
        Ok(())
    }

    /// Gives this instance's state to `next`, which has been shown the backends and not been asked yet. Outcomes that
    /// wait are part of it.
    pub(in crate::policy) fn leave_to(&mut self, next: &mut Self, now_us: u64) -> Handover {
        let (Some(old), Some(new)) = (&self.stateful, &next.stateful) else {
            return Handover::None;
        };
        if old.layout != new.layout {
            return Handover::None;
        }
        let exported = self.hand_over_outcomes(now_us).and_then(|()| self.export_state());
        let schema = self.schema().unwrap_or_default();
        match exported {
            Ok(state) => next.take_over(&schema, state, UPDATE_DEADLINE),
            Err(fault) => Handover::Lost(fault),
        }
    }

    /// Takes the state that another instance exported. It is recorded only when it is taken: an instance that does not
    /// take it does not serve.
    pub(in crate::policy) fn take_over(
        &mut self,
        schema: &str,
        state: Vec<u8>,
        deadline: Duration,
    ) -> Handover {
        if self.schema().is_none_or(|own| *own != *schema) {
            return Handover::None;
        }
        let copy = self.is_recorded().then(|| state.clone());
        match self.import_state(state, ticks(deadline)) {
            Ok(Ok(())) => {
                self.record_state(schema, &copy.unwrap_or_default());
                Handover::Done
            }
            Ok(Err(message)) => Handover::Refused(message),
            Err(fault) => Handover::Refused(fault.to_string()),
        }
    }

    /// Goes on with a state in place of its own. False if it is of another layout, or the instance does not take it.
    pub(in crate::policy) fn go_on_with(&mut self, schema: &str, state: Vec<u8>) -> Result<bool, Fault> {
        if self.schema().is_none_or(|own| *own != *schema) {
            return Ok(false);
        }
        let copy = self.is_recorded().then(|| state.clone());
        let taken = self.import_state(state, ticks(UPDATE_DEADLINE))?.is_ok();
        if taken {
            self.record_state(schema, &copy.unwrap_or_default());
        }
        Ok(taken)
    }

    fn schema(&self) -> Option<Arc<str>> {
        self.stateful.as_ref().map(|stateful| stateful.layout.clone())
    }

    /// The state, with the name of its layout; `None` for an instance that keeps none.
    pub(in crate::policy) fn state(&mut self, now_us: u64) -> Result<Option<(String, Vec<u8>)>, Fault> {
        let Some(schema) = self.schema() else {
            return Ok(None);
        };
        self.hand_over_outcomes(now_us)?;
        Ok(Some((schema.to_string(), self.export_state()?)))
    }

    fn export_state(&mut self) -> Result<Vec<u8>, Fault> {
        let Some(export) = self.stateful.as_ref().map(|stateful| stateful.export) else {
            return Ok(Vec::new());
        };
        // So that what is somewhat too large is told as such, and is not a trap.
        self.store.set_hostcall_fuel(2 * STATE_BYTES_MAX);
        let exported = guarded(&mut self.store, "export-state", ticks(UPDATE_DEADLINE), |store| {
            export.call(store, ())
        });
        self.store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        let (state,) = exported?;
        if state.len() > STATE_BYTES_MAX {
            return Err(Fault {
                kind: FaultKind::Memory,
                call: "export-state",
                message: format!(
                    "{} bytes; at most {STATE_BYTES_MAX} are carried over",
                    state.len()
                ),
            });
        }
        Ok(state)
    }

    fn import_state(&mut self, state: Vec<u8>, ticks: u64) -> Result<Result<(), String>, Fault> {
        let Some(import) = self.stateful.as_ref().map(|stateful| stateful.import) else {
            return Ok(Ok(()));
        };
        let imported = guarded(&mut self.store, "import-state", ticks, |store| {
            import.call(store, (state,))
        });
        imported.map(|(answer,)| answer)
    }
}
