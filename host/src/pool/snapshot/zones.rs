//! Zones: backends near the balancer come first, as far as they can take what comes.
//!
//! Owns how much of the load stays in the zone, and how that becomes weights. It must not know how a backend got into its
//! state, nor which tier serves.
//!
//! The rule is Envoy's, with one thing assumed that Envoy asks a cluster for: that clients come to each zone alike. If
//! the zone has its part of what can serve (a half of two zones, a third of three), all stays in it. If it has less, what
//! it lacks goes to zones that have more than their part, by how much more; so no backend anywhere gets more than another
//! of the same weight. Nothing here looks at the load: a zone that is full by the pool's limits spills at the pick.

use std::collections::BTreeMap;

use super::{Member, WEIGHT_MAX};

/// Backends of one tier in one zone.
#[derive(Default)]
struct Zone {
    /// Weights of those that are usable.
    usable: f64,
    /// Its part of the load.
    load: f64,
}

/// So many backends are left to choose from at least: an attempt that failed at one has to go somewhere.
const CHOICE_MIN: usize = 2;

/// Weighs the usable members of each tier so that those in zone `own` come first. Members of zones that get nothing are
/// not usable; if that leaves too few, they are, with a trace of weight.
pub(super) fn prefer(members: &mut [Member], own: u16) {
    let mut tiers: BTreeMap<u8, BTreeMap<u16, Zone>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.is_candidate()) {
        // A zone whose backends are all ill is one nevertheless: its clients still come.
        let zone = tiers
            .entry(member.tier)
            .or_default()
            .entry(member.zone)
            .or_default();
        if member.usable {
            zone.usable += f64::from(member.weight);
        }
    }
    let mut is_preferred = false;
    for zones in tiers.values_mut() {
        is_preferred |= deal(zones, own);
    }
    if !is_preferred {
        return;
    }
    let part = |member: &Member| {
        let zone = tiers.get(&member.tier)?.get(&member.zone)?;
        member
            .usable
            .then(|| f64::from(member.weight) * zone.load / zone.usable)
    };
    let serves = |member: &Member| part(member).is_some_and(|part| part > 0.0);
    let has_choice = members.iter().filter(|member| serves(member)).count() >= CHOICE_MIN;
    let largest = members.iter().filter_map(part).fold(0.0, f64::max);
    for member in &mut *members {
        if let Some(part) = part(member) {
            member.usable = part > 0.0 || !has_choice;
            member.weight = (part / largest * WEIGHT_MAX).round().max(1.0) as u32;
        }
    }
}

/// Deals a tier's load out to its zones; all together get what they have. True if one is preferred.
fn deal(zones: &mut BTreeMap<u16, Zone>, own: u16) -> bool {
    let all: f64 = zones.values().map(|zone| zone.usable).sum();
    let part = all / zones.len() as f64;
    let near = zones.get(&own).map_or(0.0, |zone| zone.usable);
    if near == 0.0 || near == all {
        zones.values_mut().for_each(|zone| zone.load = zone.usable);
        return false;
    }
    // What comes here is a part of what comes everywhere, and all of it here.
    let stays = (near / part).min(1.0) * all;
    let spare = |zone: &Zone| (zone.usable - part).max(0.0);
    let others = zones.iter().filter(|(zone, _)| **zone != own);
    let spares: f64 = others.map(|(_, zone)| spare(zone)).sum();
    for (number, zone) in zones.iter_mut() {
        zone.load = match *number == own {
            true => stays,
            // If the own zone lacks anything, others have it to spare.
            false if stays < all => (all - stays) * spare(zone) / spares,
            false => 0.0,
        };
    }
    true
}
