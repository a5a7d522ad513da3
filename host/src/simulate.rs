//! What a policy would do: the very component, in the very code that serves, over simulated backends and virtual time.
//!
//! Owns the simulated world and what is reported of it. It must not know how a report is shown (`cli/simulate.rs`), and it
//! decides nothing: picks are made by `policy::Seat`, load is counted by `pool::Load`, health is judged by `health`.
//!
//! Invariants: the same scenario and seed give the same report, whatever the machine does meanwhile and however many
//! policies run at once; every policy of a run meets the same requests.
//! Read next: `simulate/world.rs` (the loop), `simulate/node.rs` (the seam to the host's code), `docs/simulate.md`.

mod agenda;
mod arrivals;
mod cast;
mod draw;
mod figures;
mod fleet;
mod flight;
mod html;
mod node;
mod report;
mod server;
#[cfg(test)]
mod tests;
mod traffic;
mod world;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

pub use html::page;
pub use report::{
    BackendReport, Cost, Errors, Homes, Imbalance, Latency, Mark, PolicyReport, Quantile, Report, Series,
};

use crate::{config::Scenario, policy::Engine};
use agenda::{Ns, ns};
use arrivals::ArrivalTimes;
use cast::Actor;
use draw::Draw;
use traffic::Traffic;
use world::World;

/// Guests may use 512 KiB of a thread's stack, the host some more.
const STACK_BYTES: usize = 8 << 20;

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Order {
    /// The scenario, with the seed and the number of requests to be used.
    pub scenario: Scenario,
    /// Policies besides the scenario's: a name and a component, or a name alone, which is a built-in's. One with a name
    /// of the scenario takes its place, under its settings.
    pub policies: Vec<(String, Option<PathBuf>)>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Run {
    /// The same for the same order, to the last bit.
    pub report: Report,
    /// What decisions cost on this machine, for each policy of the report.
    pub costs: Vec<Cost>,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A policy cannot be used.
    #[error("{0}")]
    Policy(String),
    /// The engine or a thread cannot be started.
    #[error("{0}")]
    Machine(String),
}

/// How far a simulation is, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    done: Vec<AtomicU64>,
    requests: u64,
}

impl Progress {
    /// For this order.
    pub fn new(order: &Order) -> Self {
        let added = order.policies.len();
        let most = order.scenario.policies.len() + added;
        Self {
            done: (0..most).map(|_| AtomicU64::new(0)).collect(),
            requests: order.scenario.requests,
        }
    }

    /// Requests simulated so far, over all policies, and how many there will be.
    pub fn so_far(&self, policies: usize) -> (u64, u64) {
        let done = self.done.iter().map(|done| done.load(Relaxed)).sum();
        (done, self.requests * policies as u64)
    }
}

/// The names of the policies that an order compares, in the order of the report.
///
/// # Errors
/// When one of them is unknown.
pub fn names(order: &Order) -> Result<Vec<String>, SimulateError> {
    let policies = cast::cast(&order.scenario, &order.policies)?;
    Ok(policies.iter().map(|policy| policy.name.clone()).collect())
}

/// Simulates every policy of an order, as many at once as there are cores. Takes some microseconds a request.
///
/// # Errors
/// When a policy cannot be used.
pub fn simulate(order: &Order, progress: &Progress) -> Result<Run, SimulateError> {
    let scenario = &order.scenario;
    let engine = Engine::new().map_err(|error| SimulateError::Machine(error.to_string()))?;
    let policies = cast::cast(scenario, &order.policies)?;
    let actors: Result<Vec<Actor>, _> = policies
        .iter()
        .map(|policy| cast::admit(&engine, scenario, policy))
        .collect();
    let (actors, span) = (actors?, span(scenario));
    let results: Vec<Mutex<Option<Played>>> = actors.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(actors.len()) {
            let play_all = || {
                while let Some((place, actor)) = take(&next, &actors) {
                    let played = play(scenario, actor, span, &progress.done[place]);
                    *results[place].lock().unwrap_or_else(PoisonError::into_inner) = Some(played);
                }
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread
                .spawn_scoped(scope, play_all)
                .map_err(|error| SimulateError::Machine(format!("no thread: {error}")))?;
        }
        Ok(())
    })?;
    let mut report = Report::of(scenario, span);
    let mut costs = Vec::new();
    for result in results {
        let played = result.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lost =
            || SimulateError::Machine("a simulation ended without a result, a bug in trimtab".to_owned());
        let (policy, cost) = played.ok_or_else(lost)??;
        report.policies.push(policy);
        costs.push(cost);
    }
    Ok(Run { report, costs })
}

type Played = Result<(PolicyReport, Cost), SimulateError>;

/// The next one that nobody plays yet.
fn take<'a>(next: &AtomicUsize, actors: &'a [Actor]) -> Option<(usize, &'a Actor)> {
    let place = next.fetch_add(1, Relaxed);
    Some((place, actors.get(place)?))
}

fn play(scenario: &Scenario, actor: &Actor, span: Ns, done: &AtomicU64) -> Played {
    let mut world = World::new(scenario, actor, span)?;
    world.run(&|arrived| done.store(arrived, Relaxed));
    Ok(report::of_policy(scenario, &actor.name, &world))
}

/// A request as it will be simulated, for whoever wants to send the same to real backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it arrives, from the beginning.
    pub at: Duration,
    /// How long a backend of factor 1 works on it.
    pub service: Duration,
}

/// All requests of a scenario, in the order of their arrival.
pub fn plan(scenario: &Scenario) -> Vec<Planned> {
    let draw = Draw::new(scenario.seed);
    let traffic = Traffic::new(scenario, draw);
    let times = ArrivalTimes::new(scenario.arrivals, draw);
    let planned = (0..scenario.requests).zip(times).map(|(number, at_s)| Planned {
        at: Duration::from_secs_f64(at_s),
        service: Duration::from_secs_f64(traffic.request(number).service_s),
    });
    planned.collect()
}

/// When the last request arrives: the plots' width.
fn span(scenario: &Scenario) -> Ns {
    let mut times = ArrivalTimes::new(scenario.arrivals, Draw::new(scenario.seed));
    // Never 0: there is at least one request.
    let last = usize::try_from(scenario.requests.saturating_sub(1)).unwrap_or(usize::MAX);
    times.nth(last).map_or(1, ns)
}
