//! What is known of a backend, in a form that outlives the process.
//!
//! Owns what of it is still true in another process. Counters are not: they are of a process.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Pool;

/// What operators, checks and requests have said of one backend. A version that knows less ignores the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// As configured.
    pub address: String,
    /// An operator took it out.
    pub draining: bool,
    /// An operator's weight.
    pub weight: Option<u32>,
    /// The configuration's weight that it stands for.
    pub configured_weight: u32,
    /// Active checks fail.
    pub down: bool,
    /// It passed an active check once.
    pub proven: bool,
    /// Of an ejection, what is left, in milliseconds.
    pub ejected_ms: Option<u64>,
    /// Ejections in a row.
    pub ejections: u32,
}

impl Pool {
    /// What is known of the backends now.
    pub fn standings(&self, now: Instant) -> Vec<Standing> {
        let slots = self.lock();
        let standing = |slot: &super::Slot| {
            let status = &slot.status;
            let left = |until: Instant| until.saturating_duration_since(now).as_millis() as u64;
            Standing {
                address: slot.spec.address.clone(),
                draining: status.draining,
                weight: status.weight,
                configured_weight: slot.spec.weight,
                down: status.down,
                proven: status.proven,
                ejected_ms: status.ejected_until.map(left),
                ejections: status.ejections,
            }
        };
        slots.iter().map(standing).collect()
    }

    /// Lets a pool that has just been made begin with what another process knew, as far as it has a rule for it: nothing
    /// would ever end what nobody watches.
    pub fn restore(&self, standings: &[Standing], now: Instant) {
        let mut slots = self.lock();
        for slot in slots.iter_mut() {
            let known = |standing: &&Standing| standing.address == slot.spec.address;
            let Some(known) = standings.iter().find(known) else {
                continue;
            };
            let status = &mut slot.status;
            status.draining = known.draining;
            status.proven = known.proven;
            status.down = known.down && self.config.health.is_some();
            if slot.spec.weight == known.configured_weight {
                status.weight = known.weight;
            }
            if let Some(rule) = &self.config.outlier {
                let left = known.ejected_ms.map(Duration::from_millis);
                status.ejected_until = left.map(|left| now + left.min(rule.max_ejection));
                status.ejections = known.ejections;
            }
        }
        self.publish(&slots, now);
    }
}
