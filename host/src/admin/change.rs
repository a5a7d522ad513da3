//! What an operator changes of a backend: its weight, and whether it drains.
//!
//! Owns the request's words and every message about a mistake in them. What a change means is the pool's business.

use std::time::Instant;

use http::StatusCode;
use serde_json::Value;

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    pools,
};

const WEIGHT_MAX: u64 = 65535;

/// Either is left as it is when `None`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    weight: Option<u32>,
    drain: Option<bool>,
}

/// Changes a backend and shows it. It holds until the process ends, or until a configuration changes what it replaced.
pub(super) fn apply(context: &Context, pool: &str, address: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let view = pools::find(context, pool)?;
    let snapshot = view.pool.snapshot();
    let known = || snapshot.members.iter().map(|member| &*member.backend.address);
    let found = snapshot
        .members
        .iter()
        .find(|member| *member.backend.address == *address);
    let missing = || {
        let error = format!(
            "pool {pool:?} has no backend {address:?}; it has: {}",
            pools::list(known())
        );
        refusal(StatusCode::NOT_FOUND, error)
    };
    let id = found.ok_or_else(missing)?.backend.id;
    let change = Change::parse(body)?;
    let now = Instant::now();
    if let Some(weight) = change.weight {
        view.pool.set_weight(id, weight, now);
    }
    if let Some(drain) = change.drain {
        view.pool.set_draining(id, drain, now);
    }
    view.supervisor.wake();
    let (weight, drain) = (change.weight, change.drain);
    tracing::info!(pool, backend = address, weight, drain, "changed by an operator");
    let backend = pools::backend(view, id).ok_or_else(missing)?;
    Ok(answer::json(&backend))
}

impl Change {
    fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |error: String| refusal(StatusCode::BAD_REQUEST, error);
        let value: Value =
            serde_json::from_slice(body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
        let Value::Object(entries) = value else {
            return Err(bad(
                "the body must be a JSON object with weight, drain or both".to_owned()
            ));
        };
        let mut change = Self::default();
        let mut mistakes = Vec::new();
        for (key, value) in &entries {
            if let Err(mistake) = change.set(key, value) {
                mistakes.push(mistake);
            }
        }
        if entries.is_empty() {
            mistakes.push("nothing to change: expected weight, drain or both".to_owned());
        }
        if mistakes.is_empty() {
            Ok(change)
        } else {
            Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, mistakes.join("\n")))
        }
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "weight" => {
                let weight = value.as_u64().filter(|weight| *weight <= WEIGHT_MAX);
                let wrong = || format!("weight = {value}: expected a whole number from 0 to {WEIGHT_MAX}");
                self.weight = Some(weight.ok_or_else(wrong)? as u32);
            }
            "drain" => {
                let wrong = || format!("drain = {value}: expected true or false");
                self.drain = Some(value.as_bool().ok_or_else(wrong)?);
            }
            _ => {
                return Err(format!(
                    "{key} = {value}: unknown key; there are weight and drain"
                ));
            }
        }
        Ok(())
    }
}
