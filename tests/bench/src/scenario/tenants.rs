//! What tenants do to others: hostile ones, and a thousand of them.

use std::{
    fmt::Write,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Bench, Sample, middle, sample};
use crate::{
    admin,
    child::{self, Loading, Priority, Running},
    guest, machine,
    report::{Table, number},
    role::load::{Figures, Order},
};

pub(super) const PORT: u16 = 8400;
pub(super) const ADMIN: u16 = 8401;
pub(super) const BACKENDS: &str = "[\"127.0.0.1:9101\", \"127.0.0.1:9102\", \"127.0.0.1:9103\"]";
pub(super) const HEAD: &str =
    "workers = 1\n[admin]\nlisten = \"127.0.0.1:8401\"\n[[listener]]\nlisten = \"127.0.0.1:8400\"\n";
/// Of the healthy tenant, requests a second; the hostile ones together send ten times as many.
const HEALTHY: f64 = 400.0;

pub(super) fn start(bench: &Bench<'_>, name: &str, text: &str, host: &str) -> Result<Running> {
    let folder = bench.tools.folder.join(name);
    fs::create_dir_all(&folder)?;
    let file = folder.join("trimtab.toml");
    fs::write(&file, text)?;
    bench.prioritise(Priority::RealTime)?;
    let command = [
        bench.tools.trimtab.display().to_string(),
        "run".to_owned(),
        file.display().to_string(),
    ];
    let log = folder.join("log");
    let environment = [("RUST_LOG".to_owned(), "error".to_owned())];
    // Not in real time, unlike the load: its threads would take 100 ms slices from each other.
    let mut running = Running::start(&command, ("0", Priority::Usual), &environment, &log)?;
    child::wait_for_answer(PORT, host, &mut running, Duration::from_secs(400))
        .with_context(|| format!("see {}", log.display()))?;
    Ok(running)
}

pub(super) fn order(host: &str, rate: f64, seconds: f64) -> Order {
    Order {
        port: PORT,
        connections: 32,
        seconds,
        warm_up: 1.0,
        rate: Some(rate),
        path: "/1024".to_owned(),
        host: host.to_owned(),
        upload: 0,
        close: false,
        keys: 1024,
        hold: None,
        slice: None,
    }
}

/// One healthy tenant; three that loop, hoard and trap.
fn tenants(guests: Option<&Path>) -> String {
    let mut text = HEAD.to_owned();
    for name in ["healthy", "loop", "hoard", "trap"] {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[listener.route]]\nhost = \"{name}.test\"\npool = \"{name}\"\n"
        );
    }
    for name in ["healthy", "loop", "hoard", "trap"] {
        let policy = if name == "healthy" || guests.is_none() {
            "least-connections"
        } else {
            name
        };
        let _ = write!(
            text,
            "[tenant.{name}]\nhosts = [\"{name}.test\"]\ncpu = 10\nmemory = \"64MiB\"\n\
             [pool.{name}]\ntenant = \"{name}\"\npolicy = \"{policy}\"\nbackends = {BACKENDS}\n"
        );
    }
    if let Some(dist) = guests {
        for (name, fault) in [("loop", "spin"), ("hoard", "memory"), ("trap", "trap")] {
            let _ = write!(
                text,
                "[policy.{name}]\ntenant = \"{name}\"\ncomponent = \"{}\"\n\
                 config = {{ fault = \"{fault}\", every = 3 }}\n",
                dist.join("chaos.wasm").display()
            );
        }
    }
    text
}

pub(super) fn hostile(bench: &mut Bench<'_>) -> Result<()> {
    let seconds = bench.extent.seconds * 2.0;
    let dist = bench.tools.root.join("plugins/dist");
    let phases = [
        "solo",
        "beside three like itself",
        "beside loops, hoards and traps",
    ];
    let mut healthy: Vec<Vec<Sample>> = phases.iter().map(|_| Vec::new()).collect();
    let mut others: Vec<Vec<Figures>> = phases.iter().map(|_| Vec::new()).collect();
    for round in 0..bench.extent.rounds {
        for place in 0..phases.len() {
            let phase = (place + round) % phases.len();
            let guests = (phase == 2).then_some(&*dist);
            let running = start(bench, "tenants", &tenants(guests), "healthy.test")?;
            let neighbours = ["loop.test", "hoard.test", "trap.test"]
                .iter()
                .filter(|_| phase > 0);
            let neighbours: Result<Vec<Loading>> = neighbours
                .map(|host| Loading::start(&order(host, HEALTHY * 10.0 / 3.0, seconds), Priority::RealTime))
                .collect();
            let window = child::load(
                &order("healthy.test", HEALTHY, seconds),
                Priority::RealTime,
                Some(running.pid()),
                || {},
            )?;
            healthy[phase].push(sample(window));
            for neighbour in neighbours? {
                others[phase].push(neighbour.watch(None, || {})?.figures);
            }
        }
        eprintln!("  round {} of {}", round + 1, bench.extent.rounds);
    }
    let table = hostile_table(&phases, &healthy, &others);
    bench.tell("tenants", &table, json!({ "healthy": healthy, "others": others }))
}

