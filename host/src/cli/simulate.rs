//! `trimtab simulate`: the report as a table, as JSON or as a page, and a bar while it runs.
//!
//! Exit codes: 0 if there is a report; 2 if the scenario or a policy cannot be used.

use std::{
    io::{IsTerminal, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use clap::Args;
use trimtab::{
    config::Scenario,
    simulate::{self, Order, Progress, Run},
};

use crate::say;

mod table;

/// Time between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Width of the bar.
const BAR_CHARS: u64 = 40;

/// `trimtab simulate`.
#[derive(Args)]
pub(crate) struct Simulate {
    /// What is simulated (TOML)
    scenario: PathBuf,
    /// One more policy: a name and its component, or a built-in's name; any number of times. One that the scenario names
    /// too takes its place, under its settings
    #[arg(long = "policy", value_name = "NAME[=FILE.wasm]", value_parser = policy)]
    policies: Vec<(String, Option<PathBuf>)>,
    /// The seed of all random numbers, instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many requests, instead of the scenario's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: Option<u64>,
    /// Write the report as a page, complete in one file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Show in the page what decisions cost on this machine; it is another page each time then
    #[arg(long, requires = "report")]
    cost: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn policy(text: &str) -> Result<(String, Option<PathBuf>), String> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (text, None),
    };
    if name.is_empty() || file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
        return Err("expected NAME=FILE.wasm, or the name of a built-in policy".to_owned());
    }
    Ok((name.to_owned(), file))
}

pub(crate) fn run(asked: Simulate) -> ExitCode {
    match report(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn report(asked: &Simulate) -> Result<(), String> {
    let mut scenario = Scenario::load(&asked.scenario).map_err(|mistakes| mistakes.to_string())?;
    scenario.seed = asked.seed.unwrap_or(scenario.seed);
    scenario.requests = asked.requests.unwrap_or(scenario.requests);
    let order = Order {
        scenario,
        policies: asked.policies.clone(),
    };
    let began = Instant::now();
    let run = watched(&order).map_err(|error| error.to_string())?;
    if let Some(path) = &asked.report {
        let costs = asked.cost.then_some(run.costs.as_slice());
        let written = std::fs::write(path, simulate::page(&run.report, costs));
        written.map_err(|error| format!("{}: cannot be written: {error}", path.display()))?;
    }
    if asked.json {
        let text = serde_json::to_string_pretty(&run.report).map_err(|error| error.to_string())?;
        say(&text);
    } else {
        say(&table::text(&run, began.elapsed()));
    }
    Ok(())
}

/// Simulates, with a bar if somebody watches.
fn watched(order: &Order) -> Result<Run, simulate::SimulateError> {
    let progress = Progress::new(order);
    let policies = simulate::names(order)?.len();
    if !std::io::stderr().is_terminal() {
        return simulate::simulate(order, &progress);
    }
    std::thread::scope(|scope| {
        let (done, is_done) = channel();
        let progress = &progress;
        scope.spawn(move || {
            // Nobody listens any more only if this very function has ended.
            let _ = done.send(simulate::simulate(order, progress));
        });
        loop {
            match is_done.recv_timeout(LOOK_EVERY) {
                Ok(run) => {
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                    return run;
                }
                Err(RecvTimeoutError::Timeout) => show(progress.so_far(policies)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(simulate::SimulateError::Machine(
                        "the simulation panicked, a bug in trimtab".to_owned(),
                    ));
                }
            }
        }
    })
}

fn show((done, all): (u64, u64)) {
    let filled = (done * BAR_CHARS / all.max(1)).min(BAR_CHARS);
    let bar: String = (0..BAR_CHARS)
        .map(|place| if place < filled { '█' } else { '·' })
        .collect();
    let percent = done * 100 / all.max(1);
    // A terminal that has gone away sees nothing.
    let _ = write!(
        std::io::stderr(),
        "\r{bar} {percent:>3} %  {done} of {all} requests"
    );
}
