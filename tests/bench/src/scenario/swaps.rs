//! Ten thousand changes of the policy under full load: what fails, and what they leave in memory.
//!
//! Owns the counting. It must not know how a swap works.

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    Bench,
    tenants::{ADMIN, BACKENDS, HEAD, order, start},
};
use crate::{
    admin,
    child::{Loading, Priority},
    machine,
    report::{Table, number},
    role::load::Order,
};

const SWAPS: usize = 10_000;
/// Swaps before memory is looked at first: by then all versions have been in service.
const FIRST: usize = 200;
const POLICIES: [&str; 3] = ["round-robin", "random-two-choices", "least-connections"];
/// Longer than the swaps take.
const SECONDS: f64 = 90.0;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let text = format!(
        "{HEAD}[[listener.route]]\npool = \"web\"\n[pool.web]\npolicy = \"least-connections\"\nbackends = {BACKENDS}\n"
    );
    let running = start(bench, "swaps", &text, "any.test")?;
    let digests: Vec<String> = POLICIES
        .iter()
        .map(|name| {
            let file = bench.tools.root.join(format!("plugins/dist/{name}.wasm"));
            admin::upload(ADMIN, "web", &fs::read(file)?)
        })
        .collect::<Result<_>>()?;
    let swap = |number: usize| {
        let body = json!({ "digest": digests[number % digests.len()] });
        admin::json(ADMIN, "POST", "/v1/pools/web/policy", &body)
    };
    bench.prioritise(Priority::Usual)?;
    let order = Order {
        rate: None,
        ..order("any.test", 0.0, SECONDS)
    };
    let loading = Loading::start(&order, Priority::Usual)?;
    let watching = std::thread::spawn(move || loading.watch(None, || {}));
    for number in 0..FIRST {
        swap(number)?;
    }
    let before = machine::memory(running.pid()).rss;
    let began = Instant::now();
    for number in 0..SWAPS {
        swap(number)?;
        if watching.is_finished() {
            bail!("the load ended after {number} swaps");
        }
    }
    let took = began.elapsed().as_secs_f64();
    let after = machine::memory(running.pid()).rss;
    let window = watching.join().ok().context("the load panicked")??;
    let figures = window.figures;
    let columns = [
        "swaps",
        "ms each",
        "good",
        "failed",
        "RSS before, KiB",
        "after",
        "change %",
    ];
    let mut table = Table::new("Swaps of the policy under full load", &columns);
    let change = (after as f64 / before as f64 - 1.0) * 100.0;
    table.rows.push(vec![
        SWAPS.to_string(),
        number(took * 1e3 / SWAPS as f64, 2),
        figures.ok.to_string(),
        figures.failed().to_string(),
        before.to_string(),
        after.to_string(),
        number(change, 2),
    ]);
    bench.tell(
        "swaps",
        &table,
        json!({ "rss": [before, after], "figures": figures }),
    )
}