fn hostile_table(phases: &[&str], healthy: &[Vec<Sample>], others: &[Vec<Figures>]) -> Table {
    let columns = [
        "healthy tenant",
        "p50 us",
        "p99 us",
        "x solo",
        "p99.9 us",
        "failed",
        "of others: good",
        "failed",
    ];
    let title = format!(
        "A healthy tenant ({HEALTHY} requests/s) beside hostile ones (ten times as many, every 3rd pick)"
    );
    let mut table = Table::new(title, &columns);
    let solo = middle(&healthy[0], |sample| sample.figures.p99_us);
    for (phase, name) in phases.iter().enumerate() {
        let of = &healthy[phase];
        let p99 = middle(of, |sample| sample.figures.p99_us);
        let failed = |figures: &Figures| figures.failed() + figures.unsent;
        table.rows.push(vec![
            (*name).to_owned(),
            number(middle(of, |sample| sample.figures.p50_us), 0),
            number(p99, 0),
            number(p99 / solo, 2),
            number(middle(of, |sample| sample.figures.p999_us), 0),
            of.iter()
                .map(|sample| failed(&sample.figures))
                .sum::<u64>()
                .to_string(),
            others[phase]
                .iter()
                .map(|figures| figures.ok)
                .sum::<u64>()
                .to_string(),
            others[phase].iter().map(failed).sum::<u64>().to_string(),
        ]);
    }
    table
}

const TENANTS: usize = 1000;

pub(super) fn thousand(bench: &mut Bench<'_>) -> Result<()> {
    let folder = bench.tools.folder.join("thousand");
    let state = folder.join("state");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder)?;
    let text = thousand_tenants(bench, &folder, &state)?;
    let mut table = Table::new(
        format!("{TENANTS} tenants, a component of its own each"),
        &["", "value"],
    );
    let mut row = |name: &str, value: String| table.rows.push(vec![name.to_owned(), value]);
    for what in ["start, nothing compiled, s", "start, compiled before, s"] {
        let begin = Instant::now();
        let running = start(bench, "thousand", &text, "t0.test")?;
        let took = begin.elapsed().as_secs_f64();
        row(what, number(took, 2));
        child::pause(Duration::from_secs(1));
        let memory = machine::memory(running.pid());
        row("resident after it, MiB", number(memory.rss as f64 / 1024.0, 1));
        if what.contains("before") {
            let seconds = bench.extent.seconds;
            bench.prioritise(Priority::Usual)?;
            let one = Order {
                rate: None,
                ..order("t7.test", 0.0, seconds)
            };
            let all = Order {
                keys: TENANTS,
                ..Order {
                    host: "t{key}.test".to_owned(),
                    ..one.clone()
                }
            };
            let of_one = sample(child::load(&one, Priority::Usual, Some(running.pid()), || {})?);
            let of_all = sample(child::load(&all, Priority::Usual, Some(running.pid()), || {})?);
            row(
                "one tenant asked, CPU us a request",
                number(of_one.cpu_us_per_request, 2),
            );
            row(
                "all in turn, CPU us a request",
                number(of_all.cpu_us_per_request, 2),
            );
            row(
                "failed",
                (of_one.figures.failed() + of_all.figures.failed()).to_string(),
            );
            row(
                "picks by policies",
                number(
                    admin::metric(ADMIN, "trimtab_policy_decisions_total").unwrap_or(f64::NAN),
                    0,
                ),
            );
            let memory = machine::memory(running.pid());
            row(
                "resident after all served, MiB",
                number(memory.rss as f64 / 1024.0, 1),
            );
        }
    }
    let raw = json!(table.rows);
    bench.tell("thousand", &table, raw)
}

fn thousand_tenants(bench: &Bench<'_>, folder: &Path, state: &Path) -> Result<String> {
    const KINDS: [&str; 4] = [
        "round-robin",
        "least-connections",
        "random-two-choices",
        "consistent-hash",
    ];
    let mut text = HEAD.to_owned();
    let mut rest = format!("[state]\ndirectory = \"{}\"\n", state.display());
    for number in 0..TENANTS {
        let kind = KINDS[number % KINDS.len()];
        let component = fs::read(bench.tools.root.join(format!("plugins/dist/{kind}.wasm")))?;
        let file = folder.join(format!("{number}.wasm"));
        fs::write(&file, guest::marked(&component, u32::try_from(number)?))?;
        write!(
            text,
            "[[listener.route]]\nhost = \"t{number}.test\"\npool = \"p{number}\"\n"
        )?;
        write!(
            rest,
            "[tenant.t{number}]\nhosts = [\"t{number}.test\"]\n\
             [policy.c{number}]\ntenant = \"t{number}\"\ncomponent = \"{}\"\n\
             [pool.p{number}]\ntenant = \"t{number}\"\npolicy = \"c{number}\"\nbackends = {BACKENDS}\n",
            file.display()
        )?;
    }
    Ok(text + &rest)
}
