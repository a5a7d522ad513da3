//! The command line's words: what it takes, and what `check` says of a good file.

pub(crate) mod author;
pub(crate) mod push;
pub(crate) mod replay;
pub(crate) mod simulate;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use trimtab::config::Config;

/// A load balancer whose every backend choice is made by a sandboxed WebAssembly component.
#[derive(Parser)]
#[command(name = "trimtab", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Balance, as a configuration file says
    ///
    /// SIGHUP reads the file again, as does any change of it. SIGTERM and SIGINT let requests in flight finish; a second
    /// one ends at once. SIGUSR2 starts the program that is installed now, which takes over the listeners without losing a
    /// connection; if it does not serve, this one goes on. Sockets of the service manager (LISTEN_FDS) are used for the
    /// listeners that have their addresses.
    Run {
        /// The configuration (TOML); watched for changes
        file: PathBuf,
        /// Take over from the process at standard input
        #[arg(long, hide = true)]
        inherit: bool,
    },
    /// Check a configuration file and list all of its mistakes
    ///
    /// Compiles the components and tries their settings, but neither resolves names nor connects to anything.
    Check {
        /// The configuration (TOML)
        file: PathBuf,
    },
    /// Show hot reload, ejection and a failing policy, with backends of its own
    Demo {
        /// End after this many seconds
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
        /// Go on serving until interrupted
        #[arg(long)]
        keep: bool,
    },
    /// Make recorded decisions again, by the same policy or by another one
    ///
    /// The same policy has to decide the same, bit for bit; the exit code is 1 otherwise. Of another policy, other settings
    /// or drained backends it tells what would change: requests, keys, shares, faults.
    Replay(Replay),
    /// Compare policies over simulated backends and virtual time
    ///
    /// The very components, in the code that serves. Equal scenario, equal seed: equal report, on any machine that has
    /// the same program.
    Simulate(simulate::Simulate),
    /// Make, build and test policies; upload, promote and roll back versions of them in a running balancer
    Policy(PolicyOrder),
    /// Show who is active in the cluster, and hand over to another node
    Cluster(ClusterOrder),
    /// Show the fleet, and roll out another configuration
    Fleet(FleetOrder),
    /// The child process that compiles: WebAssembly in, machine code out
    #[command(hide = true)]
    CompilePolicy {
        /// Bytes of address space
        #[arg(long)]
        memory: u64,
        /// Seconds of processor time
        #[arg(long)]
        cpu_seconds: u64,
    },
    /// Print the version
    Version,
}

/// `trimtab cluster`.
#[derive(Args)]
pub(crate) struct ClusterOrder {
    #[command(subcommand)]
    pub(crate) verb: ClusterVerb,
    /// The balancer's admin listener
    #[arg(long, global = true, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub(crate) admin: SocketAddr,
    /// Print the balancer's answer as it is
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum ClusterVerb {
    /// Show the members as this one sees them
    Status,
    /// Hand the active role over to another node; asked of the active one
    Failover {
        /// To this node; by default to the ready one with the highest priority
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
    },
}

/// `trimtab fleet`.
#[derive(Args)]
pub(crate) struct FleetOrder {
    #[command(subcommand)]
    pub(crate) verb: FleetVerb,
    /// The admin listener of any node of the fleet
    #[arg(long, global = true, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub(crate) admin: SocketAddr,
    /// Print the balancer's answer as it is
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum FleetVerb {
    /// Show the nodes, and how far the newest configuration is
    Status,
    /// Roll out the tables of a file, with the components that it names: first to the canaries, then to all nodes
    Publish {
        /// TOML with listeners, pools, policies and tenants
        file: PathBuf,
    },
    /// Roll out an older generation again; by default the last good one before the present
    Rollback {
        /// This one
        #[arg(long, value_name = "GENERATION")]
        to: Option<u64>,
    },
    /// End the generation that is on trial; the canaries go back to the last good one
    Halt,
}

/// `trimtab policy`.
#[derive(Args)]
pub(crate) struct PolicyOrder {
    #[command(subcommand)]
    pub(crate) verb: PolicyVerb,
    /// The balancer's admin listener
    #[arg(long, global = true, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub(crate) admin: SocketAddr,
    /// Print the balancer's answer as it is, or a report as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum PolicyVerb {
    #[command(flatten)]
    Author(author::AuthorVerb),
    /// Upload a component and try it with a pool's settings and backends; it serves nobody yet
    Push {
        /// A policy's folder, which is built first, or a .wasm file
        #[arg(default_value = ".")]
        file: PathBuf,
        /// The pool that it is for
        #[arg(long)]
        pool: String,
        /// Put it into service at once
        #[arg(long)]
        promote: bool,
        /// Do it again at each save, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Put an uploaded or kept version into the service of a pool, in place of the configuration file's
    Promote {
        /// Its digest, or the first digits of it
        digest: String,
        /// The pool
        #[arg(long)]
        pool: String,
    },
    /// Have a version decide beside the one in service, and compare; nothing is routed by it
    Shadow {
        /// Its digest, or the first digits of it; without it, show how the present one compares
        digest: Option<String>,
        /// The pool
        #[arg(long)]
        pool: String,
        /// Percent of the decisions
        #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
        share: f64,
        /// End it
        #[arg(long, conflicts_with = "digest")]
        stop: bool,
    },
    /// Have a version decide for a part of a pool's requests; it is promoted or taken back by itself
    Canary {
        /// Its digest, or the first digits of it; not needed with --stop
        #[arg(required_unless_present = "stop")]
        digest: Option<String>,
        /// The pool
        #[arg(long)]
        pool: String,
        /// Percent of the requests, chosen by their hash key
        #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
        share: f64,
        /// Decisions without a broken rule after which it is promoted
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        decisions: u64,
        /// End the canary that is on trial
        #[arg(long)]
        stop: bool,
    },
    /// Go back to the version that served before, or to another kept one
    Rollback {
        /// The pool
        #[arg(long)]
        pool: String,
        /// Its digest, or the first digits of it, instead of the one before
        #[arg(long, value_name = "DIGEST")]
        to: Option<String>,
    },
    /// Show what serves each pool, what is kept, and what is uploaded; of one pool, its canaries
    Status {
        /// Only this pool's canaries, with their evidence
        #[arg(long)]
        pool: Option<String>,
    },
}

/// `trimtab replay`.
#[derive(Args)]
pub(crate) struct Replay {
    /// A log of decisions
    pub(crate) log: PathBuf,
    /// The policy that decides now; by default the recorded one, if it is built in
    #[arg(long, value_name = "FILE.wasm")]
    pub(crate) policy: Option<PathBuf>,
    /// Its settings: JSON, or a file with JSON; by default those that were recorded
    #[arg(long, value_name = "FILE|JSON")]
    pub(crate) config: Option<String>,
    /// Only the decisions of this pool
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: Option<String>,
    /// Take this backend to drain all the time; any number of times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) drain: Vec<String>,
    /// Read as far as the log goes, although it has no end
    #[arg(long)]
    pub(crate) partial: bool,
    /// Print the whole report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// One line for a configuration without mistakes.
pub(crate) fn summary(config: &Config) -> String {
    let backends: usize = config.pools.values().map(|pool| pool.backends.len()).sum();
    let policies: Vec<&str> = config.policies.keys().map(String::as_str).collect();
    format!(
        "ok; listeners: {}, pools: {}, backends: {backends}, policies: {}",
        config.listeners.len(),
        config.pools.len(),
        policies.join(", ")
    )
}
