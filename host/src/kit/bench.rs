//! What a pick costs, beside built-in policies.
//!
//! Owns the measuring: medians of many short runs, so that a busy machine shows in few of them. In the way of
//! `cargo bench --bench pick`, but for the seat around the instance.

use std::{hint::black_box, time::Instant};

use serde::Serialize;

use super::{KitError, Subject, check::loaded, field::Field, lab::mix, scene::Spot};
use crate::{
    config::HashOn,
    http1::Head,
    policy::{Candidate, Engine, Facts, Trial, Tried},
};

/// Sizes of the pools.
pub const SIZES: [usize; 3] = [3, 100, 1000];
/// The built-ins that others are compared with: the cheapest, and the most used.
const BESIDE: [&str; 2] = ["round-robin", "least-connections"];
/// Runs of which the median counts.
const RUNS: usize = 60;
/// A run takes about this long.
const RUN_NS: u128 = 2_000_000;

/// What `bench` finds.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// The sizes of the columns.
    pub backends: [usize; 3],
    /// The policy, then the built-ins.
    pub rows: Vec<BenchRow>,
}

/// A policy's costs.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// Its name.
    pub name: String,
    /// The median pick at each size, in nanoseconds.
    pub pick_ns: [f64; 3],
    /// The median update at each size, in microseconds.
    pub update_us: [f64; 3],
}

/// Measures a policy and, for comparison, some built-ins. Takes a few seconds.
///
/// # Errors
/// Why no balancer would take it, or how it failed.
pub fn bench(subject: &Subject) -> Result<Bench, KitError> {
    let engine = Engine::new().map_err(|error| KitError(format!("{error:#}")))?;
    let mut rows = vec![row(&engine, subject)?];
    for name in BESIDE.into_iter().filter(|name| *name != subject.name) {
        rows.push(row(&engine, &Subject::find(name.as_ref())?)?);
    }
    Ok(Bench {
        backends: SIZES,
        rows,
    })
}

fn row(engine: &Engine, subject: &Subject) -> Result<BenchRow, KitError> {
    let candidate = Candidate::compile(engine, subject.spec.clone(), &subject.wasm);
    let candidate = candidate.map_err(|refusal| KitError(refusal.to_string()))?;
    let mut row = BenchRow {
        name: subject.name.clone(),
        pick_ns: [0.0; 3],
        update_us: [0.0; 3],
    };
    for (column, size) in SIZES.into_iter().enumerate() {
        let failed = |fault| KitError(format!("{} with {size} backends: {fault}", subject.name));
        row.pick_ns[column] = pick_ns(&candidate, size).map_err(failed)?;
        row.update_us[column] = update_ns(&candidate, size).map_err(failed)? / 1000.0;
    }
    Ok(row)
}

fn stand(candidate: &Candidate, size: usize) -> Result<(Trial, Field), String> {
    let scene = loaded(size as u32);
    let placed: Vec<_> = scene.spots.iter().map(Spot::placed).collect();
    let field = Field::new(&placed, 0, vec![HashOn::ClientIp]);
    let trial = Trial::in_pool(candidate, field.pool(), &field.snapshot(), field.view());
    Ok((trial.map_err(|fault| fault.to_string())?, field))
}

/// Nanoseconds of the median pick.
pub(super) fn pick_ns(candidate: &Candidate, size: usize) -> Result<f64, String> {
    let (mut trial, field) = stand(candidate, size)?;
    let mut head = Head::of(
        "GET",
        "shop.example",
        "/static/app.js?v=3",
        [("cookie", b"theme=dark; sid=4f1c0e5b9a".as_slice())],
    );
    let mut number = 0;
    median_ns(|| {
        number += 1;
        let random = mix(number);
        let facts = Facts {
            key: random.rotate_left(17),
            random,
            client: 0xffff_0a00_0000 | u128::from(random as u32),
            now_us: field.now_us + number,
        };
        let answer = trial.pick(&facts, &Tried::default(), &mut head);
        black_box(answer).map(|_| ()).map_err(|fault| fault.to_string())
    })
}

fn update_ns(candidate: &Candidate, size: usize) -> Result<f64, String> {
    let (mut trial, field) = stand(candidate, size)?;
    let id = field.snapshot().members[0].backend.id;
    let mut weight = 1;
    median_ns(|| {
        weight = 3 - weight;
        field.set_weight(id, weight);
        let updated = trial.update_with_load(&field.snapshot(), field.view());
        updated.map_err(|fault| fault.to_string())
    })
}

fn median_ns(mut run: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let started = Instant::now();
    for _ in 0..3 {
        run()?;
    }
    let once = (started.elapsed().as_nanos() / 3).max(1);
    let times = (RUN_NS / once).clamp(1, 20_000);
    let mut nanos = Vec::new();
    for _ in 0..RUNS {
        let started = Instant::now();
        for _ in 0..times {
            run()?;
        }
        nanos.push(started.elapsed().as_nanos() as f64 / times as f64);
    }
    nanos.sort_by(f64::total_cmp);
    Ok(nanos[RUNS / 2])
}
