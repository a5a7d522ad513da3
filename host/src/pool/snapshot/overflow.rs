//! Tiers that share: what a tier cannot take goes to the next, in proportion and not all at once.
//!
//! Owns the shares, and how they become weights. It must not know how a backend got into its state.
//!
//! The rule is Envoy's: the health of a tier is its share of ready backends times a factor, 100 percent at most, and each
//! tier takes as much of the load as its health, the first one first. Policies see one set of usable backends with
//! weights that make these shares, so a pick needs no draw before it, and may be any policy's that weighs.

use std::{collections::BTreeMap, num::NonZeroU32};

use super::{Member, WEIGHT_MAX};

/// A tier as the load is dealt out.
#[derive(Default)]
struct Tier {
    ready: u64,
    candidates: u64,
    /// Of the ready ones.
    weights: u64,
    /// Percent of all load.
    load: u64,
}

/// Deals the load out, and says who is usable. False, and nothing done, if all tiers together could not take as much as the
/// panic threshold says, or nothing.
pub(super) fn share(members: &mut [Member], factor: NonZeroU32, panic_threshold: u8) -> bool {
    let mut tiers: BTreeMap<u8, Tier> = BTreeMap::new();
    for member in &*members {
        let tier = tiers.entry(member.tier).or_default();
        tier.candidates += u64::from(member.is_candidate());
        if member.is_ready() {
            tier.ready += 1;
            tier.weights += u64::from(member.configured);
        }
    }
    let mut left = 100;
    for tier in tiers.values_mut() {
        let health = tier.ready * u64::from(factor.get()) / tier.candidates.max(1);
        tier.load = health.min(left);
        left -= tier.load;
    }
    if left == 100 || 100 - left < u64::from(panic_threshold) {
        return false;
    }
    let is_shared = tiers.values().filter(|tier| tier.load > 0).count() > 1;
    let part = |member: &Member| {
        let tier = &tiers[&member.tier];
        let is_usable = member.is_ready() && tier.load > 0;
        is_usable.then(|| tier.load as f64 * f64::from(member.configured) / tier.weights as f64)
    };
    let largest = members.iter().filter_map(part).fold(0.0, f64::max);
    for member in &mut *members {
        let part = part(member);
        member.usable = part.is_some();
        member.weight = match part {
            Some(part) if is_shared => (part / largest * WEIGHT_MAX).round().max(1.0) as u32,
            _ => member.configured,
        };
    }
    true
}
