//! What a start costs with many policies of their own: compiled, and from disk.
//!
//! Starts `trimtab run` with 100 pools, each with a component of its own digest (a built-in's with another custom
//! section), and waits until it says that it runs: without compiled code, and twice with it. Prints the times; it never
//! fails, since a busy machine is no regression.
//!
//! `cargo bench -p trimtab --bench start`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints and may fail"
)]

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use trimtab::policy::builtin_component;

const POLICIES: usize = 100;
const POLICY: &str = "peak-ewma";

fn main() {
    let directory = Place::new();
    write_configuration(&directory.0);
    let bytes = builtin_component(POLICY).unwrap().len();
    println!("{POLICIES} pools, {POLICIES} distinct components ({POLICY}, {bytes} bytes each), 2 workers");
    let cold = start(&directory.0);
    let warm = [start(&directory.0), start(&directory.0)]
        .into_iter()
        .min()
        .unwrap();
    let files: Vec<u64> = std::fs::read_dir(directory.0.join("state/code"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    println!("cold:       {:8.1} ms until it serves", millis(cold));
    println!(
        "from cache: {:8.1} ms until it serves ({:.1} times as fast)",
        millis(warm),
        millis(cold) / millis(warm)
    );
    println!(
        "on disk:    {} files, {} KiB",
        files.len(),
        files.iter().sum::<u64>() / 1024
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A directory that is removed at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("trimtab-start-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write_configuration(directory: &Path) {
    let mut text = "workers = 2\nadmin = { listen = \"127.0.0.1:0\" }\nlog = { format = \"json\" }\n\
                    state = { directory = \"state\" }\n[[listener]]\nlisten = \"127.0.0.1:0\"\n"
        .to_owned();
    for number in 0..POLICIES {
        let _ = write!(
            text,
            "[[listener.route]]\npath_prefix = \"/p{number}\"\npool = \"p{number}\"\n"
        );
    }
    for number in 0..POLICIES {
        let _ = write!(
            text,
            "[pool.p{number}]\npolicy = \"p{number}\"\nbackends = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
             [policy.p{number}]\ncomponent = \"p{number}.wasm\"\n"
        );
        let mut wasm = builtin_component(POLICY).unwrap().to_vec();
        // A custom section: its id, its size, and a name that differs.
        let name = format!("n{number:04}");
        wasm.extend([0, name.len() as u8 + 1, name.len() as u8]);
        wasm.extend(name.as_bytes());
        std::fs::write(directory.join(format!("p{number}.wasm")), wasm).unwrap();
    }
    std::fs::write(directory.join("trimtab.toml"), text).unwrap();
}

/// From the start of the process to the line that says that it runs, which is written when requests are accepted.
fn start(directory: &Path) -> Duration {
    let started = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_trimtab"))
        .arg("run")
        .arg(directory.join("trimtab.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut log = log.map(Result::unwrap);
    let ready = log.find(|line| line.contains("trimtab runs"));
    let elapsed = started.elapsed();
    let _ = process.kill();
    let _ = process.wait();
    ready.expect("it starts");
    elapsed
}
