//! A simulation's report for a terminal, in at most 100 columns.

use std::{fmt::Write, time::Duration};

use trimtab::simulate::{PolicyReport, Report, Run};

const COLUMNS: usize = 100;
/// More backends are not listed.
const BACKENDS_MAX: usize = 16;
/// Policies beside each other in the table of backends.
const POLICIES_MAX: usize = 5;
/// Of a name.
const NAME_CHARS: usize = 20;
const CELL_CHARS: usize = 15;

pub(super) fn text(run: &Run, took: Duration) -> String {
    let report = &run.report;
    let mut text = format!("{}\n", report.title);
    wrap(&mut text, &report.setup(), "");
    text.push('\n');
    policies(&mut text, report);
    notes(&mut text, report);
    backends(&mut text, report);
    let costs = report.policies.iter().zip(&run.costs);
    let costs: Vec<String> = costs
        .filter_map(|(policy, cost)| Some(format!("{} {:.0} ns", policy.name, cost.ns?)))
        .collect();
    text.push('\n');
    let costs = format!("A decision took, on this machine: {}", costs.join(", "));
    wrap(&mut text, &costs, "  ");
    let _ = write!(text, "Simulated in {:.1} s", took.as_secs_f64());
    text
}

/// A column that is there if some policy has something in it.
struct Column {
    head: &'static str,
    chars: usize,
    cell: fn(&PolicyReport) -> Option<String>,
}

const OPTIONAL: [Column; 3] = [
    Column {
        head: "keys",
        chars: 8,
        cell: |policy| Some(format!("{:.1} %", policy.homes?.same_percent)),
    },
    Column {
        head: "zone",
        chars: 8,
        cell: |policy| Some(format!("{:.1} %", policy.same_zone_percent?)),
    },
    Column {
        head: "faults",
        chars: 7,
        cell: |policy| {
            let faults: u64 = policy.faults.values().sum();
            (faults > 0).then(|| faults.to_string())
        },
    },
];

fn policies(text: &mut String, report: &Report) {
    let has = |column: &&Column| {
        report
            .policies
            .iter()
            .any(|policy| (column.cell)(policy).is_some())
    };
    let shown: Vec<&Column> = OPTIONAL.iter().filter(has).collect();
    let _ = write!(
        text,
        "{:<NAME_CHARS$}{:>7}{:>7}{:>7}{:>7}{:>7}{:>8}{:>9}{:>5}",
        "latency in ms", "p50", "p90", "p99", "p99.9", "mean", "errors", "max/mean", "cv"
    );
    for column in &shown {
        let _ = write!(text, "{:>1$}", column.head, column.chars);
    }
    text.push('\n');
    for policy in &report.policies {
        let latency = &policy.latency;
        let all = policy.answered + policy.errors.all;
        let _ = write!(
            text,
            "{:<NAME_CHARS$}{:>7}{:>7}{:>7}{:>7}{:>7}{:>8}{:>9.2}{:>5.2}",
            shortened(&policy.name, NAME_CHARS - 1),
            milliseconds(latency.p50_ms),
            milliseconds(latency.p90_ms),
            milliseconds(latency.p99_ms),
            milliseconds(latency.p999_ms),
            milliseconds(latency.mean_ms),
            share(policy.errors.all, all),
            policy.imbalance.max_over_mean,
            policy.imbalance.variation,
        );
        for column in &shown {
            let cell = (column.cell)(policy).unwrap_or_else(|| "-".to_owned());
            let _ = write!(text, "{cell:>0$}", column.chars);
        }
        text.push('\n');
    }
}

