//! What the machine says of a process: processor time, memory, and how busy a core is.
//!
//! Owns the reading of `/proc`. It must not know what is measured.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

/// What `/proc` counts time in.
const TICKS: f64 = 100.0;

/// A process and all that came of it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(parent) =
            fields(&entry.path().join("stat")).and_then(|fields| fields.get(1)?.parse::<u32>().ok())
        {
            parents.push((child, parent));
        }
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| child),
        );
        at += 1;
    }
    family
}

/// The fields of a file `stat` after the name, which may hold spaces: state, parent, ...
fn fields(stat: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(stat).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Seconds of processor time, user and system, of a process and its descendants. Resolution 10 ms.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let of = |pid| ticks(Path::new(&format!("/proc/{pid}/stat")));
    family(pid).into_iter().filter_map(of).sum::<f64>() / TICKS
}

/// User and system.
fn ticks(stat: &Path) -> Option<f64> {
    let fields = fields(stat)?;
    let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(field(11)? + field(12)?)
}

/// Seconds of processor time by thread, of a process and its descendants.
pub(crate) fn thread_seconds(pid: u32) -> BTreeMap<u32, f64> {
    let mut threads = BTreeMap::new();
    for pid in family(pid) {
        for entry in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(thread) = thread
                && let Some(ticks) = ticks(&entry.path().join("stat"))
            {
                threads.insert(thread, ticks / TICKS);
            }
        }
    }
    threads
}

/// Seconds that each thread of a process and its descendants has run, to the nanosecond.
pub(crate) fn ran_seconds(pid: u32) -> BTreeMap<u32, f64> {
    let threads = thread_seconds(pid).into_keys();
    threads
        .map(|thread| (thread, nanos(thread) as f64 / 1e9))
        .collect()
}

/// By how much those together grew that are in both.
pub(crate) fn grown(before: &BTreeMap<u32, f64>, after: &BTreeMap<u32, f64>) -> f64 {
    let grown = |(thread, after): (&u32, &f64)| Some(after - before.get(thread)?);
    after.iter().filter_map(grown).sum()
}

/// Nanoseconds that a thread has run.
pub(crate) fn nanos(thread: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Of the threads of a process whose names begin so, the seconds that they ran and those that they were ready to and
/// waited for a core, to the nanosecond. Those that have ended do not count.
pub(crate) fn threads_seconds(pid: u32, name: &str) -> (f64, f64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let is_meant = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with(name))
    };
    let (mut ran, mut waited) = (0.0, 0.0);
    for task in tasks.filter(is_meant) {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let mut fields = text
            .split_whitespace()
            .map(|field| field.parse::<f64>().unwrap_or_default() / 1e9);
        ran += fields.next().unwrap_or_default();
        waited += fields.next().unwrap_or_default();
    }
    (ran, waited)
}

/// Seconds that a core was not idle.
pub(crate) fn busy_seconds(core: usize) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&name))
        .unwrap_or_default();
    let fields: Vec<f64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|&index| fields.get(index))
        .sum::<f64>()
        / TICKS
}

/// Memory of a process and its descendants in KiB: resident, and with shared pages divided among those who share.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
}

pub(crate) fn memory(pid: u32) -> Memory {
    let mut sum = Memory::default();
    for pid in family(pid) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .unwrap_or_default()
        };
        sum.rss += kib("Rss:");
        sum.pss += kib("Pss:");
    }
    sum
}

/// Lets this session go before others of the machine: with autogroups, `nice` alone ranks only within a session.
pub(crate) fn favour_this_session() {
    // Without the right to, or without autogroups, the neighbours are simply felt.
    drop(fs::write("/proc/self/autogroup", "-10"));
}

/// One line on where the figures come from.
pub(crate) fn describe() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let name = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(format!(
        "{} x {}, Linux {}, load average {} at the start",
        cores,
        name.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    ))
}

/// Finds a program on the path.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_of_both_ends_have_grown() {
        let before = BTreeMap::from([(1, 1.0), (2, 5.0)]);
        let after = BTreeMap::from([(1, 1.5), (3, 9.0)]);
        assert_eq!(grown(&before, &after), 0.5);
    }

    #[test]
    fn this_process_has_run() {
        let threads = ran_seconds(std::process::id());
        assert!(threads.values().sum::<f64>() > 0.0, "{threads:?}");
    }
}
