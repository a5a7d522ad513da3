//! The host's own choice: least connections of two random backends (Mitzenmacher, "The Power of Two Choices", 2001).
//!
//! Serves when a policy is absent, failed or had no opinion, and as `pool.delegate`. It must not need anything that can
//! fail: no guest, no allocation.

use super::Tried;
use crate::pool::{Snapshot, View};

/// Random draws before walking on to the next eligible backend. Walking favours those after a gap, so it comes last.
const DRAWS: usize = 4;

/// Chooses among the usable backends that were not tried; among all usable ones when every one was tried.
pub(super) fn choose(snapshot: &Snapshot, view: &View, tried: &Tried, random: u64) -> Option<usize> {
    let members = &snapshot.members;
    let untried = |index: usize| members[index].usable && !tried.contains(members[index].backend.id);
    two_choices(snapshot, view, members.len(), random, |place| {
        untried(place).then_some(place)
    })
    .or_else(|| {
        let usable = |place: usize| members[place].usable.then_some(place);
        two_choices(snapshot, view, members.len(), random, usable)
    })
}

/// The same among some backends only; `None` when none of them is usable and untried.
pub(super) fn choose_among(
    among: &[u32],
    snapshot: &Snapshot,
    view: &View,
    tried: &Tried,
    random: u64,
) -> Option<usize> {
    two_choices(snapshot, view, among.len(), random, |place| {
        let index = *among.get(place)? as usize;
        let member = snapshot.members.get(index)?;
        (member.usable && !tried.contains(member.backend.id)).then_some(index)
    })
}

/// Draws two of `places`, each mapped to a member's index by `eligible`, and takes the less loaded.
fn two_choices(
    snapshot: &Snapshot,
    view: &View,
    places: usize,
    random: u64,
    eligible: impl Fn(usize) -> Option<usize>,
) -> Option<usize> {
    let one = draw(places, random, &eligible)?;
    let two = draw(places, random.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15, &eligible)?;
    Some(if load(snapshot, view, two) < load(snapshot, view, one) {
        two
    } else {
        one
    })
}

fn draw(places: usize, mut random: u64, eligible: impl Fn(usize) -> Option<usize>) -> Option<usize> {
    if places == 0 {
        return None;
    }
    let mut place = 0;
    for _ in 0..DRAWS {
        // Multiply-shift maps 64 random bits onto the places without a division.
        place = ((u128::from(random) * places as u128) >> 64) as usize;
        if let Some(index) = eligible(place) {
            return Some(index);
        }
        random = random.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
    }
    (1..=places).find_map(|step| eligible((place + step) % places))
}

/// Requests in flight for each unit of weight, scaled; the request to be placed counts too.
fn load(snapshot: &Snapshot, view: &View, index: usize) -> u64 {
    let member = &snapshot.members[index];
    let weight = u64::from(member.weight.max(1)) * u64::from(member.ramp.max(1));
    (u64::from(view.active(index)) + 1) * (1 << 24) / weight
}
