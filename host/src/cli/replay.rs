//! `trimtab replay`: the report in words, and the exit code.
//!
//! Exit codes: 0 if the same version decided the same, or another one was compared; 1 if it decided otherwise; 2 if there
//! was nothing to compare.

use std::{fmt::Write, fs::File, io::BufReader, process::ExitCode};

use trimtab::replay::{Order, Report, replay};

use super::Replay;
use crate::say;

/// Rows of a list that has more.
const ROWS_MAX: usize = 20;

pub(crate) fn run(order: &Replay) -> ExitCode {
    let report = match report(order) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{}: {error}", order.log.display());
            return ExitCode::from(2);
        }
    };
    if order.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => say(&text),
            Err(error) => eprintln!("{error}"),
        }
    } else {
        say(&in_words(&report));
    }
    if report.is_same_version && !report.is_identical() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn report(order: &Replay) -> Result<Report, String> {
    let config_json = order.config.as_deref().map(settings).transpose()?;
    let log = File::open(&order.log).map_err(|error| error.to_string())?;
    let order = Order {
        policy: order.policy.clone(),
        config_json,
        pool: order.pool.clone(),
        drain: order.drain.clone(),
        is_partial: order.partial,
    };
    replay(BufReader::new(log), &order).map_err(|error| error.to_string())
}

/// JSON begins with a brace, which no sensible file's name does.
fn settings(text: &str) -> Result<String, String> {
    let json = if text.trim_start().starts_with('{') {
        text.to_owned()
    } else {
        std::fs::read_to_string(text).map_err(|error| format!("{text}: {error}"))?
    };
    let parsed = serde_json::from_str::<serde_json::Value>(&json);
    parsed.map_err(|error| format!("the settings are not JSON: {error}"))?;
    Ok(json)
}

fn in_words(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} decisions of {} instances, recorded of {}",
        report.picks,
        report.streams,
        report.before.join(", ")
    );
    if report.gaps > 0 {
        let _ = writeln!(
            text,
            "{} streams end early: they could not be written in time",
            report.gaps
        );
    }
    if report.not_compared > 0 {
        let _ = writeln!(
            text,
            "{} were cut off by time and are not compared",
            report.not_compared
        );
    }
    if report.is_same_version {
        let _ = match (&report.first_difference, report.is_identical()) {
            (_, true) => write!(text, "{} are the same, bit for bit", report.same),
            (Some(first), _) => write!(
                text,
                "{} differ; the first: pool {}, worker {}, stream {}, event {}{}\n  recorded: {}\n  replayed: {}",
                report.picks - report.same - report.not_compared,
                first.pool,
                first.worker,
                first.stream,
                first.event,
                first
                    .request
                    .as_ref()
                    .map(|request| format!(", {request}"))
                    .unwrap_or_default(),
                first.recorded,
                first.replayed
            ),
            (None, false) => write!(text, "not all of them can be accounted for"),
        };
        return text;
    }
    changes(&mut text, report);
    text
}

fn changes(text: &mut String, report: &Report) {
    let _ = writeln!(
        text,
        "replayed by {}, told the load that the recorded decisions led to\n\n\
         requests that move: {} of {} ({:.2} %)\nkeys that re-home:  {} of {} ({:.2} %)",
        report.after.join(", "),
        report.moved,
        report.picks,
        report.moved_percent,
        report.keys.rehomed,
        report.keys.compared,
        report.keys.disruption_percent
    );
    for key in report.keys.list.iter().take(ROWS_MAX) {
        let _ = writeln!(
            text,
            "  {} {} -> {}, {} requests",
            key.key, key.before, key.after, key.picks
        );
    }
    let _ = writeln!(
        text,
        "\n{:<20} {:<28} {:>10} {:>10} {:>9}",
        "pool", "backend", "before", "after", "change"
    );
    for share in &report.backends {
        let change = share.after_percent - share.before_percent;
        let _ = writeln!(
            text,
            "{:<20} {:<28} {:>10} {:>10} {change:>+7.2} %",
            share.pool, share.backend, share.before, share.after
        );
    }
    if let Some(worst) = &report.worst {
        let _ = writeln!(
            text,
            "changes most: {}, {} -> {}",
            worst.backend, worst.before, worst.after
        );
    }
    let counts = [
        ("left to the host", report.abstained),
        ("refused", report.rejected),
    ];
    let faults = report.faults.iter().map(|(kind, count)| (*kind, *count));
    for (what, count) in counts.into_iter().chain(faults) {
        if count.before + count.after > 0 {
            let _ = writeln!(text, "{what}: {} -> {}", count.before, count.after);
        }
    }
    for unrecorded in &report.unrecorded {
        let _ = writeln!(
            text,
            "not in the log, and so absent for the policy: {} ({} decisions)",
            unrecorded.name, unrecorded.picks
        );
    }
}
