//! `trimtab policy new`, `build`, `check`, `test` and `bench`: their arguments, and what they find in words.
//!
//! Exit codes: 0 if all is well, 1 if a policy is not, 2 if there is nothing that can be looked at.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Subcommand, builder::PossibleValuesParser};
use trimtab::{
    config::{BUILTIN_POLICIES, author::Manifest},
    kit::{self, Bench, CheckReport, KitError, LANGUAGES, Subject, TestReport},
};

use crate::say;

#[derive(Subcommand)]
pub(crate) enum AuthorVerb {
    /// Make a folder with a policy that builds
    New {
        /// The policy's name: lower-case letters, digits and hyphens
        name: String,
        /// The language
        #[arg(long, value_parser = PossibleValuesParser::new(LANGUAGES.iter().map(|language| language.name)))]
        lang: String,
        /// Where the folder goes
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        dir: PathBuf,
    },
    /// Build a policy's folder, by the steps of its policy.toml
    Build {
        /// The folder
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Say what a component is: imports, size, memory, determinism, cost
    Check {
        /// A policy's folder, a .wasm file, or a built-in's name
        #[arg(default_value = ".")]
        policy: PathBuf,
    },
    /// Try a policy by rules that hold for all, by what it claims, and by its author's cases
    Test {
        /// A policy's folder, a .wasm file, or a built-in's name
        #[arg(default_value = ".")]
        policy: PathBuf,
        /// What the situations are made of; the same seed makes the same ones
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Hold it to what this built-in claims, and not to its own claims
        #[arg(long, value_name = "BUILT-IN", value_parser = PossibleValuesParser::new(BUILTIN_POLICIES))]
        like: Option<String>,
    },
    /// Measure picks at 3, 100 and 1000 backends, beside built-in policies
    Bench {
        /// A policy's folder, a .wasm file, or a built-in's name
        #[arg(default_value = ".")]
        policy: PathBuf,
    },
}

/// Nothing could be looked at.
const NOTHING: u8 = 2;

pub(crate) fn obey(verb: &AuthorVerb, json: bool) -> ExitCode {
    let done = match verb {
        AuthorVerb::New { name, lang, dir } => new(name, lang, dir).map(|text| (text, true)),
        AuthorVerb::Build { dir } => build(dir).map(|text| (text, true)),
        AuthorVerb::Check { policy } => Subject::find(policy)
            .and_then(|subject| kit::check(&subject))
            .map(|report| (show(&report, json, check_in_words), report.is_fit())),
        AuthorVerb::Test { policy, seed, like } => Subject::find(policy)
            .map(|subject| match like {
                Some(builtin) => subject.like(builtin),
                None => subject,
            })
            .and_then(|subject| kit::test(&subject, *seed))
            .map(|report| (show(&report, json, test_in_words), report.is_good())),
        AuthorVerb::Bench { policy } => Subject::find(policy)
            .and_then(|subject| kit::bench(&subject))
            .map(|bench| (show(&bench, json, bench_in_words), true)),
    };
    match done {
        Ok((text, is_good)) => {
            say(text.trim_end());
            if is_good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(NOTHING)
        }
    }
}

fn show<T: serde::Serialize>(report: &T, json: bool, in_words: impl Fn(&T) -> String) -> String {
    if json {
        serde_json::to_string_pretty(report).unwrap_or_else(|error| error.to_string())
    } else {
        in_words(report)
    }
}

fn new(name: &str, lang: &str, dir: &Path) -> Result<String, KitError> {
    let language = LANGUAGES.iter().find(|language| language.name == lang);
    let language = language.ok_or_else(|| KitError(format!("lang = \"{lang}\": not known")))?;
    let folder = kit::create(language, name, dir)?;
    let shown = folder.display();
    Ok(format!(
        "{shown} is ready\nnext: trimtab policy build {shown}\n      trimtab policy test {shown}"
    ))
}

fn build(dir: &Path) -> Result<String, KitError> {
    let manifest = build_quietly(dir)?;
    let subject = Subject::find(dir)?;
    let admission = kit::admission(&subject)?;
    let component = &manifest.component;
    Ok(format!(
        "built {}\n{} bytes, sha256 {}\n{admission}",
        component.display(),
        subject.wasm.len(),
        trimtab::policy::digest(&subject.wasm),
    ))
}

/// Builds; what is run is told, and nothing else.
pub(crate) fn build_quietly(dir: &Path) -> Result<Manifest, KitError> {
    kit::build(dir, |step| eprintln!("+ {}", kit::show_step(step)))
}

fn check_in_words(report: &CheckReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<14}{value}");
    };
    line("policy", report.name.clone());
    if let Some(component) = &report.component {
        line("component", component.clone());
    }
    line("sha256", report.digest.clone());
    line(
        "size",
        format!(
            "{} bytes, {} of machine code, compiled in {} ms",
            report.bytes, report.code_bytes, report.compile_ms
        ),
    );
    line("imports", list(report.imports.iter().map(String::as_str)));
    let optional = [("observer", report.observes), ("stateful", report.keeps_state)];
    let exports = optional.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    line("exports", list(std::iter::once("picker").chain(exports)));
    line(
        "WASI",
        if report.wasi {
            "an empty context, so its picks cannot be replayed"
        } else {
            "not needed"
        }
        .to_owned(),
    );
    line(
        "memory",
        format!(
            "{} KiB at the start, {} KiB after 10,000 picks; the limit is {} KiB",
            report.memory_start_bytes >> 10,
            report.memory_bytes >> 10,
            report.memory_limit_bytes >> 10
        ),
    );
    line(
        "determinism",
        if report.deterministic {
            "two instances answer the same calls alike"
        } else {
            "NO: two instances answer the same calls differently"
        }
        .to_owned(),
    );
    text.push_str(&costs_in_words(report));
    for problem in &report.problems {
        let _ = writeln!(text, "PROBLEM: {problem}");
    }
    text
}

