//! What is measured, each with the balancers that it makes sense for.
//!
//! Owns the method: balancers run side by side, rounds go over all of them in turn (beginning with another one each time),
//! and the median of the rounds counts, so that whatever disturbs the machine disturbs everybody.

mod beyond;
mod bodies;
mod churn;
mod h2;
mod memory;
mod native;
mod open;
mod reload;
mod scaling;
mod shadow;
mod slow;
mod steady;
mod swaps;
mod tenants;
mod tls;

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::{
    child::{self, Priority, Running, Window},
    peer::{Peer, Setting, Started, Tools},
    report::{Findings, Plot, Table, median, number},
    role::load::{Figures, Order},
};

/// The three backends of most scenarios.
pub(crate) const FEW: [u16; 3] = [9101, 9102, 9103];
/// First of a thousand.
pub(crate) const MANY: u16 = 12_000;

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Only these balancers, and what a scenario compares them with.
    pub(crate) only: Option<Vec<String>>,
}

/// A measurement under way.
pub(crate) struct Bench<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) extent: Extent,
    pub(crate) findings: Findings,
    /// Requests a second that the slowest peer of S1 managed.
    slowest: Option<f64>,
    backends: [Running; 2],
}

/// One round of one balancer.
#[derive(Debug, Serialize)]
struct Sample {
    figures: Figures,
    cpu_seconds: f64,
    /// Processor time of the balancer by good answers.
    cpu_us_per_request: f64,
    /// How much of its core the balancer used, and how much others.
    own_share: f64,
    other_share: f64,
}

type Samples = BTreeMap<&'static str, Vec<Sample>>;

const STEADY: [&str; 9] = [
    "balancer",
    "requests/s",
    "CPU us/request",
    "min",
    "max",
    "x floor",
    "us over native",
    "core 0 %",
    "failed",
];

/// A scenario by its name on the command line.
pub(crate) type Scenario = fn(&mut Bench<'_>) -> Result<()>;

/// All of them, with what they are about.
pub(crate) const SCENARIOS: [(&str, &str, Scenario); 17] = [
    (
        "s1",
        "kept-alive connections, 1 KB, least connections",
        steady::natives,
    ),
    (
        "s2",
        "the same, a program reads a header and chooses",
        steady::programs,
    ),
    ("s3", "fixed rate, latency over direct", open::run),
    ("s4", "bodies of 100 KB and 1 MB, down and up", bodies::run),
    ("s5", "one request a connection", churn::run),
    ("s6", "HTTP/2 from clients", h2::run),
    ("s7", "memory; a thousand backends", memory::run),
    ("s8", "reloads and swaps of the policy under load", reload::run),
    ("s9", "TLS 1.3: kept-alive connections, and handshakes", tls::run),
    (
        "s10",
        "mixed sizes, one backend or answer in a hundred is slow: latency by policy",
        slow::run,
    ),
    ("s11", "two workers instead of one", scaling::run),
    (
        "beyond",
        "io_uring, splice, SO_BUSY_POLL and batch accept, at the floor",
        beyond::run,
    ),
    (
        "native",
        "least connections by the component and by native code",
        native::run,
    ),
    (
        "tenants",
        "a hostile tenant beside a healthy one",
        tenants::hostile,
    ),
    (
        "thousand",
        "a thousand tenants with a policy each",
        tenants::thousand,
    ),
    ("swaps", "ten thousand swaps of the policy under load", swaps::run),
    (
        "shadow",
        "a candidate that loops or traps in the shadow",
        shadow::shadow,
    ),
];

impl<'a> Bench<'a> {
    pub(crate) fn new(tools: &'a Tools, extent: Extent) -> Result<Self> {
        let this = std::env::current_exe()?.display().to_string();
        let backends = |port: u16, count: u16| {
            let command = [
                this.clone(),
                "backend".to_owned(),
                port.to_string(),
                count.to_string(),
            ];
            let log = tools.folder.join(format!("backend-{port}.log"));
            Running::start(&command, ("1", Priority::Usual), &[], &log)
        };
        Ok(Self {
            tools,
            extent,
            findings: Findings::default(),
            slowest: None,
            backends: [backends(FEW[0], 3)?, backends(MANY, 1000)?],
        })
    }

    /// Has the backends scheduled as the load will be.
    fn prioritise(&self, priority: Priority) -> Result<()> {
        self.backends
            .iter()
            .try_for_each(|running| running.prioritise(priority))
    }

    /// Starts those of these balancers that are wanted and installed; says which are not.
    fn start(&mut self, names: &[&str], backends: &[u16], priority: Priority) -> Result<Vec<Started>> {
        self.start_as(names, &Setting::usual(backends, priority))
    }

    /// The same, set up otherwise.
    fn start_as(&mut self, names: &[&str], setting: &Setting<'_>) -> Result<Vec<Started>> {
        self.prioritise(setting.priority)?;
        let mut started = Vec::new();
        for name in names {
            let is_wanted = self
                .extent
                .only
                .as_ref()
                .is_none_or(|only| only.iter().any(|wanted| wanted == name));
            if !is_wanted {
                continue;
            }
            match Peer::find(name)?.start(self.tools, setting) {
                Ok(peer) => started.push(peer),
                Err(error) => self.note(format!("not measured: {error:#}")),
            }
        }
        Ok(started)
    }

    fn note(&mut self, text: String) {
        eprintln!("{text}");
        self.findings.notes.push(text);
    }

    /// Rounds over all balancers in turn.
    fn rounds(
        &mut self,
        started: &[Started],
        order: impl Fn(&Started) -> Order,
        priority: Priority,
    ) -> Result<Samples> {
        let mut samples = Samples::new();
        for round in 0..self.extent.rounds {
            for place in 0..started.len() {
                let peer = &started[(place + round) % started.len()];
                let window = child::load(&order(peer), priority, Some(peer.pid()), || {})?;
                samples.entry(peer.peer.name).or_default().push(sample(window));
            }
            eprintln!("  round {} of {}", round + 1, self.extent.rounds);
        }
        Ok(samples)
    }

    /// Prints a table, and keeps what it was made of.
    fn tell(&mut self, name: &str, table: &Table, raw: impl Serialize) -> Result<()> {
        println!("{}", table.render());
        self.findings.tables.push((name.to_owned(), table.clone()));
        self.findings
            .scenarios
            .insert(name.to_owned(), serde_json::to_value(raw)?);
        Ok(())
    }
}

fn sample(window: Window) -> Sample {
    let Window {
        figures,
        cpu_seconds,
        other_seconds,
        ..
    } = window;
    Sample {
        cpu_us_per_request: cpu_seconds * 1e6 / figures.ok.max(1) as f64,
        own_share: cpu_seconds / figures.seconds,
        other_share: other_seconds / figures.seconds,
        cpu_seconds,
        figures,
    }
}

fn middle(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(value))
}

