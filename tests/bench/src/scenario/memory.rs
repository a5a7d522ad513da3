//! S7: what waiting costs, and what many backends cost.

use std::{collections::BTreeMap, fmt::Write, fs, time::Duration};

use anyhow::Result;
use serde_json::json;

use super::{Bench, FEW, Sample, many, sample, tenants, usual};
use crate::{
    child::{self, Priority},
    machine::{self, Memory},
    peer::Setting,
    report::{Plot, Table, median, number},
    role::load::Order,
};

const PEERS: [&str; 6] = [
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
    "caddy-lc",
];
const THOUSAND: [&str; 7] = [
    "floor",
    "floor-spread",
    "trimtab-lc",
    "nginx-lc",
    "haproxy-lc",
    "envoy-lc",
    "pingora-rr",
];
/// As many as there are files for on both sides where a process may have 20 000.
const CONNECTIONS: [usize; 2] = [1000, 9900];
/// Until a balancer that has just started has done what it does then.
const SETTLING: Duration = Duration::from_secs(1);

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    idle(bench)?;
    connections(bench)?;
    backends(bench)
}

/// Resident memory of balancers that do nothing, by what they are set up for.
fn idle(bench: &mut Bench<'_>) -> Result<()> {
    let columns = ["balancer", "3: RSS", "PSS", "1 000: RSS", "1 000: PSS"];
    let mut table = Table::new(
        "S7: memory of an idle balancer in MiB, with 3 and with 1 000 backends",
        &columns,
    );
    let mut raw = Vec::new();
    for name in PEERS {
        let mut held = Vec::new();
        for backends in [FEW.to_vec(), many()] {
            let started = bench.start(&[name], &backends, Priority::Usual)?;
            let Some(peer) = started.first() else { break };
            child::pause(SETTLING);
            held.push(machine::memory(peer.pid()));
        }
        raw.push(json!({ "balancer": name, "held": held }));
        table.rows.extend(idle_row(name, &held));
    }
    let is_wanted = |only: &Vec<String>| only.iter().any(|name| name.starts_with("trimtab"));
    if bench.extent.only.as_ref().is_none_or(is_wanted) {
        let (count, text) = all_policies(bench)?;
        let running = tenants::start(bench, "all-policies", &text, "any.test")?;
        child::pause(SETTLING);
        let held = [machine::memory(running.pid()), Memory::default()];
        raw.push(json!({ "balancer": "trimtab, all built-ins", "held": held }));
        table
            .rows
            .extend(idle_row(&format!("trimtab, all {count} built-ins"), &held));
    }
    table.sort_by("3: RSS");
    table.plot = Some(Plot::cheapest(&["3: RSS", "1 000: RSS"], "MiB resident"));
    bench.tell("s7-idle", &table, raw)
}

fn idle_row(name: &str, held: &[Memory]) -> Option<Vec<String>> {
    let [few, many] = held else { return None };
    let mib = |kib: u64| number(if kib == 0 { f64::NAN } else { kib as f64 / 1024.0 }, 1);
    let mut row = vec![name.to_owned()];
    row.extend([few.rss, few.pss, many.rss, many.pss].map(mib));
    Some(row)
}

/// A pool for each built-in policy, so that each is loaded; how many there are.
fn all_policies(bench: &Bench<'_>) -> Result<(usize, String)> {
    let mut names = Vec::new();
    for entry in fs::read_dir(bench.tools.root.join("plugins/dist"))? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        names.extend(name.strip_suffix(".wasm").map(str::to_owned));
    }
    names.sort();
    let (mut routes, mut pools) = (String::new(), String::new());
    for name in &names {
        writeln!(
            routes,
            "[[listener.route]]\npath_prefix = \"/{name}\"\npool = \"{name}\""
        )?;
        writeln!(
            pools,
            "[pool.{name}]\npolicy = \"{name}\"\nbackends = {}",
            tenants::BACKENDS
        )?;
    }
    let rest = "[[listener.route]]\npool = \"least-connections\"\n";
    Ok((names.len(), format!("{}{routes}{rest}{pools}", tenants::HEAD)))
}

