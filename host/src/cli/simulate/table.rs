//! A simulation's report for a terminal, in at most 100 columns.

use std::{fmt::Write, time::Duration};

use trimtab::simulate::{PolicyReport, Report, Run};

/// More backends are not listed.
const BACKENDS_MAX: usize = 16;
/// Policies beside each other in the table of backends.
const COLUMNS_MAX: usize = 5;
/// Of a name.
const NAME_CHARS: usize = 21;
const COLUMN_CHARS: usize = 15;

pub(super) fn text(run: &Run, took: Duration) -> String {
    let report = &run.report;
    let mut text = format!("{}\n{}\n\n", report.title, report.setup());
    head(&mut text, report);
    report.policies.iter().for_each(|policy| row(&mut text, policy));
    notes(&mut text, report);
    backends(&mut text, report);
    let costs = report.policies.iter().zip(&run.costs);
    let costs: Vec<String> = costs
        .filter_map(|(policy, cost)| Some(format!("{} {:.0} ns", policy.name, cost.ns?)))
        .collect();
    let _ = write!(
        text,
        "\nA decision took, on this machine: {}.\nSimulated in {:.1} s.",
        costs.join(", "),
        took.as_secs_f64()
    );
    text
}

fn head(text: &mut String, report: &Report) {
    let has_keys = report.policies.iter().any(|policy| policy.homes.is_some());
    let has_zones = report
        .policies
        .iter()
        .any(|policy| policy.same_zone_percent.is_some());
    let _ = writeln!(
        text,
        "{:<NAME_CHARS$}{:>8}{:>8}{:>9}{:>9}{:>8}{:>8}{:>9}{:>6}{}{}{:>7}",
        "",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "mean ms",
        "errors",
        "max/mean",
        "cv",
        if has_keys {
            format!("{:>7}", "keys")
        } else {
            String::new()
        },
        if has_zones {
            format!("{:>7}", "zone")
        } else {
            String::new()
        },
        "faults"
    );
}

fn row(text: &mut String, policy: &PolicyReport) {
    let latency = &policy.latency;
    let all = policy.answered + policy.errors.all;
    let percent = |number: f64| format!("{number:>5.1} %");
    let _ = writeln!(
        text,
        "{:<NAME_CHARS$}{:>8}{:>8}{:>9}{:>9}{:>8}{:>8}{:>9.2}{:>6.2}{}{}{:>7}",
        shortened(&policy.name, NAME_CHARS - 1),
        milliseconds(latency.p50_ms),
        milliseconds(latency.p90_ms),
        milliseconds(latency.p99_ms),
        milliseconds(latency.p999_ms),
        milliseconds(latency.mean_ms),
        share(policy.errors.all, all),
        policy.imbalance.max_over_mean,
        policy.imbalance.variation,
        policy
            .homes
            .map(|homes| percent(homes.same_percent))
            .unwrap_or_default(),
        policy.same_zone_percent.map(percent).unwrap_or_default(),
        policy.faults.values().sum::<u64>()
    );
}

fn notes(text: &mut String, report: &Report) {
    let _ = writeln!(text);
    for policy in &report.policies {
        let mut words = Vec::new();
        let errors = &policy.errors;
        for (count, what) in [
            (errors.answered, "answered with an error status"),
            (errors.unreachable, "without a backend that could be reached"),
            (errors.timed_out, "not answered in time"),
            (errors.no_backend, "without a usable backend"),
            (errors.rejected, "refused by the policy"),
            (policy.retries, "retries"),
        ] {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        }
        let chosen = policy.host_chose.iter();
        words.extend(chosen.map(|(reason, count)| format!("{count} decided by the host ({reason})")));
        if !words.is_empty() {
            let _ = writeln!(text, "{}: {}", policy.name, words.join(", "));
        }
        if let Some(fault) = &policy.last_fault {
            let _ = writeln!(text, "{}: the last fault: {fault}", policy.name);
        }
    }
    let _ = writeln!(
        text,
        "max/mean and cv: load of the backends, which is what they have in flight for each they can work on"
    );
    if report.policies.iter().any(|policy| policy.homes.is_some()) {
        let _ = writeln!(
            text,
            "keys: requests that go where the last one of their key went"
        );
    }
    if report
        .policies
        .iter()
        .any(|policy| policy.same_zone_percent.is_some())
    {
        let _ = writeln!(text, "zone: requests that stay in their balancer's zone");
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
    let shown = &report.policies[..report.policies.len().min(COLUMNS_MAX)];
    for policy in shown {
        let name = shortened(&policy.name, COLUMN_CHARS - 1);
        let _ = write!(text, "{name:>COLUMN_CHARS$}");
    }
    let _ = writeln!(text);
    for (place, backend) in first.backends.iter().enumerate() {
        let _ = write!(text, "{:<NAME_CHARS$}", shortened(&backend.name, NAME_CHARS - 1));
        for policy in shown {
            let backend = &policy.backends[place];
            let cell = format!("{:.1} % {:>6.2}", backend.share_percent, backend.load);
            let _ = write!(text, "{cell:>COLUMN_CHARS$}");
        }
        let _ = writeln!(text);
    }
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
        percent => format!("{percent:.2} %"),
    }
}

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let kept: String = name.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}
