//! S8: what clients feel of a change.
//!
//! Owns the comparison: load goes on without a break, nothing is changed in one slice of it and something in the next,
//! and what counts is the middle of the ratios of their p99. It must not know how a change works.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Bench, FEW, usual};
use crate::{
    admin,
    child::{self, Priority},
    peer::Started,
    report::{Plot, Table, median, number},
    role::load::{Figures, Order, Slice},
};

const COLUMNS: [&str; 11] = [
    "balancer, what",
    "changes",
    "good",
    "not 2xx",
    "refused",
    "reset",
    "unsent",
    "p99 us, steady",
    "p99 us, changed",
    "x steady",
    "max ms",
];
const PEERS: [&str; 4] = ["trimtab-lc", "nginx-lc", "haproxy-lc", "envoy-lc"];
const POLICIES: [&str; 3] = ["round-robin", "random-two-choices", "least-connections"];
const RATE: f64 = 4000.0;
const RELOADS: usize = 5;
/// In so many slices, with a pause of a slice after each of them.
const SWAPS: usize = 1000;
const SWAPPED_SLICES: usize = 20;
/// A slice without changes and one with, for each. A shorter one has too few requests for a p99.
const SLICE_MIN: f64 = 0.4;
/// A slice's first fifth does not count, so changes begin after it and end before the slice does.
const BEGIN: f64 = 0.22;
const END: f64 = 0.92;

/// What came of load during changes.
struct Outcome {
    changes: usize,
    figures: Figures,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let title = format!(
        "S8: changes under {RATE} requests/s, Poisson; p99 of slices with changes by that of those without"
    );
    let mut table = Table::new(title, &COLUMNS);
    let mut raw = Vec::new();
    // Whoever orders changes must not be what is measured. On the load's core it would be let in for a millisecond at a time,
    // since the kernel keeps a part of each second for those that are not in real time.
    let _aside = child::Aside::step()?;
    let length = bench.extent.seconds.max(SLICE_MIN);
    for name in PEERS {
        // Not in real time, unlike load and backends: a program that starts would keep the one that serves from its core.
        let started = bench.start(&[name], &FEW, Priority::Usual)?;
        bench.prioritise(Priority::RealTime)?;
        let Some(peer) = started.first() else { continue };
        for (client, close) in [("kept alive", false), ("one request each", true)] {
            let asked = (close, length, 2 * RELOADS);
            let outcome = during(peer, asked, |slice| {
                child::pause(slice.mul_f64(BEGIN));
                reload(peer)?;
                Ok(1)
            })?;
            let what = format!("{name}, reloads, {client}");
            raw.push(json!({ "what": what, "changes": outcome.changes, "figures": outcome.figures }));
            table.rows.push(row(what, &outcome));
        }
        if name == "trimtab-lc" {
            let mut swaps = Swaps::prepare(bench, peer)?;
            let asked = (false, length, 2 * SWAPPED_SLICES);
            let outcome = during(peer, asked, |slice| swaps.swap(peer, slice))?;
            let what = format!("{name}, policy swaps, kept alive");
            raw.push(json!({ "what": what, "changes": outcome.changes, "figures": outcome.figures }));
            table.rows.push(row(what, &outcome));
        }
    }
    table.plot = Some(Plot::cheapest(
        &["p99 us, changed", "p99 us, steady"],
        "p99 in microseconds",
    ));
    bench.tell("s8", &table, Value::Array(raw))
}

/// Load in so many slices of a length, in every other one of which something is changed. `change` gets a slice's length, has
/// that long, and tells how often it changed something.
fn during(
    peer: &Started,
    (close, length, slices): (bool, f64, usize),
    mut change: impl FnMut(Duration) -> Result<usize>,
) -> Result<Outcome> {
    let order = Order {
        rate: Some(RATE),
        close,
        slice: Some(length),
        // The last slice has to be over within the window.
        ..usual(peer, length * (slices as f64 + 0.1))
    };
    let (mut told, mut changes, mut trouble) = (0, 0, None);
    let window = child::load(&order, Priority::RealTime, None, || {
        told += 1;
        if told % 2 == 1 && told < slices {
            match change(Duration::from_secs_f64(length)) {
                Ok(count) => changes += count,
                Err(error) => trouble = Some(error),
            }
        }
    })?;
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    Ok(Outcome {
        changes,
        figures: window.figures,
    })
}