fn connections(bench: &mut Bench<'_>) -> Result<()> {
    let columns = [
        "balancer",
        "1 000: KiB each",
        "9 900: KiB each",
        "RSS with 9 900, MiB",
        "alive",
        "failed",
    ];
    let mut table = Table::new(
        "S7: memory of each idle kept-alive connection after one request",
        &columns,
    );
    let mut raw = Vec::new();
    for name in PEERS {
        let mut row = vec![name.to_owned()];
        let (mut alive, mut failed, mut rss) = (0, 0, 0);
        for count in CONNECTIONS {
            let started = bench.start(&[name], &FEW, Priority::Usual)?;
            let Some(peer) = started.first() else { break };
            child::pause(SETTLING);
            let idle = machine::memory(peer.pid());
            let mut held = Memory::default();
            let order = Order {
                connections: count,
                seconds: 30.0,
                warm_up: 0.0,
                hold: Some(2.0),
                ..usual(peer, 0.0)
            };
            let window = child::load(&order, Priority::Usual, None, || {
                child::pause(SETTLING);
                held = machine::memory(peer.pid());
            })?;
            row.push(number(each(idle, held, count), 1));
            rss = held.rss;
            alive += window.figures.alive;
            failed += window.figures.failed();
            raw.push(json!({ "balancer": name, "connections": count, "idle": idle, "held": held }));
        }
        if row.len() == 1 + CONNECTIONS.len() {
            row.extend([
                number(rss as f64 / 1024.0, 1),
                alive.to_string(),
                failed.to_string(),
            ]);
            table.rows.push(row);
        }
    }
    table.sort_by("9 900: KiB each");
    let bars = ["1 000: KiB each", "9 900: KiB each"];
    table.plot = Some(Plot::cheapest(&bars, "KiB a connection"));
    table.notes.push(
        "Each: growth of PSS by connection, pooled connections to backends included; kernel memory not. nginx has its \
         table of connections from the start, so it is in its idle memory instead."
            .to_owned(),
    );
    bench.tell("s7-connections", &table, raw)
}

/// KiB of one connection; without a look at them all (they were not all served in time), nothing.
fn each(idle: Memory, held: Memory, count: usize) -> f64 {
    if held.pss == 0 {
        return f64::NAN;
    }
    held.pss.saturating_sub(idle.pss) as f64 / count as f64
}

/// Two of each balancer by turns, one with three backends and one with a thousand.
fn backends(bench: &mut Bench<'_>) -> Result<()> {
    let seconds = bench.extent.seconds;
    let few = bench.start(&THOUSAND, &FEW, Priority::Usual)?;
    let thousand = many();
    let setting = Setting {
        copy: 1,
        ..Setting::usual(&thousand, Priority::Usual)
    };
    let many = bench.start_as(&THOUSAND, &setting)?;
    let mut rounds: BTreeMap<&'static str, Vec<[Sample; 2]>> = BTreeMap::new();
    for round in 0..bench.extent.rounds {
        for place in 0..few.len() {
            let name = few[(place + round) % few.len()].peer.name;
            let both = [&few, &many].map(|of| of.iter().find(|peer| peer.peer.name == name));
            let [Some(few), Some(many)] = both else { continue };
            let ask = |peer, warm_up| {
                // Longer, so that each of the thousand has its connection before the window.
                let order = Order {
                    warm_up,
                    ..usual(peer, seconds)
                };
                child::load(&order, Priority::Usual, Some(peer.pid()), || {}).map(sample)
            };
            let pair = if round % 2 == 0 {
                let few = ask(few, 0.4)?;
                [few, ask(many, 1.2)?]
            } else {
                let many = ask(many, 1.2)?;
                [ask(few, 0.4)?, many]
            };
            rounds.entry(name).or_default().push(pair);
        }
        eprintln!("  round {} of {}", round + 1, bench.extent.rounds);
    }
    bench.tell("s7-backends", &thousand_table(&rounds), json!(rounds))
}

