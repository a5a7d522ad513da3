//! What a pick costs: host, guest and back, by exactly what the data path calls (`Seat::sync`, `Seat::decide`).
//!
//! Measures every built-in policy at 3, 100, 1000 and 10 000 backends with live load on them, a tenth of the larger pools
//! unusable, and a request with ordinary fields. Each pick also begins a request and ends an older one, as the proxy
//! would, so that loads move. For comparison: a component that answers 0 at once, the native build of each policy (its
//! imports answered by the SDK's test host), each import, a new instance, and an update. Ends with a table against the goals, with
//! what a pick costs when a thousand policies of a thousand components take turns, and how long one that loops keeps its
//! worker. It never fails, since a busy machine is no regression.
//!
//! `cargo bench --bench pick` takes about two minutes; Criterion's own options work.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints and may fail"
)]

mod component;
mod stage;
mod table;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Bencher, Criterion};
use trimtab::{
    clock,
    config::{self, BUILTIN_POLICIES},
    policy::{Candidate, Chooser, Engine, Instance, Reason, Trial, builtin_component},
};
use trimtab_policy::testing::{Dice, Native, with_host};

use stage::Stage;
use table::{Row, Table};

/// Parts of a sample.
const PARTS: u64 = 50;
/// Looping picks that are timed.
const CUT_OFFS: usize = 200;
/// Policies of their own that take turns, as tenants' do.
const TENANTS: usize = 1000;
/// What they are.
const KINDS: [&str; 4] = [
    "round-robin",
    "least-connections",
    "random-two-choices",
    "consistent-hash",
];
const SIZES: [usize; 4] = [3, 100, 1000, 10_000];
/// Of the pool whose imports are called.
const IMPORTS_SIZE: usize = 100;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .sample_size(10)
        .configure_from_args();
    let engine = Engine::new().unwrap();
    let mut table = Table::default();
    let noop = component::noop();
    table
        .rows
        .push(policy(&mut criterion, &engine, "no-op", &noop, None));
    for name in BUILTIN_POLICIES {
        let component = builtin_component(name).unwrap();
        table.rows.push(policy(
            &mut criterion,
            &engine,
            name,
            component,
            Some(native(name)),
        ));
    }
    criterion.final_summary();
    println!("{table}");
    imports(&engine);
    take_turns(&engine);
    cut_off(&engine);
}

/// What each import costs: picks that call it, less picks that call nothing.
fn imports(engine: &Engine) {
    let pick = |component: &[u8]| {
        let candidate = Candidate::compile(engine, stage::spec("import"), component).unwrap();
        turns(&mut [Stage::new(&Arc::new(candidate), IMPORTS_SIZE)])
    };
    let nothing = pick(&component::noop());
    println!("\nImports, ns a call, in a pool of {IMPORTS_SIZE} (a pick that calls none: {nothing:.0})\n");
    println!("| {:27} | {:>5} |\n|{:-<29}|{:->7}|", "import", "ns", "", ":");
    for import in &component::IMPORTS {
        let call = (pick(&component::calling(import)) - nothing) / component::CALLS as f64;
        println!(
            "| {:27} | {call:>5.0} |",
            format!("{}.{}", import.interface, import.function)
        );
    }
    println!();
}

/// A pick by each of so many instances in turn, each of a component of its own, so that no code and no memory is shared;
/// beside it, as many picks by one of each kind.
fn take_turns(engine: &Engine) {
    let stage = |number: usize| {
        let kind = KINDS[number % KINDS.len()];
        // The same component with another digest, and so with code of its own: a custom section with a number in it.
        let mut component = builtin_component(kind).unwrap().to_vec();
        component.extend([0, 9, 4]);
        component.extend(b"mark");
        component.extend(u32::try_from(number).unwrap().to_le_bytes());
        let candidate = Candidate::compile(engine, stage::spec(kind), &component).unwrap();
        Stage::new(&Arc::new(candidate), 3)
    };
    let mut stages: Vec<Stage> = (0..TENANTS).map(stage).collect();
    let all = turns(&mut stages);
    let few = turns(&mut stages[..KINDS.len()]);
    println!(
        "a pick with {TENANTS} policies in turn: {all:.0} ns; with {}: {few:.0} ns",
        KINDS.len()
    );
}

