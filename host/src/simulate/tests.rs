//! The simulation against what is known of queues, and against itself.

use std::path::Path;

use super::*;
use crate::simulate::{agenda::ns, arrivals::ArrivalTimes, draw::Draw};

mod known;
mod nodes;

/// A scenario of these lines; what they leave out is small.
pub(super) fn scenario(text: &str) -> Scenario {
    Scenario::parse(text, "test.toml", Path::new("."))
        .unwrap_or_else(|mistakes| panic!("{mistakes}\nin\n{text}"))
}

pub(super) fn run(text: &str) -> Run {
    let order = Order {
        scenario: scenario(text),
        policies: Vec::new(),
    };
    simulate(&order, &Progress::new(&order)).unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// The report on the only policy.
pub(super) fn only(text: &str) -> PolicyReport {
    let mut policies = run(text).report.policies;
    assert_eq!(policies.len(), 1);
    policies.remove(0)
}

/// Ten backends, so that nothing of them is special.
const TEN: &str = "\
requests = 20000
arrivals = { load = 0.7 }
service = { mean = \"10ms\" }
keys = { count = 500, popularity = \"zipf\" }
[[backends]]
name = \"b\"
count = 10
concurrency = 2
";

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let text = format!(
        "policies = [\"round-robin\", \"least-connections\", \"peak-ewma\", \"consistent-hash\", \"chaos\"]\n{TEN}\
         [pool.health]\nkind = \"http\"\n\
         [[event]]\nat = \"2s\"\nuntil = \"8s\"\ngroup = \"b\"\ncount = 2\ndo = \"die\"\n"
    );
    let bytes = |text: &str| {
        let run = run(text);
        (
            serde_json::to_string(&run.report).unwrap(),
            page(&run.report, None),
        )
    };
    let (one, other) = (bytes(&text), bytes(&text));
    assert!(one == other);
    assert!(one.0.len() > 10_000 && one.1.len() > 50_000);
    let (json, html) = bytes(&format!("seed = 2\n{text}"));
    assert!(json != one.0 && html != one.1);
}

#[test]
fn every_arrival_ends_exactly_once_whatever_happens() {
    let text = format!(
        "policies = [\"round-robin\", \"least-response-time\"]\n{TEN}queue = 3\n\
         [pool]\nresponse_timeout = \"100ms\"\n[pool.health]\nkind = \"tcp\"\ninterval = \"1s\"\n\
         [autoscale]\ngroup = \"b\"\nmin = 8\nmax = 10\nevery = \"500ms\"\nabove = 0.5\nbelow = 0.4\ndelay = \"1s\"\n\
         [[event]]\nat = \"1s\"\nuntil = \"3s\"\ngroup = \"b\"\ncount = 3\ndo = \"die\"\n\
         [[event]]\nat = \"2s\"\nuntil = \"4s\"\ngroup = \"b\"\ncount = 4\ndo = \"hang\"\n\
         [[event]]\nat = \"4s\"\nuntil = \"5s\"\ngroup = \"b\"\ncount = 5\ndo = \"fail\"\nrate = 0.7\n\
         [[event]]\nat = \"5s\"\nuntil = \"7s\"\ngroup = \"b\"\ncount = 5\ndo = \"slow\"\nfactor = 20\n\
         [[event]]\nat = \"8s\"\nuntil = \"9s\"\ngroup = \"b\"\ncount = 10\ndo = \"drain\"\n\
         [[event]]\nat = \"10s\"\nuntil = \"12s\"\ngroup = \"b\"\ncount = 4\ndo = \"leave\"\n\
         [[event]]\nat = \"11s\"\ngroup = \"b\"\ncount = 3\ndo = \"join\"\n"
    );
    for policy in run(&text).report.policies {
        let errors = policy.errors;
        assert_eq!(policy.answered + errors.all, 20_000, "{}", policy.name);
        let kinds = [
            errors.answered,
            errors.unreachable,
            errors.timed_out,
            errors.no_backend,
        ];
        assert_eq!(kinds.iter().sum::<u64>() + errors.rejected, errors.all);
        assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
        let sent: u64 = policy.backends.iter().map(|backend| backend.sent).sum();
        assert_eq!(sent, 20_000 - errors.no_backend + policy.retries);
        assert!(policy.retries > 0 && policy.backends.len() > 10);
    }
}

#[test]
fn least_response_time_beats_round_robin_with_one_slow_backend_of_four() {
    let text = include_str!("../../../examples/scenarios/one-slow-of-four.toml");
    let text = text.replace("requests = 200000", "requests = 20000");
    let policies = run(&text).report.policies;
    let of = |name: &str| policies.iter().find(|policy| policy.name == name).unwrap();
    let (turns, time) = (of("round-robin"), of("least-response-time"));
    assert!(time.latency.p99_ms * 2.0 < turns.latency.p99_ms);
    assert!(time.latency.mean_ms * 2.0 < turns.latency.mean_ms);
    let slow = |policy: &PolicyReport| policy.backends[3].share_percent;
    assert_eq!(slow(turns), 25.0);
    assert!(slow(time) < 5.0, "{}", slow(time));
}

#[test]
fn every_scenario_of_the_library_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} says what it shows", path.display());
        let mut scenario = Scenario::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        scenario.requests = 1000;
        // Those that need a component that is built first are tried by whoever builds it.
        scenario
            .policies
            .retain(|policy| matches!(policy.source, crate::config::PolicySource::Builtin(_)));
        let order = Order {
            scenario,
            policies: Vec::new(),
        };
        let run = simulate(&order, &Progress::new(&order)).unwrap();
        for policy in &run.report.policies {
            assert_eq!(policy.answered + policy.errors.all, 1000, "{}", path.display());
            assert!(
                policy.faults.is_empty(),
                "{}: {:?}",
                path.display(),
                policy.faults
            );
        }
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    for expected in [
        "autoscale",
        "bursty",
        "failing-backend",
        "hot-keys",
        "mixed-sizes",
        "one-slow-of-four",
        "stale-balancers",
        "thousand-backends",
        "zones",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected}");
    }
}

