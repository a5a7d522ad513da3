//! System calls, by strace.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::child;

const PATIENCE: Duration = Duration::from_secs(20);

/// Calls by name that a thread makes while `work` runs, the most frequent first.
pub(super) fn count(
    thread: u32,
    log: &Path,
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<(String, f64)>> {
    let mut strace = Command::new("strace")
        .args(["-c", "-q", "-p", &thread.to_string(), "-o"])
        .arg(log)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("strace does not start")?;
    let begun = Instant::now();
    while !is_traced(thread) {
        ensure!(begun.elapsed() < PATIENCE, "strace does not attach");
        child::pause(Duration::from_millis(20));
    }
    let worked = work();
    let tracer = rustix::process::Pid::from_raw(strace.id().cast_signed()).context("no pid")?;
    rustix::process::kill_process(tracer, rustix::process::Signal::INT)?;
    strace.wait()?;
    worked?;
    let text = fs::read_to_string(log).with_context(|| log.display().to_string())?;
    Ok(read(&text))
}

fn is_traced(thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// Reads strace's table: `% time, seconds, usecs/call, calls, errors (or nothing), syscall`.
fn read(text: &str) -> Vec<(String, f64)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = *fields.last()?;
        let calls = fields.get(3)?.parse().ok()?;
        // A thread that waited when it was attached to begins anew, which is strace's doing.
        let is_ours = name != "total" && name != "restart_syscall" && fields.len() >= 5;
        is_ours.then(|| (name.to_owned(), calls))
    };
    let mut calls: Vec<(String, f64)> = text.lines().filter_map(line).collect();
    calls.sort_by(|a, b| b.1.total_cmp(&a.1));
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_strace_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    60.00    0.030000           4      6400           sendto\n \
                    30.00    0.020000           3      7000       600 recvfrom\n \
                    0.00    0.000000           0         1           restart_syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.050000           3     13401       600 total\n";
        assert_eq!(
            read(text),
            [("recvfrom".to_owned(), 7000.0), ("sendto".to_owned(), 6400.0)]
        );
    }
}
