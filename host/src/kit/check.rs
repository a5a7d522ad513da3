//! What a component is: the report of an admission, with what it costs and whether it repeats itself.
//!
//! Owns the measurements. Times are of this machine and this moment; instructions are the same everywhere.

use serde::Serialize;

use super::{
    KitError, Subject,
    bench::{SIZES, pick_ns},
    lab::{Lab, Stand},
    rules::corpus,
    scene::{Ask, Scene, Spot},
};
use crate::policy::{Candidate, Engine, Report};

/// Picks between the two readings of the memory.
const PICKS: u64 = 10_000;
/// Scenes whose answers are compared.
const SCENES: u64 = 20;
/// Picks at each size whose instructions are counted.
const COUNTED: u64 = 200;

/// What a component turned out to be.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The policy's name.
    pub name: String,
    /// Where the component is; `None` for a built-in.
    pub component: Option<String>,
    /// Size of the file.
    pub bytes: usize,
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// Size of the machine code.
    pub code_bytes: usize,
    /// How long compiling took, in milliseconds.
    pub compile_ms: u64,
    /// The interfaces that it uses.
    pub imports: Vec<String>,
    /// Whether it needs the empty WASI context, which makes it impossible to replay.
    pub wasi: bool,
    /// Whether it is told how attempts end.
    pub observes: bool,
    /// Whether it keeps state for its next version.
    pub keeps_state: bool,
    /// Memory and tables after the first update, in a pool of 100, ...
    pub memory_start_bytes: usize,
    /// ... and after 10,000 picks.
    pub memory_bytes: usize,
    /// Its limit.
    pub memory_limit_bytes: usize,
    /// Whether two instances answer the same calls alike.
    pub deterministic: bool,
    /// By size of the pool.
    pub costs: Vec<Cost>,
    /// What a pick may take in service, in nanoseconds.
    pub deadline_ns: u64,
    /// What a balancer would trip over, in words.
    pub problems: Vec<String>,
}

/// What it costs in a pool of this size.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Backends of the pool.
    pub backends: usize,
    /// The median pick, in nanoseconds; 0 if it fails.
    pub pick_ns: f64,
    /// Instructions of the median pick.
    pub pick_work: u64,
    /// Instructions of the most expensive pick, over idle, loaded and half-dead pools and retries.
    pub worst_pick_work: u64,
    /// The situation of that pick.
    pub worst_in: &'static str,
    /// Instructions of an update.
    pub update_work: u64,
}

/// Compiles a policy, tries it, and reports.
///
/// # Errors
/// Why no balancer would take it.
pub fn check(subject: &Subject) -> Result<CheckReport, KitError> {
    let engine = Engine::new().map_err(|error| KitError(format!("{error:#}")))?;
    let candidate = Candidate::compile(&engine, subject.spec.clone(), &subject.wasm);
    let candidate = candidate.map_err(|refusal| KitError(refusal.to_string()))?;
    let about = Report::of(&engine, &candidate.code).map_err(|refusal| KitError(refusal.to_string()))?;
    let lab = Lab::open(subject)?;
    let start = lab.stand(&loaded(100)).map_err(KitError)?;
    let memory_start_bytes = start.trial.memory_bytes();
    let mut problems = Vec::new();
    let memory_bytes = memory_after(start).unwrap_or_else(|fault| {
        problems.push(fault);
        memory_start_bytes
    });
    let mut costs = Vec::new();
    for size in SIZES {
        match cost(&lab, size) {
            Ok(cost) => costs.push(Cost {
                pick_ns: pick_ns(&candidate, size).unwrap_or_default(),
                ..cost
            }),
            Err(fault) => problems.push(format!("with {size} backends: {fault}")),
        }
    }
    let deterministic = repeats(&lab, &mut problems);
    problems.dedup();
    Ok(CheckReport {
        name: subject.name.clone(),
        component: subject.component.as_ref().map(|path| path.display().to_string()),
        bytes: subject.wasm.len(),
        digest: candidate.digest.to_string(),
        code_bytes: candidate.code.code_bytes,
        compile_ms: candidate.code.took.as_millis() as u64,
        wasi: about.imports.iter().any(|name| name.starts_with("wasi:")),
        imports: about.imports,
        observes: candidate.observes(),
        keeps_state: candidate.keeps_state(),
        memory_start_bytes,
        memory_bytes,
        memory_limit_bytes: subject.spec.memory_bytes,
        deterministic,
        costs,
        deadline_ns: subject.deadline.as_nanos() as u64,
        problems,
    })
}

