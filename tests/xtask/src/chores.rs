//! Tests and lints, as CI runs them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::again;

/// All tests; in CI, those that failed once more. nextest runs no doctests, so cargo runs these first; the last lines are nextest's own summary.
pub(crate) fn test(root: &Path) -> Result<()> {
    let nextest = cargo(root, "nextest --version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if nextest.is_ok_and(|status| status.success()) {
        run(cargo(root, "test --workspace --doc"))?;
        return run(cargo(root, "nextest run --workspace"));
    }
    if std::env::var_os("NEXTEST_PROFILE").is_some_and(|profile| profile == "ci") {
        return again::test(|arguments| cargo(root, arguments));
    }
    run(cargo(root, "test --workspace"))
}

/// Formatting and lints; any warning fails.
pub(crate) fn lint(root: &Path) -> Result<()> {
    run(cargo(root, "fmt --all --check"))?;
    run(cargo(root, "clippy --workspace --all-targets -- -D warnings"))
}

/// The comparison with peers, on optimised builds of both sides.
pub(crate) fn bench(root: &Path, arguments: &[String]) -> Result<()> {
    run(cargo(root, "build --release -p trimtab"))?;
    run(cargo(root, "build --profile bench-tools -p trimtab-bench"))?;
    let mut bench = Command::new(root.join("target/bench-tools/trimtab-bench"));
    bench.args(arguments).env("TRIMTAB_ROOT", root).current_dir(root);
    run(bench)
}

fn cargo(root: &Path, arguments: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split(' ')).current_dir(root);
    command
}

/// Runs a command to its end, its output shown as it comes.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("{shown} does not start"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}
