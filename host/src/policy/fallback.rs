//! The last step of the fallback chain: least connections of two random backends (Mitzenmacher, "The Power of Two
//! Choices", 2001).
//!
//! Serves when nothing before it could choose, and as `pool.delegate`. It must not need anything that can fail: no
//! guest, no state, no allocation.

use super::{Tried, native::Ground};
use crate::pool::{Snapshot, View};

/// Random draws before walking on to the next eligible backend. Walking favours those after a gap, so it comes last.
const DRAWS: usize = 4;

/// Chooses among the usable backends that were not tried; among all usable ones when every one was tried.
pub(super) fn choose(snapshot: &Snapshot, view: &View, tried: &Tried, random: u64) -> Option<usize> {
    let members = &snapshot.members;
    let untried = |index: usize| members[index].usable && !tried.contains(members[index].backend.id);
    let load = |index| load(snapshot, view, index);
    two_choices(
        members.len(),
        random,
        |place| untried(place).then_some(place),
        load,
    )
    .or_else(|| {
        let usable = |place: usize| members[place].usable.then_some(place);
        two_choices(members.len(), random, usable, load)
    })
}

/// The same among some backends only; `None` when none of them is usable and untried.
pub(super) fn choose_among(ground: &Ground<'_>) -> Option<usize> {
    two_of(ground, |index| load(ground.snapshot, ground.view, index))
}

/// The cheaper of two at random, of those that may be chosen.
pub(super) fn two_of<C: PartialOrd>(ground: &Ground<'_>, cost: impl Fn(usize) -> C) -> Option<usize> {
    two_choices(
        ground.places(),
        ground.facts.random,
        |place| ground.eligible(place),
        cost,
    )
}

/// Draws two of `places`, each mapped to a member's index by `eligible`, and takes the cheaper.
fn two_choices<C: PartialOrd>(
    places: usize,
    random: u64,
    eligible: impl Fn(usize) -> Option<usize>,
    cost: impl Fn(usize) -> C,
) -> Option<usize> {
    let one = draw(places, random, &eligible)?;
    let two = draw(places, random.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15, &eligible)?;
    Some(if cost(two) < cost(one) { two } else { one })
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
