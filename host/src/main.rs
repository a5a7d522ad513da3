//! The command line: arguments, logging, signals, exit code.

mod cli;
mod run;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use trimtab::{
    config::Config,
    demo,
    server::{self, Server, Source},
};

use cli::{Arguments, Command, summary};

/// A request is a few dozen small objects that one thread makes and drops; this allocator keeps them by thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { file } => run(&file),
        Command::Check { file } => check(&file),
        Command::Demo { seconds, keep } => {
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            demo::run(demo::Options {
                seconds,
                keep,
                colour,
            })
        }
        Command::Replay(order) => cli::replay::run(&order),
        Command::Version => {
            say(&format!("trimtab {}", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

#[allow(clippy::print_stdout, reason = "what the user asked for")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

fn check(file: &Path) -> ExitCode {
    match server::check(file) {
        Ok(config) => {
            say(&summary(&config));
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            say(&wrong.join("\n"));
            ExitCode::FAILURE
        }
    }
}

/// Mistakes are for a person in front of it: plain, and not in the log's format.
fn run(file: &Path) -> ExitCode {
    let refuse = |text: String| {
        eprintln!("{text}");
        ExitCode::FAILURE
    };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(mistakes) => return refuse(mistakes.to_string()),
    };
    let missing: Vec<String> = config
        .missing_components()
        .iter()
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return refuse(missing.join("\n"));
    }
    trimtab::logging::start(&config.log);
    match run::until_stopped(|| Server::start(Source::File(file.to_owned()))) {
        Ok(code) => code,
        Err(error) => refuse(error.to_string()),
    }
}
