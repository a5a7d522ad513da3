//! The policies of a simulation, compiled and admitted.
//!
//! Owns where their bytes come from, and the settings under which they are simulated. It must not know what they decide.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::SimulateError;
use crate::{
    config::{Policy, PolicySource, Scenario, asks_for_zone, builtin_policy, in_zone},
    policy::{Candidate, Code, Engine, builtin_component},
};

/// Time is no part of a simulation: a machine that is busy must not fail it. A guest that never answers is found all the
/// same, a second later.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);

/// A policy that takes part.
pub(super) struct Actor {
    pub(super) name: String,
    /// For each balancer; those with equal settings share one.
    pub(super) candidates: Vec<Arc<Candidate>>,
}

/// Who takes part: the scenario's policies, and those of the command line.
pub(super) fn cast(
    scenario: &Scenario,
    added: &[(String, Option<PathBuf>)],
) -> Result<Vec<Arc<Policy>>, SimulateError> {
    let mut policies = scenario.policies.clone();
    for (name, file) in added {
        let known = scenario.defined.get(name);
        let policy = match file {
            Some(file) => with_component(name, file.clone(), known),
            None => builtin(name, known)?,
        };
        match policies.iter_mut().find(|policy| policy.name == *name) {
            Some(place) => *place = Arc::new(policy),
            None => policies.push(Arc::new(policy)),
        }
    }
    Ok(policies)
}

/// The component of a file, with the settings that the scenario has for this name, if any.
fn with_component(name: &str, file: PathBuf, known: Option<&Arc<Policy>>) -> Policy {
    let like = match known {
        Some(known) => (**known).clone(),
        None => builtin_policy(name),
    };
    Policy {
        source: PolicySource::File(file),
        ..like
    }
}

fn builtin(name: &str, known: Option<&Arc<Policy>>) -> Result<Policy, SimulateError> {
    match known {
        Some(known) => Ok((**known).clone()),
        None if builtin_component(name).is_some() => Ok(builtin_policy(name)),
        None => Err(SimulateError::Policy(format!(
            "{name}: neither a built-in policy nor one of the scenario; say {name}=FILE.wasm"
        ))),
    }
}

/// Compiles a policy, and admits it with the settings of each balancer.
pub(super) fn admit(engine: &Engine, scenario: &Scenario, policy: &Policy) -> Result<Actor, SimulateError> {
    let bytes = component_of(scenario, policy)?;
    let refused = |refusal| SimulateError::Policy(format!("{}: {refusal}", policy.name));
    let code = Arc::new(Code::compile(engine, &bytes).map_err(refused)?);
    let mut candidates: Vec<Arc<Candidate>> = Vec::new();
    for number in 0..scenario.balancers.count {
        let config_json = settings(policy, zone_of(scenario, number));
        let alike = candidates
            .iter()
            .find(|known| known.spec.config_json == config_json)
            .cloned();
        let candidate = match alike {
            Some(alike) => alike,
            None => {
                let spec = Policy {
                    config_json,
                    deadline: DEADLINE,
                    ..policy.clone()
                };
                Arc::new(Candidate::admit(engine, Arc::new(spec), &code).map_err(refused)?)
            }
        };
        candidates.push(candidate);
    }
    Ok(Actor {
        name: policy.name.clone(),
        candidates,
    })
}

/// The zone of a balancer.
pub(super) fn zone_of(scenario: &Scenario, balancer: u32) -> Option<&str> {
    let zones = &scenario.balancers.zones;
    let place = (balancer as usize).checked_rem(zones.len())?;
    Some(&zones[place])
}

fn component_of(scenario: &Scenario, policy: &Policy) -> Result<Vec<u8>, SimulateError> {
    match &policy.source {
        PolicySource::Builtin(name) => builtin_component(name)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| SimulateError::Policy(format!("{name}: no such built-in policy"))),
        PolicySource::Registry(artifact) => {
            let mistake = artifact
                .place
                .mistake("a simulation asks no registry; name a file");
            Err(SimulateError::Policy(mistake.to_string()))
        }
        PolicySource::File(path) => std::fs::read(path).map_err(|error| {
            let place = scenario.unreadable(path, &error.to_string());
            SimulateError::Policy(match place {
                Some(mistake) => mistake.to_string(),
                None => format!("{}: {} cannot be read: {error}", policy.name, path.display()),
            })
        }),
    }
}

fn settings(policy: &Policy, zone: Option<&str>) -> String {
    let settings = &policy.config_json;
    match zone {
        Some(zone) if asks_for_zone(settings) => in_zone(settings, zone),
        _ => settings.clone(),
    }
}
