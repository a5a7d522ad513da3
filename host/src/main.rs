//! The command line: arguments, logging, signals, exit code.

mod cli;
mod operator;
mod run;
mod surroundings;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use trimtab::{
    config::Config,
    demo,
    policy::{self, ChildLimits, Compiler},
    server::{self, Server, Source},
};

use cli::{Arguments, Command, summary};

/// A request is a few dozen small objects that one thread makes and drops; this allocator keeps them by thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { file, inherit } => run(&file, inherit),
        Command::Check { file } => check(&file),
        Command::Demo { seconds, keep } => {
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            demo::run(demo::Options {
                seconds,
                keep,
                colour,
            })
        }
        Command::Policy(order) => operator::obey(&order),
        Command::Cluster(order) => operator::cluster::obey(&order),
        Command::Fleet(order) => operator::fleet::obey(&order),
        Command::CompilePolicy { memory, cpu_seconds } => policy::compile_here(ChildLimits {
            memory_bytes: memory,
            cpu_seconds,
        }),
        Command::Replay(order) => cli::replay::run(&order),
        Command::Simulate(order) => cli::simulate::run(order),
        Command::Version => {
            say(&format!("trimtab {}", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

/// What the user asked for. Whoever reads it may have had enough (`| head`).
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// This program, in another process. By the first name it is the one that runs, even if its file has been replaced.
fn compiler() -> Compiler {
    let running = Path::new("/proc/self/exe");
    let found = if running.exists() {
        Some(running.to_owned())
    } else {
        std::env::current_exe().ok()
    };
    Compiler::Child(found.unwrap_or_else(|| PathBuf::from("trimtab")))
}

fn check(file: &Path) -> ExitCode {
    match server::check(file, compiler()) {
        Ok(config) => {
            let warnings = config.warnings();
            warnings
                .iter()
                .for_each(|warning| say(&format!("warning: {warning}")));
            say(&summary(&config));
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            say(&wrong.join("\n"));
            ExitCode::FAILURE
        }
    }
}

/// Mistakes are for a person in front of it: plain, and not in the log's format. A process that is to be replaced hears
/// them too.
fn run(file: &Path, inherits: bool) -> ExitCode {
    let mut around = match surroundings::find(file, inherits) {
        Ok(around) => around,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut refuse = |text: String| {
        eprintln!("{text}");
        around.inheritance.refuse(&text);
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
    let source = Source::File(file.to_owned());
    let service_manager = around.service_manager.clone();
    match run::until_stopped(service_manager, || Server::start_from(source, compiler(), around)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
