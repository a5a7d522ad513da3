//! The command line's words.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
