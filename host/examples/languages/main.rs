//! One policy in many languages, side by side: `cargo xtask languages` builds them and runs this on what it built.
//!
//!     cargo run -p trimtab --example languages -- [--decisions N] [--require NAME]... [--admit FILE]... [--fails FILE]...
//!         NAME=FILE...
//!
//! Owns the table: size, what the host needs to run it, its cost, and whether it decides as the native reference does. Fails
//! if a required language is missing or any decides otherwise; if what is to be admitted does not pick; if what is to
//! fail does not say why. It must not know how anything is built.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report for a terminal"
)]

mod reference;

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use trimtab::{
    config,
    policy::{self, Candidate, ChildLimits, Code, Compiler, Engine, Loader, Refusal, Trial, Tried},
};

use reference::{Scene, Session};

/// Backends of the pool on which picks are timed.
const TIMED_BACKENDS: usize = 10;
/// The best of so many batches counts: the machine is shared.
const BATCHES: usize = 50;
const BATCH: u32 = 500;
const INSTANCES: usize = 11;
const SEED: u64 = 2026;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(policy::SUBCOMMAND) {
        return match child_limits() {
            Ok(limits) => policy::compile_here(limits),
            Err(error) => failed(&error),
        };
    }
    match Order::read().and_then(|order| order.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Of the process that compiles, which is this program again.
fn child_limits() -> Result<ChildLimits> {
    let value = |key: &str| {
        std::env::args()
            .find_map(|argument| argument.strip_prefix(key)?.parse().ok())
            .with_context(|| format!("{key}N"))
    };
    Ok(ChildLimits {
        memory_bytes: value("--memory=")?,
        cpu_seconds: value("--cpu-seconds=")?,
    })
}

/// Compiles as a balancer does: in a child process, within the limits that it has unless told otherwise. A language whose
/// components do not fit them could not be used by the guide alone.
struct Compiling {
    loader: Loader,
    runtime: tokio::runtime::Runtime,
}

impl Compiling {
    fn new() -> Result<Self> {
        let engine = Arc::new(Engine::new()?);
        let compiler = Compiler::Child(std::env::current_exe()?);
        Ok(Self {
            loader: Loader::new(engine, compiler, None, 1),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    fn engine(&self) -> &Engine {
        self.loader.engine()
    }

    fn code(&self, wasm: &Arc<[u8]>) -> Result<Arc<Code>> {
        let limits = config::Compile::default();
        Ok(self.runtime.block_on(self.loader.load(wasm, &limits))?)
    }
}

/// What is to be done.
struct Order {
    required: Vec<String>,
    admitted: Vec<PathBuf>,
    failing: Vec<PathBuf>,
    decisions: usize,
    components: Vec<(String, PathBuf)>,
}

impl Order {
    fn read() -> Result<Self> {
        let mut order = Self {
            required: Vec::new(),
            admitted: Vec::new(),
            failing: Vec::new(),
            decisions: 100_000,
            components: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--require" => order.required.push(arguments.next().context("--require NAME")?),
                "--admit" => order
                    .admitted
                    .push(arguments.next().context("--admit FILE")?.into()),
                "--fails" => order
                    .failing
                    .push(arguments.next().context("--fails FILE")?.into()),
                "--decisions" => {
                    order.decisions = arguments.next().context("--decisions N")?.parse()?;
                }
                _ => {
                    let (name, file) = argument.split_once('=').context("expected NAME=FILE")?;
                    order.components.push((name.to_owned(), file.into()));
                }
            }
        }
        Ok(order)
    }

    fn run(&self) -> Result<()> {
        let compiling = Compiling::new()?;
        let profile = if cfg!(debug_assertions) {
            "debug build of the host, so costs are too high; compare them with each other"
        } else {
            "release build of the host"
        };
        println!("{profile}; {} decisions each", self.decisions);
        println!(
            "{:11} {:>9} {:5} {:>8} {:>8} {:>8} {:>8}  {:14}",
            "language", "bytes", "wasi", "compile", "new", "sticky", "least", "as reference"
        );
        let mut wrong: Vec<String> = Vec::new();
        for (name, file) in &self.components {
            match row(&compiling, file, self.decisions) {
                Ok(row) => println!("{name:11} {row}"),
                Err(error) => {
                    println!("{name:11} {error:#}");
                    wrong.push(name.clone());
                }
            }
        }
        let is_missing = |name: &&String| self.components.iter().all(|(known, _)| known != *name);
        wrong.extend(self.required.iter().filter(is_missing).cloned());
        let admitted = self.admitted.iter().map(|file| (file, Failing::Never));
        let failing = self.failing.iter().map(|file| (file, Failing::EveryOther));
        for (file, expected) in admitted.chain(failing) {
            println!("{}", file.display());
            match picks(&compiling, file, expected) {
                Ok(said) => println!("  {said}"),
                Err(error) => {
                    println!("  {error:#}");
                    wrong.push(file.display().to_string());
                }
            }
        }
        ensure!(wrong.is_empty(), "not as they have to be: {}", wrong.join(", "));
        Ok(())
    }
}

/// Everything about one component.
fn row(compiling: &Compiling, file: &Path, decisions: usize) -> Result<String> {
    let wasm = std::fs::read(file).with_context(|| file.display().to_string())?;
    let wasm = wasm.into();
    let code = compiling.code(&wasm)?;
    let (candidate, wasi) = admit(compiling.engine(), &code)?;
    let agreed = reference::compare(&candidate, SEED, decisions)?;
    let compile = format!("{:.0}ms", code.took.as_secs_f64() * 1e3);
    let new = format!("{:.2}ms", instantiate(&candidate)?.as_secs_f64() * 1e3);
    let sticky = format!("{}ns", pick_ns(&candidate, Session::Some)?);
    let least = format!("{}ns", pick_ns(&candidate, Session::None)?);
    Ok(format!(
        "{:>9} {wasi:5} {compile:>8} {new:>8} {sticky:>8} {least:>8}  {agreed} of {decisions}",
        wasm.len()
    ))
}

/// Whether picks fail.
#[derive(Clone, Copy)]
enum Failing {
    Never,
    EveryOther,
}

/// Two picks of a policy; gives what there is to say about them.
fn picks(compiling: &Compiling, file: &Path, expected: Failing) -> Result<String> {
    let code = compiling.code(&std::fs::read(file)?.into())?;
    let (candidate, _) = admit(compiling.engine(), &code)?;
    let mut trial = Trial::new(&candidate, &Scene::timed(3).snapshot())?;
    let mut pick = |number| {
        trial.pick(
            &reference::facts(number),
            &Tried::default(),
            &mut reference::head(None),
        )
    };
    let first = pick(0)?;
    match (expected, pick(1)) {
        (Failing::Never, Ok(second)) => Ok(format!("picks {first:?}, {second:?}")),
        (Failing::Never, Err(fault)) => bail!(fault),
        (Failing::EveryOther, Ok(second)) => bail!("picks {second:?}, and should have failed"),
        (Failing::EveryOther, Err(fault)) => {
            let said = fault.to_string();
            ensure!(said.contains("boom: größe"), "its fault does not say why: {said}");
            Ok(format!("fails as it should: {said}"))
        }
    }
}

/// Without WASI if it can do without, else with an empty one.
fn admit(engine: &Engine, code: &Arc<Code>) -> Result<(Candidate, &'static str)> {
    match Candidate::admit(engine, spec(config::Wasi::None), code) {
        Ok(candidate) => Ok((candidate, "none")),
        Err(Refusal::Wasi(_)) => Ok((
            Candidate::admit(engine, spec(config::Wasi::Empty), code)?,
            "empty",
        )),
        Err(refusal) => bail!(refusal),
    }
}

fn spec(wasi: config::Wasi) -> Arc<config::Policy> {
    Arc::new(config::Policy {
        name: "sticky-sessions".into(),
        tenant: None,
        grants: config::Grants::everything(),
        source: config::PolicySource::Builtin("sticky-sessions".into()),
        memory_bytes: 64 << 20,
        // The longest there is: the machine may be busy.
        deadline: Duration::from_secs(1),
        wasi,
        config_json: "{}".into(),
        line: None,
    })
}

/// The median, `configure` and the first `update` included.
fn instantiate(candidate: &Candidate) -> Result<Duration> {
    let scene = Scene::timed(TIMED_BACKENDS);
    let mut taken = Vec::new();
    for _ in 0..INSTANCES {
        let started = Instant::now();
        black_box(Trial::new(candidate, &scene.snapshot())?);
        taken.push(started.elapsed());
    }
    taken.sort();
    Ok(taken[INSTANCES / 2])
}

/// Nanoseconds of a pick, in the best batch.
fn pick_ns(candidate: &Candidate, session: Session) -> Result<u128> {
    let scene = Scene::timed(TIMED_BACKENDS);
    let mut trial = Trial::new(candidate, &scene.snapshot())?;
    scene.show_load(&trial);
    let mut head = reference::head(session.text());
    let mut best = Duration::MAX;
    for _ in 0..BATCHES {
        let started = Instant::now();
        for number in 0..BATCH {
            let facts = reference::facts(u64::from(number));
            black_box(trial.pick(&facts, &Tried::default(), &mut head)?);
        }
        best = best.min(started.elapsed());
    }
    Ok(best.as_nanos() / u128::from(BATCH))
}
