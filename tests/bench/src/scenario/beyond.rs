//! Other ways to forward, at the level of the floor: what that does not gain, no balancer can.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;

use super::{
    Bench, FEW, bodies,
    scaling::{Round, measure},
    steady, usual, value,
};
use crate::{
    child::Priority,
    peer::Setting,
    report::{Table, median, number},
    role::load::Order,
};

/// Whose two workers get what the kernel deals out, and what a program gives them.
const TWO: [&str; 2] = ["floor-two", "floor-steered"];
/// Short rounds, since each deals its connections out once.
const SPREAD_ROUNDS: usize = 4;

const WAYS: [&str; 5] = [
    "floor",
    "floor-batch",
    "floor-busy",
    "floor-splice",
    "floor-uring",
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let seconds = bench.extent.seconds;
    let started = bench.start(&WAYS, &FEW, Priority::Usual)?;
    let samples = bench.rounds(&started, |peer| usual(peer, seconds), Priority::Usual)?;
    let table = steady("Beyond: ways to forward, the load of S1", &samples);
    bench.tell("beyond-s1", &table, value(&samples))?;
    for (name, size) in [("beyond-down-100k", 100_000), ("beyond-down-1m", 1_000_000)] {
        let order = |peer: &_| Order {
            connections: 16,
            keys: 1,
            path: format!("/{size}"),
            ..usual(peer, seconds)
        };
        let samples = bench.rounds(&started, order, Priority::Usual)?;
        let mut table = bodies::table(&samples, size, false);
        table.title = format!("Beyond: ways to forward, bodies of {size} bytes down, 16 connections");
        bench.tell(name, &table, value(&samples))?;
    }
    let order = |peer: &_| Order {
        close: true,
        ..usual(peer, seconds)
    };
    let samples = bench.rounds(&started, order, Priority::Usual)?;
    let mut table = steady(
        "Beyond: ways to forward, one request a connection, 64 at a time",
        &samples,
    );
    table
        .notes
        .push("A connection to a backend is opened for each, unlike in S5.".to_owned());
    bench.tell("beyond-s5", &table, value(&samples))?;
    drop(started);
    spread(bench)
}

/// How evenly two workers get the load of S1, by who deals the connections out.
fn spread(bench: &mut Bench<'_>) -> Result<()> {
    let setting = Setting::usual(&FEW, Priority::Anywhere);
    let started = bench.start_as(&TWO, &setting)?;
    let mut rounds: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
    for round in 0..SPREAD_ROUNDS * bench.extent.rounds {
        for place in 0..started.len() {
            let peer = &started[(place + round) % started.len()];
            let done = measure(peer, bench.extent.seconds / SPREAD_ROUNDS as f64)?;
            rounds.entry(peer.peer.name).or_default().push(done);
        }
    }
    let title = "Beyond: two workers, the load of S1 with everything on any of two cores";
    let columns = [
        "balancer",
        "CPU us/request",
        "requests/s",
        "busiest of 2, %",
        "at most, %",
        "failed",
    ];
    let mut table = Table::new(title, &columns);
    for (name, rounds) in &rounds {
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure));
        let most = rounds.iter().map(|round| round.busiest).fold(0.0, f64::max);
        let failed: u64 = rounds.iter().map(|round| round.sample.figures.failed()).sum();
        table.rows.push(vec![
            (*name).to_owned(),
            number(of(&|round| round.sample.cpu_us_per_request), 2),
            number(
                of(&|round| round.sample.figures.ok as f64 / round.sample.figures.seconds),
                0,
            ),
            number(100.0 * of(&|round| round.busiest), 1),
            number(100.0 * most, 1),
            failed.to_string(),
        ]);
    }
    table.notes.push(
        "The busiest worker's share of the processor time; each round has 64 connections of its own."
            .to_owned(),
    );
    let raw: Vec<_> = rounds
        .iter()
        .map(|(name, rounds)| json!({ "balancer": name, "rounds": rounds }))
        .collect();
    bench.tell("beyond-two", &table, raw)
}
