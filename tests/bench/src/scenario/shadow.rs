//! What a candidate in the shadow does to clients: nothing that can be measured, if all is well.
//!
//! Owns the comparison. A window's p99 differs by a fifth from that of the next one, whatever runs; so load goes on
//! without a break while the candidate is changed every quarter of a second, and what counts is the middle of many
//! ratios, each of a slice and the slice without a candidate in the same block of four. Even that resolves a few percent
//! at best. So there is a second look, at what could delay anybody: how long the candidate's thread ran at all, and how
//! long workers that were ready to run waited for a core, which the kernel counts to the nanosecond.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Bench,
    tenants::{ADMIN, BACKENDS, HEAD, order, start},
};
use crate::{
    admin,
    child::{self, Loading, Priority},
    guest::{self, Fault},
    machine,
    report::{Table, median, number},
    role::load::{Order, Slice},
};

const SLICE: f64 = 0.25;
/// Leaves the core idle for more than half of the time.
const RATE: f64 = 8000.0;
/// Seconds; a candidate that fails rests for up to ten of them.
const WHILE: f64 = 60.0;
/// There is one.
const WORKER: &str = "trimtab-0";

type Candidate = (&'static str, Option<Vec<u8>>);

/// What came of the slices of one candidate: with the slice, the processor time that the balancer took in it.
type Slices = Vec<(Slice, f64)>;

/// At a rate that leaves the core idle most of the time, and at full load, where latencies come from queueing.
pub(super) fn shadow(bench: &mut Bench<'_>) -> Result<()> {
    let text = format!(
        "{HEAD}[[listener.route]]\npool = \"web\"\n[pool.web]\npolicy = \"least-connections\"\nbackends = {BACKENDS}\n"
    );
    let running = start(bench, "shadow", &text, "any.test")?;
    let root = &bench.tools.root;
    let candidates: [Candidate; 4] = [
        ("none", None),
        (
            "round robin",
            Some(fs::read(root.join("plugins/dist/round-robin.wasm"))?),
        ),
        ("loops", Some(guest::component(root, Fault::Loop)?)),
        ("traps", Some(guest::component(root, Fault::Trap)?)),
    ];
    let columns = [
        "load",
        "candidate in the shadow",
        "slices",
        "p50 us",
        "p99 us",
        "x none",
        "+-",
        "CPU us/request",
        "failed",
    ];
    let mut table = Table::new("A candidate in the shadow of a tenth of the requests", &columns);
    let mut raw = Vec::new();
    for (load, rate) in [("8000/s", Some(RATE)), ("full", None)] {
        let (slices, failed) = in_turn(bench, running.pid(), &candidates, rate)?;
        for ((name, _), of) in candidates.iter().zip(&slices) {
            let mut row = vec![load.to_owned(), (*name).to_owned()];
            row.extend(compare(of, &slices[0]));
            row.push(failed.to_string());
            table.rows.push(row);
        }
        raw.push(slices);
    }
    bench.tell("shadow", &table, json!(raw))?;
    let (table, raw) = delays(bench, running.pid(), &candidates)?;
    bench.tell("shadow-delay", &table, raw)
}

/// Each candidate for a while of its own.
fn delays(bench: &Bench<'_>, balancer: u32, candidates: &[Candidate]) -> Result<(Table, Value)> {
    bench.prioritise(Priority::RealTime)?;
    let order = Order {
        rate: Some(RATE),
        ..order("any.test", 0.0, WHILE)
    };
    let title = format!("What could delay anybody, {WHILE} s each at {RATE} requests/s");
    let columns = [
        "candidate in the shadow",
        "faults",
        "thread ran, ms",
        "% of the time",
        "p99 us",
        "workers waited, us/request",
    ];
    let mut table = Table::new(title, &columns);
    let mut raw = Vec::new();
    for (name, component) in candidates {
        let digest = component
            .as_deref()
            .map(|bytes| admin::upload(ADMIN, "web", bytes))
            .transpose()?;
        // The load warms up for a second before.
        let loading = Loading::start(&order, Priority::RealTime)?;
        change(None, digest.as_deref())?;
        let (_, before) = machine::threads_seconds(balancer, WORKER);
        let figures = loading.watch(None, || {})?.figures;
        let waited = machine::threads_seconds(balancer, WORKER).1 - before;
        let (seconds, _) = machine::threads_seconds(balancer, "trimtab-shadow");
        let report = admin::call(ADMIN, "GET", "/v1/pools/web/shadow", ("text/plain", b""));
        let faults = report
            .ok()
            .and_then(|report| Some(serde_json::from_slice::<Value>(&report).ok()?["faults"].clone()));
        change(digest.as_deref(), None)?;
        let share = seconds / (figures.seconds + order.warm_up);
        table.rows.push(vec![
            (*name).to_owned(),
            faults.map_or("-".to_owned(), |faults| faults.to_string()),
            number(seconds * 1e3, 1),
            number(share * 100.0, 3),
            number(figures.p99_us, 0),
            number(waited * 1e6 / (RATE * (WHILE + order.warm_up)), 3),
        ]);
        raw.push(json!({ "candidate": name, "seconds": seconds, "waited": waited, "figures": figures }));
    }
    Ok((table, json!(raw)))
}

/// Slices of each candidate, by turns, and how many requests failed in all of them.
fn in_turn(
    bench: &Bench<'_>,
    balancer: u32,
    candidates: &[Candidate],
    rate: Option<f64>,
) -> Result<(Vec<Slices>, u64)> {
    let digests: Vec<Option<String>> = candidates
        .iter()
        .map(|(_, component)| {
            component
                .as_deref()
                .map(|bytes| admin::upload(ADMIN, "web", bytes))
                .transpose()
        })
        .collect::<Result<_>>()?;
    let priority = if rate.is_some() {
        Priority::RealTime
    } else {
        Priority::Usual
    };
    bench.prioritise(priority)?;
    let count = candidates.len();
    let order = Order {
        rate,
        slice: Some(SLICE),
        ..order(
            "any.test",
            0.0,
            bench.extent.seconds * (bench.extent.rounds * count) as f64,
        )
    };
    // Each block of slices begins with another candidate.
    let which = |slice: usize| (slice + slice / count) % count;
    let mut spent = vec![machine::cpu_seconds(balancer)];
    let mut trouble = None;
    let window = child::load(&order, priority, Some(balancer), || {
        let slice = spent.len();
        spent.push(machine::cpu_seconds(balancer));
        let changed = change(
            digests[which(slice - 1)].as_deref(),
            digests[which(slice)].as_deref(),
        );
        trouble = trouble.take().or(changed.err());
        if slice.is_multiple_of(100) {
            eprintln!("  {:.0} of {:.0} s", slice as f64 * SLICE, order.seconds);
        }
    })?;
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    change(digests[which(spent.len() - 1)].as_deref(), None)?;
    let failed = window.figures.failed() + window.figures.unsent;
    let measured = window.figures.slices;
    ensure!(
        measured.len() >= count,
        "no block is whole: {} slices",
        measured.len()
    );
    let mut slices: Vec<Slices> = vec![Vec::new(); count];
    for (number, slice) in measured.iter().enumerate().take(measured.len() / count * count) {
        slices[which(number)].push((*slice, spent[number + 1] - spent[number]));
    }
    Ok((slices, failed))
}

fn change(from: Option<&str>, to: Option<&str>) -> Result<()> {
    if from.is_some() {
        admin::call(ADMIN, "DELETE", "/v1/pools/web/shadow", ("text/plain", b""))?;
    }
    if let Some(digest) = to {
        let body = json!({ "digest": digest, "share": 10.0 });
        admin::json(ADMIN, "POST", "/v1/pools/web/shadow", &body)?;
    }
    Ok(())
}

/// The ratio is the middle of those of slices in the same block; beside it is the standard error of a middle, by how far
/// the middle half of the ratios spreads: the others may be anything on a machine that naps.
fn compare(of: &Slices, none: &Slices) -> Vec<String> {
    let mut ratios: Vec<f64> = of
        .iter()
        .zip(none)
        .map(|((of, _), (none, _))| of.p99_us / none.p99_us)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let quarter = ratios.len() / 4;
    let spread = (ratios[ratios.len() - 1 - quarter] - ratios[quarter]) / 1.349;
    let error = 1.25 * spread / (ratios.len() as f64).sqrt();
    let requests: u64 = of.iter().map(|(slice, _)| slice.ok).sum();
    let seconds: f64 = of.iter().map(|(_, seconds)| seconds).sum();
    vec![
        of.len().to_string(),
        number(median(of.iter().map(|(slice, _)| slice.p50_us)), 0),
        number(median(of.iter().map(|(slice, _)| slice.p99_us)), 0),
        number(median(ratios.iter().copied()), 4),
        number(error, 4),
        // A slice's first fifth is not counted, its processor time is.
        number(seconds * 1e6 * 0.8 / requests as f64, 2),
    ]
}
