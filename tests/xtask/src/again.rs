//! `cargo test` with one more try for the few tests that failed, as nextest's profile for CI has it (`.config/nextest.toml`).
//!
//! Owns what is read of cargo's output: names of tests that failed, and the targets they belong to. A test that passes
//! only the second time is told as FLAKY.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// More failures than this are no bad luck.
const AGAIN_MAX: usize = 5;

/// What of a run did not pass.
#[derive(Debug, Default, PartialEq, Eq)]
struct Failed {
    /// Of tests.
    names: Vec<String>,
    /// Arguments for cargo, as `-p trimtab-tests --test e2e`.
    targets: Vec<String>,
    /// Tests that passed.
    passed: usize,
}

/// Runs all tests, and those that failed once more.
pub(crate) fn test(cargo: impl Fn(&str) -> Command) -> Result<()> {
    let (is_good, failed) = run(cargo("test --workspace --no-fail-fast"))?;
    if is_good {
        return Ok(());
    }
    let Failed { names, targets, .. } = failed;
    ensure!(
        !names.is_empty() && !targets.is_empty(),
        "cargo test failed, and not because of a test"
    );
    ensure!(names.len() <= AGAIN_MAX, "{} tests failed", names.len());
    let mut passed = 0;
    for target in &targets {
        let mut again = cargo(&format!("test {target}"));
        again.args(["--", "--exact"]).args(&names);
        let (is_good, failed) = run(again)?;
        ensure!(is_good, "{} failed twice", failed.names.join(", "));
        passed += failed.passed;
    }
    if passed < names.len() {
        bail!("of {} tests that failed, {passed} were found again", names.len());
    }
    for name in names {
        println!("FLAKY {name}: failed, and passed when it was run once more");
    }
    Ok(())
}

/// Runs cargo, shows its output as it comes, and gathers what failed.
fn run(mut cargo: Command) -> Result<(bool, Failed)> {
    let shown = format!("{cargo:?}");
    let mut child = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown} does not start"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let errors = std::thread::spawn(move || gather(err, std::io::stderr()));
    let mut failed = gather(out, std::io::stdout());
    failed.targets = errors.join().unwrap_or_default().targets;
    Ok((child.wait()?.success(), failed))
}

fn gather(from: Option<impl Read>, mut to: impl Write) -> Failed {
    let mut failed = Failed::default();
    let Some(from) = from else { return failed };
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // Whoever reads may have gone; the tests go on.
        let _ = writeln!(to, "{line}");
        failed.read(&line);
    }
    failed
}

impl Failed {
    fn read(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.names
                    .push(name.trim_end_matches(" - should panic").to_owned());
            }
            self.passed += usize::from(test.ends_with(" ... ok"));
        }
        let target = line
            .trim()
            .strip_prefix('`')
            .and_then(|line| line.strip_suffix('`'));
        self.targets.extend(
            target
                .filter(|target| target.starts_with("-p "))
                .map(str::to_owned),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_and_where_is_read_from_cargos_output() {
        let mut failed = Failed::default();
        for line in [
            "running 3 tests",
            "test proxy::tls::one ... ok",
            "test proxy::tls::two ... FAILED",
            "    proxy::tls::two",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "error: test failed, to rerun pass `-p trimtab-tests --test e2e`",
            "error: 2 targets failed:",
            "    `-p trimtab --lib`",
            "    `-p trimtab-tests --test e2e`",
        ] {
            failed.read(line);
        }
        let wanted = Failed {
            names: vec!["proxy::tls::two".into()],
            targets: vec!["-p trimtab --lib".into(), "-p trimtab-tests --test e2e".into()],
            passed: 1,
        };
        assert_eq!(failed, wanted);
    }
}
