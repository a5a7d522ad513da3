//! From plugin crates to components: compiled by Debian's toolchain, componentised by the `wit-component` crate.
//!
//! Debian's, because it is the one that can compile the standard library for wasm where rustup cannot add a target.
//! Invariant: the same sources, lock file and [`Toolchain`] give the same bytes in any folder on any machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::chores::run;

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
const LINKER: &str = "wasm-ld-22";
const TARGET: &str = "wasm32-unknown-unknown";

/// What a missing toolchain is answered with.
const INSTALL: &str = "apt-get install --no-install-recommends rustc-web cargo-web rust-web-src lld-22";

/// The only imports a policy may have; in particular none of WASI.
const IMPORTS: &str = "trimtab:policy/";

/// What decides over the bytes, as recorded in `BUILD.toml`.
#[derive(PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// `rustc --version`.
    pub(crate) rustc: String,
    /// `wasm-ld --version`.
    pub(crate) linker: String,
}

impl Toolchain {
    /// The one that is installed.
    pub(crate) fn find() -> Result<Self> {
        let found = Self {
            rustc: version(RUSTC)?,
            linker: version(LINKER)?,
        };
        version(CARGO)?;
        let std = sysroot()?.join("lib/rustlib/src/rust/library/std/Cargo.toml");
        ensure!(
            std.exists(),
            "the sources of the standard library are missing; install them by\n  {INSTALL}"
        );
        Ok(found)
    }
}

fn version(tool: &str) -> Result<String> {
    let output = Command::new(tool).arg("--version").output();
    let output =
        output.with_context(|| format!("{tool} is missing; install the wasm toolchain by\n  {INSTALL}"))?;
    ensure!(
        output.status.success(),
        "{tool} --version failed: {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn sysroot() -> Result<PathBuf> {
    let output = Command::new(RUSTC).args(["--print", "sysroot"]).output()?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// The crates of `plugins/`, in order.
pub(crate) fn plugins(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("plugins"))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    ensure!(
        !names.is_empty(),
        "no plugins in {}",
        root.join("plugins").display()
    );
    Ok(names)
}

/// Builds every plugin below `target`, and returns the components by name.
pub(crate) fn components(root: &Path, target: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut components = BTreeMap::new();
    for (name, module) in modules(root, target, &plugins(root)?)? {
        let module = fs::read(&module).with_context(|| format!("no module at {}", module.display()))?;
        let component = componentise(&module).with_context(|| format!("plugin `{name}`"))?;
        components.insert(name, component);
    }
    Ok(components)
}

/// Builds these crates below `target`, and returns their core modules: by name, as files.
pub(crate) fn modules(root: &Path, target: &Path, names: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    compile(root, target, names)?;
    let folder = target.join(TARGET).join("policy");
    let file = |name: &String| folder.join(format!("{}.wasm", name.replace('-', "_")));
    Ok(names.iter().map(|name| (name.clone(), file(name))).collect())
}

/// Fetches what a workspace needs whose lock file may name more than that.
pub(crate) fn fetch(root: &Path) -> Result<()> {
    let mut fetch = cargo(root);
    fetch.args(["fetch", "--target", TARGET]);
    run(fetch)
}

fn compile(root: &Path, target: &Path, names: &[String]) -> Result<()> {
    let mut fetch = cargo(root);
    // Before the flags are made, which look at what was fetched.
    fetch.args(["fetch", "--locked", "--target", TARGET]);
    run(fetch)?;
    let mut command = cargo(root);
    command
        .args([
            "build",
            "--locked",
            "--lib",
            "--profile",
            "policy",
            "--target",
            TARGET,
        ])
        .arg("-Zbuild-std=std,panic_abort")
        .args(names.iter().flat_map(|name| ["--package", name]))
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, target)?)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER);
    run(command)
}

/// Debian's cargo, free of what the outer cargo and rustup have set; only the cache stays shared.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(CARGO);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let leaks = ["CARGO_", "RUST", "LD_LIBRARY_PATH"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if (leaks && text != "CARGO_HOME") || text == "CARGO" {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(root)
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Vector instructions, and no folder of this machine in the artefacts: panic messages name source files.
fn flags(root: &Path, target: &Path) -> Result<OsString> {
    let cargo_home = match (env::var_os("CARGO_HOME"), env::var_os("HOME")) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(home)) => PathBuf::from(home).join(".cargo"),
        (None, None) => bail!("neither CARGO_HOME nor HOME is set"),
    };
    let std = sysroot()?.join("lib/rustlib/src/rust");
    let mut folders = vec![(cargo_home.clone(), "/cargo")];
    // Below it, the folder of the crates is named after the registry or its mirror.
    for registry in fs::read_dir(cargo_home.join("registry/src"))
        .into_iter()
        .flatten()
    {
        folders.push((registry?.path(), "/crates"));
    }
    // The last prefix that fits wins, so the target folder comes after the workspace it may lie in.
    folders.extend([(std.canonicalize()?, "/rust"), (std, "/rust")]);
    folders.extend([(root.to_owned(), "/src"), (target.to_owned(), "/target")]);
    // Scans over whole columns gain most of their speed by it, and every host of ours has it.
    let mut flags = OsString::from("-Ctarget-feature=+simd128");
    for (from, to) in folders {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// Makes a component, without names and debug sections, and makes sure that a host can run it.
fn componentise(module: &[u8]) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .module(module)?
        .validate(true)
        .encode()?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&component)? else {
        bail!("the build is not a component");
    };
    let imports = resolve.worlds[world]
        .imports
        .keys()
        .map(|key| resolve.name_world_key(key));
    let foreign: Vec<String> = imports.filter(|name| !name.starts_with(IMPORTS)).collect();
    ensure!(
        foreign.is_empty(),
        "imports more than `{IMPORTS}*`: {}",
        foreign.join(", ")
    );
    Ok(component)
}
