//! The command line: arguments, logging, signals, exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use trimtab::{
    config::Config,
    server::{self, Server, Source},
};

/// Small objects by the million: the system's allocator costs about 5 % more CPU a request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A load balancer whose every backend choice is made by a sandboxed WebAssembly component.
#[derive(Parser)]
#[command(name = "trimtab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Balance, as a configuration file says
    Run {
        /// The configuration (TOML); watched for changes
        file: PathBuf,
    },
    /// Check a configuration file and list all of its mistakes
    Check {
        /// The configuration (TOML)
        file: PathBuf,
    },
    /// Show what it does
    Demo {
        /// Length in seconds
        #[arg(long)]
        seconds: Option<u64>,
        /// Stay up
        #[arg(long)]
        keep: bool,
    },
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { file } => run(file),
        Command::Check { file } => check(&file),
        Command::Demo { seconds, keep } => trimtab::demo::run(trimtab::demo::Options {
            seconds,
            keep,
            colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }),
        Command::Version => {
            say(&format!("trimtab {}", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

#[allow(clippy::print_stdout, reason = "what the user asked for")]
fn say(text: &str) {
    println!("{text}");
}

fn check(file: &std::path::Path) -> ExitCode {
    match Config::load(file) {
        Ok(_) => ExitCode::SUCCESS,
        Err(mistakes) => {
            say(&mistakes.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(file: PathBuf) -> ExitCode {
    tracing_subscriber::fmt().init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(server::BLOCKING_THREADS)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match Server::start(Source::File(file)).await {
            Ok(server) => {
                tokio::signal::ctrl_c().await.ok();
                server.handle().stop().await;
                server.join().await;
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!("{error}");
                ExitCode::FAILURE
            }
        }
    })
}