fn notes(text: &mut String, report: &Report) {
    text.push('\n');
    for policy in &report.policies {
        let errors = &policy.errors;
        let counts = [
            (errors.answered, "answered with an error status"),
            (errors.unreachable, "without a backend that could be reached"),
            (errors.timed_out, "not answered in time"),
            (errors.no_backend, "without a usable backend"),
            (errors.rejected, "refused by the policy"),
            (policy.retries, "retries"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let mut words: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        let chosen = policy.host_chose.iter();
        words.extend(chosen.map(|(reason, count)| format!("{count} decided by the host ({reason})")));
        words.extend(
            policy
                .last_fault
                .iter()
                .map(|fault| format!("last fault: {fault}")),
        );
        if !words.is_empty() {
            wrap(text, &format!("{}: {}", policy.name, words.join(", ")), "  ");
        }
    }
    let has = |read: fn(&PolicyReport) -> bool| report.policies.iter().any(read);
    text.push_str(
        "max/mean, cv: of the backends' load, which is their requests for each that they can work on\n",
    );
    if has(|policy| policy.homes.is_some()) {
        text.push_str("keys: requests that go where the last one of their key went\n");
    }
    if has(|policy| policy.same_zone_percent.is_some()) {
        text.push_str("zone: attempts that stay in their balancer's zone\n");
    }
}

/// Share and load of each backend, if there are few.
fn backends(text: &mut String, report: &Report) {
    let Some(first) = report.policies.first() else {
        return;
    };
    // Autoscaling may have made another number of them for each policy.
    let names = |policy: &PolicyReport| -> Vec<String> {
        let backends = policy.backends.iter();
        backends.map(|backend| backend.name.clone()).collect()
    };
    let is_alike = |policy: &PolicyReport| names(policy) == names(first);
    if first.backends.len() > BACKENDS_MAX || !report.policies.iter().all(is_alike) {
        return;
    }
    let _ = write!(text, "\n{:<NAME_CHARS$}", "share and load");
    let shown = &report.policies[..report.policies.len().min(POLICIES_MAX)];
    for policy in shown {
        let name = shortened(&policy.name, CELL_CHARS - 1);
        let _ = write!(text, "{name:>CELL_CHARS$}");
    }
    text.push('\n');
    for (place, backend) in first.backends.iter().enumerate() {
        let _ = write!(text, "{:<NAME_CHARS$}", shortened(&backend.name, NAME_CHARS - 1));
        for policy in shown {
            let backend = &policy.backends[place];
            let cell = format!("{:.1} % {:>6.2}", backend.share_percent, backend.load);
            let _ = write!(text, "{cell:>CELL_CHARS$}");
        }
        text.push('\n');
    }
}

/// Adds words in lines that fit; all but the first are indented.
fn wrap(text: &mut String, words: &str, indent: &str) {
    let mut chars = 0;
    for word in words.split_whitespace() {
        let more = word.chars().count();
        if chars > 0 && chars + 1 + more > COLUMNS {
            text.push('\n');
            text.push_str(indent);
            chars = indent.len();
        } else if chars > 0 {
            text.push(' ');
            chars += 1;
        }
        text.push_str(word);
        chars += more;
    }
    text.push('\n');
}

/// Three digits, or all before the point.
fn milliseconds(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

fn share(part: u64, all: u64) -> String {
    match part as f64 * 100.0 / all.max(1) as f64 {
        0.0 => "0 %".to_owned(),
        ..0.01 => "<0.01 %".to_owned(),
        percent @ ..10.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.1} %"),
    }
}

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let kept: String = name.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use trimtab::{
        config::Scenario,
        simulate::{Order, Progress, simulate},
    };

    use super::*;

    #[test]
    fn the_table_fits_the_terminal_whatever_there_is_to_tell() {
        let scenario = "\
title = \"Everything\"
policies = [\"least-response-time\", \"a-policy-with-a-long-name\", \"weighted-round-robin\", \"random-two-choices\"]
requests = 3000
arrivals = { load = 1.5 }
service = { mean = \"10ms\" }
backends = [{ name = \"in-a-zone-far-away\", count = 3, zone = \"a\", queue = 100 }, { name = \"b\", zone = \"b\" }]
balancers = { zones = [\"a\"] }
keys = { count = 10 }
pool = { response_timeout = \"50ms\" }
event = [{ at = \"0s\", group = \"b\", do = \"die\" }]
policy.a-policy-with-a-long-name = { builtin = \"chaos\", config = { fault = \"trap\", every = 3 } }
";
        let scenario = Scenario::parse(scenario, "test", Path::new("."));
        let scenario = scenario.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let order = Order {
            scenario,
            policies: Vec::new(),
        };
        let run = simulate(&order, &Progress::new(&order)).unwrap();
        let text = text(&run, Duration::from_secs(3));
        for part in [
            "faults",
            "zone:",
            "keys:",
            "last fault:",
            "not answered in time",
            "decided by the host (fault)",
            "share and load",
            "Simulated in 3.0 s",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        for line in text.lines() {
            assert!(
                line.chars().count() <= COLUMNS,
                "{}: {line}",
                line.chars().count()
            );
        }
    }

    #[test]
    fn small_shares_of_errors_are_not_rounded_away() {
        let shown = [(0, 10), (1, 1_000_000), (1, 1000), (123, 1000), (10, 10)];
        let shown = shown.map(|(part, all)| share(part, all));
        assert_eq!(shown, ["0 %", "<0.01 %", "0.10 %", "12.3 %", "100.0 %"]);
    }
}
