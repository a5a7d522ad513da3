//! Load balancers measured side by side: `cargo xtask bench`.
//!
//! Owns the comparison and the three small programs that it needs (`role/`). It must not know trimtab's insides: trimtab is
//! a program with a configuration and an admin interface here, like its peers.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command for a terminal")]

mod admin;
mod child;
mod counts;
mod guest;
mod install;
mod machine;
mod peer;
mod report;
mod role;
mod scenario;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use peer::Tools;
use scenario::{Bench, Extent, SCENARIOS};

/// Load balancers measured side by side.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure
    Run(Run),
    /// Count what a request takes: instructions, allocations, system calls
    Counts(counts::Order),
    /// List what can be measured
    List,
    /// Forward bytes: the floor
    #[command(hide = true)]
    Floor { port: u16, backends: u16, count: u16 },
    /// Answer requests
    #[command(hide = true)]
    Backend {
        port: u16,
        count: u16,
        #[arg(long, default_value_t = 0)]
        late_every: u64,
        #[arg(long, default_value_t = 0)]
        late_ms: u64,
    },
    /// Make requests
    #[command(hide = true)]
    Load(role::load::Order),
}

#[derive(Args)]
struct Run {
    /// Scenarios, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "s1,s2,s3")]
    scenarios: Vec<String>,
    /// Only these balancers
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each time
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where the figures of every round go, and plots beside them
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The balancer
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/trimtab")]
    trimtab: PathBuf,
    /// Install no peers: measure against what is there
    #[arg(long)]
    no_install: bool,
}

fn main() -> ExitCode {
    match work(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(command: Command) -> Result<()> {
    match command {
        Command::Run(run) => measure(&run),
        Command::Counts(order) => {
            let tools = tools(&order.trimtab)?;
            install::tools()?;
            counts::run(&order, &tools)
        }
        Command::List => {
            for (name, about, _) in SCENARIOS {
                println!("{name:9} {about}");
            }
            let names: Vec<&str> = peer::PEERS.iter().map(|peer| peer.name).collect();
            println!("balancers: {}", names.join(", "));
            Ok(())
        }
        Command::Floor {
            port,
            backends,
            count,
        } => Ok(role::floor::run(port, backends, count)?),
        Command::Backend {
            port,
            count,
            late_every,
            late_ms,
        } => {
            let by = Duration::from_millis(late_ms);
            Ok(role::backend::run(
                port,
                count,
                role::backend::Delay {
                    every: late_every,
                    by,
                },
            )?)
        }
        Command::Load(order) => {
            let figures = role::load::run(order, |window| eprintln!("{window}"))?;
            println!("{}", serde_json::to_string(&figures)?);
            Ok(())
        }
    }
}

fn tools(trimtab: &Path) -> Result<Tools> {
    let root = PathBuf::from(std::env::var_os("TRIMTAB_ROOT").unwrap_or_else(|| ".".into()));
    let root = root.canonicalize().context("no repository")?;
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder)?;
    let trimtab = root.join(trimtab);
    ensure!(
        trimtab.is_file(),
        "{} does not exist: cargo build --release",
        trimtab.display()
    );
    Ok(Tools {
        folder,
        trimtab,
        root,
    })
}

fn measure(run: &Run) -> Result<()> {
    let tools = tools(&run.trimtab)?;
    let wanted: Result<Vec<_>> = run.scenarios.iter().map(|name| find(name)).collect();
    let wanted = wanted?;
    machine::favour_this_session();
    role::raise_file_limit()?;
    let missing = if run.no_install {
        Vec::new()
    } else {
        install::install(&tools, true)
    };
    let extent = Extent {
        rounds: run.rounds,
        seconds: run.seconds,
        only: run.only.clone(),
    };
    let mut bench = Bench::new(&tools, extent)?;
    bench.findings.machine = machine::describe()?;
    bench.findings.versions = install::versions(&tools);
    bench.findings.notes = missing;
    println!(
        "{}\n{}",
        bench.findings.machine,
        bench.findings.versions.join("; ")
    );
    println!(
        "{} rounds of {} s, medians; balancers on core 0, load and backends on core 1",
        run.rounds, run.seconds
    );
    for (name, _, scenario) in wanted {
        eprintln!("{name}");
        if let Err(error) = scenario(&mut bench) {
            bench.findings.notes.push(format!("{name}: {error:#}"));
        }
        // What has been measured is kept whatever becomes of the rest.
        if let Some(path) = &run.json {
            bench.findings.write(path)?;
        }
    }
    for note in &bench.findings.notes {
        println!("note: {note}");
    }
    run.json
        .as_deref()
        .map_or(Ok(()), |path| bench.findings.write(path))
}

fn find(name: &str) -> Result<(&'static str, &'static str, scenario::Scenario)> {
    let names: Vec<&str> = SCENARIOS.iter().map(|(name, ..)| *name).collect();
    let known = SCENARIOS.into_iter().find(|(known, ..)| *known == name);
    known.with_context(|| format!("no scenario is called {name:?}; there are {}", names.join(", ")))
}
