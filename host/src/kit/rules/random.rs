//! Situations in which everything happens that can happen to a pool.

use fastrand::Rng;

use super::super::scene::{Ask, Scene, Spot, Step};
use crate::{config::author::BackendState, pool::Figures};

const STEPS: usize = 80;

/// A pool to which everything happens.
pub(super) fn scene(dice: &mut Rng) -> Scene {
    let size = match dice.u32(..10) {
        0 => dice.u32(1..65),
        1..4 => dice.u32(1..3),
        _ => dice.u32(2..12),
    };
    let spots: Vec<_> = (0..size).map(|number| spot(dice, number)).collect();
    Scene {
        panic_threshold: [0, 50, 100][dice.usize(..3)],
        steps: (0..STEPS).map(|_| step(dice, size)).collect(),
        focus: None,
        spots,
    }
}

fn spot(dice: &mut Rng, number: u32) -> Spot {
    Spot {
        number,
        weight: weight(dice),
        zone: [None, Some('a'), Some('b')][dice.usize(..3)],
        tier: [0, 0, 0, 0, 1, 2][dice.usize(..6)],
        is_labelled: dice.bool(),
        state: state(dice),
        ramp: if dice.u8(..4) == 0 {
            10 * dice.u8(1..10)
        } else {
            100
        },
        figures: figures(dice),
    }
}

pub(super) fn weight(dice: &mut Rng) -> u32 {
    match dice.u32(..20) {
        0 | 1 => 0,
        2 => dice.u32(..65_536),
        3..8 => dice.u32(..16),
        _ => 1,
    }
}

fn state(dice: &mut Rng) -> BackendState {
    match dice.u32(..10) {
        0 | 1 => BackendState::Down,
        2 => BackendState::Draining,
        _ => BackendState::Up,
    }
}

pub(super) fn figures(dice: &mut Rng) -> Figures {
    let active = match dice.u32(..10) {
        0 => 0,
        1 => dice.u32(..1_000_000),
        _ => dice.u32(..12),
    };
    let latency_us = match dice.u32(..10) {
        0 | 1 => 0,
        2 => dice.u32(..),
        _ => dice.u32(1..50_000),
    };
    let throughput = match dice.u32(..10) {
        0 | 1 => 0,
        2 => dice.u64(..1 << 42),
        _ => dice.u64(..10_000_000),
    };
    Figures {
        active,
        latency_us,
        throughput,
    }
}

fn step(dice: &mut Rng, size: u32) -> Step {
    let number = dice.u32(..size);
    match dice.u32(..20) {
        0 | 1 => Step::State(number, state(dice)),
        2 => Step::Weight(number, weight(dice)),
        3..6 => Step::Load(number, figures(dice)),
        6 | 7 => {
            let status = [None, Some(200), Some(200), Some(404), Some(503)][dice.usize(..5)];
            Step::Outcome(number, dice.u32(..200_000), status)
        }
        8 => Step::Reload(some(dice, size)),
        _ => Step::Pick(ask(dice, size)),
    }
}

/// At least one of so many, in any order.
fn some(dice: &mut Rng, size: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..size).collect();
    dice.shuffle(&mut numbers);
    numbers.truncate(dice.usize(1..=numbers.len()));
    numbers
}

/// A request, half of the time one of few users; a third are retries.
pub(super) fn ask(dice: &mut Rng, size: u32) -> Ask {
    let mut tried = Vec::new();
    if dice.u8(..3) == 0 {
        tried = some(dice, size);
        tried.truncate(dice.usize(1..=3));
    }
    Ask {
        user: if dice.bool() {
            dice.u64(..20)
        } else {
            dice.u64(..1 << 32)
        },
        noise: dice.u64(..1 << 32),
        tried,
    }
}
