//! Load: less is better, and nothing else about a backend's place in the pool matters.

use fastrand::Rng;

use super::super::{
    lab::{Lab, Picked},
    scene::{Ask, Scene, Spot, Step},
};
use crate::{
    config::author::{BackendState, Claims},
    pool::Figures,
};

const ASKS: u64 = 120;
/// Policies that deal out ties may be this much off.
const SLACK: usize = 2;

/// A pool in which one backend is best for every policy that follows a load, one second best, and so on.
pub(super) fn untied(dice: &mut Rng, _: u64) -> Scene {
    let size = dice.u32(2..12);
    let mut ranks: Vec<u32> = (0..size).collect();
    dice.shuffle(&mut ranks);
    let spots = ranks.iter().zip(0..).map(|(rank, number)| {
        let weight = dice.u32(1..5);
        Spot {
            weight,
            state: if dice.u8(..6) == 0 {
                BackendState::Down
            } else {
                BackendState::Up
            },
            figures: Figures {
                active: weight * (3 + 7 * rank),
                latency_us: 1000 * (rank + 1),
                throughput: u64::from(weight * 100_000 * (rank + 1)),
            },
            ..Spot::plain(number)
        }
    });
    let mut scene = Scene::of(spots.collect());
    scene.steps = asks(dice, 8);
    scene
}

pub(super) fn asks(dice: &mut Rng, count: u64) -> Vec<Step> {
    let ask = |_| {
        Step::Pick(Ask {
            user: dice.u64(..1 << 32),
            noise: dice.u64(..1 << 32),
            tried: Vec::new(),
        })
    };
    (0..count).map(ask).collect()
}

pub(super) fn order_does_not_matter(lab: &Lab, _: &Claims, scene: &Scene) -> Result<(), String> {
    let play = |scene: &Scene| lab.play(scene, |_, _| Ok(()));
    let mut turned = scene.clone();
    turned.spots.rotate_left(scene.spots.len() / 2);
    let here = play(scene)?;
    for other in [scene.reversed(), turned] {
        let there = play(&other)?;
        if let Some(at) = here.iter().zip(&there).position(|(here, there)| here != there) {
            let order: Vec<_> = other
                .spots
                .iter()
                .map(|spot| format!("b{}", spot.number))
                .collect();
            return Err(format!(
                "pick {} is {}, and {} when the pool's order is {}",
                at + 1,
                here[at],
                there[at],
                order.join(" ")
            ));
        }
    }
    Ok(())
}

/// A pool of equals with some load, one of which will get more.
pub(super) fn loaded(dice: &mut Rng, _: u64) -> Scene {
    let size = dice.u32(2..9);
    let is_weighted = dice.bool();
    let spots = (0..size).map(|number| Spot {
        weight: if is_weighted { dice.u32(1..5) } else { 1 },
        figures: Figures {
            active: dice.u32(..8),
            latency_us: dice.u32(500..5000),
            throughput: dice.u64(..1_000_000),
        },
        ..Spot::plain(number)
    });
    let mut scene = Scene::of(spots.collect());
    scene.focus = Some(dice.u32(..size));
    scene.steps = asks(dice, ASKS);
    scene
}

/// One backend gets more load: it must not get more requests, and, if it is much more, fewer than its share.
pub(super) fn more_load_is_not_more_picks(lab: &Lab, _: &Claims, scene: &Scene) -> Result<(), String> {
    let Some(focus) = scene.focus else { return Ok(()) };
    let count = |scene: &Scene| -> Result<usize, String> {
        let picks = lab.play(scene, |_, _| Ok(()))?;
        let its = picks.iter().filter(|picked| **picked == Picked::Backend(focus));
        Ok(its.count())
    };
    let before = count(scene)?;
    let all = scene.asks().count();
    for (times, active, latency_us, throughput) in [(1, 2, 1000, 300_000), (4, 100, 100_000, 50_000_000)] {
        let more = scene.with(focus, |spot| {
            spot.figures.active = spot.figures.active * times + active * spot.weight;
            spot.figures.latency_us = spot.figures.latency_us * times + latency_us;
            spot.figures.throughput =
                spot.figures.throughput * u64::from(times) + throughput * u64::from(spot.weight);
        });
        let after = count(&more)?;
        let load = more.spots.iter().find(|spot| spot.number == focus);
        let load = load.map(ToString::to_string).unwrap_or_default();
        if after > before + SLACK {
            return Err(format!(
                "b{focus} gets {before} of {all} requests, and {after} as {load}"
            ));
        }
        let weights: u32 = scene.spots.iter().map(|spot| spot.weight).sum();
        let own = scene.spots.iter().find(|spot| spot.number == focus);
        let fair = all * own.map_or(0, |spot| spot.weight) as usize / weights.max(1) as usize;
        if times > 1 && scene.spots.len() > 1 && after > fair + SLACK {
            return Err(format!(
                "b{focus} has far more load than the others and gets {after} of {all} requests, more than its fair \
                 {fair}: {load}"
            ));
        }
    }
    Ok(())
}
