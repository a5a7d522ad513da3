//! S4: what a byte costs.

use anyhow::Result;

use super::{Bench, FEW, Samples, middle, usual, value};
use crate::{
    child::Priority,
    report::{Plot, Table, number},
    role::load::Order,
};

const PEERS: [&str; 7] = [
    "floor",
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "caddy-lc",
];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    for (name, size, is_up) in [
        ("s4-down-100k", 100_000, false),
        ("s4-down-1m", 1_000_000, false),
        ("s4-up-100k", 100_000, true),
        ("s4-up-1m", 1_000_000, true),
    ] {
        let started = bench.start(&PEERS, &FEW, Priority::Usual)?;
        let seconds = bench.extent.seconds;
        let order = |peer: &_| {
            let order = usual(peer, seconds);
            let (path, upload) = if is_up {
                (order.path.clone(), size)
            } else {
                (format!("/{size}"), 0)
            };
            Order {
                connections: 16,
                keys: 1,
                path,
                upload,
                ..order
            }
        };
        let samples = bench.rounds(&started, order, Priority::Usual)?;
        let table = table(&samples, size, is_up);
        bench.tell(name, &table, value(&samples))?;
    }
    Ok(())
}

pub(super) fn table(samples: &Samples, size: usize, is_up: bool) -> Table {
    let way = if is_up { "up" } else { "down" };
    let columns = [
        "balancer",
        "GB/s",
        "GB by CPU second",
        "x floor",
        "core 0 %",
        "failed",
    ];
    let mut table = Table::new(
        format!("S4: bodies of {size} bytes {way}, 16 connections"),
        &columns,
    );
    let bytes = |sample: &super::Sample| {
        if is_up {
            sample.figures.ok as f64 * size as f64
        } else {
            sample.figures.bytes as f64
        }
    };
    let rate = |name: &str| {
        let of = samples.get(name);
        of.map_or(f64::NAN, |of| {
            middle(of, |sample| bytes(sample) / sample.cpu_seconds / 1e9)
        })
    };
    for (name, of) in samples {
        table.rows.push(vec![
            (*name).to_owned(),
            number(
                middle(of, |sample| bytes(sample) / sample.figures.seconds / 1e9),
                2,
            ),
            number(rate(name), 2),
            number(rate(name) / rate("floor"), 2),
            number(100.0 * middle(of, |sample| sample.own_share), 0),
            of.iter()
                .map(|sample| sample.figures.failed())
                .sum::<u64>()
                .to_string(),
        ]);
    }
    table.sort_down_by("GB by CPU second");
    table.plot = Some(Plot::fastest(
        &["GB by CPU second"],
        "GB by second of processor time",
    ));
    table
}
