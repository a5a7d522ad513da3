//! A pair and its witness in network namespaces: real programs, a real bridge, one address that moves, and every fault that a
//! network and a machine have. Run as root; what is missing is installed from the system's packages.
//!
//! The judge are two clients that each know only one node's Ethernet address, so they see who *would* answer, whatever the network
//! believes. The address may change hands as often as a scenario says, and not once more; two nodes that answer at once
//! would show as a row of changes. Times are printed and not judged: `TRIMTAB_CLUSTER_RUNS` (3) says how often each scenario runs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod lab;
mod probe;
mod scenarios;

use lab::Lab;
use scenarios::Report;

#[test]
fn one_node_answers_whatever_happens() {
    let runs = std::env::var("TRIMTAB_CLUSTER_RUNS").map_or(3, |runs| runs.parse().expect("a number"));
    let mut lab = Lab::new();
    let mut report = Report::default();
    for scenario in scenarios::ALL {
        for _ in 0..runs {
            (scenario.run)(&mut lab, &mut report);
        }
    }
    eprintln!("{report}");
    report.judge();
}