fn costs_in_words(report: &CheckReport) -> String {
    let mut text = format!(
        "\n{:>10} {:>12} {:>14} {:>14}  {:<16} {:>14}\n",
        "backends", "ns a pick", "instructions", "at worst", "in", "for an update"
    );
    for cost in &report.costs {
        let _ = writeln!(
            text,
            "{:>10} {:>12.0} {:>14} {:>14}  {:<16} {:>14}",
            cost.backends,
            cost.pick_ns,
            cost.pick_work,
            cost.worst_pick_work,
            cost.worst_in,
            cost.update_work
        );
    }
    let slowest = report.costs.iter().map(|cost| cost.pick_ns).fold(0.0, f64::max);
    if slowest > 0.0 {
        let _ = writeln!(
            text,
            "the slowest is {:.1} % of the deadline of {} us",
            slowest * 100.0 / report.deadline_ns as f64,
            report.deadline_ns / 1000
        );
    }
    text
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| name.trim_start_matches("trimtab:policy/"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn test_in_words(report: &TestReport) -> String {
    let mut text = format!("{}, seed {}\n", report.name, report.seed);
    for rule in &report.rules {
        let verdict = match (rule.situations, rule.holds) {
            (0, _) => "-     ",
            (_, true) => "ok    ",
            (_, false) => "BROKEN",
        };
        let says = if rule.situations == 0 {
            "not claimed"
        } else {
            rule.says
        };
        let _ = writeln!(text, "{verdict} {:<15}{says}", rule.rule);
    }
    let broken = report.rules.iter().filter(|rule| !rule.holds).count();
    let wrong = report.failures.len() - broken;
    if report.cases > 0 {
        let _ = writeln!(text, "{} of {} cases hold", report.cases - wrong, report.cases);
    }
    for failure in &report.failures {
        let _ = write!(text, "\n{}: {}\n", failure.rule, failure.what);
        for line in failure.situation.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if broken > 0 {
        let _ = writeln!(text, "\nthe same again: --seed {}", report.seed);
    }
    text
}

fn bench_in_words(bench: &Bench) -> String {
    let mut text = format!(
        "{:<24} {:>30}   {:>30}\n{:<24}",
        "", "ns a pick", "us an update", "backends"
    );
    for _ in 0..2 {
        for size in bench.backends {
            let _ = write!(text, " {size:>9}");
        }
        text.push_str("   ");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for row in &bench.rows {
        let _ = write!(text, "{:<24}", row.name);
        for nanos in row.pick_ns {
            let _ = write!(text, " {nanos:>9.0}");
        }
        text.push_str("   ");
        for micros in row.update_us {
            let _ = write!(text, " {micros:>9.1}");
        }
        text.push('\n');
    }
    text
}
