//! Shares: what each backend gets when all of them answer equally fast.

use std::collections::VecDeque;

use fastrand::Rng;

use super::super::{
    lab::{Lab, Picked, Stand, mix},
    scene::{Ask, Scene, Spot, Step},
};
use crate::{
    config::author::{Claims, Fair},
    pool::Figures,
};

const PICKS: u64 = 4000;
/// How far a share may be off: in parts of all requests, ...
const OFF: f64 = 0.02;
/// ... in standard deviations of a fair draw, ...
const DEVIATIONS: f64 = 5.0;
/// ... and, where keys decide, in parts of the share: rings have few points.
const OFF_STICKY: f64 = 0.35;
const LATENCY_US: u32 = 1000;

/// Backends of different weights.
pub(super) fn weighted(dice: &mut Rng, number: u64) -> Scene {
    let size = if number == 0 { 2 } else { dice.u32(2..8) };
    let spots = (0..size).map(|number| Spot {
        weight: match number {
            0 => 1,
            1 => 5,
            _ => dice.u32(1..6),
        },
        ..Spot::plain(number)
    });
    let mut scene = Scene::of(spots.collect());
    dice.shuffle(&mut scene.spots);
    scene
}

/// The same, one of which came back a while ago.
pub(super) fn ramped(dice: &mut Rng, _: u64) -> Scene {
    let size = dice.u32(2..6);
    let spots = (0..size).map(|number| Spot {
        weight: if number == 0 { 4 } else { dice.u32(1..4) },
        ramp: if number == 0 { 10 * dice.u8(1..4) } else { 100 },
        ..Spot::plain(number)
    });
    let mut scene = Scene::of(spots.collect());
    dice.shuffle(&mut scene.spots);
    scene
}

pub(super) fn are_fair(lab: &Lab, claims: &Claims, scene: &Scene) -> Result<(), String> {
    let counts = traffic(lab, scene)?;
    let worth = |spot: &Spot| match claims.fair {
        Some(Fair::Equal) => 1.0,
        _ if claims.slow_start => f64::from(spot.weight) * f64::from(spot.ramp),
        _ => f64::from(spot.weight),
    };
    let whole: f64 = scene.spots.iter().map(worth).sum();
    for (spot, count) in scene.spots.iter().zip(counts) {
        let (fair, share) = (worth(spot) / whole, count as f64 / PICKS as f64);
        let mut allowed = OFF + DEVIATIONS * (fair * (1.0 - fair) / PICKS as f64).sqrt();
        if claims.sticky.is_some() {
            allowed += OFF_STICKY * fair;
        }
        if (share - fair).abs() > allowed {
            return Err(format!(
                "b{} gets {:.1} % of {PICKS} requests; {:.1} % is fair, and {:.1} points may be missing or too much",
                spot.number,
                share * 100.0,
                fair * 100.0,
                allowed * 100.0
            ));
        }
    }
    Ok(())
}

/// Requests one after the other, each in flight for a while; how many each backend got.
fn traffic(lab: &Lab, scene: &Scene) -> Result<Vec<u64>, String> {
    let mut stand = lab.stand(scene)?;
    let weights: u32 = scene.spots.iter().map(|spot| spot.weight).sum();
    let in_flight_max = (4 * weights as usize).clamp(20, 200);
    let mut counts = vec![0; scene.spots.len()];
    let mut active = vec![0; scene.spots.len()];
    let mut in_flight = VecDeque::new();
    for number in 0..PICKS {
        let ask = Ask {
            user: mix(number),
            noise: mix(number ^ 0x5eed),
            tried: Vec::new(),
        };
        let Picked::Backend(picked) = stand.ask(&ask)? else {
            continue;
        };
        let Some(index) = stand.index(picked) else {
            continue;
        };
        counts[index] += 1;
        active[index] += 1;
        in_flight.push_back(index);
        load(&mut stand, scene, index, active[index])?;
        if in_flight.len() > in_flight_max
            && let Some(index) = in_flight.pop_front()
        {
            active[index] -= 1;
            load(&mut stand, scene, index, active[index])?;
            let number = scene.spots[index].number;
            stand.take(&Step::Outcome(number, LATENCY_US, Some(200)))?;
        }
    }
    Ok(counts)
}

/// Bytes flow while requests are in flight.
fn load(stand: &mut Stand<'_>, scene: &Scene, index: usize, active: u32) -> Result<(), String> {
    let figures = Figures {
        active,
        latency_us: LATENCY_US,
        throughput: 1000 * u64::from(active),
    };
    let step = Step::Load(scene.spots[index].number, figures);
    stand.take(&step).map(|_| ())
}
