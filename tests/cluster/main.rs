//! A pair and its witness in network namespaces: real programs, a real bridge, one address that moves, and every fault that a
//! network and a machine have. Run as root; what is missing is installed from the system's packages.
//!
//! The judge are two clients that each know only one node's Ethernet address, so they see who *would* answer, whatever the network
//! believes. The address may change hands as often as a scenario says, and not once more; two nodes that answer at once
//! would show as a row of changes. Times are printed and not judged: `TRIMTAB_CLUSTER_RUNS` (3, and 1 of
//! keepalived and where there are no tables) says how often each scenario runs, and `TRIMTAB_CLUSTER_ONLY` which do, by their numbers: `F1 F3`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod held;
mod in_place;
mod keepalived;
mod lab;
mod probe;
mod report;
mod scenarios;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lab::{Hold, Lab};
use report::Report;
use scenarios::Scenario;

/// How often each scenario runs.
fn runs(usual: usize) -> usize {
    std::env::var("TRIMTAB_CLUSTER_RUNS").map_or(usual, |runs| runs.parse().expect("a number"))
}

/// Whether a scenario is to run.
fn is_meant(name: &str) -> bool {
    let Ok(only) = std::env::var("TRIMTAB_CLUSTER_ONLY") else {
        return true;
    };
    let number = name.split(' ').next();
    only.split(' ').any(|meant| number == Some(meant))
}

/// One lab at a time: each measures.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn one_node_answers_whatever_happens() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run_all(Report::of("trimtab"), Lab::new(Hold::Table), (&scenarios::ALL, 3));
}

/// Takeovers take as long as the kernel's whole seconds make them. Everything else is as it is with a table.
#[test]
fn one_node_answers_whatever_happens_where_the_kernel_has_no_tables() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run_all(
        Report::of("trimtab, lifetimes"),
        Lab::new(Hold::Lifetimes),
        (&scenarios::WITHOUT_TABLES, 1),
    );
}

/// Without its table a node would answer whether it has the lease or not.
#[test]
fn a_table_that_somebody_flushes_is_there_again_as_open_as_it_was() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new(Hold::Table);
    let epoch = lab.view("a")["epoch"].clone();
    for (host, is_open) in [("b", false), ("a", true)] {
        lab.flush_tables(host);
        lab.wait_until("the table is there, open or not", |lab| {
            let tables = lab.tables(host);
            tables.contains("trimtab_") && tables.contains("elements") == is_open
        });
    }
    let who_answers = |judge| {
        let asking = lab::inside(lab.space(judge), || {
            probe::ask(lab::SHARED.into(), Duration::from_millis(500))
        });
        asking.join().unwrap()
    };
    // One judge knows only a, the other only b.
    lab.wait_until("a answers", |_| who_answers("d") == Some('a'));
    assert_eq!(who_answers("e"), None);
    let view = lab.view("a");
    assert_eq!((&view["role"], &view["epoch"]), (&"active".into(), &epoch));
}

fn run_all(mut report: Report, mut lab: Lab, (all, usual): (&[Scenario], usize)) {
    for scenario in all.iter().filter(|scenario| is_meant(scenario.name)) {
        for _ in 0..runs(usual) {
            (scenario.run)(&mut lab, report.row(scenario.name));
        }
    }
    eprintln!("{report}");
    report.judge();
}

/// Its table stands beside ours. It is held to what it promises: that another node takes over.
#[test]
fn keepalived_in_the_same_lab() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    keepalived::install();
    let report = keepalived::compare(runs(1), is_meant);
    eprintln!("{report}");
}
