//! Other ways to forward, at the level of the floor: what that does not gain, no balancer can.

use anyhow::Result;

use super::{Bench, FEW, bodies, steady, usual, value};
use crate::{child::Priority, role::load::Order};

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
    bench.tell("beyond-s5", &table, value(&samples))
}
