//! Which version plays a stream.
//!
//! Owns the finding of built-ins by their digest, and the settings under which a version plays. Each is compiled once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use super::{Order, Player, ReplayError};
use crate::{
    config::{self, BUILTIN_POLICIES, PolicySource, Wasi},
    policy::{Candidate, Engine, StartEvent, builtin_component},
};

/// Time is no part of a replay: a machine that is busy must not fail it.
const DEADLINE: Duration = Duration::from_secs(1);

/// Who plays a stream.
pub(super) struct Casting {
    pub(super) candidate: Arc<Candidate>,
    /// It is the version that was recorded, under the same conditions.
    pub(super) is_same: bool,
    pub(super) drain: Arc<[String]>,
}

impl Casting {
    pub(super) fn player(&self) -> Player {
        Player::new(self.candidate.clone(), self.drain.clone(), None)
    }
}

/// The versions at hand.
pub(super) struct Versions<'a> {
    order: &'a Order,
    engine: Engine,
    given: Option<Vec<u8>>,
    drain: Arc<[String]>,
    /// By digest, settings and memory.
    compiled: HashMap<(String, String, u64), Arc<Candidate>>,
}

impl<'a> Versions<'a> {
    pub(super) fn new(order: &'a Order) -> Result<Self, ReplayError> {
        let read = |path: &std::path::PathBuf| {
            let unreadable =
                |error| ReplayError::Policy(format!("{}: cannot be read: {error}", path.display()));
            std::fs::read(path).map_err(unreadable)
        };
        Ok(Self {
            order,
            engine: Engine::new().map_err(|error| ReplayError::Policy(error.to_string()))?,
            given: order.policy.as_ref().map(read).transpose()?,
            drain: order.drain.as_slice().into(),
            compiled: HashMap::new(),
        })
    }

    pub(super) fn cast(&mut self, start: &StartEvent<'_>) -> Result<Casting, ReplayError> {
        let (digest, bytes) = match &self.given {
            Some(bytes) => (hex_digest(bytes), &**bytes),
            None => (start.digest.to_string(), recorded_component(start)?),
        };
        let config_json = self.order.config_json.as_deref().unwrap_or(&start.config_json);
        let is_same = digest == start.digest && config_json == start.config_json && self.drain.is_empty();
        let key = (digest, config_json.to_owned(), start.memory_bytes);
        let candidate = match self.compiled.get(&key) {
            Some(known) => known.clone(),
            None => {
                let spec = Arc::new(spec(start, config_json));
                let compiled = Candidate::compile(&self.engine, spec, bytes);
                let refused = |refusal| ReplayError::Policy(format!("the policy is refused: {refusal}"));
                let compiled = Arc::new(compiled.map_err(refused)?);
                self.compiled.insert(key, compiled.clone());
                compiled
            }
        };
        Ok(Casting {
            candidate,
            is_same,
            drain: self.drain.clone(),
        })
    }
}

fn spec(start: &StartEvent<'_>, config_json: &str) -> config::Policy {
    config::Policy {
        name: start.policy.to_string(),
        tenant: None,
        source: PolicySource::Builtin(start.policy.to_string()),
        memory_bytes: usize::try_from(start.memory_bytes).unwrap_or(usize::MAX),
        deadline: DEADLINE,
        wasi: if start.has_wasi { Wasi::Empty } else { Wasi::None },
        grants: start.grants.clone(),
        config_json: config_json.to_owned(),
        line: None,
    }
}

fn recorded_component(start: &StartEvent<'_>) -> Result<&'static [u8], ReplayError> {
    let built_in = BUILTIN_POLICIES
        .iter()
        .filter_map(|name| builtin_component(name))
        .find(|bytes| hex_digest(bytes) == start.digest);
    built_in.ok_or_else(|| {
        ReplayError::Policy(format!(
            "the log is of {} with digest {}, which is none of this program's built-in policies: name the component",
            start.policy, start.digest
        ))
    })
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
