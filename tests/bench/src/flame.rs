//! A flame graph of trimtab under the load of S1: where the time goes, by perf and inferno.
//!
//! Owns how samples are taken. Stacks are copied and unwound afterwards (`--call-graph dwarf`), since neither Rust's
//! standard library nor Debian's C library keep frame pointers; code that was compiled of a component has no tables for
//! that, so a stack through it begins there.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use inferno::{
    collapse::{Collapse, perf::Folder},
    flamegraph::{self, Options},
};

use crate::{
    child::{self, Loading, Priority, Running},
    install,
    peer::{Peer, Setting, Tools},
    role::load::Order as Load,
    scenario::FEW,
};

/// Samples a second; not a round number, so that it does not keep step with anything.
const FREQUENCY: &str = "997";
/// Bytes of a stack that are copied.
const STACK: &str = "dwarf,8192";
/// Until the load is what it stays.
const WARM_UP: Duration = Duration::from_millis(800);
/// Percent of all samples below which a frame is not drawn.
const NARROWEST: f64 = 0.2;

/// What is drawn.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Order {
    /// Where it goes
    #[arg(value_name = "FILE", default_value = "flame.svg")]
    svg: PathBuf,
    /// How long samples are taken
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The balancer
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/trimtab")]
    pub(crate) trimtab: PathBuf,
}

/// Serves, samples, and draws.
pub(crate) fn draw(order: &Order, tools: &Tools) -> Result<()> {
    install::perf()?;
    let this = std::env::current_exe()?.display().to_string();
    let command = [this, "backend".to_owned(), FEW[0].to_string(), "3".to_owned()];
    let log = tools.folder.join("backend-flame.log");
    let _backends = Running::start(&command, ("1", Priority::Usual), &[], &log)?;
    let started = Peer::find("trimtab-lc")?.start(tools, &Setting::usual(&FEW, Priority::Usual))?;
    let load = Load {
        seconds: order.seconds + 2.0,
        ..Load::usual(started.port)
    };
    let loading = Loading::start(&load, Priority::Usual)?;
    child::pause(WARM_UP);
    let samples = tools.folder.join("perf.data");
    let status = Command::new("perf")
        .args([
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            FREQUENCY,
            "--call-graph",
            STACK,
        ])
        .args(["-p", &started.pid().to_string(), "-o"])
        .arg(&samples)
        .args(["--", "sleep", &order.seconds.to_string()])
        .status()
        .context("perf does not start")?;
    ensure!(status.success(), "perf record: {status}");
    let figures = loading.watch(None, || {})?.figures;
    ensure!(
        figures.ok > 0 && figures.failed() == 0,
        "not all is well: {figures:?}"
    );
    let mut script = Command::new("perf")
        .args(["script", "-i"])
        .arg(&samples)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("perf does not start")?;
    let stacks = BufReader::new(script.stdout.take().context("no pipe")?);
    let mut folded = Vec::new();
    Folder::default().collapse(stacks, &mut folded)?;
    ensure!(script.wait()?.success(), "perf script fails");
    let mut file = BufWriter::new(File::create(&order.svg).with_context(|| order.svg.display().to_string())?);
    paint(&folded, &mut file)
}

/// Draws stacks as `collapse` gives them: `outermost;...;innermost count` in each line.
fn paint(folded: &[u8], into: impl std::io::Write) -> Result<()> {
    let mut options = Options::default();
    options.title = "trimtab under the load of S1, by processor time".to_owned();
    options.min_width = NARROWEST;
    options.deterministic = true;
    flamegraph::from_reader(&mut options, folded, into)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_drawn_with_their_share_and_narrow_ones_are_not() {
        let mut drawing = Vec::new();
        paint(b"a;wide 750\na;half 249\na;narrow 1\n", &mut drawing).unwrap();
        let drawing = String::from_utf8(drawing).unwrap();
        assert!(
            drawing.contains("<title>wide (750 samples, 75.00%)</title>"),
            "{drawing}"
        );
        assert!(!drawing.contains("<title>narrow"), "{drawing}");
    }
}
