//! The case list of bad input: runs the tests that `tests/cases/cases.toml` names, and counts the cases that they hold.
//!
//! A case counts as passed only if all of its tests have run and passed, and nothing of it is marked open.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::chores::outer_cargo;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    tests: Vec<String>,
    not: Option<String>,
    open: Option<String>,
}

/// Runs and counts.
///
/// # Errors
/// When a named test fails or does not exist.
pub(crate) fn run(root: &Path) -> Result<()> {
    let path = root.join("tests/cases/cases.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let cases: BTreeMap<String, Case> = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let named: BTreeSet<&str> = cases
        .values()
        .flat_map(|case| &case.tests)
        .map(String::as_str)
        .collect();
    let mut passed = BTreeSet::new();
    for target in ["cases", "e2e", "lib", "outside", "program"] {
        let names: Vec<&str> = named
            .iter()
            .filter_map(|name| name.strip_prefix(target)?.strip_prefix("::"))
            .collect();
        for name in run_tests(root, target, &names)? {
            passed.insert(format!("{target}::{name}"));
        }
    }
    let missing: Vec<&str> = named
        .iter()
        .copied()
        .filter(|name| !passed.contains(*name))
        .collect();
    print!("{}", summary(&cases, &passed));
    ensure!(missing.is_empty(), "these did not pass:\n{}", missing.join("\n"));
    Ok(())
}

/// The names of those that passed.
fn run_tests(root: &Path, target: &str, names: &[&str]) -> Result<Vec<String>> {
    let of: &[&str] = match target {
        "lib" => &["test", "-p", "trimtab", "--lib"],
        "program" => &["test", "-p", "trimtab", "--test", "program"],
        target => &["test", "-p", "trimtab-tests", "--test", target],
    };
    let mut command = outer_cargo();
    command
        .args(of)
        .args(["--", "--exact"])
        .args(names)
        .current_dir(root);
    let output = command
        .output()
        .with_context(|| format!("{command:?} does not start"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let passed = text
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    Ok(passed.map(str::to_owned).collect())
}

fn summary(cases: &BTreeMap<String, Case>, passed: &BTreeSet<String>) -> String {
    let number = |name: &str| {
        (
            name.get(..1).map(str::to_owned),
            name.get(1..).and_then(|rest| rest.parse::<u32>().ok()),
        )
    };
    let mut names: Vec<&String> = cases.keys().collect();
    names.sort_by_key(|name| number(name));
    let (mut good, mut not, mut open) = (0, String::new(), String::new());
    let (mut not_count, mut open_count) = (0, 0);
    for name in names {
        let case = &cases[name];
        if let Some(why) = &case.not {
            not_count += 1;
            not += &format!("  {name}: {why}\n");
        } else if let Some(why) = &case.open {
            open_count += 1;
            open += &format!("  {name}: {why}\n");
        } else if case.tests.iter().all(|test| passed.contains(test)) {
            good += 1;
        } else {
            open_count += 1;
            open += &format!("  {name}: FAILED\n");
        }
    }
    format!(
        "passed {good} of {}\nnot applicable, {not_count}:\n{not}open, {open_count}:\n{open}",
        cases.len()
    )
}
