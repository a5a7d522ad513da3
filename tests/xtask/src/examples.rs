//! The example policies: built to core modules, the way a user's own cargo builds them, and put through what their folders
//! say of them by the host's own commands. And a new policy in Rust, from `trimtab policy new` to `policy test`.
//!
//! Owns the list of examples and the order of commands. What a simulation has to show is in `effects.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::modules;
use crate::chores::{outer_cargo, run};
use crate::contract::EVERYTHING;
use crate::effects::{EFFECTS, Report};

/// Crates below `examples/`, each with a `trimtab.toml` that puts it into service and a `policy.toml` that says what it is.
const EXAMPLES: [&str; 12] = [
    "canary-by-header",
    "cost-aware",
    "deadline-aware",
    "geo-by-header",
    "hello-policy",
    "peer-aware",
    "prefix-affinity",
    "read-write-split",
    "shuffle-sharding",
    "sticky-bounded",
    "warm-up",
    "zone-spill",
];

/// Builds every example and puts the module where its files look for it. Then `trimtab check` has to accept its
/// configuration, `trimtab policy test` what it claims and its cases, and `trimtab simulate` has to show its effect.
pub(crate) fn check(root: &Path, trimtab: Option<PathBuf>) -> Result<()> {
    build(root)?;
    let trimtab = Trimtab { root, built: trimtab };
    for name in EXAMPLES {
        println!("== {name}");
        run(trimtab.command(["check", &format!("examples/{name}/trimtab.toml")]))?;
        run(trimtab.command(["policy", "test", &format!("examples/{name}")]))?;
    }
    for (name, judge) in EFFECTS {
        let scenario = format!("examples/{name}/scenario.toml");
        let report = Report::parse(&trimtab.output(["simulate", &scenario, "--json"])?)?;
        let seen = judge(&report)
            .and_then(|effect| effect.shown())
            .context(scenario)?;
        println!("{name}: {seen}");
    }
    trimtab.begin()
}

fn build(root: &Path) -> Result<()> {
    // The contract's own example is built too, since nothing else would tell before a release that it does not compile.
    let names: Vec<String> = EXAMPLES
        .iter()
        .chain(&[EVERYTHING])
        .map(|name| (*name).to_owned())
        .collect();
    let mut built = modules(root, &root.join("target/policies"), &names)?;
    built.remove(EVERYTHING);
    // Where `cargo build --release --target wasm32-unknown-unknown` would have put it.
    let place = root.join("target/wasm32-unknown-unknown/release");
    fs::create_dir_all(&place)?;
    for module in built.values() {
        let to = place.join(module.file_name().context("a module has a name")?);
        fs::copy(module, &to).with_context(|| format!("{} to {}", module.display(), to.display()))?;
    }
    Ok(())
}

/// The program: one that is there, or the release build, which CI has from the demo; a build of its own for this package
/// alone would share nothing with that of the whole workspace.
struct Trimtab<'a> {
    root: &'a Path,
    built: Option<PathBuf>,
}

impl Trimtab<'_> {
    fn command<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Command {
        let mut command = match &self.built {
            Some(program) => Command::new(program),
            None => {
                let mut command = outer_cargo();
                command.args(["run", "--quiet", "--release", "--package", "trimtab", "--"]);
                command
            }
        };
        command.args(arguments).current_dir(self.root);
        command
    }

    /// What the guide tells an author to type, from `trimtab policy new` to `policy test`.
    fn begin(&self) -> Result<()> {
        let place = self.root.join("target/kit");
        // What a run before this one left.
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let folder = "target/kit/hello";
        run(self.command(["policy", "new", "--lang", "rust", "hello", "--dir", "target/kit"]))?;
        run(self.command(["policy", "build", folder]))?;
        run(self.command(["policy", "check", folder]))?;
        run(self.command(["policy", "test", folder]))
    }

    /// What a command prints.
    fn output<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Result<Vec<u8>> {
        let mut command = self.command(arguments);
        let shown = format!("{command:?}");
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("{shown} does not start"))?;
        ensure!(output.status.success(), "{shown} failed: {}", output.status);
        Ok(output.stdout)
    }
}
