//! S1 and S2: what a request costs on connections that stay.

use anyhow::Result;

use super::{Bench, FEW, steady, usual, value};
use crate::child::Priority;

const NATIVES: [&str; 7] = [
    "floor",
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "caddy-lc",
];
const PROGRAMS: [&str; 9] = [
    "floor",
    "trimtab-rr",
    "trimtab-program",
    "nginx-rr",
    "nginx-lua",
    "haproxy-rr",
    "haproxy-lua",
    "envoy-rr",
    "envoy-lua",
];

pub(super) fn natives(bench: &mut Bench<'_>) -> Result<()> {
    let title = "S1: kept-alive, 64 connections, GET of 1 KB, closed loop; trimtab's pick is a component's";
    run(bench, "s1", title, &NATIVES)
}

pub(super) fn programs(bench: &mut Bench<'_>) -> Result<()> {
    let title = "S2: the same load; a program reads a header of each request and chooses by it";
    run(bench, "s2", title, &PROGRAMS)
}

fn run(bench: &mut Bench<'_>, name: &str, title: &str, peers: &[&str]) -> Result<()> {
    let started = bench.start(peers, &FEW, Priority::Usual)?;
    let seconds = bench.extent.seconds;
    let samples = bench.rounds(&started, |peer| usual(peer, seconds), Priority::Usual)?;
    let table = steady(title, &samples);
    let rates = samples.values().map(|samples| {
        super::middle(samples, |sample| {
            sample.figures.ok as f64 / sample.figures.seconds
        })
    });
    bench.slowest = rates.min_by(f64::total_cmp).or(bench.slowest);
    bench.tell(name, &table, value(&samples))
}
