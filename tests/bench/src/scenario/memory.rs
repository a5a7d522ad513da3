//! S7: what waiting costs, and what many backends cost.

use anyhow::Result;
use serde_json::json;

use super::{Bench, FEW, many, steady, usual, value};
use crate::{
    child::{self, Priority},
    machine::{self, Memory},
    report::{Plot, Table, number},
    role::load::Order,
};

const PEERS: [&str; 6] = [
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "caddy-lc",
];
const THOUSAND: [&str; 6] = [
    "floor",
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    connections(bench)?;
    backends(bench)
}

fn connections(bench: &mut Bench<'_>) -> Result<()> {
    let columns = [
        "balancer",
        "idle RSS",
        "idle PSS",
        "1 000: KiB each",
        "9 900: KiB each",
        "alive",
        "failed",
    ];
    let mut table = Table::new(
        "S7: memory in MiB, and of each idle kept-alive connection after one request",
        &columns,
    );
    let mut raw = Vec::new();
    for name in PEERS {
        let mut row = vec![name.to_owned()];
        let (mut alive, mut failed) = (0, 0);
        for count in [1000, 9900] {
            let started = bench.start(&[name], &FEW, Priority::Usual)?;
            let Some(peer) = started.first() else { break };
            child::pause(std::time::Duration::from_secs(1));
            let idle = machine::memory(peer.pid());
            let mut held = Memory::default();
            let order = Order {
                connections: count,
                seconds: 30.0,
                warm_up: 0.0,
                hold: Some(2.0),
                ..usual(peer, 0.0)
            };
            let window = child::load(&order, Priority::Usual, None, || {
                child::pause(std::time::Duration::from_secs(1));
                held = machine::memory(peer.pid());
            })?;
            if row.len() == 1 {
                row.extend([
                    number(idle.rss as f64 / 1024.0, 1),
                    number(idle.pss as f64 / 1024.0, 1),
                ]);
            }
            row.push(number(held.pss.saturating_sub(idle.pss) as f64 / count as f64, 1));
            alive += window.figures.alive;
            failed += window.figures.failed();
            raw.push(json!({ "balancer": name, "connections": count, "idle": idle, "held": held }));
        }
        if row.len() == 5 {
            row.extend([alive.to_string(), failed.to_string()]);
            table.rows.push(row);
        }
    }
    let each = ["1 000: KiB each", "9 900: KiB each"];
    table.plot = Some(Plot::cheapest(&each, "KiB a connection"));
    table.notes.push(
        "Each: growth of PSS by connection, pooled connections to backends included; kernel memory not."
            .to_owned(),
    );
    bench.tell("s7-connections", &table, raw)
}

fn backends(bench: &mut Bench<'_>) -> Result<()> {
    let seconds = bench.extent.seconds;
    let started = bench.start(&THOUSAND, &many(), Priority::Usual)?;
    // Longer, so that each of the thousand has its connection before the window.
    let order = |peer: &_| Order {
        warm_up: 1.5,
        ..usual(peer, seconds)
    };
    let samples = bench.rounds(&started, order, Priority::Usual)?;
    let mut table = steady("S7: the load of S1 over a thousand backends", &samples);
    table.notes.push(
        "More than the decision: a thousand connections take turns. The decision alone: cargo bench --bench pick.".to_owned(),
    );
    bench.tell("s7-backends", &table, value(&samples))
}
