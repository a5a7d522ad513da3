//! Load balancers measured side by side: `cargo xtask bench`.
//!
//! Owns the comparison and the three small programs that it needs (`role/`). It must not know trimtab's insides: trimtab is
//! a program with a configuration and an admin interface here, like its peers.
#![allow(clippy::print_stdout, reason = "a command for a terminal")]

mod admin;
mod child;
mod counts;
mod flame;
mod guest;
mod install;
mod machine;
mod peer;
mod publish;
mod report;
mod role;
mod scenario;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
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
    /// Draw where the time goes in trimtab under the load of S1: a flame graph
    Flame(flame::Order),
    /// Put what a run kept into the page on performance
    Publish(publish::Order),
    /// List what can be measured
    List,
    /// Forward bytes: the floor
    #[command(hide = true)]
    Floor {
        port: u16,
        backends: u16,
        count: u16,
        #[arg(long, default_value = "epoll")]
        way: role::floor::Way,
    },
    /// Answer requests
    #[command(hide = true)]
    Backend {
        port: u16,
        count: u16,
        #[arg(long, default_value_t = 0)]
        first: u16,
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
    /// S1 to S9 in under 4 minutes: two short rounds, beside nginx and HAProxy only
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Everything with everybody in under 40 minutes: five rounds
    #[arg(long)]
    full: bool,
    /// Scenarios, separated by commas [default: s1,s2,s3]
    #[arg(long, value_delimiter = ',')]
    scenarios: Option<Vec<String>>,
    /// Only these balancers
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// How often each is measured; the median counts [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each time [default: 2]
    #[arg(long)]
    seconds: Option<f64>,
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

/// What `--quick` takes.
const QUICK: [&str; 9] = ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
const QUICKLY: [&str; 10] = [
    "floor",
    "trimtab-lc",
    "trimtab-rr",
    "trimtab-program",
    "nginx-lc",
    "nginx-rr",
    "nginx-lua",
    "haproxy-lc",
    "haproxy-rr",
    "haproxy-lua",
];
/// What `--full` takes besides.
const FULL: [&str; 4] = ["s10", "s11", "native", "beyond"];
const USUAL: [&str; 3] = ["s1", "s2", "s3"];

impl Run {
    /// The scenarios, and how much of each. What is said by itself goes before what `--quick` and `--full` stand for.
    fn extent(&self) -> (Vec<String>, Extent) {
        let (scenarios, only, rounds, seconds) = if self.quick {
            (QUICK.to_vec(), Some(QUICKLY.to_vec()), 2, 0.4)
        } else if self.full {
            ([&QUICK[..], &FULL].concat(), None, 5, 1.0)
        } else {
            (USUAL.to_vec(), None, 5, 2.0)
        };
        let owned = |names: Vec<&str>| -> Vec<String> { names.into_iter().map(str::to_owned).collect() };
        let extent = Extent {
            rounds: self.rounds.unwrap_or(rounds),
            seconds: self.seconds.unwrap_or(seconds),
            only: self.only.clone().or(only.map(owned)),
        };
        (self.scenarios.clone().unwrap_or_else(|| owned(scenarios)), extent)
    }
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
        Command::Flame(order) => flame::draw(&order, &tools(&order.trimtab)?),
        Command::Publish(order) => publish::run(&order, &root()?),
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
            way,
        } => {
            let place = role::floor::Place {
                port,
                backends,
                count,
            };
            Ok(role::floor::run(place, way)?)
        }
        Command::Backend {
            port,
            count,
            first,
            late_every,
            late_ms,
        } => {
            let by = Duration::from_millis(late_ms);
            let delay = role::backend::Delay {
                every: late_every,
                by,
            };
            Ok(role::backend::run(
                role::backend::Place { port, count, first },
                delay,
            )?)
        }
        Command::Load(order) => {
            let figures = role::load::run(order, |window| eprintln!("{window}"))?;
            println!("{}", serde_json::to_string(&figures)?);
            Ok(())
        }
    }
}

fn root() -> Result<PathBuf> {
    let root = PathBuf::from(std::env::var_os("TRIMTAB_ROOT").unwrap_or_else(|| ".".into()));
    root.canonicalize().context("no repository")
}

fn tools(trimtab: &Path) -> Result<Tools> {
    let root = root()?;
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
    let (scenarios, extent) = run.extent();
    let wanted: Result<Vec<_>> = scenarios.iter().map(|name| find(name)).collect();
    let wanted = wanted?;
    machine::favour_this_session();
    role::raise_file_limit()?;
    let missing = if run.no_install {
        Vec::new()
    } else {
        install::install(&tools, !run.quick)
    };
    let begun = Instant::now();
    let (rounds, seconds) = (extent.rounds, extent.seconds);
    let mut bench = Bench::new(&tools, extent)?;
    bench.findings.machine = machine::describe()?;
    bench.findings.versions = install::versions(&tools);
    bench.findings.notes = missing;
    println!(
        "{}\n{}",
        bench.findings.machine,
        bench.findings.versions.join("; ")
    );
    println!("{rounds} rounds of {seconds} s, medians; balancers on core 0, load and backends on core 1");
    for (name, _, scenario) in wanted {
        eprintln!("{name}, after {} s", begun.elapsed().as_secs());
        if let Err(error) = scenario(&mut bench) {
            bench.findings.notes.push(format!("{name}: {error:#}"));
        }
        // What has been measured is kept whatever becomes of the rest.
        if let Some(path) = &run.json {
            bench.findings.write(path)?;
        }
    }
    let summary = bench.findings.summary();
    println!("{}", summary.render());
    bench.findings.tables.push(("summary".to_owned(), summary));
    for note in &bench.findings.notes {
        println!("note: {note}");
    }
    println!("all in {} s", begun.elapsed().as_secs());
    run.json
        .as_deref()
        .map_or(Ok(()), |path| bench.findings.write(path))
}

fn find(name: &str) -> Result<(&'static str, &'static str, scenario::Scenario)> {
    let names: Vec<&str> = SCENARIOS.iter().map(|(name, ..)| *name).collect();
    let known = SCENARIOS.into_iter().find(|(known, ..)| *known == name);
    known.with_context(|| format!("no scenario is called {name:?}; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(words: &[&str]) -> (Vec<String>, Extent) {
        let words = ["bench", "run"].iter().chain(words);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Run(run) => run.extent(),
            _ => panic!("no run"),
        }
    }

    #[test]
    fn full_is_every_numbered_scenario_with_everybody() {
        let (scenarios, extent) = extent(&["--full"]);
        let numbered = SCENARIOS.iter().map(|(name, ..)| *name);
        for name in numbered.filter(|name| name.starts_with('s') && name[1..].parse::<u8>().is_ok()) {
            assert!(scenarios.iter().any(|known| known == name), "{name}");
        }
        assert_eq!((extent.rounds, extent.only), (5, None));
    }

    #[test]
    fn what_is_said_goes_before_what_quick_stands_for() {
        let (scenarios, extent) =
            extent(&["--quick", "--scenarios", "s4", "--rounds", "3", "--only", "floor"]);
        assert_eq!(scenarios, ["s4"]);
        assert_eq!((extent.rounds, extent.seconds), (3, 0.4));
        assert_eq!(extent.only.unwrap(), ["floor"]);
    }

    #[test]
    fn every_scenario_and_balancer_of_the_modes_exists() {
        for name in QUICK.iter().chain(&FULL).chain(&USUAL) {
            find(name).unwrap();
        }
        for name in QUICKLY {
            peer::Peer::find(name).unwrap();
        }
    }
}
