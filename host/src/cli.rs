//! The command line's words: what it takes, and what `check` says of a good file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
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
    /// Print the version
    Version,
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
