//! One policy in every language: installs the tools at the versions of `sdk/versions.toml`, builds `examples/languages/`
//! and the templates of `sdk/`, and has the host compare them (`host/examples/languages/`).
//!
//! Owns what is installed where, all of it below `target/` but Node's modules, which have to lie beside the sources. It
//! must not know any language but by its folder: how a folder is built, its own `policy.toml` says.

mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::build::modules;
use crate::chores::{outer_cargo, run};
use tools::Tools;

/// Folders of `examples/languages/`. The first ones are what CI holds to build and to agree.
const FIRST_CLASS: [&str; 5] = ["rust", "c", "javascript", "typescript", "python"];
const BY_EXAMPLE: [&str; 3] = ["cpp", "zig", "go"];

/// Templates: folder below `sdk/`, the template in it, and the source for which a failing one is exchanged.
const TEMPLATES: [(&str, &str, Option<&str>); 4] = [
    ("c", "template", Some("pick.c")),
    ("js", "template", Some("pick.js")),
    ("js", "template-ts", None),
    ("python", "template", Some("app.py")),
];

/// What is to be compared.
pub(crate) struct Order<'a> {
    /// Costs are those of a release build of the host.
    pub(crate) is_release: bool,
    /// Only this language.
    pub(crate) only: Option<&'a str>,
}

/// Builds everything and prints the table.
pub(crate) fn compare(root: &Path, order: &Order<'_>) -> Result<()> {
    let tools = Tools::install(root)?;
    let wants = |name: &str| order.only.is_none_or(|only| only == name);
    let mut report = Report::build(root, order.is_release)?;
    for name in FIRST_CLASS
        .into_iter()
        .chain(BY_EXAMPLE)
        .filter(|name| wants(name))
    {
        let folder = root.join("examples/languages").join(name);
        println!("\n-- {name}");
        let built = if name == "rust" {
            rust(root)
        } else {
            build(&tools, &folder)
        };
        match built {
            Ok(file) => report.component(name, &file),
            Err(error) => println!("{name} does not build: {error:#}"),
        }
        if FIRST_CLASS.contains(&name) {
            report.0.args(["--require", name]);
        }
    }
    for (language, template, source) in TEMPLATES.into_iter().filter(|_| order.only.is_none()) {
        println!("\n-- sdk/{language}/{template}");
        let folder = instantiate(root, language, template, None)?;
        report.has("--admit", &build(&tools, &folder)?);
        if let Some(source) = source {
            let failing = instantiate(root, language, template, Some(source))?;
            report.has("--fails", &build(&tools, &failing)?);
        }
    }
    println!();
    run(report.0)
}

/// The host's side, which judges and prints.
struct Report(Command);

impl Report {
    fn build(root: &Path, is_release: bool) -> Result<Self> {
        // With the features that the tests have, or those of the released program: nothing is compiled twice.
        let which: &[&str] = if is_release {
            &["--release", "--package", "trimtab"]
        } else {
            &["--workspace"]
        };
        let mut cargo = outer_cargo();
        cargo
            .args(["build", "--quiet", "--example", "languages"])
            .args(which)
            .current_dir(root);
        run(cargo)?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let profile = if is_release { "release" } else { "debug" };
        Ok(Self(Command::new(
            root.join(target).join(profile).join("examples/languages"),
        )))
    }

    fn component(&mut self, name: &str, file: &Path) {
        self.0.arg(format!("{name}={}", file.display()));
    }

    fn has(&mut self, expected: &str, file: &Path) {
        self.0.arg(expected).arg(file);
    }
}

/// Of a folder's `policy.toml`, what building needs.
#[derive(Deserialize)]
struct Manifest {
    component: PathBuf,
    build: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    run: Vec<String>,
}

/// Runs the steps of a folder, and gives its component.
fn build(tools: &Tools, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("policy.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let component = folder.join(manifest.component);
    // What an earlier build left must not pass for this one's.
    if component.exists() {
        fs::remove_file(&component)?;
    }
    if folder.join("package.json").exists() {
        run(tools.npm_install(folder))?;
    }
    for step in &manifest.build {
        run(tools.command(&step.run, folder)?)?;
    }
    ensure!(component.exists(), "no step left {}", component.display());
    Ok(component)
}

/// The Rust policy, by the toolchain of the built-in ones.
fn rust(root: &Path) -> Result<PathBuf> {
    let name = "sticky-sessions".to_owned();
    let built = modules(root, &root.join("target/policies"), std::slice::from_ref(&name))?;
    built.get(&name).cloned().context("one module")
}

/// A folder as `trimtab policy new` makes it: the template, the SDK's files below `sdk/`, the contract below `wit/`. If
/// `failing` names a source, it is exchanged for the one of `tests/languages/` that fails.
fn instantiate(root: &Path, language: &str, template: &str, failing: Option<&str>) -> Result<PathBuf> {
    let kind = if failing.is_some() { "failing" } else { "new" };
    let folder = root.join(format!("target/languages/{kind}-{language}-{template}"));
    copy(
        &root.join(format!("sdk/{language}/{template}")),
        &folder,
        Some("my-policy"),
    )?;
    copy(
        &root.join(format!("sdk/{language}/lib")),
        &folder.join("sdk"),
        None,
    )?;
    copy(&root.join("wit"), &folder.join("wit"), None)?;
    if let Some(source) = failing {
        fs::copy(root.join("tests/languages").join(source), folder.join(source))?;
    }
    Ok(folder)
}

/// Copies the files of a folder, and puts the policy's name where it belongs.
fn copy(from: &Path, to: &Path, name: Option<&str>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let (Some(file), true) = (path.file_name(), path.is_file()) else {
            continue;
        };
        let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if let Some(name) = name {
            text = text
                .replace("{{name}}", name)
                .replace("{{name_snake}}", &name.replace('-', "_"));
        }
        fs::write(to.join(file), text)?;
    }
    Ok(())
}