/// What a balancer would say to a component: one line for a person.
///
/// # Errors
/// Why no balancer would take it.
pub fn admission(subject: &Subject) -> Result<String, KitError> {
    let engine = Engine::new().map_err(|error| KitError(format!("{error:#}")))?;
    let candidate = Candidate::compile(&engine, subject.spec.clone(), &subject.wasm);
    let candidate = candidate.map_err(|refusal| KitError(refusal.to_string()))?;
    let optional = [
        (", observer", candidate.observes()),
        (", stateful", candidate.keeps_state()),
    ];
    let optional: String = optional
        .iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| *name)
        .collect();
    Ok(format!(
        "admitted as {}: exports picker{optional}; compiled in {} ms",
        candidate.version,
        candidate.code.took.as_millis()
    ))
}

impl CheckReport {
    /// Whether a balancer could rely on it.
    pub fn is_fit(&self) -> bool {
        self.problems.is_empty() && self.deterministic
    }
}

fn memory_after(mut stand: Stand<'_>) -> Result<usize, String> {
    for number in 0..PICKS {
        stand.ask(&ask(number))?;
    }
    Ok(stand.trial.memory_bytes())
}

/// Two instances, the same calls.
fn repeats(lab: &Lab, problems: &mut Vec<String>) -> bool {
    for seed in 0..SCENES {
        let scene = corpus(seed);
        let play = || lab.play(&scene, |_, _| Ok(()));
        match (play(), play()) {
            (Ok(one), Ok(other)) if one == other => {}
            (Ok(_), Ok(_)) => {
                problems.push("two instances answer the same calls differently".to_owned());
                return false;
            }
            (Err(fault), _) | (_, Err(fault)) => {
                problems.push(fault);
                return true;
            }
        }
    }
    true
}

/// Instructions, by situation.
fn cost(lab: &Lab, size: usize) -> Result<Cost, String> {
    let size = size as u32;
    let idle = Scene::of((0..size).map(Spot::plain).collect());
    let mut half = loaded(size);
    half.spots
        .iter_mut()
        .step_by(2)
        .for_each(|spot| spot.state = crate::config::author::BackendState::Down);
    let (mut worst, mut update_work, mut median) = ((0, "idle"), 0, 0);
    for (name, scene, tried) in [
        ("idle", idle, 0),
        ("loaded", loaded(size), 0),
        ("half of it down", half, 0),
        ("a retry", loaded(size), 5),
    ] {
        let mut stand = lab.stand(&scene)?;
        let mut counts = Vec::new();
        for number in 0..COUNTED {
            let ask = Ask {
                tried: (0..tried.min(size - 1)).collect(),
                ..ask(number)
            };
            counts.push(stand.work_of(|stand| stand.ask(&ask))?);
        }
        counts.sort_unstable();
        if name == "loaded" {
            median = counts[counts.len() / 2];
        }
        worst = worst.max((counts[counts.len() - 1], name));
        let first = scene.spots.first().map_or(0, |spot| spot.number);
        let step = super::scene::Step::Weight(first, 2);
        update_work = update_work.max(stand.work_of(|stand| stand.take(&step).map(|_| ()))?);
    }
    Ok(Cost {
        backends: size as usize,
        pick_ns: 0.0,
        pick_work: median,
        worst_pick_work: worst.0,
        worst_in: worst.1,
        update_work,
    })
}

fn ask(number: u64) -> Ask {
    Ask {
        user: number % 1000,
        noise: number,
        tried: Vec::new(),
    }
}

/// A pool in which every backend has a load and a weight of its own.
pub(super) fn loaded(size: u32) -> Scene {
    let spots = (0..size).map(|number| {
        let mut spot = Spot::plain(number);
        let dice = super::lab::mix(number.into());
        spot.weight = 1 + (dice % 4) as u32;
        spot.figures = crate::pool::Figures {
            active: (dice >> 8) as u32 % 8,
            latency_us: 500 + (dice >> 16) as u32 % 5000,
            throughput: (dice >> 32) % 1_000_000,
        };
        spot
    });
    Scene::of(spots.collect())
}
