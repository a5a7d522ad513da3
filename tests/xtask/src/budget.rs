//! What a pick costs beside what it may cost, of every built-in policy: `cargo xtask budget`.
//!
//! Owns the table. It measures by `trimtab policy bench` of the release build that CI has anyway, so nothing is compiled
//! for it; all sizes, imports and native builds are in `cargo bench -p trimtab --bench pick`. Figures never fail it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::chores;

/// `host/benches/budget.toml`.
#[derive(Debug, Deserialize)]
struct Budget {
    pick_ns: BTreeMap<String, Vec<f64>>,
}

/// What `trimtab policy bench --json` says.
#[derive(Debug, Deserialize)]
struct Report {
    backends: Vec<usize>,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    pick_ns: Vec<f64>,
    update_us: Vec<f64>,
}

/// Measures and prints, by this program or by one that is built here.
pub(crate) fn print(root: &Path, trimtab: Option<PathBuf>) -> Result<()> {
    let trimtab = match trimtab {
        Some(trimtab) => trimtab,
        None => chores::release(root)?,
    };
    let file = root.join("host/benches/budget.toml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let budget: Budget = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("plugins/dist"))? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        names.extend(name.strip_suffix(".wasm").map(str::to_owned));
    }
    names.sort();
    let reports: Result<Vec<Report>> = names.iter().map(|name| measure(&trimtab, name)).collect();
    print!("{}", table(&budget, &reports?));
    Ok(())
}

fn measure(trimtab: &Path, name: &str) -> Result<Report> {
    let output = Command::new(trimtab)
        .args(["policy", "bench", name, "--json"])
        .output()
        .with_context(|| format!("{} does not start", trimtab.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "policy bench {name}: {failed}{said}");
    serde_json::from_str(&said).with_context(|| format!("policy bench {name} says {said:?}"))
}

/// The first row of each report is its policy's own. `!` is above the budget.
fn table(budget: &Budget, reports: &[Report]) -> String {
    let sizes = reports
        .first()
        .map_or(&[][..], |report| report.backends.as_slice());
    let mut text =
        "A pick in ns and an update in us, by backends; `!` is above the budget\n\n| policy |".to_owned();
    for size in sizes {
        text.push_str(&format!(" {size} | budget |"));
    }
    text.push_str(" update |\n|---|");
    text.push_str(&"---:|---:|".repeat(sizes.len()));
    text.push_str("---:|\n");
    for row in reports.iter().filter_map(|report| report.rows.first()) {
        let goals = budget.pick_ns.get(&row.name).map_or(&[][..], Vec::as_slice);
        text.push_str(&format!("| {} |", row.name));
        for (place, nanos) in row.pick_ns.iter().enumerate() {
            let goal = goals.get(place).copied();
            let mark = if goal.is_some_and(|goal| *nanos > goal) {
                "!"
            } else {
                ""
            };
            let goal = goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string());
            text.push_str(&format!(" {nanos:.0}{mark} | {goal} |"));
        }
        let updates: Vec<String> = row.update_us.iter().map(|us| format!("{us:.1}")).collect();
        text.push_str(&format!(" {} |\n", updates.join(" / ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BENCH: &str = r#"{"backends": [3, 100, 1000], "rows": [
        {"name": "least-connections", "pick_ns": [200.4, 300.6, 999.0], "update_us": [1.25, 20.0, 200.0]},
        {"name": "round-robin", "pick_ns": [1, 1, 1], "update_us": [1, 1, 1]}]}"#;

    fn shown(budget: &str) -> String {
        let report = serde_json::from_str(BENCH).unwrap();
        table(&toml::from_str(budget).unwrap(), &[report])
    }

    #[test]
    fn what_is_above_the_budget_is_marked() {
        let text = shown("[pick_ns]\nleast-connections = [300, 300]");
        let row = "| least-connections | 200 | 300 | 301! | 300 | 999 | - | 1.2 / 20.0 / 200.0 |\n";
        assert!(text.ends_with(row), "{text}");
    }

    #[test]
    fn a_policy_without_a_budget_is_measured_all_the_same() {
        let text = shown("[pick_ns]");
        assert!(
            text.contains("| least-connections | 200 | - | 301 | - | 999 | - |"),
            "{text}"
        );
        // That of the heading.
        assert_eq!(text.matches('!').count(), 1, "{text}");
    }

    #[test]
    fn the_budget_in_the_repository_is_of_policies_that_there_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = fs::read_to_string(root.join("host/benches/budget.toml")).unwrap();
        let budget: Budget = toml::from_str(&text).unwrap();
        assert!(!budget.pick_ns.is_empty());
        for name in budget.pick_ns.keys() {
            let component = root.join(format!("plugins/dist/{name}.wasm"));
            assert!(component.is_file(), "{name}");
        }
    }
}
