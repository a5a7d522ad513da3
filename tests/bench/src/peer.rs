//! The balancers that are compared, each set up for the same work: one worker, keep-alive to both sides, no access log.
//!
//! Owns their configurations. What a measurement does with them, `scenario/` knows.

mod caddy;
mod envoy;
mod haproxy;
mod identity;
mod nginx;
mod ours;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    child::{self, Priority, Running},
    machine,
};

pub(crate) use identity::Identity;

/// How a peer chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    RoundRobin,
    LeastConnections,
    /// A program reads a header of the request and chooses by it.
    Program,
    /// An algorithm, in the balancer's own words.
    Named(&'static str),
    /// The algorithm of least connections without any component, where components are what is usual.
    Native,
}

/// A balancer in one set-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) policy: Policy,
    /// The same balancer with a choice of its own, to which a program's cost is compared.
    pub(crate) native: Option<&'static str>,
    make: fn(&Site<'_>, Policy) -> Result<Plan>,
}

/// What a measurement wants of all balancers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) backends: &'a [u16],
    pub(crate) priority: Priority,
    /// Threads, or processes, that serve.
    pub(crate) workers: usize,
    /// TLS besides, on a port of its own.
    pub(crate) tls: Option<&'a Identity>,
    /// A command that runs another and looks at it, which makes that slow.
    pub(crate) watcher: &'a [String],
    /// The same balancer once more, on ports of its own: which one this is.
    pub(crate) copy: u16,
}

impl<'a> Setting<'a> {
    /// One worker without TLS.
    pub(crate) fn usual(backends: &'a [u16], priority: Priority) -> Self {
        Self {
            backends,
            priority,
            workers: 1,
            tls: None,
            watcher: &[],
            copy: 0,
        }
    }
}

/// Where a balancer is set up.
pub(crate) struct Site<'a> {
    pub(crate) tools: &'a Tools,
    /// Its own folder.
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    pub(crate) backends: &'a [u16],
    pub(crate) workers: usize,
    tls: Option<&'a Identity>,
    is_watched: bool,
}

impl Site<'_> {
    /// Where it has to speak TLS, and as whom.
    fn tls(&self) -> Option<(u16, &Identity)> {
        Some((self.port + 2, self.tls?))
    }
}

/// What is at hand.
pub(crate) struct Tools {
    /// Scratch of everything that is measured.
    pub(crate) folder: PathBuf,
    /// The balancer that this is all about.
    pub(crate) trimtab: PathBuf,
    /// The repository.
    pub(crate) root: PathBuf,
}

/// How it is started.
pub(crate) struct Plan {
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// A command that has it reload; `{pid}` is its pid.
    pub(crate) reload: Option<Vec<String>>,
    /// Where it speaks HTTP/2 without TLS.
    pub(crate) h2_port: Option<u16>,
    /// Where it speaks TLS.
    pub(crate) tls_port: Option<u16>,
}

impl Plan {
    fn new(command: &[&str]) -> Self {
        Self {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            environment: Vec::new(),
            reload: None,
            h2_port: None,
            tls_port: None,
        }
    }
}

/// Everything that can be measured. Ports are 8100, 8110, ... in this order.
pub(crate) const PEERS: [Peer; 28] = [
    peer("floor", Policy::RoundRobin, None, floor),
    peer("trimtab-lc", Policy::LeastConnections, None, ours::plan),
    peer("trimtab-rr", Policy::RoundRobin, None, ours::plan),
    peer("trimtab-program", Policy::Program, Some("trimtab-rr"), ours::plan),
    peer("nginx-lc", Policy::LeastConnections, None, nginx::plan),
    peer("nginx-rr", Policy::RoundRobin, None, nginx::plan),
    peer("nginx-lua", Policy::Program, Some("nginx-rr"), nginx::plan),
    peer("haproxy-lc", Policy::LeastConnections, None, haproxy::plan),
    peer("haproxy-rr", Policy::RoundRobin, None, haproxy::plan),
    peer("haproxy-lua", Policy::Program, Some("haproxy-rr"), haproxy::plan),
    peer("envoy-lc", Policy::LeastConnections, None, envoy::plan),
    peer("envoy-rr", Policy::RoundRobin, None, envoy::plan),
    peer("envoy-lua", Policy::Program, Some("envoy-rr"), envoy::plan),
    peer("caddy-lc", Policy::LeastConnections, None, caddy::plan),
    peer("pingora-rr", Policy::RoundRobin, None, pingora),
    peer("trimtab-native", Policy::Native, None, ours::plan),
    peer(
        "trimtab-p2c",
        Policy::Named("random-two-choices"),
        None,
        ours::plan,
    ),
    peer(
        "trimtab-lrt",
        Policy::Named("least-response-time"),
        None,
        ours::plan,
    ),
    peer("trimtab-ewma", Policy::Named("peak-ewma"), None, ours::plan),
    peer(
        "nginx-p2c",
        Policy::Named("random two least_conn;"),
        None,
        nginx::plan,
    ),
    peer("floor-batch", Policy::Named("batch"), None, floor),
    peer("floor-busy", Policy::Named("busy"), None, floor),
    peer("floor-splice", Policy::Named("splice"), None, floor),
    peer("floor-uring", Policy::Named("uring"), None, floor),
    peer("floor-two", Policy::Named("two"), None, floor),
    peer("floor-steered", Policy::Named("steered"), None, floor),
    peer(
        "haproxy-p2c",
        Policy::Named("balance random(2)"),
        None,
        haproxy::plan,
    ),
    peer("floor-spread", Policy::Named("spread"), None, floor),
];

