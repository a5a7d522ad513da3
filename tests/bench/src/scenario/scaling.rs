//! S11: two workers instead of one.
//!
//! Owns what can be said of that on a machine whose cores the load needs too: with everything on any core, what a request
//! costs must not grow with a worker more, and both must get their share.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::{Bench, FEW, Sample, sample, usual};
use crate::{
    child::{self, Priority},
    machine,
    peer::{Setting, Started},
    report::{Plot, Table, median, number},
};

const PEERS: [&str; 6] = [
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "caddy-lc",
];
const WORKERS: [usize; 2] = [1, 2];

#[derive(Debug, Serialize)]
pub(super) struct Round {
    pub(super) sample: Sample,
    /// Of the processor time of all threads, what the busiest took.
    pub(super) busiest: f64,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let mut rounds: BTreeMap<(&str, usize), Vec<Round>> = BTreeMap::new();
    for workers in WORKERS {
        let setting = Setting {
            workers,
            ..Setting::usual(&FEW, Priority::Anywhere)
        };
        let started = bench.start_as(&PEERS, &setting)?;
        for round in 0..bench.extent.rounds {
            for place in 0..started.len() {
                let peer = &started[(place + round) % started.len()];
                let done = measure(peer, bench.extent.seconds)?;
                rounds.entry((peer.peer.name, workers)).or_default().push(done);
            }
            eprintln!(
                "  {workers} workers: round {} of {}",
                round + 1,
                bench.extent.rounds
            );
        }
    }
    let table = table(&rounds);
    let raw: Vec<_> = rounds
        .iter()
        .map(|((name, workers), rounds)| json!({ "balancer": name, "workers": workers, "rounds": rounds }))
        .collect();
    bench.tell("s11", &table, raw)
}

pub(super) fn measure(peer: &Started, seconds: f64) -> Result<Round> {
    let before = machine::thread_seconds(peer.pid());
    let window = child::load(&usual(peer, seconds), Priority::Anywhere, Some(peer.pid()), || {})?;
    let used: Vec<f64> = machine::thread_seconds(peer.pid())
        .iter()
        .map(|(thread, seconds)| seconds - before.get(thread).copied().unwrap_or(0.0))
        .collect();
    let busiest = used.iter().copied().fold(0.0, f64::max) / used.iter().sum::<f64>();
    Ok(Round {
        sample: sample(window),
        busiest,
    })
}

fn table(rounds: &BTreeMap<(&str, usize), Vec<Round>>) -> Table {
    let title = "S11: the load of S1 with everything on any of two cores, by the number of workers";
    let columns = [
        "balancer",
        "CPU us/request, 1",
        "CPU us/request, 2",
        "2 by 1",
        "requests/s, 1",
        "requests/s, 2",
        "busiest of 2, %",
        "failed",
    ];
    let mut table = Table::new(title, &columns);
    for name in PEERS {
        let (Some(one), Some(two)) = (rounds.get(&(name, 1)), rounds.get(&(name, 2))) else {
            continue;
        };
        let cpu = |of: &[Round]| median(of.iter().map(|round| round.sample.cpu_us_per_request));
        let rate = |of: &[Round]| {
            median(
                of.iter()
                    .map(|round| round.sample.figures.ok as f64 / round.sample.figures.seconds),
            )
        };
        let failed: u64 = one
            .iter()
            .chain(two)
            .map(|round| round.sample.figures.failed())
            .sum();
        table.rows.push(vec![
            name.to_owned(),
            number(cpu(one), 2),
            number(cpu(two), 2),
            number(cpu(two) / cpu(one), 2),
            number(rate(one), 0),
            number(rate(two), 0),
            number(100.0 * median(two.iter().map(|round| round.busiest)), 0),
            failed.to_string(),
        ]);
    }
    table.sort_by("CPU us/request, 2");
    table.plot = Some(Plot::cheapest(
        &["CPU us/request, 1", "CPU us/request, 2"],
        "CPU us a request",
    ));
    table.notes.push(
        "Load and backends take about half of both cores, so requests/s cannot double; what a request costs tells whether workers hinder each other.".to_owned(),
    );
    table
}
