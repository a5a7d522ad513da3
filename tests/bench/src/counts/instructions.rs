//! Instructions and allocations, by valgrind's callgrind.
//!
//! Owns the reading of its files. Each thread is counted by itself, and the one that did the most is taken: a balancer has
//! one worker here, and what other threads do meanwhile depends on the time, not on requests.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{machine, peer::Tools};

/// See there.
const SELF_EXE: &str = include_str!("self_exe.c");
/// What the files are called.
const NAME: &str = "callgrind.out";

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) instructions: f64,
    /// `None` where the functions that allocate have no names.
    pub(super) allocations: Option<f64>,
}

/// What a balancer is started under.
pub(super) fn command(tools: &Tools, name: &str) -> Result<Vec<String>> {
    let folder = tools.folder.join(name);
    fs::create_dir_all(&folder)?;
    for file in files(&folder)? {
        fs::remove_file(folder.join(file))?;
    }
    let (source, preload) = (tools.folder.join("self_exe.c"), tools.folder.join("self_exe.so"));
    fs::write(&source, SELF_EXE)?;
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&preload, &source])
        .arg("-ldl")
        .status()
        .context("cc does not start")?;
    ensure!(status.success(), "cc: {status}");
    let out = format!("--callgrind-out-file={}/{NAME}.%p", folder.display());
    let (preload, program) = (
        format!("LD_PRELOAD={}", preload.display()),
        format!("COUNTED_PROGRAM={}", tools.trimtab.display()),
    );
    let words = [
        "env",
        &preload,
        &program,
        "valgrind",
        "-q",
        "--tool=callgrind",
        "--separate-threads=yes",
        "--trace-children=yes",
        &out,
    ];
    Ok(words.map(str::to_owned).to_vec())
}

/// What is done while `work` runs.
pub(super) fn count(pid: u32, folder: &Path, work: impl FnOnce() -> Result<()>) -> Result<Counted> {
    // What came before is written and forgotten.
    dump(pid)?;
    let before = files(folder)?;
    work()?;
    dump(pid)?;
    let new = files(folder)?.into_iter().filter(|file| !before.contains(file));
    let mut most = Counted::default();
    for file in new {
        let counted = read(&fs::read_to_string(folder.join(&file))?);
        if counted.instructions > most.instructions {
            most = counted;
        }
    }
    ensure!(most.instructions > 0.0, "callgrind has counted nothing");
    Ok(most)
}

fn dump(pid: u32) -> Result<()> {
    for pid in machine::family(pid) {
        let status = Command::new("callgrind_control")
            .args(["--dump", &pid.to_string()])
            .stdout(Stdio::null())
            .status()
            .context("callgrind_control does not start")?;
        ensure!(status.success(), "callgrind_control: {status}");
    }
    Ok(())
}

fn files(folder: &Path) -> Result<HashSet<String>> {
    let names = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(NAME)).collect())
}

/// Reads a file: the sum over all of it, and how often what is no allocator has called one.
fn read(text: &str) -> Counted {
    let mut counted = Counted::default();
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut caller, mut callee) = ("", "");
    let mut allocations = 0.0;
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            counted.instructions = total.trim().parse().unwrap_or_default();
        } else if let Some(name) = line.strip_prefix("fn=") {
            caller = name_of(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = name_of(name, &mut names);
        } else if let Some(calls) = line.strip_prefix("calls=")
            && allocates(callee)
            && !is_allocators(caller)
        {
            allocations += calls
                .split(' ')
                .next()
                .and_then(|count| count.parse().ok())
                .unwrap_or(0.0);
        }
    }
    let has_names = names.values().any(|name| allocates(name));
    counted.allocations = has_names.then_some(allocations);
    counted
}

/// A name is told once, as `(12) name`, and is `(12)` from then on.
fn name_of<'a>(text: &'a str, names: &mut HashMap<&'a str, &'a str>) -> &'a str {
    let (number, name) = text.split_once(' ').unwrap_or((text, ""));
    if name.is_empty() {
        return names.get(number).copied().unwrap_or_default();
    }
    names.insert(number, name);
    name
}

fn allocates(name: &str) -> bool {
    let plain = name.split(['@', '\'']).next().unwrap_or_default();
    matches!(
        plain,
        "malloc" | "calloc" | "realloc" | "posix_memalign" | "aligned_alloc"
    ) || (plain.starts_with("mi_") && (plain.contains("alloc") && !plain.contains("usable")))
}

fn is_allocators(name: &str) -> bool {
    name.starts_with("mi_") || name.starts_with("_mi_") || allocates(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_allocator_are_counted_and_its_own_are_not() {
        let text = "fn=(1) serve\n10 5\ncfn=(2) mi_malloc_aligned\ncalls=3 0\n10 30\n\
                    fn=(2)\n1 20\ncfn=(3) _mi_malloc_generic\ncalls=1 0\n1 9\n\
                    fn=(3)\n1 9\ncfn=(2)\ncalls=1 0\n1 2\n\
                    fn=(4) read\n1 9\ncfn=(2)\ncalls=2 0\n1 2\n\
                    totals: 1234\n";
        assert_eq!(
            read(text),
            Counted {
                instructions: 1234.0,
                allocations: Some(5.0)
            }
        );
    }

    #[test]
    fn without_names_nothing_is_said_of_allocations() {
        assert_eq!(
            read("fn=(1) 0x0000000000012340\n1 9\ntotals: 9\n").allocations,
            None
        );
    }
}
