//! The backends, as a guest's `update` gets them.
//!
//! Owns the way from rows to the contract's columns, and nothing else.

use super::super::bindings::exports::trimtab::policy::picker;
use crate::pool::{Member, Snapshot};

pub(super) fn columns(snapshot: &Snapshot) -> picker::Snapshot {
    let members = &snapshot.members;
    let labels = |member: &Member| {
        member
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    picker::Snapshot {
        generation: snapshot.generation,
        ids: members.iter().map(|member| member.backend.id).collect(),
        addresses: members
            .iter()
            .map(|member| member.backend.address.to_string())
            .collect(),
        weights: members.iter().map(|member| member.weight).collect(),
        ramps: members.iter().map(|member| member.ramp).collect(),
        zones: members.iter().map(|member| member.zone).collect(),
        tiers: members.iter().map(|member| member.tier).collect(),
        usable: members.iter().map(|member| u8::from(member.usable)).collect(),
        labels: members.iter().map(labels).collect(),
    }
}