/// Nanoseconds for a pick, the median of some rounds.
fn turns(stages: &mut [Stage]) -> f64 {
    const PICKS: usize = 20_000;
    let mut nanos: Vec<f64> = (0..PARTS)
        .map(|_| {
            let started = Instant::now();
            for pick in 0..PICKS {
                let place = pick % stages.len();
                stages[place].run(1);
            }
            started.elapsed().as_nanos() as f64 / PICKS as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

/// How long a pick that never returns keeps its worker, with the default deadline of 1 ms.
fn cut_off(engine: &Engine) {
    let spec = config::Policy {
        deadline: Duration::from_millis(1),
        // The first pick is the trial before service.
        config_json: r#"{"fault":"spin","every":2}"#.into(),
        ..(*stage::spec("chaos")).clone()
    };
    let component = builtin_component("chaos").unwrap();
    let candidate = Arc::new(Candidate::compile(engine, Arc::new(spec), component).unwrap());
    let cut = |_| {
        let mut stage = Stage::new(&candidate, 3);
        let started = Instant::now();
        let chooser = stage.decide().chooser;
        assert!(matches!(chooser, Chooser::Chain(Reason::Fault, _)));
        started.elapsed().as_secs_f64() * 1e3
    };
    let mut taken: Vec<f64> = (0..CUT_OFFS).map(cut).collect();
    taken.sort_by(f64::total_cmp);
    let (median, last) = (taken[CUT_OFFS / 2], taken[CUT_OFFS - 1]);
    println!(
        "a looping pick is cut off after {:.2} ms at least, {median:.2} in the middle, {:.2} at the 95th percentile, {last:.2} at most",
        taken[0],
        taken[CUT_OFFS * 95 / 100]
    );
}

/// The policy's native build.
fn native(name: &str) -> fn() -> Box<dyn Native> {
    match name {
        "round-robin" => round_robin::native,
        "weighted-round-robin" => weighted_round_robin::native,
        "least-connections" => least_connections::native,
        "least-response-time" => least_response_time::native,
        "least-bandwidth" => least_bandwidth::native,
        "ip-hash" => ip_hash::native,
        "consistent-hash" => consistent_hash::native,
        "content-hash" => content_hash::native,
        "random-two-choices" => random_two_choices::native,
        "peak-ewma" => peak_ewma::native,
        "chaos" => chaos::native,
        other => panic!("{other} has no native build here"),
    }
}

/// Everything about one policy.
fn policy(
    criterion: &mut Criterion,
    engine: &Engine,
    name: &str,
    component: &[u8],
    native: Option<fn() -> Box<dyn Native>>,
) -> Row {
    let candidate = Arc::new(Candidate::compile(engine, stage::spec(name), component).unwrap());
    let mut row = Row {
        name: name.to_owned(),
        ..Row::default()
    };
    for (column, size) in SIZES.into_iter().enumerate() {
        let mut stage = Stage::new(&candidate, size);
        row.pick_ns[column] = measure(criterion, &format!("pick/{name}/{size}"), |bencher, nanos| {
            time(bencher, nanos, |picks| stage.run(picks));
        });
    }
    if let Some(native) = native {
        for (column, size) in SIZES.into_iter().enumerate() {
            let mut run = native_picks(native(), size);
            row.native_ns[column] = measure(criterion, &format!("native/{name}/{size}"), |bencher, nanos| {
                time(bencher, nanos, &mut run);
            });
        }
    }
    let small = stage::pool(3);
    row.build_ns = measure(criterion, &format!("build/{name}/3"), |bencher, nanos| {
        time(bencher, nanos, |times| {
            for _ in 0..times {
                black_box(Instance::build(&candidate, &small).unwrap());
            }
        });
    });
    let large = stage::pool(1000);
    let mut trial = Trial::new(&candidate, &large.snapshot()).unwrap();
    row.update_ns = measure(criterion, &format!("update/{name}/1000"), |bencher, nanos| {
        time(bencher, nanos, |times| {
            for _ in 0..times {
                stage::flip(&large);
                trial.update(&large.snapshot()).unwrap();
            }
        });
    });
    row
}

/// Runs one benchmark and gives the median of its parts, which Criterion keeps to itself.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    mut run: impl FnMut(&mut Bencher<'_>, &mut Vec<f64>),
) -> f64 {
    let mut nanos = Vec::new();
    criterion.bench_function(name, |bencher| {
        // Called for warming up first, which does not count.
        nanos.clear();
        run(bencher, &mut nanos);
    });
    nanos.sort_by(f64::total_cmp);
    nanos.get(nanos.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Times `run` so many times as Criterion wants, and notes nanoseconds for one. Each sample is noted in parts, so that
/// the median stays true while other programs take the core now and then.
fn time(bencher: &mut Bencher<'_>, nanos: &mut Vec<f64>, mut run: impl FnMut(u64)) {
    bencher.iter_custom(|times| {
        let part = times.div_ceil(PARTS);
        let mut total = Duration::ZERO;
        for done in (0..times).step_by(part as usize) {
            let count = part.min(times - done);
            let started = Instant::now();
            run(count);
            let elapsed = started.elapsed();
            nanos.push(elapsed.as_nanos() as f64 / count as f64);
            total += elapsed;
        }
        total
    });
}

/// A native policy in service.
fn native_picks(mut policy: Box<dyn Native>, size: usize) -> impl FnMut(u64) {
    let mut dice = Dice::new(1);
    let name = |index: usize| format!("10.0.{}.{}:80", index / 256, index % 256);
    let names: Vec<String> = (0..size).map(name).collect();
    let down = names.iter().skip(1).step_by(10).take(size / 10);
    let pool = down.fold(trimtab_policy::testing::pool(names.clone()), |pool, name| {
        pool.down(name)
    });
    policy.configure("{}").unwrap();
    policy.update(pool.snapshot());
    with_host(|host| {
        host.active = (0..size).map(|_| (dice.roll() % 8) as u32).collect();
        host.latency_us = (0..size).map(|_| 500 + (dice.roll() % 5000) as u32).collect();
        host.throughput = (0..size).map(|_| dice.roll() % 1_000_000).collect();
        host.path = "/static/app.js".to_owned();
    });
    move |picks| {
        let now_us = clock::now_us();
        for _ in 0..picks {
            let facts = trimtab_policy::Facts {
                now_us,
                ..dice.facts()
            };
            black_box(policy.pick(facts));
        }
    }
}
