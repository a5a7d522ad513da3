//! S6: HTTP/2 from clients, HTTP/1.1 to backends, by h2load (nghttp2-client).

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Bench, FEW};
use crate::{
    child::Priority,
    machine,
    report::{Plot, Table, median, number},
};

const PEERS: [&str; 5] = ["trimtab-lc", "nginx-lc", "haproxy-lc", "envoy-lc", "caddy-lc"];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let mut started = bench.start(&PEERS, &FEW, Priority::Usual)?;
    started.retain(|peer| peer.plan.h2_port.is_some());
    let mut rows: Vec<(&str, Vec<(f64, f64)>)> =
        started.iter().map(|peer| (peer.peer.name, Vec::new())).collect();
    let seconds = bench.extent.seconds.ceil().max(1.0);
    for round in 0..bench.extent.rounds {
        for place in 0..started.len() {
            let at = (place + round) % started.len();
            let port = started[at].plan.h2_port.unwrap_or_default();
            let before = machine::cpu_seconds(started[at].pid());
            let ok = ask(port, seconds).with_context(|| started[at].peer.name)?;
            let used = machine::cpu_seconds(started[at].pid()) - before;
            rows[at].1.push((ok / seconds, used * 1e6 / ok.max(1.0)));
        }
        eprintln!("  round {} of {}", round + 1, bench.extent.rounds);
    }
    let title = "S6: HTTP/2 without TLS, 8 connections of 8 streams, GET of 1 KB; HTTP/1.1 to backends";
    let mut table = Table::new(title, &["balancer", "requests/s", "CPU us/request"]);
    for (name, values) in &rows {
        let rate = median(values.iter().map(|value| value.0));
        let cpu = median(values.iter().map(|value| value.1));
        table
            .rows
            .push(vec![(*name).to_owned(), number(rate, 0), number(cpu, 2)]);
    }
    table.sort_by("CPU us/request");
    table.plot = Some(Plot::cheapest(&["CPU us/request"], "CPU us a request"));
    bench.tell("s6", &table, json!(rows))
}

/// Good answers.
fn ask(port: u16, seconds: f64) -> Result<f64> {
    let target = format!("http://127.0.0.1:{port}/1024");
    let seconds = seconds.to_string();
    let output = Command::new("taskset")
        .args([
            "-c", "1", "h2load", "-c", "8", "-m", "8", "-t1", "-D", &seconds, &target,
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("h2load does not start")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("requests:"))
        .context("h2load says nothing")?;
    let count = |name: &str| -> Option<f64> {
        let (before, _) = line.split_once(name)?;
        before.trim_end().rsplit([' ', ',']).next()?.parse().ok()
    };
    ensure!(count("failed") == Some(0.0), "{line}");
    count("succeeded").context("h2load tells no successes")
}
