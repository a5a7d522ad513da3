//! S8: what clients feel of a change.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Bench, FEW, usual};
use crate::{
    admin,
    child::{self, Priority},
    peer::Started,
    report::{Table, number},
    role::load::{Figures, Order},
};

const COLUMNS: [&str; 9] = [
    "balancer, what",
    "changes",
    "good",
    "not 2xx",
    "refused",
    "reset",
    "unsent",
    "p99 us",
    "max ms",
];
const RATE: f64 = 4000.0;
const SECONDS: f64 = 6.0;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let mut table = Table::new(
        format!("S8: changes under {RATE} requests/s, for {SECONDS} s"),
        &COLUMNS,
    );
    let mut raw = Vec::new();
    let mut tell = |what: String, changes: u64, figures: Figures| {
        let figure = [
            figures.ok,
            figures.not_2xx,
            figures.refused,
            figures.reset + figures.malformed,
            figures.unsent,
        ];
        let mut row = vec![what.clone(), changes.to_string()];
        row.extend(figure.map(|figure| figure.to_string()));
        row.extend([number(figures.p99_us, 0), number(figures.max_us / 1000.0, 1)]);
        table.rows.push(row);
        raw.push(json!({ "what": what, "changes": changes, "figures": figures }));
    };
    for name in ["trimtab-lc", "nginx-lc", "haproxy-lc"] {
        let started = bench.start(&[name], &FEW, Priority::RealTime)?;
        let Some(peer) = started.first() else { continue };
        for (client, close) in [("kept alive", false), ("one request each", true)] {
            tell(
                format!("{name}, steady, {client}"),
                0,
                during(peer, close, || Ok(false))?.1,
            );
            let mut left = 5;
            let (changes, figures) = during(peer, close, || {
                child::pause(Duration::from_secs(1));
                left -= 1;
                reload(peer).map(|()| left > 0)
            })?;
            tell(format!("{name}, reloads, {client}"), changes, figures);
        }
        if name == "trimtab-lc" {
            let mut swaps = Swaps::prepare(bench, peer)?;
            let (changes, figures) = during(peer, false, || swaps.swap(peer))?;
            tell(format!("{name}, policy swaps, kept alive"), changes, figures);
        }
    }
    bench.tell("s8", &table, raw)
}

/// Load, and changes for as long as it runs and `change` wants more.
fn during(
    peer: &Started,
    close: bool,
    mut change: impl FnMut() -> Result<bool> + Send,
) -> Result<(u64, Figures)> {
    let order = Order {
        rate: Some(RATE),
        close,
        ..usual(peer, SECONDS)
    };
    let (is_over, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let figures = std::thread::scope(|scope| {
        let changing = scope.spawn(|| -> Result<()> {
            let mut wants_more = true;
            while wants_more && !is_over.load(Relaxed) {
                wants_more = change()?;
                changes.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        let window = child::load(&order, Priority::RealTime, None, || {});
        is_over.store(true, Relaxed);
        match changing.join() {
            Ok(changed) => changed?,
            Err(_) => anyhow::bail!("the changes ended badly"),
        }
        window.map(|window| window.figures)
    })?;
    Ok((changes.into_inner(), figures))
}

fn reload(peer: &Started) -> Result<()> {
    let command = peer.plan.reload.as_ref().context("it knows no reload")?;
    let words: Vec<String> = command
        .iter()
        .map(|word| word.replace("{pid}", &peer.pid().to_string()))
        .collect();
    Command::new(&words[0]).args(&words[1..]).status()?;
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
        let digests: Result<_> = ["round-robin", "random-two-choices", "least-connections"]
            .map(upload)
            .into_iter()
            .collect();
        Ok(Self {
            digests: digests?,
            count: 0,
        })
    }

    fn swap(&mut self, peer: &Started) -> Result<bool> {
        let digest = &self.digests[self.count % self.digests.len()];
        self.count += 1;
        admin::json(
            peer.port + 1,
            "POST",
            "/v1/pools/web/policy",
            &json!({ "digest": digest }),
        )?;
        Ok(true)
    }
}