#[test]
fn policies_of_the_command_line_join_and_replace_those_of_the_scenario() {
    let text = format!("policies = [\"mine\"]\n{TEN}[policy.mine]\nbuiltin = \"round-robin\"\n");
    let order = |policies: &[(&str, Option<&str>)]| Order {
        scenario: scenario(&text),
        policies: policies
            .iter()
            .map(|(name, file)| ((*name).to_owned(), file.map(PathBuf::from)))
            .collect(),
    };
    assert_eq!(
        names(&order(&[("peak-ewma", None)])).unwrap(),
        ["mine", "peak-ewma"]
    );
    let missing = order(&[("mine", Some("no-such.wasm"))]);
    assert_eq!(names(&missing).unwrap(), ["mine"]);
    let error = simulate(&missing, &Progress::new(&missing)).unwrap_err();
    assert!(
        error.to_string().starts_with("mine: no-such.wasm cannot be read"),
        "{error}"
    );
    let unknown = names(&order(&[("fastest", None)])).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "fastest: neither a built-in policy nor one of the scenario; say fastest=FILE.wasm"
    );
}

#[test]
fn a_page_is_complete_in_itself_and_shows_cost_only_when_it_is_asked_to() {
    let text = format!("title = \"<&>\"\npolicies = [\"round-robin\"]\n{TEN}");
    let run = run(&text);
    let plain = page(&run.report, None);
    for outside in ["http:", "https:", "<script", "<link", "url(", "@import", "src="] {
        assert!(!plain.contains(outside), "{outside}");
    }
    assert!(
        plain.contains("<title>&lt;&amp;&gt;</title>") && !plain.contains("NaN") && !plain.contains("inf")
    );
    assert!(plain.contains("prefers-color-scheme: dark"));
    assert!(!plain.contains("Cost of a decision"));
    assert!(page(&run.report, Some(&run.costs)).contains("Cost of a decision"));
}

#[test]
fn the_span_is_when_the_last_request_arrives() {
    let scenario = scenario(&format!("policies = [\"round-robin\"]\n{TEN}"));
    let times = ArrivalTimes::new(scenario.arrivals, Draw::new(1));
    let last = times.take(20_000).last().unwrap();
    assert_eq!(span(&scenario), ns(last));
}
