//! Policies for unit tests: what a file would say of them, to change field by field.

use std::time::Duration;

use super::{Candidate, Engine, builtin_component};
use crate::config;

/// A built-in that is granted everything, with limits that no test meets.
pub(crate) fn spec(name: &str) -> config::Policy {
    config::Policy {
        name: name.into(),
        tenant: None,
        source: config::PolicySource::Builtin(name.into()),
        memory_bytes: 32 << 20,
        deadline: Duration::from_secs(1),
        wasi: config::Wasi::None,
        grants: config::Grants::everything(),
        config_json: "{}".into(),
        line: None,
    }
}

/// This component, admitted so.
pub(crate) fn candidate(engine: &Engine, name: &str, wasm: &[u8]) -> Candidate {
    Candidate::compile(engine, spec(name).into(), wasm).unwrap()
}

pub(crate) fn builtin(engine: &Engine, name: &str) -> Candidate {
    candidate(engine, name, builtin_component(name).unwrap())
}
