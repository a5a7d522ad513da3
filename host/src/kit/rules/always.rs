//! What holds for every policy: answers that the host takes, in any pool; repeatable; state that can be handed over.

use fastrand::Rng;

use super::{
    super::{
        lab::{Lab, Picked},
        scene::{Ask, Scene, Spot, Step},
    },
    random,
};
use crate::{
    config::author::{BackendState, Claims},
    pool::Figures,
};

/// How many kinds of extreme pools there are.
pub(super) const EXTREMES: u64 = 12;
const LARGE: u32 = 1000;
const ASKS: usize = 20;

/// Pools as they should not be, one kind for each number.
pub(super) fn extreme(dice: &mut Rng, number: u64) -> Scene {
    let plain = |size: u32| -> Vec<Spot> { (0..size).map(Spot::plain).collect() };
    let all = |size: u32, change: &mut dyn FnMut(&mut Spot)| -> Vec<Spot> {
        let mut spots = plain(size);
        spots.iter_mut().for_each(change);
        spots
    };
    let spots = match number {
        0 => Vec::new(),
        1 => plain(1),
        2 => plain(LARGE),
        3 => all(LARGE, &mut |spot| {
            spot.weight = random::weight(dice);
            spot.figures = random::figures(dice);
            if dice.u8(..3) == 0 {
                spot.state = BackendState::Down;
            }
        }),
        4 => all(LARGE, &mut |spot| spot.weight = 65_535),
        5 => all(50, &mut |spot| {
            spot.weight = if spot.number == 7 { 65_535 } else { 1 };
        }),
        6 => all(5, &mut |spot| spot.state = BackendState::Draining),
        7 | 8 => all(5, &mut |spot| spot.state = BackendState::Down),
        9 => all(5, &mut |spot| spot.weight = 0),
        10 => all(5, &mut |spot| {
            spot.figures = Figures {
                active: 1_000_000,
                latency_us: u32::MAX,
                throughput: 1 << 42,
            };
        }),
        _ => all(3, &mut |spot| spot.ramp = 10),
    };
    let size = spots.len() as u32;
    let mut scene = Scene::of(spots);
    scene.panic_threshold = if number == 7 { 50 } else { 0 };
    let asks = (0..ASKS).map(|_| Step::Pick(random::ask(dice, size.max(1))));
    scene.steps = asks.collect();
    // It grows from nothing, and shrinks to one.
    scene.steps.push(Step::Reload(vec![0]));
    scene.steps.push(Step::Pick(Ask::default()));
    scene.steps.push(Step::Reload((0..size).rev().collect()));
    scene.steps.push(Step::Pick(Ask::default()));
    scene
}

/// Every answer is one that the host takes; with the claim, every answer is a backend.
pub(super) fn check(lab: &Lab, claims: &Claims, scene: &Scene) -> Result<(), String> {
    let always_picks = claims.always_picks;
    let judge = |ask: &Ask, picked| match picked {
        Picked::Backend(_) => Ok(()),
        _ if !always_picks => Ok(()),
        other => Err(format!(
            "always_picks is claimed, and the answer is {other} while a backend is usable{}",
            if ask.tried.is_empty() { "" } else { " (on a retry)" }
        )),
    };
    lab.play(scene, judge).map(|_| ())
}

pub(super) fn repeats(lab: &Lab, _: &Claims, scene: &Scene) -> Result<(), String> {
    let play = || lab.play(scene, |_, _| Ok(()));
    let (one, other) = (play()?, play()?);
    let first = one.iter().zip(&other).position(|(one, other)| one != other);
    first.map_or(Ok(()), |at| {
        Err(format!(
            "pick {} is {} in one instance and {} in another that was told the same",
            at + 1,
            one[at],
            other[at]
        ))
    })
}

/// What an instance exports, a fresh one takes, and goes on picking by the rules.
pub(super) fn hands_over(lab: &Lab, _: &Claims, scene: &Scene) -> Result<(), String> {
    if !lab.candidate().keeps_state() {
        return Ok(());
    }
    let mut old = lab.stand(scene)?;
    for step in &scene.steps {
        old.take(step)?;
    }
    let now_us = old.field.now_us;
    let state = old.trial.state(now_us).map_err(|fault| fault.to_string())?;
    let Some((schema, state)) = state else {
        return Ok(());
    };
    let mut new = lab.stand(scene)?;
    let taken = new.trial.take_over(&schema, &state);
    taken.map_err(|message| format!("it refuses {} bytes of its own state: {message}", state.len()))?;
    new.field.now_us = now_us;
    for step in &scene.steps {
        new.take(step)?;
    }
    Ok(())
}