fn row(what: String, outcome: &Outcome) -> Vec<String> {
    let figures = &outcome.figures;
    let counts = [
        outcome.changes as u64,
        figures.ok,
        figures.not_2xx,
        figures.refused,
        figures.reset + figures.malformed,
        figures.unsent,
    ];
    let mut row = vec![what];
    row.extend(counts.map(|count| count.to_string()));
    let (steady, changed, ratio) = compare(&figures.slices);
    row.extend([
        number(steady, 0),
        number(changed, 0),
        number(ratio, 2),
        number(figures.max_us / 1000.0, 1),
    ]);
    row
}

/// The middle p99 of slices without changes (the first one and every other), of those with, and of the ratios of neighbours.
fn compare(slices: &[Slice]) -> (f64, f64, f64) {
    let pairs = || slices.chunks_exact(2);
    (
        median(pairs().map(|pair| pair[0].p99_us)),
        median(pairs().map(|pair| pair[1].p99_us)),
        median(pairs().map(|pair| pair[1].p99_us / pair[0].p99_us)),
    )
}

fn reload(peer: &Started) -> Result<()> {
    let command = peer.plan.reload.as_ref().context("it knows no reload")?;
    let words: Vec<String> = command
        .iter()
        .map(|word| word.replace("{pid}", &peer.pid().to_string()))
        .collect();
    let status = Command::new(&words[0]).args(&words[1..]).status()?;
    ensure!(status.success(), "{words:?}: {status}");
    Ok(())
}

struct Swaps {
    digests: Vec<String>,
    count: usize,
}

impl Swaps {
    fn prepare(bench: &Bench<'_>, peer: &Started) -> Result<Self> {
        let upload = |name: &str| {
            let component = std::fs::read(bench.tools.root.join(format!("plugins/dist/{name}.wasm")))?;
            admin::upload(peer.port + 1, "web", &component)
        };
        let digests: Result<_> = POLICIES.map(upload).into_iter().collect();
        Ok(Self {
            digests: digests?,
            count: 0,
        })
    }

    /// A slice's share of all swaps, spread over it; those that there is no time for are left out.
    fn swap(&mut self, peer: &Started, slice: Duration) -> Result<usize> {
        let (begun, share) = (Instant::now(), SWAPS / SWAPPED_SLICES);
        for number in 0..share {
            let due = slice.mul_f64(BEGIN + (END - BEGIN) * number as f64 / share as f64);
            child::pause(due.saturating_sub(begun.elapsed()));
            if begun.elapsed() > slice.mul_f64(END) {
                return Ok(number);
            }
            let digest = &self.digests[self.count % self.digests.len()];
            self.count += 1;
            let body = json!({ "digest": digest });
            admin::json(peer.port + 1, "POST", "/v1/pools/web/policy", &body)?;
        }
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(p99s: &[f64]) -> Vec<Slice> {
        let slice = |&p99_us: &f64| Slice {
            ok: 1,
            p50_us: 1.0,
            p99_us,
        };
        p99s.iter().map(slice).collect()
    }

    #[test]
    fn slices_with_changes_are_compared_with_those_before_them() {
        // Without changes 100, 200, 400; with 110, 300, 600. A last slice without a neighbour does not count.
        let of = slices(&[100.0, 110.0, 200.0, 300.0, 400.0, 600.0, 9000.0]);
        assert_eq!(compare(&of), (200.0, 300.0, 1.5));
    }

    #[test]
    fn a_row_tells_each_kind_of_failure() {
        let outcome = Outcome {
            changes: 5,
            figures: Figures {
                ok: 10,
                not_2xx: 1,
                refused: 2,
                reset: 3,
                malformed: 4,
                unsent: 6,
                max_us: 1500.0,
                slices: slices(&[100.0, 120.0]),
                ..Figures::default()
            },
        };
        let expected = ["a", "5", "10", "1", "2", "7", "6", "100", "120", "1.20", "1.5"];
        assert_eq!(row("a".to_owned(), &outcome), expected);
    }
}
