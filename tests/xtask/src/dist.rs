//! `plugins/dist/`: the committed components, and `BUILD.toml`, which says what they were built with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::build::{Toolchain, components};

type Components = BTreeMap<String, Vec<u8>>;

/// Builds all policies into `plugins/dist/`.
pub(crate) fn write(root: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let built = components(root, &root.join("target/policies"))?;
    let dist = root.join("plugins/dist");
    save(&built, &dist)?;
    remove_others(&built, &dist)?;
    fs::write(dist.join("BUILD.toml"), record(root, &toolchain, &built)?)?;
    Ok(())
}

/// Builds all policies in a folder of its own and compares them with `plugins/dist/` byte for byte. Another compiler
/// makes other bytes: then the builds are kept for the conformance suite to judge.
pub(crate) fn check(root: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let dist = root.join("plugins/dist");
    let recorded = fs::read_to_string(dist.join("BUILD.toml")).context("plugins/dist/BUILD.toml")?;
    let target = env::temp_dir().join(format!("trimtab-policies-{}", process::id()));
    let built = components(root, &target);
    // The result counts, not whether the folder could be removed.
    let _ = fs::remove_dir_all(&target);
    let built = built?;
    if toolchain != recorded_toolchain(&recorded)? {
        return keep_for_conformance(root, &toolchain, &recorded, &built);
    }
    let mut wrong: Vec<String> = (built.iter())
        .filter(|(name, bytes)| fs::read(dist.join(format!("{name}.wasm"))).ok().as_ref() != Some(bytes))
        .map(|(name, _)| format!("plugins/dist/{name}.wasm differs from its source"))
        .collect();
    wrong.extend(
        others(&built, &dist)?
            .iter()
            .map(|name| format!("plugins/dist/{name} has no source")),
    );
    if recorded != record(root, &toolchain, &built)? {
        wrong.push("plugins/dist/BUILD.toml is out of date".into());
    }
    if wrong.is_empty() {
        println!(
            "plugins/dist is what {} makes of the sources: {} components",
            toolchain.rustc,
            built.len()
        );
        return Ok(());
    }
    bail!(
        "{}\nrun `cargo xtask plugins` and commit the result",
        wrong.join("\n")
    )
}

fn keep_for_conformance(root: &Path, ours: &Toolchain, recorded: &str, built: &Components) -> Result<()> {
    let fresh = root.join("target/policies/fresh");
    save(built, &fresh)?;
    remove_others(built, &fresh)?;
    let theirs = recorded_toolchain(recorded)?;
    println!("plugins/dist was built with {}, {};", theirs.rustc, theirs.linker);
    println!("installed here is {}, {}.", ours.rustc, ours.linker);
    println!("So the bytes were NOT compared. The fresh builds are in target/policies/fresh:");
    println!("run the conformance suite on these to know that dist and sources agree.");
    Ok(())
}

fn save(built: &Components, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (name, bytes) in built {
        fs::write(folder.join(format!("{name}.wasm")), bytes)?;
        println!("{name:24} {:>8} bytes", bytes.len());
    }
    Ok(())
}

/// Components in the folder that no plugin made.
fn others(built: &Components, folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name
            .strip_suffix(".wasm")
            .is_some_and(|plugin| !built.contains_key(plugin))
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_others(built: &Components, folder: &Path) -> Result<()> {
    for name in others(built, folder)? {
        fs::remove_file(folder.join(name))?;
    }
    Ok(())
}

/// The text of `BUILD.toml`.
fn record(root: &Path, toolchain: &Toolchain, built: &Components) -> Result<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let mut text =
        String::from("# Written by `cargo xtask plugins`; `cargo xtask plugins --check` compares.\n");
    writeln!(text, "rustc = \"{}\"", toolchain.rustc)?;
    writeln!(text, "linker = \"{}\"", toolchain.linker)?;
    writeln!(
        text,
        "wit-bindgen = \"{}\"",
        locked(&lock, "trimtab-policy", "wit-bindgen")?
    )?;
    writeln!(text, "\n[sha256]")?;
    for (name, bytes) in built {
        let digest: String = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        writeln!(text, "\"{name}.wasm\" = \"{digest}\"")?;
    }
    Ok(text)
}

/// The version of `package` that `dependent` is built with. Other dependencies may bring other versions of it.
fn locked(lock: &str, dependent: &str, package: &str) -> Result<String> {
    let lock: Lock = toml::from_str(lock).context("Cargo.lock")?;
    let named = |name: &str| lock.package.iter().find(|entry| entry.name == name);
    let entry = named(dependent).with_context(|| format!("no {dependent} in Cargo.lock"))?;
    for dependency in &entry.dependencies {
        // Cargo writes the version only where there are several.
        match dependency.split_once(' ') {
            Some((name, version)) if name == package => return Ok(version.to_owned()),
            None if dependency == package => {
                let only = named(package).with_context(|| format!("no {package} in Cargo.lock"))?;
                return Ok(only.version.clone());
            }
            _ => {}
        }
    }
    bail!("{dependent} has no {package} in Cargo.lock")
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

fn recorded_toolchain(build: &str) -> Result<Toolchain> {
    let value = |key: &str| {
        let mut lines = build.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        value
            .map(str::to_owned)
            .with_context(|| format!("plugins/dist/BUILD.toml names no `{key}`"))
    };
    Ok(Toolchain {
        rustc: value("rustc")?,
        linker: value("linker")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{locked, recorded_toolchain};

    #[test]
    fn the_version_is_that_of_the_dependent() {
        let entry = |name: &str, version: &str, dependencies: &str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\ndependencies = [{dependencies}]\n"
            )
        };
        let one =
            entry("sdk", "1.0.0", "\"a-b\", \"a\"") + &entry("a-b", "3.0.0", "") + &entry("a", "2.0.0", "");
        assert_eq!(locked(&one, "sdk", "a").unwrap(), "2.0.0");
        assert!(locked(&one, "sdk", "c").is_err());
        assert!(locked(&one, "kit", "a").is_err());
        let two = entry("sdk", "1.0.0", "\"a 2.1.0\"") + &entry("a", "1.9.0", "") + &entry("a", "2.1.0", "");
        assert_eq!(locked(&two, "sdk", "a").unwrap(), "2.1.0");
    }

    #[test]
    fn the_toolchain_is_read_from_the_record() {
        let read = recorded_toolchain("# x\nrustc = \"rustc 1\"\nlinker = \"LLD 22\"\n\n[sha256]\n").unwrap();
        assert_eq!((read.rustc.as_str(), read.linker.as_str()), ("rustc 1", "LLD 22"));
        assert!(recorded_toolchain("rustc = \"rustc 1\"\n").is_err());
    }
}
