//! S5: what a connection costs.

use anyhow::Result;

use super::{Bench, FEW, steady, usual, value};
use crate::{child::Priority, role::load::Order};

const PEERS: [&str; 6] = [
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "caddy-lc",
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let started = bench.start(&PEERS, &FEW, Priority::Usual)?;
    let seconds = bench.extent.seconds;
    let order = |peer: &_| Order {
        close: true,
        ..usual(peer, seconds)
    };
    let samples = bench.rounds(&started, order, Priority::Usual)?;
    let title = "S5: one request a connection (Connection: close), 64 at a time; backends are kept alive";
    let mut table = steady(title, &samples);
    table.notes.push(
        "There is no floor here: a forwarder would open a connection to a backend for each.".to_owned(),
    );
    bench.tell("s5", &table, value(&samples))
}