fn thousand_table(rounds: &BTreeMap<&'static str, Vec<[Sample; 2]>>) -> Table {
    let columns = [
        "balancer",
        "CPU us/request, 3",
        "CPU us/request, 1 000",
        "adds us",
        "min",
        "max",
        "requests/s, 1 000",
        "failed",
    ];
    let title = "S7: the load of S1 over 3 and over 1 000 backends, by turns";
    let mut table = Table::new(title, &columns);
    for (name, pairs) in rounds {
        let cpu = |which: usize| median(pairs.iter().map(|pair| pair[which].cpu_us_per_request));
        let adds = || {
            pairs
                .iter()
                .map(|[few, many]| many.cpu_us_per_request - few.cpu_us_per_request)
        };
        let rate = median(
            pairs
                .iter()
                .map(|[_, many]| many.figures.ok as f64 / many.figures.seconds),
        );
        let failed: u64 = pairs.iter().flatten().map(|sample| sample.figures.failed()).sum();
        table.rows.push(vec![
            (*name).to_owned(),
            number(cpu(0), 2),
            number(cpu(1), 2),
            number(median(adds()), 2),
            number(adds().fold(f64::INFINITY, f64::min), 2),
            number(adds().fold(f64::NEG_INFINITY, f64::max), 2),
            number(rate, 0),
            failed.to_string(),
        ]);
    }
    table.sort_by("CPU us/request, 1 000");
    let bars = ["CPU us/request, 3", "CPU us/request, 1 000"];
    table.plot = Some(Plot::cheapest(&bars, "CPU us a request"));
    table.notes.push(
        "\"Adds\" is the median of the rounds' differences. More than the decision: a thousand connections take turns, and \
         trimtab checks a thousand backends' health. The decision alone: cargo bench -p trimtab --bench pick. The floor \
         has a connection to a backend for each client, so 64 of them; floor-spread sends each request to the next backend, over \
         connections that stay, and so is what any balancer pays for turns."
            .to_owned(),
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::load::Figures;

    fn memory(pss: u64) -> Memory {
        Memory { rss: 2 * pss, pss }
    }

    fn took(cpu_us_per_request: f64) -> Sample {
        Sample {
            figures: Figures {
                ok: 10,
                seconds: 1.0,
                ..Figures::default()
            },
            cpu_seconds: 0.0,
            cpu_us_per_request,
            own_share: 0.0,
            other_share: 0.0,
        }
    }

    #[test]
    fn a_connection_costs_what_memory_grew_by() {
        assert_eq!(each(memory(1000), memory(5000), 1000), 4.0);
        assert_eq!(each(memory(1000), memory(900), 1000), 0.0);
    }

    #[test]
    fn connections_that_nobody_looked_at_cost_nothing_known() {
        assert!(each(memory(1000), Memory::default(), 1000).is_nan());
    }

    #[test]
    fn idle_memory_is_told_in_mib() {
        let row = idle_row("a", &[memory(1024), memory(2048)]).unwrap();
        assert_eq!(row, ["a", "2.0", "1.0", "4.0", "2.0"]);
        assert_eq!(idle_row("a", &[memory(1024)]), None);
    }

    #[test]
    fn what_a_thousand_backends_add_is_the_middle_of_differences() {
        // The medians, 11 and 15, are of different rounds.
        let pairs = vec![
            [took(10.0), took(15.0)],
            [took(11.0), took(12.0)],
            [took(20.0), took(22.0)],
        ];
        let table = thousand_table(&BTreeMap::from([("a", pairs)]));
        assert_eq!(
            table.rows[0][..6],
            ["a", "11.00", "15.00", "2.00", "1.00", "5.00"].map(str::to_owned)
        );
    }
}
