//! What a policy may cost: memory that stays, and time that grows no faster than the pool.

use fastrand::Rng;

use super::super::{
    check::loaded,
    lab::Lab,
    scene::{Ask, Scene, Step},
};
use crate::config::author::Claims;

/// Requests between two looks at the memory; twice as many each time, so that what only doubles now and then is not
/// mistaken for what grows.
const PICKS: [u64; 4] = [5_000, 5_000, 10_000, 20_000];
/// Requests whose instructions are counted.
const COUNTED: u64 = 50;
/// Ten times the backends may cost so many times the work: linear, with room for logarithms and fixed parts.
const FACTOR: u64 = 30;
/// Work that is of no account.
const LITTLE: u64 = 100_000;

pub(super) fn scene(_: &mut Rng, _: u64) -> Scene {
    loaded(10)
}

fn ask(number: u64) -> Ask {
    Ask {
        user: number,
        noise: number,
        tried: Vec::new(),
    }
}

pub(super) fn memory(lab: &Lab, _: &Claims, scene: &Scene) -> Result<(), String> {
    let mut stand = lab.stand(scene)?;
    if stand.field.snapshot().usable == 0 {
        return Ok(());
    }
    let (mut number, mut sizes) = (0, Vec::new());
    for picks in PICKS {
        for _ in 0..picks {
            number += 1;
            stand.ask(&ask(number))?;
        }
        sizes.push(stand.trial.memory_bytes());
    }
    if sizes.is_sorted_by(|before, after| before < after) {
        return Err(format!(
            "its memory grows with the requests: {} bytes after 5,000, {} after 10,000, {} after 20,000, {} after 40,000",
            sizes[0], sizes[1], sizes[2], sizes[3]
        ));
    }
    Ok(())
}

pub(super) fn cost(lab: &Lab, _: &Claims, _: &Scene) -> Result<(), String> {
    let (small, large) = (work(lab, 100)?, work(lab, 1000)?);
    for (what, small, large) in [("a pick", small.0, large.0), ("an update", small.1, large.1)] {
        if large > FACTOR * small + LITTLE {
            return Err(format!(
                "{what} takes {small} instructions with 100 backends, and {large} with 1000"
            ));
        }
    }
    Ok(())
}

/// Instructions of the most expensive pick, and of an update.
fn work(lab: &Lab, size: u32) -> Result<(u64, u64), String> {
    let mut stand = lab.stand(&loaded(size))?;
    let mut worst = 0;
    for number in 0..COUNTED {
        worst = worst.max(stand.work_of(|stand| stand.ask(&ask(number)))?);
    }
    let update = stand.work_of(|stand| stand.take(&Step::Weight(0, 3)).map(|_| ()))?;
    Ok((worst, update))
}