/// A table of [`STEADY`], the cheapest first.
fn steady(title: impl Into<String>, samples: &Samples) -> Table {
    let mut table = Table::new(title, &STEADY);
    table.rows = steady_rows(samples);
    table.plot = Some(Plot::cheapest(&["CPU us/request"], "CPU us a request").between("min", "max"));
    table
}

fn steady_rows(samples: &Samples) -> Vec<Vec<String>> {
    let cpu = |name: &str| {
        samples
            .get(name)
            .map(|samples| middle(samples, |sample| sample.cpu_us_per_request))
    };
    let mut names: Vec<&str> = samples.keys().copied().collect();
    names.sort_by(|a, b| cpu(a).partial_cmp(&cpu(b)).unwrap_or(std::cmp::Ordering::Equal));
    let row = |name: &str| {
        let of = &samples[name];
        let own = cpu(name).unwrap_or(f64::NAN);
        // Of each round, since the machine may be another one in the next.
        let beside = |other: &str, compare: fn(f64, f64) -> f64| {
            let others = samples.get(other).map_or(&[][..], Vec::as_slice);
            let pairs = of.iter().zip(others);
            median(pairs.map(|(own, other)| compare(own.cpu_us_per_request, other.cpu_us_per_request)))
        };
        let native = Peer::find(name).ok().and_then(|peer| peer.native);
        let each = of.iter().map(|sample| sample.cpu_us_per_request);
        vec![
            name.to_owned(),
            number(
                middle(of, |sample| sample.figures.ok as f64 / sample.figures.seconds),
                0,
            ),
            number(own, 2),
            number(each.clone().fold(f64::INFINITY, f64::min), 2),
            number(each.fold(0.0, f64::max), 2),
            number(beside("floor", |own, floor| own / floor), 2),
            number(
                native.map_or(f64::NAN, |native| beside(native, |own, native| own - native)),
                2,
            ),
            number(100.0 * middle(of, |sample| sample.own_share), 0),
            of.iter()
                .map(|sample| sample.figures.failed())
                .sum::<u64>()
                .to_string(),
        ]
    };
    names.into_iter().map(row).collect()
}

fn value(samples: &Samples) -> Value {
    serde_json::to_value(samples).unwrap_or_default()
}

/// What most scenarios ask of a balancer.
fn usual(peer: &Started, seconds: f64) -> Order {
    Order {
        seconds,
        ..Order::usual(peer.port)
    }
}

fn many() -> Vec<u16> {
    (MANY..MANY + 1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancers_are_compared_within_a_round() {
        let of = |times: [f64; 3]| {
            let sample = |cpu_us_per_request| Sample {
                figures: Figures::default(),
                cpu_seconds: 1.0,
                cpu_us_per_request,
                own_share: 1.0,
                other_share: 0.0,
            };
            times.map(sample).into()
        };
        // The machine is slow from the second round on, and of ours from the third.
        let samples = Samples::from([
            ("floor", of([10.0, 20.0, 20.0])),
            ("trimtab-rr", of([12.0, 12.0, 24.0])),
            ("trimtab-program", of([13.0, 13.0, 26.0])),
        ]);
        let rows = steady_rows(&samples);
        let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap();
        assert_eq!(
            row("trimtab-program")[2..7],
            ["13.00", "13.00", "26.00", "1.30", "1.00"]
        );
        assert_eq!(row("trimtab-rr")[5..7], ["1.20", "-"]);
    }
}
