//! The repository checks itself: rules of the house that no compiler knows.
//!
//! One-way modules, a header in every file, sizes, names that say nothing, examples that parse, nothing of the machine
//! that it was written on. Each test names the offenders and what to do.

mod cases;
mod layers;
mod tree;
mod versions;

use tree::{File, files, product_lines, root};
use trimtab::{
    config::{
        Config, Scenario,
        author::{Manifest, load_cases},
    },
    policy::Compiler,
};

/// Above this, a file has two subjects. Tests included.
const FILE_LINES_MAX: usize = 500;
/// A policy that needs more belongs in the SDK in part.
const PLUGIN_PRODUCT_LINES_MAX: usize = 120;
/// The contract is read by people who never see the host.
const WIT_DOC_PERCENT_MIN: usize = 45;

/// Fails with all offenders at once.
fn none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

fn rust_files() -> Vec<File> {
    files(&["host", "plugins", "sdk", "tests", "examples"], &["rs"])
}

#[test]
fn a_host_module_uses_only_those_declared_before_it() {
    none(
        layers::offenders(),
        "lib.rs lists the modules in the order of their dependencies",
    );
}

#[test]
fn every_rust_file_begins_with_a_header() {
    let offenders = rust_files()
        .into_iter()
        .filter(|file| !file.text.starts_with("//!") && !file.text.starts_with("#![doc = include_str!"))
        .map(|file| file.name);
    none(
        offenders.collect(),
        "begin with `//!`: responsible for what, and not for what",
    );
}

#[test]
fn no_rust_file_is_too_long() {
    let offenders = rust_files().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", file.name))
    });
    none(offenders.collect(), "split by subject");
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    const VAGUE: [&str; 9] = [
        "util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "mod",
    ];
    let offenders = rust_files().into_iter().filter(|file| {
        let names = file.name.split(['/', '.']);
        names
            .flat_map(|name| name.split(['_', '-']))
            .any(|word| VAGUE.contains(&word))
    });
    none(offenders.map(|file| file.name).collect(), "name the subject");
}

#[test]
fn every_example_file_is_accepted_by_its_reader() {
    let examples: Vec<_> = files(&["examples"], &["toml"])
        .into_iter()
        .filter(|file| {
            // Not for the balancer: a crate, and a policy's folder with its cases.
            let name = file.name.rsplit('/').next().unwrap_or_default();
            !["Cargo.toml", "policy.toml", "cases.toml"].contains(&name)
        })
        .collect();
    assert!(!examples.is_empty());
    let offenders = examples
        .iter()
        .filter_map(|file| Some(format!("{}: {}", file.name, mistakes_in(&file.name)?)));
    none(offenders.collect(), "examples are read by users");
}

#[test]
fn every_template_of_a_policy_can_be_read() {
    let read: Vec<_> = files(&["sdk"], &["toml"])
        .into_iter()
        .filter(|file| file.name.ends_with("policy.toml") || file.name.ends_with("cases.toml"))
        .collect();
    assert!(read.len() > 1, "{}", read.len());
    let offenders = read.into_iter().filter_map(|file| mistakes_in(&file.name));
    // Names have a placeholder in templates, which is no name.
    none(
        offenders
            .filter(|mistakes| !mistakes.contains("{{name}}"))
            .collect(),
        "authors begin with them",
    );
}

/// What a file's reader says against it. Of configurations also whether components can be loaded and take their
/// settings, but for the examples whose components a reader builds: `cargo xtask examples` does that.
fn mistakes_in(name: &str) -> Option<String> {
    let path = root().join(name);
    let kind = name.rsplit('/').next().unwrap_or_default();
    let mistakes = match kind {
        "policy.toml" => Manifest::load(&path).err()?.to_string(),
        "cases.toml" => load_cases(&path).err()?.to_string(),
        _ if kind == "scenario.toml" || name.starts_with("examples/scenarios/") => {
            Scenario::load(&path).err()?.to_string()
        }
        _ if path.with_file_name("Cargo.toml").exists() => Config::load(&path).err()?.to_string(),
        _ => trimtab::server::check(&path, Compiler::InProcess)
            .err()?
            .join("\n"),
    };
    Some(mistakes)
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // In halves, or this file would be an offender.
    let places = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/wo", "rk/"),
        concat!("/tm", "p/bash"),
        concat!("/Us", "ers/"),
        concat!("index.cr", "ates.io"),
        concat!("static.cr", "ates.io"),
        concat!("registry.np", "mjs.org"),
        concat!("registry+spar", "se"),
    ];
    let text = &[
        "rs", "toml", "wit", "md", "yml", "yaml", "json", "sh", "py", "lock",
    ];
    let offenders = files(&[""], text).into_iter().flat_map(|file| {
        let lines = file.text.lines().enumerate();
        let found = lines.filter(|(_, line)| places.iter().any(|place| line.contains(place)));
        let found: Vec<_> = found
            .map(|(number, line)| format!("{}:{}: {line}", file.name, number + 1))
            .collect();
        found
    });
    none(offenders.collect(), "neither machine paths nor registry hosts");
}

#[test]
fn nearly_half_of_the_contract_is_prose() {
    let contract = files(&["wit"], &["wit"]);
    let lines = || {
        let lines = contract.iter().flat_map(|file| file.text.lines());
        lines.map(str::trim).filter(|line| !line.is_empty())
    };
    let docs = lines().filter(|line| line.starts_with("///")).count();
    let percent = docs * 100 / lines().count();
    assert!(
        percent >= WIT_DOC_PERCENT_MIN,
        "{percent} %; say who calls, until when, and what happens on failure"
    );
}

#[test]
fn every_plugin_fits_on_two_pages() {
    let offenders = files(&["plugins"], &["rs"]).into_iter().filter_map(|file| {
        let lines = product_lines(&file.text);
        (lines > PLUGIN_PRODUCT_LINES_MAX).then(|| format!("{}: {lines} lines", file.name))
    });
    none(
        offenders.collect(),
        "without header and tests; move shared parts to the SDK",
    );
}