const fn peer(
    name: &'static str,
    policy: Policy,
    native: Option<&'static str>,
    make: fn(&Site<'_>, Policy) -> Result<Plan>,
) -> Peer {
    Peer {
        name,
        policy,
        native,
        make,
    }
}

impl Peer {
    pub(crate) fn find(name: &str) -> Result<Self> {
        let known = PEERS.iter().find(|peer| peer.name == name);
        let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
        known
            .copied()
            .with_context(|| format!("no peer is called {name:?}; there are {}", names.join(", ")))
    }

    fn port(&self, copy: u16) -> u16 {
        let place = PEERS
            .iter()
            .position(|peer| peer.name == self.name)
            .unwrap_or_default();
        8100 + 500 * copy + 10 * u16::try_from(place).unwrap_or_default()
    }

    /// Starts it on core 0, and waits until it answers.
    pub(crate) fn start(&self, tools: &Tools, setting: &Setting<'_>) -> Result<Started> {
        let name = match setting.copy {
            0 => self.name.to_owned(),
            copy => format!("{}-{copy}", self.name),
        };
        let folder = tools.folder.join(name);
        fs::create_dir_all(&folder)?;
        let port = self.port(setting.copy);
        let site = Site {
            tools,
            folder: folder.clone(),
            port,
            backends: setting.backends,
            workers: setting.workers,
            tls: setting.tls,
            is_watched: !setting.watcher.is_empty(),
        };
        let plan = (self.make)(&site, self.policy)?;
        let log = folder.join("log");
        let command = [setting.watcher, &plan.command].concat();
        let patience = if site.is_watched { 200 } else { 20 };
        let mut running = Running::start(&command, ("0", setting.priority), &plan.environment, &log)?;
        child::wait_for_answer(port, "lb.test", &mut running, Duration::from_secs(patience))
            .with_context(|| format!("{}: see {}", self.name, log.display()))?;
        Ok(Started {
            peer: *self,
            port,
            plan,
            running,
        })
    }
}

/// A balancer that answers.
pub(crate) struct Started {
    pub(crate) peer: Peer,
    pub(crate) port: u16,
    pub(crate) plan: Plan,
    running: Running,
}

impl Started {
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }
}

fn put(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path.display().to_string())
}

fn floor(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let this = std::env::current_exe()?.display().to_string();
    let first = site.backends.first().context("no backends")?.to_string();
    let (port, count) = (site.port.to_string(), site.backends.len().to_string());
    let mut plan = Plan::new(&[&this, "floor", &port, &first, &count]);
    if let Policy::Named(way) = policy {
        plan.command.extend(["--way", way].map(str::to_owned));
    }
    Ok(plan)
}

fn pingora(site: &Site<'_>, policy: Policy) -> Result<Plan> {
    let program = site.tools.folder.join("pingora/release/pingora-lb");
    if policy != Policy::RoundRobin || !program.is_file() {
        bail!("pingora is not built ({})", program.display());
    }
    let (port, workers) = (site.port.to_string(), site.workers.to_string());
    let mut plan = Plan::new(&[&program.display().to_string(), &port, &workers]);
    plan.command.extend(site.backends.iter().map(u16::to_string));
    Ok(plan)
}

fn program(name: &str) -> Result<String> {
    let path = machine::find(name).with_context(|| format!("{name} is not installed"))?;
    Ok(path.display().to_string())
}
