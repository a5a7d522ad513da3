//! Tests and lints, as CI runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::again;

/// Installs the programs of others, and runs the tests that drive them unless only the first is wanted.
pub(crate) fn outside(root: &Path, is_install_only: bool) -> Result<()> {
    let mut install = Command::new("bash");
    install.arg(root.join("tests/outside/install.sh")).arg("all");
    run(install)?;
    if is_install_only {
        return Ok(());
    }
    // With the features of the whole workspace, as all tests have them: nothing is compiled twice.
    run(cargo(root, "test --workspace --test outside"))
}

/// The release build of the balancer, which is made if it is not there.
pub(crate) fn release(root: &Path) -> Result<PathBuf> {
    run(cargo(root, "build --release -p trimtab"))?;
    Ok(target(root).join("release/trimtab"))
}

fn target(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    root.join(target)
}

/// A program of the harness against a release build of the balancer.
pub(crate) fn soak(root: &Path, before: &[&str], after: &[&str]) -> Result<()> {
    let trimtab = release(root)?;
    // An example has the features that tests have, so nothing is compiled twice.
    run(cargo(root, "build --workspace --bin soak --example languages"))?;
    let mut soak = Command::new(target(root).join("debug/soak"));
    soak.args(before).arg(trimtab).args(after);
    run(soak)
}

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

/// The cargo that runs this, as from a shell: some build scripts (ring's) run again where the name of the package that asks is another.
pub(crate) fn outer_cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn cargo(root: &Path, arguments: &str) -> Command {
    let mut command = outer_cargo();
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
