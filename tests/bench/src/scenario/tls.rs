//! S9: what TLS 1.3 with clients costs, on connections that stay and on new ones, by wrk.
//!
//! Owns the comparison with plain text over the same program and in the same run, which is what TLS adds. wrk resumes no
//! sessions, so each of its connections is a whole handshake.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use super::{Bench, FEW};
use crate::{
    child::{Priority, pinned},
    machine,
    peer::{Identity, Setting, Started},
    report::{Plot, Table, median, number},
};

const PEERS: [&str; 5] = ["trimtab-lc", "nginx-lc", "haproxy-lc", "envoy-lc", "caddy-lc"];

/// What is asked of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Plain,
    Tls,
    PlainChurn,
    TlsChurn,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Tls, Kind::PlainChurn, Kind::TlsChurn];

/// One round of one balancer.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    requests_per_second: f64,
    cpu_us: f64,
    failed: f64,
}

type Rounds = BTreeMap<(&'static str, Kind), Vec<Round>>;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let identity = Identity::new(bench.tools)?;
    let setting = Setting {
        tls: Some(&identity),
        ..Setting::usual(&FEW, Priority::Usual)
    };
    let started = bench.start_as(&PEERS, &setting)?;
    let mut rounds = Rounds::new();
    for round in 0..bench.extent.rounds {
        for place in 0..started.len() {
            let peer = &started[(place + round) % started.len()];
            for kind in KINDS {
                let done = measure(peer, kind, bench.extent.seconds).with_context(|| peer.peer.name)?;
                rounds.entry((peer.peer.name, kind)).or_default().push(done);
            }
        }
        eprintln!("  round {} of {}", round + 1, bench.extent.rounds);
    }
    let raw: Vec<_> = rounds
        .iter()
        .map(|((name, kind), rounds)| json!({ "balancer": name, "kind": kind, "rounds": rounds }))
        .collect();
    let kept = "S9: TLS 1.3, 64 connections that stay, GET of 1 KB";
    let table = table(kept, &rounds, (Kind::Plain, Kind::Tls));
    bench.tell("s9-kept", &table, &raw)?;
    let new = "S9: a full TLS 1.3 handshake (P-256) and one request a connection, 64 at a time";
    let table = self::table(new, &rounds, (Kind::PlainChurn, Kind::TlsChurn));
    bench.tell("s9-handshakes", &table, ())
}

fn measure(peer: &Started, kind: Kind, seconds: f64) -> Result<Round> {
    let tls = matches!(kind, Kind::Tls | Kind::TlsChurn);
    let (scheme, port) = if tls {
        ("https", peer.plan.tls_port.context("it has no port for TLS")?)
    } else {
        ("http", peer.port)
    };
    let before = machine::cpu_seconds(peer.pid());
    let close = matches!(kind, Kind::PlainChurn | Kind::TlsChurn);
    let answers = ask(&format!("{scheme}://127.0.0.1:{port}/1024"), close, seconds)?;
    let used = machine::cpu_seconds(peer.pid()) - before;
    Ok(Round {
        requests_per_second: answers.good() / answers.seconds,
        cpu_us: used * 1e6 / answers.good().max(1.0),
        failed: answers.failed,
    })
}

/// What wrk says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Answers {
    requests: f64,
    seconds: f64,
    failed: f64,
}

impl Answers {
    fn good(self) -> f64 {
        self.requests - self.failed
    }
}

fn ask(url: &str, close: bool, seconds: f64) -> Result<Answers> {
    let duration = format!("-d{}s", seconds.ceil().max(1.0));
    let mut words = ["wrk", "-t1", "-c64", &duration, "-H", "Host: lb.test"]
        .map(str::to_owned)
        .to_vec();
    if close {
        words.extend(["-H", "Connection: close"].map(str::to_owned));
    }
    words.push(url.to_owned());
    let output = pinned(&words, "1", Priority::Usual)
        .stderr(Stdio::inherit())
        .output()
        .context("wrk does not start")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk: {text}");
    read(&text).with_context(|| format!("wrk says {text:?}"))
}

/// Reads a report: `N requests in T, ...`, and what failed if anything did.
fn read(text: &str) -> Option<Answers> {
    let mut answers = Answers::default();
    for line in text.lines().map(str::trim) {
        if let Some((requests, rest)) = line.split_once(" requests in ") {
            let (time, _) = rest.split_once(',')?;
            let (number, unit) = time.split_at(time.find(|letter: char| letter.is_alphabetic())?);
            let scale = match unit {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                _ => return None,
            };
            answers.requests = requests.parse().ok()?;
            answers.seconds = number.parse::<f64>().ok()? * scale;
        } else if let Some(errors) = line.strip_prefix("Socket errors: ") {
            let counts = errors
                .split(", ")
                .filter_map(|part| part.rsplit(' ').next()?.parse::<f64>().ok());
            answers.failed += counts.sum::<f64>();
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses: ") {
            answers.failed += count.parse::<f64>().ok()?;
        }
    }
    (answers.requests > 0.0).then_some(answers)
}

fn table(title: &str, rounds: &Rounds, (plain, tls): (Kind, Kind)) -> Table {
    let columns = [
        "balancer",
        "requests/s",
        "CPU us/request",
        "in plain text",
        "TLS adds",
        "failed",
    ];
    let mut table = Table::new(title, &columns);
    for name in PEERS {
        let (Some(with), Some(without)) = (rounds.get(&(name, tls)), rounds.get(&(name, plain))) else {
            continue;
        };
        let cpu = |rounds: &[Round]| median(rounds.iter().map(|round| round.cpu_us));
        table.rows.push(vec![
            name.to_owned(),
            number(median(with.iter().map(|round| round.requests_per_second)), 0),
            number(cpu(with), 2),
            number(cpu(without), 2),
            number(cpu(with) - cpu(without), 2),
            number(with.iter().chain(without).map(|round| round.failed).sum(), 0),
        ]);
    }
    table.sort_by("CPU us/request");
    table.plot = Some(Plot::cheapest(
        &["CPU us/request", "in plain text"],
        "CPU us a request",
    ));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_wrk_is_read() {
        let text = "Running 2s test @ https://127.0.0.1:8112/1024\n  1 threads and 64 connections\n  \
                    Requests/sec 12.0\n  118339 requests in 2.00s, 150.00MB read\n  \
                    Socket errors: connect 0, read 3, write 1, timeout 0\n  Non-2xx or 3xx responses: 5\n";
        let answers = read(text).unwrap();
        assert_eq!(
            answers,
            Answers {
                requests: 118_339.0,
                seconds: 2.0,
                failed: 9.0
            }
        );
        assert_eq!(answers.good(), 118_330.0);
    }

    #[test]
    fn a_report_without_requests_is_none() {
        assert_eq!(
            read("unable to connect to 127.0.0.1:1 Connection refused\n"),
            None
        );
    }
}
