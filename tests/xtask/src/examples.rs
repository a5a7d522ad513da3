//! The example policies: built to core modules, the way a user's own cargo builds them, and checked by the host. And a new
//! policy in Rust, from `trimtab policy new` to `policy test`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::modules;
use crate::chores::run;

/// Crates below `examples/`, each with a `trimtab.toml` that puts it into service.
const EXAMPLES: [&str; 2] = ["canary-by-header", "hello-policy"];

/// Builds every example, puts the module where its configuration looks for it, and runs `trimtab check` on that.
pub(crate) fn check(root: &Path) -> Result<()> {
    let names: Vec<String> = EXAMPLES.iter().map(|name| (*name).to_owned()).collect();
    let built = modules(root, &root.join("target/policies"), &names)?;
    // Where `cargo build --release --target wasm32-unknown-unknown` would have put it.
    let place = root.join("target/wasm32-unknown-unknown/release");
    fs::create_dir_all(&place)?;
    for (name, module) in built {
        let to = place.join(module.file_name().context("a module has a name")?);
        fs::copy(&module, &to).with_context(|| format!("{} to {}", module.display(), to.display()))?;
        trimtab(root, &["check", &format!("examples/{name}/trimtab.toml")])?;
    }
    begin(root)
}

/// What the guide tells an author to type.
fn begin(root: &Path) -> Result<()> {
    let place = root.join("target/kit");
    // What a run before this one left.
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let folder = "target/kit/hello";
    trimtab(
        root,
        &["policy", "new", "--lang", "rust", "hello", "--dir", "target/kit"],
    )?;
    trimtab(root, &["policy", "build", folder])?;
    trimtab(root, &["policy", "check", folder])?;
    trimtab(root, &["policy", "test", folder])
}

/// The release build, which CI has from the demo; a build of its own for this package alone would share nothing with that
/// of the whole workspace.
fn trimtab(root: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["run", "--quiet", "--release", "--package", "trimtab", "--"])
        .args(arguments)
        .current_dir(root);
    run(command)
}
