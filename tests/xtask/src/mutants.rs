//! Seeded bugs: each is put into a copy of the policies' sources, built, and shown to `trimtab policy test`.
//!
//! Owns the copy and the verdict. The bugs are data (`tests/mutants.toml`), the rules are trimtab's own. The sources in the
//! repository are only read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::build::{fetch, modules, plugins};
use crate::chores::{outer_cargo, run};

const LIST: &str = "tests/mutants.toml";
/// What the copy is made of.
const SOURCES: [&str; 3] = ["plugins", "sdk/rust", "wit"];
/// At least so many in a hundred have to be found.
const FOUND_PERCENT_MIN: usize = 90;

#[derive(Deserialize)]
struct List {
    mutant: Vec<Mutant>,
}

/// A bug.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// The built-in that has it, and whose claims it is held to.
    policy: String,
    what: String,
    file: String,
    find: String,
    replace: String,
}

/// Tries every bug, and every built-in without one. `program` is a trimtab; by default the release build.
pub(crate) fn check(root: &Path, program: Option<PathBuf>) -> Result<()> {
    let list = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let List { mutant: mutants } = toml::from_str(&list).context(LIST)?;
    let program = match program {
        Some(program) => program,
        None => release(root)?,
    };
    let (copy, target) = (root.join("target/mutants/src"), root.join("target/mutants/build"));
    copy_sources(root, &copy)?;
    fetch(&copy)?;
    let mut alarms = Vec::new();
    for name in plugins(root)? {
        if let Verdict::Broken(rules) = test(&program, Path::new(&name), &name)? {
            alarms.push(format!("{name}: {rules}"));
        }
    }
    let mut rows = Vec::new();
    let mut found = 0;
    for mutant in &mutants {
        let verdict = try_mutant(mutant, &copy, &target, &program)
            .with_context(|| format!("{}: {}", mutant.policy, mutant.what))?;
        let told = match verdict {
            Verdict::Broken(rules) => {
                found += 1;
                format!("found by {rules}")
            }
            Verdict::Good => "NOT FOUND".to_owned(),
        };
        let row = format!("{:<22} {:<64} {told}", mutant.policy, mutant.what);
        // Once as it comes, among what the builds say, and all of them at the end.
        println!("{row}");
        rows.push(row);
    }
    println!("\n{}", rows.join("\n"));
    println!(
        "{found} of {} bugs found, {} false alarms",
        mutants.len(),
        alarms.len()
    );
    ensure!(alarms.is_empty(), "false alarms:\n{}", alarms.join("\n"));
    ensure!(
        found * 100 >= mutants.len() * FOUND_PERCENT_MIN,
        "fewer than {FOUND_PERCENT_MIN} in a hundred were found"
    );
    Ok(())
}

enum Verdict {
    Good,
    /// By these rules.
    Broken(String),
}

fn try_mutant(mutant: &Mutant, copy: &Path, target: &Path, program: &Path) -> Result<Verdict> {
    let file = copy.join(&mutant.file);
    let good = fs::read_to_string(&file).with_context(|| mutant.file.clone())?;
    ensure!(
        good.matches(&mutant.find).count() == 1,
        "`{}` is not once in {}; {LIST} has to follow the sources",
        mutant.find,
        mutant.file
    );
    fs::write(&file, good.replace(&mutant.find, &mutant.replace))?;
    let built = modules(copy, target, std::slice::from_ref(&mutant.policy));
    fs::write(&file, good)?;
    let module = built?.remove(&mutant.policy).context("it was built")?;
    test(program, &module, &mutant.policy)
}

/// `policy` is a module, or a built-in's name.
fn test(program: &Path, policy: &Path, like: &str) -> Result<Verdict> {
    let output = Command::new(program)
        .args(["policy", "test", "--like", like])
        .arg(policy)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} does not start", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rules: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("BROKEN ")?.split(' ').next())
        .collect();
    match (output.status.code(), rules.is_empty()) {
        (Some(0), true) => Ok(Verdict::Good),
        (Some(1), false) => Ok(Verdict::Broken(rules.join(", "))),
        _ => bail!("`policy test` did not judge: {}\n{text}", output.status),
    }
}

/// The release build, which CI has from the demo.
fn release(root: &Path) -> Result<PathBuf> {
    let mut build = outer_cargo();
    build
        .args(["build", "--quiet", "--release", "--package", "trimtab"])
        .current_dir(root);
    run(build)?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/trimtab"))
}

/// A workspace of the policies alone.
fn copy_sources(root: &Path, copy: &Path) -> Result<()> {
    // What a run before this one left.
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    for folder in SOURCES {
        copy_folder(&root.join(folder), &copy.join(folder))?;
    }
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let is_ours = |line: &&str| {
        let member = line.trim_start().strip_prefix('"');
        member.is_none_or(|member| member.starts_with("plugins/") || member.starts_with("sdk/rust"))
            && !line.starts_with("default-members")
    };
    let kept: Vec<&str> = manifest.lines().filter(is_ours).collect();
    fs::write(copy.join("Cargo.toml"), kept.join("\n"))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
