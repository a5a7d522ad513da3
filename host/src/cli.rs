//! The command line's words: what it takes, and what `check` says of a good file.

pub(crate) mod replay;

use std::path::PathBuf;

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
    /// one ends at once.
    Run {
        /// The configuration (TOML); watched for changes
        file: PathBuf,
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
    /// Print the version
    Version,
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
