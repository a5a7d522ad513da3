//! Keys: equal ones meet, and a change of the pool moves those of the backend that changed.

use fastrand::Rng;

use super::super::{
    lab::{Lab, Picked, Stand},
    scene::{Ask, Scene, Spot, Step},
};
use crate::config::author::{BackendState, Claims};

const USERS: u64 = 20;
const KEYS: u64 = 400;

/// A pool, and some users who come again.
pub(super) fn users(dice: &mut Rng, _: u64) -> Scene {
    let size = dice.u32(1..20);
    let spots = (0..size).map(|number| Spot {
        weight: dice.u32(1..5),
        state: if dice.u8(..5) == 0 {
            BackendState::Down
        } else {
            BackendState::Up
        },
        ..Spot::plain(number)
    });
    let mut scene = Scene::of(spots.collect());
    scene.steps = keyed(dice, 3 * USERS, USERS);
    scene
}

fn keyed(dice: &mut Rng, count: u64, users: u64) -> Vec<Step> {
    let first = dice.u64(..1 << 32);
    let ask = |number: u64| {
        Step::Pick(Ask {
            user: first + number % users,
            noise: dice.u64(..1 << 32),
            tried: Vec::new(),
        })
    };
    (0..count).map(ask).collect()
}

pub(super) fn equal_keys_meet(lab: &Lab, _: &Claims, scene: &Scene) -> Result<(), String> {
    let mut homes: Vec<(u64, Picked)> = Vec::new();
    for (name, balancer) in [("", scene.clone()), (" of another balancer", scene.reversed())] {
        let asks: Vec<_> = balancer.asks().cloned().collect();
        let picks = lab.play(&balancer, |_, _| Ok(()))?;
        for (ask, picked) in asks.iter().zip(picks) {
            match homes.iter().find(|(user, _)| *user == ask.user) {
                None => homes.push((ask.user, picked)),
                Some((_, home)) if *home == picked => {}
                Some((_, home)) => {
                    return Err(format!(
                        "user {} goes to {home}, and another request of the same user{name} to {picked}",
                        ask.user
                    ));
                }
            }
        }
    }
    Ok(())
}

/// A pool of which one backend leaves. The first is the heaviest and stays: schemes may depend on the heaviest.
pub(super) fn change(dice: &mut Rng, _: u64) -> Scene {
    let size = dice.u32(2..40);
    let spots = (0..size).map(|number| Spot {
        weight: if number == 0 { 4 } else { dice.u32(1..5) },
        ..Spot::plain(number)
    });
    let mut scene = Scene::of(spots.collect());
    scene.focus = Some(dice.u32(1..size));
    scene.steps = keyed(dice, KEYS, KEYS);
    scene
}

/// The backend fails, returns, leaves for good and joins again.
pub(super) fn only_its_keys_move(lab: &Lab, claims: &Claims, scene: &Scene) -> Result<(), String> {
    let Some(focus) = scene.focus.filter(|_| scene.spots.len() > 1) else {
        return Ok(());
    };
    let mut stand = lab.stand(scene)?;
    let home = homes(&mut stand, scene)?;
    let all: Vec<u32> = scene.spots.iter().map(|spot| spot.number).collect();
    let mut others = all.clone();
    others.retain(|number| *number != focus);
    others.reverse();
    for (what, leave, back) in [
        (
            "fails",
            Step::State(focus, BackendState::Down),
            Step::State(focus, BackendState::Up),
        ),
        ("leaves", Step::Reload(others), Step::Reload(all)),
    ] {
        stand.take(&leave)?;
        let without = homes(&mut stand, scene)?;
        compare(claims, &home, &without, focus)
            .map_err(|problem| format!("when b{focus} {what}, {problem}"))?;
        stand.take(&back)?;
        let again = homes(&mut stand, scene)?;
        compare(claims, &home, &again, u32::MAX)
            .map_err(|problem| format!("when b{focus} {what} and comes back, {problem}"))?;
    }
    Ok(())
}

fn homes(stand: &mut Stand<'_>, scene: &Scene) -> Result<Vec<Picked>, String> {
    scene.asks().map(|ask| stand.ask(ask)).collect()
}

fn compare(claims: &Claims, before: &[Picked], after: &[Picked], gone: u32) -> Result<(), String> {
    let gone = Picked::Backend(gone);
    let pairs = || before.iter().zip(after);
    let others = pairs().filter(|(was, _)| **was != gone).count();
    let moved = pairs().filter(|(was, is)| **was != gone && was != is);
    let (count, allowed) = (
        moved.clone().count(),
        others * claims.moves_percent as usize / 100,
    );
    match moved.clone().next() {
        Some((was, is)) if count > allowed => Err(format!(
            "{count} of {others} keys of the other backends move, for instance from {was} to {is}; claimed are at most \
             moves_percent = {}",
            claims.moves_percent
        )),
        _ => Ok(()),
    }
}
