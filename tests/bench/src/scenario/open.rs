//! S3: latency at a fixed rate, counted from when each request was due.

use anyhow::Result;
use serde_json::json;

use super::{Bench, FEW, Samples, middle, sample, usual, value};
use crate::{
    child::{self, Priority},
    report::{Plot, Table, number},
    role::load::Order,
};

const PEERS: [&str; 8] = [
    "floor",
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "nginx-lua",
    "haproxy-lua",
];
const LATENCY: [&str; 7] = [
    "balancer",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "CPU us/request",
    "failed, unsent",
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let rate = bench
        .slowest
        .map_or(8000.0, |slowest| (slowest / 2.0 / 100.0).floor() * 100.0);
    let started = bench.start(&PEERS, &FEW, Priority::RealTime)?;
    let seconds = bench.extent.seconds * 1.5;
    let order = |peer: &_| Order {
        rate: Some(rate),
        ..usual(peer, seconds)
    };
    let Some(first) = started.first() else {
        return Ok(());
    };
    let direct = Order {
        port: FEW[0],
        ..order(first)
    };
    let mut samples = bench.rounds(&started, order, Priority::RealTime)?;
    for _ in 0..bench.extent.rounds {
        let window = child::load(&direct, Priority::RealTime, None, || {})?;
        samples.entry("(direct)").or_default().push(sample(window));
    }
    let title = format!(
        "S3: {rate} requests/s, Poisson, 64 connections: us over direct (the row \"direct\" is absolute)"
    );
    let table = latencies(title, &samples);
    bench.tell("s3", &table, json!({ "rate": rate, "samples": value(&samples) }))
}

fn latencies(title: String, samples: &Samples) -> Table {
    let mut table = Table::new(title, &LATENCY);
    let at = |name: &str, which: usize| {
        samples.get(name).map_or(f64::NAN, |of| {
            middle(of, |sample| {
                let figures = &sample.figures;
                [figures.p50_us, figures.p90_us, figures.p99_us, figures.p999_us][which]
            })
        })
    };
    for (name, of) in samples {
        let has_base = *name != "(direct)" && samples.contains_key("(direct)");
        let base = |which| if has_base { at("(direct)", which) } else { 0.0 };
        let mut row = vec![(*name).to_owned()];
        row.extend((0..4).map(|which| number(at(name, which) - base(which), 0)));
        row.push(number(middle(of, |sample| sample.cpu_us_per_request), 2));
        row.push(
            of.iter()
                .map(|sample| sample.figures.failed() + sample.figures.unsent)
                .sum::<u64>()
                .to_string(),
        );
        table.rows.push(row);
    }
    table.sort_by("p99");
    table.plot = Some(Plot::cheapest(&["p50", "p99"], "microseconds"));
    table
}
