//! What a request takes, counted and not timed: instructions, allocations, and system calls.
//!
//! Owns the method: a balancer that has served already gets so many requests, in turns of one on each of 64 connections,
//! and what its worker's thread did meanwhile is divided by them: what other threads do depends on the time, not on requests. Counts hardly differ between runs, however busy the machine is, so
//! that a change can be judged by them where times tell nothing. How a tool counts is in `counts/`.

mod calls;
mod instructions;
mod streams;
mod turns;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    child::{Priority, Running},
    machine,
    peer::{Peer, Setting, Started, Tools},
    report::{Findings, Table, number},
    scenario::{FEW, MANY},
};

use streams::Streams;
use turns::Turns;

/// Connections, as in S1.
const CONNECTIONS: usize = 64;
/// The request's way has to be warm: pools of connections, buffers, instances.
const WARM_TURNS: usize = 8;

/// What is counted.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Order {
    /// These balancers
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "floor,trimtab-lc,nginx-lc,haproxy-lc"
    )]
    pub(crate) only: Vec<String>,
    /// Turns of 64 requests that are counted
    #[arg(long, default_value_t = 50)]
    pub(crate) turns: usize,
    /// Backends of each balancer
    #[arg(long, default_value_t = FEW.len() as u16, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) backends: u16,
    /// Only GETs of 1 KB on connections that stay
    #[arg(long)]
    pub(crate) usual: bool,
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The balancer
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/trimtab")]
    pub(crate) trimtab: PathBuf,
}

/// Of one balancer and one way of asking, for a request.
#[derive(Debug, Serialize)]
struct Count {
    balancer: &'static str,
    request: &'static str,
    instructions: f64,
    allocations: Option<f64>,
    /// By name, the most frequent first.
    calls: Vec<(String, f64)>,
}

/// A way of asking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) upload: usize,
    /// One request a connection.
    pub(crate) close: bool,
    /// By HTTP/2, eight at once on a connection.
    pub(crate) is_shared: bool,
}

const USUAL: Ask = Ask {
    name: "GET, 1 KB",
    path: "/1024",
    upload: 0,
    close: false,
    is_shared: false,
};

const ASKS: [Ask; 6] = [
    USUAL,
    Ask {
        name: "GET, 100 KB",
        path: "/100000",
        ..USUAL
    },
    Ask {
        name: "POST of 10 KB",
        upload: 10_000,
        ..USUAL
    },
    Ask {
        name: "POST of 100 KB",
        upload: 100_000,
        ..USUAL
    },
    Ask {
        name: "GET, 1 KB, by HTTP/2",
        is_shared: true,
        ..USUAL
    },
    Ask {
        name: "GET, 1 KB, on a connection of its own",
        close: true,
        ..USUAL
    },
];

/// Counts, prints, and keeps.
pub(crate) fn run(order: &Order, tools: &Tools) -> Result<()> {
    let this = std::env::current_exe()?.display().to_string();
    let ports: Vec<u16> = match usize::from(order.backends) {
        few if few == FEW.len() => FEW.to_vec(),
        _ => (MANY..MANY + order.backends).collect(),
    };
    let command = [
        this,
        "backend".to_owned(),
        ports[0].to_string(),
        ports.len().to_string(),
    ];
    let log = tools.folder.join("backend-counts.log");
    let _backends = Running::start(&command, ("1", Priority::Usual), &[], &log)?;
    let mut counts = Vec::new();
    for name in &order.only {
        let peer = Peer::find(name)?;
        counts.extend(count(&peer, order, &ports, tools)?);
    }
    let table = table(&counts, order.turns * CONNECTIONS);
    println!("{}", table.render());
    let mut findings = Findings::default();
    findings
        .scenarios
        .insert("counts".to_owned(), serde_json::to_value(&counts)?);
    findings.tables.push(("counts".to_owned(), table));
    order.json.as_deref().map_or(Ok(()), |path| findings.write(path))
}

fn count(peer: &Peer, order: &Order, ports: &[u16], tools: &Tools) -> Result<Vec<Count>> {
    let turns = order.turns;
    // Each backend is asked before it counts, so that its connection is there.
    let warm = WARM_TURNS + 2 * ports.len() / CONNECTIONS;
    let setting = Setting::usual(ports, Priority::Usual);
    let mut counts = Vec::new();
    for ask in ASKS
        .iter()
        .copied()
        .take(if order.usual { 1 } else { ASKS.len() })
    {
        if ask.is_shared && !has_http2(peer, tools, &setting)? {
            continue;
        }
        eprintln!("{}: {}", peer.name, ask.name);
        let calls = {
            let started = peer.start(tools, &setting)?;
            let mut load = Load::begin(&started, ask)?;
            let before = threads(started.pid());
            load.take(warm)?;
            let ran = |thread: &u32| machine::nanos(*thread) - before.get(thread).copied().unwrap_or(0);
            let all = threads(started.pid());
            let worker = all
                .keys()
                .max_by_key(|thread| ran(thread))
                .context("no threads")?;
            let log = tools.folder.join(peer.name).join("strace");
            calls::count(*worker, &log, || load.take(turns))?
        };
        let per = (turns * CONNECTIONS) as f64;
        let watcher = instructions::command(tools, peer.name)?;
        let watched = Setting {
            watcher: &watcher,
            ..setting
        };
        let started = peer.start(tools, &watched)?;
        let mut load = Load::begin(&started, ask)?;
        load.take(warm)?;
        let folder = tools.folder.join(peer.name);
        let counted = instructions::count(started.pid(), &folder, || load.take(turns))?;
        counts.push(Count {
            balancer: peer.name,
            request: ask.name,
            instructions: counted.instructions / per,
            allocations: counted.allocations.map(|allocations| allocations / per),
            calls: calls
                .into_iter()
                .map(|(name, calls)| (name, calls / per))
                .collect(),
        });
    }
    Ok(counts)
}

fn has_http2(peer: &Peer, tools: &Tools, setting: &Setting<'_>) -> Result<bool> {
    Ok(peer.start(tools, setting)?.plan.h2_port.is_some())
}

/// Who asks.
enum Load {
    Turns(Turns),
    Streams(Streams),
}

impl Load {
    fn begin(started: &Started, ask: Ask) -> Result<Self> {
        Ok(match started.plan.h2_port.filter(|_| ask.is_shared) {
            Some(port) => Self::Streams(Streams::begin(port, ask.path)?),
            None => Self::Turns(Turns::begin(started.port, ask)?),
        })
    }

    fn take(&mut self, turns: usize) -> Result<()> {
        match self {
            Self::Turns(load) => load.take(turns),
            Self::Streams(load) => load.take(turns),
        }
    }
}

/// How long each has run.
fn threads(pid: u32) -> BTreeMap<u32, u64> {
    let threads = machine::thread_seconds(pid).into_keys();
    threads.map(|thread| (thread, machine::nanos(thread))).collect()
}

/// Calls of which there are fewer are no part of a request.
const RARE: f64 = 0.005;

fn table(counts: &[Count], requests: usize) -> Table {
    let columns = [
        "balancer, request",
        "instructions",
        "allocations",
        "system calls",
        "which",
    ];
    let title = format!(
        "What a request takes in the balancer's own code and asks of the kernel, over {requests} requests"
    );
    let mut table = Table::new(title, &columns);
    for count in counts {
        let calls: f64 = count.calls.iter().map(|(_, calls)| calls).sum();
        let which: Vec<String> = count
            .calls
            .iter()
            .filter(|(_, calls)| *calls >= RARE)
            .map(|(name, calls)| format!("{name} {calls:.2}"))
            .collect();
        table.rows.push(vec![
            format!("{}, {}", count.balancer, count.request),
            number(count.instructions, 0),
            number(count.allocations.unwrap_or(f64::NAN), 2),
            number(calls, 2),
            which.join(", "),
        ]);
    }
    table
}
